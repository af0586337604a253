"""Data sets with human gaze, one file each; `base` shows how they are used.

A new data set is a module with a `Layout`, named in `LAYOUTS`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hd2s.data.datasets import avimos, dhf1k, gaze, generic, hollywood, ledov, ucfsports
from hd2s.data.datasets.base import AnnotatedVideo, DataSet, Layout, Problem
from hd2s.data.datasets.listing import folders
from hd2s.errors import DatasetFormatError, DatasetNotFoundError, UnknownNameError

__all__ = ["ALL", "LAYOUTS", "AnnotatedVideo", "DataSet", "Layout", "Problem", "find_layout", "open_dataset"]

ALL = "all"  # the split with the videos of all splits
LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        dhf1k.LAYOUT,
        hollywood.LAYOUT,
        ucfsports.LAYOUT,
        ledov.LAYOUT,
        avimos.AIM2024,
        avimos.NTIRE2026,
        gaze.LAYOUT,
        generic.LAYOUT,
    )
}


def open_dataset(root: str | Path, split: str = "validation", name: str | None = None) -> DataSet:
    """Open a split of a data set, reading no more than names.

    Args:
        root: Folder of the data set.
        split: "train", "validation" or "test", as far as the data set has them, or "all".
        name: Name in `LAYOUTS`; None finds the layout by looking.

    Raises:
        DatasetNotFoundError: There is no such folder, nothing in it that is understood, or no video.
        DatasetFormatError: It may be one of several data sets, or a list in it cannot be read.
        UnknownNameError: There is no such data set, or it has no such split.
    """
    root = Path(root)
    layout = find_layout(root, name)
    if split != ALL and split not in layout.splits:
        raise UnknownNameError.among(f"split of {layout.title}", split, (*layout.splits, ALL))
    videos, problems = layout.read(root, split)
    if not videos:
        raise DatasetNotFoundError(
            f"{root} has no video of the split '{split}'. {layout.title} lies so: {layout.description}."
            + "".join(f"\n{problem}" for problem in problems[:3])
        )
    problems += _unscored(root, videos)
    return DataSet(layout.name, root, split, videos, problems)


def find_layout(root: Path, name: str | None = None) -> Layout:
    """Find out how a data set lies on disk.

    Raises:
        DatasetNotFoundError: There is no such folder, or nothing in it that is understood.
        DatasetFormatError: It may be one of several data sets.
        UnknownNameError: There is no data set of this name.
    """
    if name is not None and name not in LAYOUTS:
        raise UnknownNameError.among("data set", name, LAYOUTS)
    if not root.is_dir():
        raise DatasetNotFoundError(f"There is no folder {root}. {_understood()}")
    if name is not None:
        return LAYOUTS[name]
    found = _recognised(root)
    if not found:
        below = [child for child in folders(root)[:20] if _recognised(root / child)]
        hint = f" Did you mean {root / below[0]}?" if below else ""
        raise DatasetNotFoundError(f"No data set is recognised in {root}.{hint} {_understood()}")
    if len(found) > 1:
        names = " or ".join(f"'{layout.name}'" for layout in found)
        raise DatasetFormatError(f"{root} may be one of several data sets: say which, {names}, by its name.")
    return found[0]


def _recognised(root: Path) -> list[Layout]:
    """Return the layouts that a folder may have; the generic one only if no other fits."""
    found = [layout for layout in LAYOUTS.values() if layout.recognise(root)]
    return [layout for layout in found if layout is not generic.LAYOUT] or found


def _understood() -> str:
    lines = "".join(f"\n  {layout.name}: {layout.description}" for layout in LAYOUTS.values())
    return f"These layouts are understood:{lines}"


def _unscored(root: Path, videos: Iterable[AnnotatedVideo]) -> list[Problem]:
    """Say how many videos have no labels."""
    count = sum(not video.labelled for video in videos)
    text = f"{count} videos have neither maps nor fixations: they can be predicted, but not scored"
    return [Problem(root, text)] if count else []
