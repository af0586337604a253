"""Small value types that the layers share. They check themselves and import no torch."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from hd2s.errors import InputShapeError

_MAX_SIDE, _MAX_FRAMES = 4096, 1024  # the header of a weight file must not make us allocate any amount


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What a network wants to be fed; it travels with the weights.

    Attributes:
        height: Input height in pixels.
        width: Input width in pixels.
        num_frames: Frames in a clip, T.
        mean: Mean of R, G, B on the scale [0, 1], subtracted from the picture.
        std: Divisor for R, G, B on the scale [0, 1].

    Raises:
        InputShapeError: A size is out of range, a std not positive, or there are not three means and stds.

    Example:
        >>> import hd2s
        >>> hd2s.load("hd2s-lite").spec
        InputSpec(height=192, width=320, num_frames=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    """

    height: int
    width: int
    num_frames: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        sides = self.height, self.width
        if min(*sides, self.num_frames) < 1 or max(sides) > _MAX_SIDE or self.num_frames > _MAX_FRAMES:
            raise InputShapeError(
                f"InputSpec needs sides from 1 to {_MAX_SIDE} and 1 to {_MAX_FRAMES} frames, got {self}."
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise InputShapeError(f"InputSpec needs three means and three positive stds, got {self}.")


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What is known of a source of frames before it is decoded.

    Attributes:
        name: Short name for messages and output files, without folder and suffix.
        height: Height in pixels as shown (after rotation).
        width: Width in pixels as shown (after rotation).
        fps: Average frames a second.
        num_frames: Number of frames; estimated from the duration where the container counts none, so for
            progress only. None if neither is known.
        live: True for cameras and network streams, whose future frames cannot be waited for.
        has_audio: True if there is sound that an overlay video can carry along.

    Example:
        >>> from fractions import Fraction
        >>> import hd2s
        >>> hd2s.VideoInfo(name="clip", height=720, width=1280, fps=Fraction(30000, 1001)).num_frames is None
        True
    """

    name: str
    height: int
    width: int
    fps: Fraction
    num_frames: int | None = None
    live: bool = False
    has_audio: bool = False


@dataclass(frozen=True)
class SaliencyFrame:
    """The prediction for one frame.

    Attributes:
        index: Number of the frame in its source, from 0.
        time_seconds: When the frame is shown, in seconds from the start of the source.
        saliency: (H, W) float32 in [0, 1], at the size of the source; comparable between frames.
        conspicuity: (4, H, W) float32 in [0, 1], the maps of levels 2 to 5, or None if not asked for.

    Example:
        >>> import numpy as np
        >>> import hd2s
        >>> frame = hd2s.SaliencyFrame(3, 0.12, np.eye(4, 6, dtype=np.float32))
        >>> frame
        SaliencyFrame(index=3, time_seconds=0.120, saliency=4x6)
        >>> np.unravel_index(frame.saliency.argmax(), frame.saliency.shape)  # row and column of the peak
        (np.int64(0), np.int64(0))
    """

    index: int
    time_seconds: float
    saliency: NDArray[np.float32]
    conspicuity: NDArray[np.float32] | None = None

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.saliency.shape))
        return f"SaliencyFrame(index={self.index}, time_seconds={self.time_seconds:.3f}, saliency={shape})"
