"""Names on disk: listing folders, pairing maps with frames, and names that may not leave their folder."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hd2s.data.images import IMAGE_SUFFIXES, natural_key
from hd2s.errors import DatasetFormatError

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".webm"})


def files(folder: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> list[str]:
    """List the names of a folder's files of some kinds, in natural order; nothing if there is none.

    Hidden files and all that is no regular file (after following links) are left out, as `open_source`
    does. Suffixes are compared without case.
    """
    return sorted((e.name for e in _entries(folder) if _is_one(e, suffixes)), key=natural_key)


def has_files(folder: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> bool:
    """Tell whether `files` would find any, reading no more of the folder than it takes."""
    try:
        with os.scandir(folder) as entries:
            return any(_is_one(entry, suffixes) for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreadable(folder, error) from error


def folders(folder: Path) -> list[str]:
    """List the names of a folder's folders in natural order, hidden ones left out."""
    return sorted((e.name for e in _entries(folder) if e.is_dir()), key=natural_key)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unreadable(folder, error) from error


def _is_one(entry: os.DirEntry[str], suffixes: frozenset[str]) -> bool:
    """Tell whether an entry is a visible file of some kinds."""
    name = entry.name
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes and entry.is_file()


def _unreadable(folder: Path, error: OSError) -> DatasetFormatError:
    return DatasetFormatError(f"The folder {folder} cannot be read: {error.strerror}. Check its permissions.")


def child(folder: Path, name: str) -> Path:
    """Return the file or folder of a folder by its name without regard to case; as given if there is none."""
    exact = folder / name
    if exact.exists():
        return exact
    return next((folder / e.name for e in _entries(folder) if e.name.casefold() == name.casefold()), exact)


def plain_name(name: object, origin: Path) -> str:
    """Check a name that a file of a data set gives.

    Raises:
        DatasetFormatError: It is no name, or could lead out of its folder.
    """
    if not isinstance(name, str) or not name or len(name) > 255 or name.startswith("."):
        raise DatasetFormatError(f"{origin} holds {str(name)[:80]!r} where the name of a video should be.")
    if re.search(r"[/\\:\x00-\x1f]", name):
        raise DatasetFormatError(
            f"{origin} names the video {name[:80]!r}. Names may hold no '/', '\\' or ':', so that they "
            "cannot lead out of the data set."
        )
    return name


def number_in(name: str) -> int | None:
    """Return the last number in a file name without its suffix.

    Example:
        >>> number_in("actioncliptest00001_00012.png"), number_in("0012.PNG"), number_in("cover.png")
        (12, 12, None)
    """
    digits = re.findall(r"[0-9]+", os.path.splitext(name)[0])
    return int(digits[-1]) if digits else None


@dataclass(frozen=True)
class Pairing:
    """Which file belongs to which frame.

    Attributes:
        files: A name for each frame, or None.
        unused: Names that belong to no frame.
        unclear: Nothing could be paired, because counts differ and names do not tell.
    """

    files: list[str | None]
    unused: list[str]
    unclear: bool = False


def pair(frames: Sequence[str] | int, names: Sequence[str]) -> Pairing:
    """Pair the frames of a video with files, both in natural order.

    Args:
        frames: File names of the frames, or how many frames a video file has.
        names: File names, of maps for instance.

    Frames and files of equal numbers belong together. If all numbers differ by the same amount, such as
    frames from 0 and maps from 1 on, the order tells. The frames of a video file are numbered from 1, or
    from 0 if a file has that number. Without such numbers the order tells, if there are equally many.

    Example:
        >>> pair(3, ["0001.png", "3.PNG", "4.png"])
        Pairing(files=['0001.png', None, '3.PNG'], unused=['4.png'], unclear=False)
        >>> pair(["f0.jpg", "f1.jpg"], ["0001.png", "0002.png"]).files
        ['0001.png', '0002.png']
    """
    count = frames if isinstance(frames, int) else len(frames)
    numbers = [number_in(name) for name in names]
    first = 0 if 0 in numbers else 1
    wanted = (
        list(range(first, first + count)) if isinstance(frames, int) else [number_in(name) for name in frames]
    )
    if None in numbers or None in wanted or len(set(numbers)) < len(names) or len(set(wanted)) < count:
        if len(names) == count:
            return Pairing(list(names), [])
        return Pairing([None] * count, list(names), unclear=True)
    if len(names) == count:
        shifts = {(a or 0) - (b or 0) for a, b in zip(numbers, wanted, strict=True)}
        if len(shifts) <= 1:
            return Pairing(list(names), [])
    by_number = dict(zip(numbers, names, strict=True))
    chosen = [by_number.get(number) for number in wanted]
    used = set(chosen)
    return Pairing(chosen, [name for name in names if name not in used])
