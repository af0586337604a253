"""Tables and lists in files of a data set, read within bounds."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hd2s.errors import DatasetFormatError, DatasetNotFoundError

MAX_BYTES = 64 * 2**20  # of a table or list: what is larger is none


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a CSV file with a header line.

    Raises:
        DatasetNotFoundError: It is missing.
        DatasetFormatError: It lacks a column.
    """
    if not path.is_file():
        raise DatasetNotFoundError(f"{path} is missing: fixations are read from it.")
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        missing = set(columns) - set(reader.fieldnames or ())
        if missing:
            raise DatasetFormatError(
                f"{path} lacks the columns {sorted(missing)}; it has {reader.fieldnames}."
            )
        return list(reader)
    except csv.Error as error:
        raise DatasetFormatError(f"{path} cannot be read as CSV: {error}.") from error


def to_numbers(cells: Sequence[Sequence[str]], columns: int, path: Path) -> NDArray[np.float32]:
    """Turn the cells of the fixations of `path` into finite numbers (N, columns)."""
    try:
        values = np.array(cells, np.float32).reshape(-1, columns)
    except ValueError as error:
        raise DatasetFormatError(f"The fixations of {path} are not all numbers: {error}.") from error
    if not np.isfinite(values).all():  # an empty cell becomes nan
        raise DatasetFormatError(
            f"The fixations of {path} are not all numbers: a row is too short, or not finite."
        )
    return values


def read_text(path: Path) -> str:
    """Read a file of text.

    Raises:
        DatasetFormatError: It is unreadable, too large, or no UTF-8.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DatasetFormatError(f"{path} has {size} bytes; at most {MAX_BYTES} are read.")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DatasetFormatError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise DatasetFormatError(f"{path} is no text in UTF-8: {error.reason}.") from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DatasetFormatError: It is unreadable, too large, or no JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DatasetFormatError(f"{path} is no valid JSON: {str(error) or 'nested too deeply'}.") from error


def read_names(path: Path) -> list[str]:
    """Read a list of names, one a line; empty lines and those that begin with # do not count."""
    lines = (line.strip() for line in read_text(path).splitlines())
    return [line for line in lines if line and not line.startswith("#")]
