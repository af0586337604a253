"""The results that a prediction can be saved as; `open_writer` makes the writer for each.

| kind | result | what it is |
|---|---|---|
| overlay | NAME_overlay.mp4 | the video with the heat map blended over it, and its sound |
| video | NAME_saliency.mp4 | grey maps, level = 255 · saliency |
| maps | NAME_maps/000000.png, ... | a grey PNG for each frame, 8 or 16 bits |
| npz | NAME_saliency.npz | float16 arrays, for numpy.load |
| gif | NAME_overlay.gif | a small overlay |
| csv | NAME.csv | a line of numbers for each frame |
| conspicuity | NAME_conspicuity.mp4 | the maps of the four levels side by side |
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hd2s.data.frames import FrameSource
from hd2s.errors import OutputError, UnknownNameError
from hd2s.inference.file_writers import CsvWriter, MapsWriter, NpzWriter
from hd2s.inference.render import check_colormap
from hd2s.inference.video_writers import ConspicuityWriter, GifWriter, OverlayWriter, SaliencyVideoWriter
from hd2s.inference.writer_base import Writer


@dataclass(frozen=True, kw_only=True)
class Style:
    """How results look.

    Attributes:
        colormap: Colours of the heat map, one of `render.COLORMAPS`.
        alpha: Opacity of the heat map where saliency is high, in [0, 1].
        map_bits: Bits of a grey level in the PNG files of `maps`.

    Raises:
        UnknownNameError: No such colormap, or another number of bits.
        ValueError: `alpha` is not in [0, 1].

    Example:
        >>> import hd2s
        >>> hd2s.Style(alpha=0.4)
        Style(colormap='turbo', alpha=0.4, map_bits=8)
    """

    colormap: str = "turbo"
    alpha: float = 0.6
    map_bits: Literal[8, 16] = 8

    def __post_init__(self) -> None:
        check_colormap(self.colormap)
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is the opacity of the heat map and must be in [0, 1], got {self.alpha}.")
        if self.map_bits not in (8, 16):
            raise UnknownNameError.among("number of bits", str(self.map_bits), ["8", "16"])


@dataclass(frozen=True)
class SaveKind:
    """A kind of result: how its file or folder is called after the source, and what writes it."""

    suffix: str
    build: Callable[[Path, FrameSource, Style], Writer]


SAVE_KINDS: dict[str, SaveKind] = {
    "overlay": SaveKind(
        "_overlay.mp4",
        lambda path, source, style: OverlayWriter(path, source, colormap=style.colormap, alpha=style.alpha),
    ),
    "video": SaveKind("_saliency.mp4", lambda path, source, style: SaliencyVideoWriter(path, source)),
    "maps": SaveKind("_maps", lambda path, source, style: MapsWriter(path, bits=style.map_bits)),
    "npz": SaveKind("_saliency.npz", lambda path, source, style: NpzWriter(path)),
    "gif": SaveKind(
        "_overlay.gif",
        lambda path, source, style: GifWriter(path, source, colormap=style.colormap, alpha=style.alpha),
    ),
    "csv": SaveKind(".csv", lambda path, source, style: CsvWriter(path)),
    "conspicuity": SaveKind(
        "_conspicuity.mp4",
        lambda path, source, style: ConspicuityWriter(path, source, colormap=style.colormap),
    ),
}


def result_path(kind: str, name: str, out: Path) -> Path:
    """Tell where the result of a kind for a source called `name` ends up in the folder `out`.

    Raises:
        UnknownNameError: No such kind.
    """
    check_kinds([kind])
    return out / f"{name}{SAVE_KINDS[kind].suffix}"


def made_at(kind: str, path: Path) -> float | None:
    """Tell when the result of a kind was made, in seconds since 1970; None if there is none.

    Raises:
        OutputError: A folder is in the place of a file, or a file in that of a folder.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    wants_folder = "." not in SAVE_KINDS[kind].suffix
    if stat.S_ISDIR(status.st_mode) != wants_folder:
        raise OutputError(
            f"Cannot write '{path}': a {'file' if wants_folder else 'folder'} of that name is there. Move it "
            "away, or choose another folder (--output)."
        )
    return status.st_mtime


def check_kinds(kinds: Iterable[str]) -> list[str]:
    """Return the kinds of results without repetitions.

    Raises:
        UnknownNameError: One of them is no such kind.
    """
    chosen = list(dict.fromkeys(kinds))
    for kind in chosen:
        if kind not in SAVE_KINDS:
            raise UnknownNameError.among("kind of result", kind, SAVE_KINDS)
    return chosen


def open_writer(kind: str, source: FrameSource, out: Path, *, style: Style | None = None) -> Writer:
    """Make the writer of a kind of result; nothing is written before its `with` statement begins.

    Args:
        kind: One of `SAVE_KINDS`.
        source: Where the frames come from; its name names the result.
        out: Folder for the result; it is made if it does not exist.
        style: How the result looks; the defaults if None.

    Raises:
        UnknownNameError: No such kind.
    """
    path = result_path(kind, source.info.name, out)
    return SAVE_KINDS[kind].build(path, source, style or Style())
