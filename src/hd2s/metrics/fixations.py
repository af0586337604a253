"""Fixated pixels of a batch of maps: one form for binary maps, maps of counts and lists of coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from hd2s.errors import InputShapeError

Outside = Literal["error", "drop"]


@dataclass(frozen=True, eq=False)
class Fixations:
    """Where people looked in each of B maps, and how often.

    Attributes:
        pixels: (B, M) int64 places in the flattened map, ascending, each once; rows are filled up with 0.
        counts: (B, M) int64 fixations at each of them, at least 1; 0 marks what fills up a row.
        size_hw: Height and width of the maps in pixels.
        outside: (B,) int64 fixations left out because they lay outside the picture.

    Example:
        >>> points = [[(0.5, 0.0), (0.9, 0.2), (2.0, 1.0)], []]  # x, y; the first two share a pixel
        >>> fixations = Fixations.from_points(points, (2, 3))
        >>> fixations.pixels, fixations.counts
        (tensor([[0, 5],
                [0, 0]]), tensor([[2, 1],
                [0, 0]]))
        >>> fixations.once().totals()
        tensor([2, 0])
    """

    pixels: Tensor
    counts: Tensor
    size_hw: tuple[int, int]
    outside: Tensor

    @classmethod
    def from_maps(cls, maps: Tensor) -> Fixations:
        """Read maps of fixations.

        Args:
            maps: (B, H, W) numbers of fixations at each pixel, whole and not negative; or boolean.

        Raises:
            InputShapeError: The maps are not (B, H, W), or hold something that is no count.
        """
        if maps.ndim != 3:
            raise InputShapeError(f"Fixation maps are (B, H, W), got {tuple(maps.shape)}.")
        row, pixel = maps.flatten(1).nonzero(as_tuple=True)
        count = maps.flatten(1)[row, pixel]
        whole = count.to(torch.int64)
        if bool((whole != count).any()) or bool((whole < 0).any()):  # nan is unequal to every integer
            raise InputShapeError(
                "Fixation maps hold the number of fixations at each pixel, whole and not negative; these "
                "hold something else. Give a binary map, or for a density use a metric that takes one."
            )
        height, width = maps.shape[1:]
        return _padded(row, pixel, whole, len(maps), (height, width), torch.zeros_like(maps[:, 0, 0]).long())

    @classmethod
    def from_points(
        cls,
        points: Sequence[ArrayLike],
        size_hw: tuple[int, int],
        *,
        picture_hw: tuple[int, int] | None = None,
        outside: Outside = "error",
    ) -> Fixations:
        """Read lists of coordinates; those in the same pixel add up.

        Args:
            points: For each map (N, 2) x, y in pixels of the picture, origin top left; a pixel reaches from
                its number to the next.
            size_hw: Height and width of the maps.
            picture_hw: Size of the picture that the coordinates refer to; that of the maps if not given.
            outside: "error", or "drop" to leave out fixations outside the picture and count them.

        Raises:
            InputShapeError: A list is not (N, 2), a coordinate is not finite, or one is outside.
        """
        height, width = size_hw
        arrays = [np.asarray(p, np.float64) for p in points]
        for i, array in enumerate(arrays):
            if array.size and (array.ndim != 2 or array.shape[1] != 2 or not np.isfinite(array).all()):
                raise InputShapeError(
                    f"Fixations are (N, 2) finite x, y; list {i} has shape {array.shape}, or nan in it."
                )
        sizes = [len(array) for array in arrays]
        row = np.repeat(np.arange(len(arrays)), sizes)
        xy = np.concatenate([np.zeros((0, 2)), *(array.reshape(-1, 2) for array in arrays)])
        from_h, from_w = picture_hw or size_hw
        x, y = np.floor(xy * (width / from_w, height / from_h)).astype(np.int64).T
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        if outside == "error" and not inside.all():
            _refuse(row, xy, inside, (from_h, from_w))
        left_out = torch.from_numpy(np.bincount(row[~inside], minlength=len(arrays)))
        places = row[inside] * height * width + y[inside] * width + x[inside]
        unique, count = (torch.from_numpy(a) for a in np.unique(places, return_counts=True))
        area = height * width
        return _padded(unique // area, unique % area, count, len(arrays), size_hw, left_out)

    def once(self) -> Fixations:
        """Count each fixated pixel once, as a binary map does."""
        return replace(self, counts=self.counts.clamp(max=1))

    def totals(self) -> Tensor:
        """(B,) int64 fixations of each map."""
        return self.counts.sum(1)

    def to(self, device: torch.device) -> Fixations:
        """The same on another device."""
        moved = (tensor.to(device) for tensor in (self.pixels, self.counts, self.outside))
        pixels, counts, outside = moved
        return Fixations(pixels, counts, self.size_hw, outside)


def _padded(
    row: Tensor, pixel: Tensor, count: Tensor, rows: int, size_hw: tuple[int, int], outside: Tensor
) -> Fixations:
    """Lay a list that is sorted by row out as a table."""
    lengths = torch.bincount(row, minlength=rows)
    column = torch.arange(len(row), device=row.device) - (lengths.cumsum(0) - lengths)[row]
    pixels = row.new_zeros(rows, int(lengths.max()) if rows else 0)
    counts = pixels.clone()
    pixels[row, column], counts[row, column] = pixel, count
    return Fixations(pixels, counts, size_hw, outside)


def _refuse(
    row: NDArray[Any], xy: NDArray[Any], inside: NDArray[np.bool_], picture_hw: tuple[int, int]
) -> None:
    first = int(np.flatnonzero(~inside)[0])
    x, y = xy[first]
    raise InputShapeError(
        f"{int((~inside).sum())} fixations lie outside the picture, which is {picture_hw[1]} wide and "
        f"{picture_hw[0]} high; the first is x={x:g}, y={y:g} in list {int(row[first])}. Check the order of "
        'x and y and the size, or leave such fixations out with outside="drop".'
    )
