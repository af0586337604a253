"""Finished work on disk, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hd2s.errors import OutputError
from hd2s.evaluation.scoring import Scores


class Store:
    """Arrays by name in the folder of some settings.

    Args:
        root: Folder for all settings.
        settings: All that decides on the results; the folder is named after their hash and says them.

    Raises:
        OutputError: The folder cannot be made or written to.
    """

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        text = json.dumps(settings, indent=2, sort_keys=True)
        self.folder = root / hashlib.sha256(text.encode()).hexdigest()[:12]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "settings.json").write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"Cannot write to '{self.folder}': {error.strerror}.") from error

    def path(self, name: str) -> Path:
        """Return where the arrays of a name are; names of videos hold no slash."""
        return self.folder / f"{name}.npz"

    def save(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Save arrays in one step: what has the final name is complete.

        Raises:
            OutputError: The disk is full or fails.
        """
        temporary = None
        try:
            with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".partial", delete=False) as file:
                temporary = Path(file.name)
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
            os.replace(temporary, self.path(name))
        except OSError as error:
            raise OutputError(f"Cannot write '{self.path(name)}': {error.strerror}.") from error
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)

    def load(self, name: str) -> dict[str, NDArray[Any]] | None:
        """Load arrays; None if there are none, or they are damaged."""
        try:
            with self.path(name).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                return dict(archive)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def clear(self) -> None:
        """Remove all results."""
        for path in self.folder.glob("*.npz"):
            path.unlink()

    def sweep(self) -> None:
        """Remove what a run that was stopped left incomplete."""
        for path in self.folder.glob("*.partial"):
            with suppress(FileNotFoundError):
                path.unlink()


def to_arrays(scores: Scores, fingerprint: str) -> dict[str, NDArray[Any]]:
    """Turn scores into arrays; `fingerprint` tells of which prediction they are."""
    arrays: dict[str, NDArray[Any]] = {"fingerprint": np.array(fingerprint)}
    for part in fields(scores):
        value = getattr(scores, part.name)
        arrays[part.name] = np.array(json.dumps(value) if isinstance(value, (dict, list)) else value)
    return arrays


def from_arrays(arrays: dict[str, NDArray[Any]] | None, fingerprint: str | None = None) -> Scores | None:
    """Turn arrays into scores; None if there are none, or they are of another prediction."""
    if arrays is None:
        return None
    try:
        if fingerprint not in (None, str(arrays["fingerprint"])):
            return None
        return Scores(
            arrays["frames"],
            arrays["fixations"],
            arrays["values"],
            json.loads(str(arrays["skipped"])),
            json.loads(str(arrays["notes"])),
            arrays["thumbnail"],
            int(arrays["shown"]),
        )
    except (KeyError, ValueError):
        return None
