"""What the published inference does to maps before it saves them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hd2s.inference.engines import Engine, Maps

_SIGMA = 7.0  # pixels, at the network's size
_TRUNCATE = 4.0  # standard deviations at which SciPy's `gaussian_filter` ends its kernel


def paper(saliency: NDArray[np.float32], *, smoothed: bool) -> NDArray[np.float32]:
    """Post-process maps as the published inference of HD2S does.

    The map is cut to 8 bits, blurred (sigma 7 pixels), divided by its maximum and cut to 8 bits again. So
    every frame's peak becomes 1, and frames can no longer be compared.

    Args:
        saliency: (N, H, W) in [0, 1], at the network's size.
        smoothed: The network smooths its maps itself (domain-specific learning): only the last two steps.

    Returns:
        (N, H, W) in [0, 1], whole multiples of 1 / 255.
    """
    maps = saliency.astype(np.float64)
    if not smoothed:
        side = 2 * int(_TRUNCATE * _SIGMA + 0.5) + 1
        maps = np.stack(
            [
                cv2.GaussianBlur(level, (side, side), _SIGMA, borderType=cv2.BORDER_REFLECT)
                for level in np.floor(255 * maps) / 255
            ]
        )
    peaks = maps.max(axis=(1, 2), keepdims=True)
    scaled: NDArray[np.float32] = (np.floor(255 * (maps / np.where(peaks > 0, peaks, 1))) / 255).astype(
        np.float32
    )
    return scaled


class PaperEngine(Engine):
    """An engine whose saliency maps are post-processed as in the published inference.

    Args:
        engine: Runs the network.
        smoothed: See `paper`.
    """

    def __init__(self, engine: Engine, *, smoothed: bool) -> None:
        super().__init__(engine.spec)
        self.name, self.device, self.precision = engine.name, engine.device, engine.precision
        self.batch = engine.batch
        self._engine, self._smoothed = engine, smoothed

    def prepare(self, *, live: bool, conspicuity: bool) -> None:
        """See `Engine.prepare`."""
        self._engine.prepare(live=live, conspicuity=conspicuity)

    def encode(self, frames: NDArray[np.uint8], before: Sequence[Any] | None = None) -> list[Any]:
        """See `Engine.encode`."""
        return self._engine.encode(frames, before)

    def slide(self, features: Sequence[Any], *, conspicuity: bool = False) -> Maps:
        """See `Engine.slide`; the conspicuity maps stay as they are."""
        maps = self._engine.slide(features, conspicuity=conspicuity)
        return maps._replace(saliency=paper(maps.saliency, smoothed=self._smoothed))
