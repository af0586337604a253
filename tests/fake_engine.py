"""A network whose prediction is known: people look where the picture is bright."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hd2s.inference.engines import Engine, Maps
from hd2s.types import InputSpec


class BrightEngine(Engine):
    """Saliency is the brightness of the newest frame of a window, so a misplaced frame shows at once.

    The maps of the four levels are that brightness times 1/4, 2/4, 3/4 and 4/4.
    """

    name = "bright"
    device = "cpu"
    precision = "float32"

    def __init__(self) -> None:
        half = (0.5, 0.5, 0.5)
        super().__init__(InputSpec(height=32, width=48, num_frames=16, mean=half, std=half))

    def encode(
        self, frames: NDArray[np.uint8], before: Sequence[Any] | None = None
    ) -> list[NDArray[np.float32]]:
        new = frames.mean(axis=-1, dtype=np.float32)[:, None] / 255
        return [new if before is None else np.concatenate((before[0], new))]

    def slide(self, features: Sequence[Any], *, conspicuity: bool = False) -> Maps:
        brightness = features[0][self.spec.num_frames - 1 :]
        weights = np.array([0.25, 0.5, 0.75, 1], np.float32)[:, None, None]
        return Maps(brightness[:, 0], brightness * weights if conspicuity else None)
