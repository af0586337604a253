"""From pictures and fixations to network input and target maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hd2s.types import InputSpec

SIGMA_FRACTION = 0.03  # of the picture's width: the Gaussian that makes a density map of fixations


def normalise(frames: NDArray[np.uint8], spec: InputSpec) -> Tensor:
    """Turn RGB frames (..., H, W, 3) uint8 into a float tensor (..., 3, H, W), normalised as `spec` says."""
    x = torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, -3)
    mean = torch.tensor(spec.mean).view(3, 1, 1) * 255
    std = torch.tensor(spec.std).view(3, 1, 1) * 255
    return (x - mean) / std


def fixation_map(points: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Count fixations per pixel.

    Args:
        points: (N, 2) x, y in pixels, origin top left; those outside the picture are left out.
        height: Height of the map.
        width: Width of the map.

    Returns:
        (height, width) float32 counts.
    """
    counts = np.zeros((height, width), np.float32)
    x, y = np.floor(points).astype(np.int64).reshape(-1, 2).T
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    np.add.at(counts, (y[inside], x[inside]), 1.0)
    return counts


def density_map(counts: NDArray[np.float32], sigma_xy: tuple[float, float]) -> NDArray[np.float32]:
    """Blur a fixation map (H, W) with a Gaussian of `sigma_xy` pixels, zeros beyond the borders."""
    blurred: NDArray[Any] = cv2.GaussianBlur(
        counts, (0, 0), sigmaX=sigma_xy[0], sigmaY=sigma_xy[1], borderType=cv2.BORDER_CONSTANT
    )
    return blurred


@dataclass(frozen=True)
class Window:
    """A rectangle of a picture as fractions of its sides: left, top, width, height; may be mirrored."""

    left: float
    top: float
    width: float
    height: float
    mirrored: bool = False

    def matrix(self, size_hw: tuple[int, int], out_hw: tuple[int, int]) -> NDArray[np.float64]:
        """(2, 3) affine map from pixel edges of a picture of `size_hw` to those of the window at `out_hw`."""
        scale_x = out_hw[1] / (self.width * size_hw[1])
        scale_y = out_hw[0] / (self.height * size_hw[0])
        matrix = np.array(
            [[scale_x, 0, -self.left * size_hw[1] * scale_x], [0, scale_y, -self.top * size_hw[0] * scale_y]]
        )
        if self.mirrored:
            matrix[0] = [-scale_x, 0, out_hw[1] - matrix[0, 2]]
        return matrix

    def spans(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """(top, height) and (left, width) or, mirrored, as a row then runs backwards, (right, -width)."""
        row = (self.left + self.width, -self.width) if self.mirrored else (self.left, self.width)
        return (self.top, self.height), row

    def toward(self, other: Window, share: float) -> Window:
        """The window `share` of the way to another one (0: this one, 1: the other)."""

        def mix(a: float, b: float) -> float:
            return a + share * (b - a)

        return Window(
            mix(self.left, other.left),
            mix(self.top, other.top),
            mix(self.width, other.width),
            mix(self.height, other.height),
            other.mirrored,
        )


FULL = Window(0.0, 0.0, 1.0, 1.0)


def cut(picture: NDArray[np.uint8], window: Window, out_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Cut a window out of a picture (H, W, 3) and resample it bilinearly to (h, w, 3); outside is black."""
    matrix = window.matrix(picture.shape[:2], out_hw)
    # From pixel edges to pixel centres, which is what OpenCV counts from.
    matrix[:, 2] += 0.5 * matrix[:, :2].sum(1) - 0.5
    border = cv2.BORDER_CONSTANT if max(window.width, window.height) > 1 else cv2.BORDER_REPLICATE
    view: NDArray[Any] = cv2.warpAffine(
        picture, matrix, (out_hw[1], out_hw[0]), flags=cv2.INTER_LINEAR, borderMode=border
    )
    return view


def cut_target(
    points: NDArray[np.float32], window: Window, size_hw: tuple[int, int], out_hw: tuple[int, int]
) -> NDArray[np.float32]:
    """Density map (h, w) of the fixations (N, 2) of a picture of `size_hw`, seen through a window."""
    matrix = window.matrix(size_hw, out_hw)
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    sigma = SIGMA_FRACTION * size_hw[1]
    sigma_xy = (sigma * abs(matrix[0, 0]), sigma * matrix[1, 1])
    return density_map(fixation_map(moved.astype(np.float32), *out_hw), sigma_xy)


def random_window(rng: np.random.Generator, *, crop: float, min_side: float, max_side: float = 1.0) -> Window:
    """Draw a window: with probability `crop` its sides are in [min_side, max_side]; mirrored half the time.

    A side above 1 holds the whole of the picture's, with black beside it.
    """
    width, height = rng.uniform(min_side, max_side, 2) if rng.random() < crop else (1.0, 1.0)
    left, top = (rng.uniform(min(0.0, 1.0 - side), max(0.0, 1.0 - side)) for side in (width, height))
    return Window(left, top, width, height, bool(rng.random() < 0.5))


def random_bars(rng: np.random.Generator) -> Window:
    """Draw a window with a whole picture in its middle and black bars, mirrored half the time.

    They stand beside it, up to those of 9:16 in 16:9, or lie above and below it, up to half of the height.
    """
    width, height = rng.uniform(1.2, 3.2), 1.0
    if rng.random() < 0.3:
        width, height = 1.0, rng.uniform(1.2, 2.0)
    return Window((1 - width) / 2, (1 - height) / 2, width, height, bool(rng.random() < 0.5))


def jitter_light(frames: Tensor, brightness: float, contrast: float) -> Tensor:
    """Scale the contrast of normalised frames about their mean and shift their brightness (in stds)."""
    mean = frames.mean()
    return (frames - mean) * contrast + mean + brightness
