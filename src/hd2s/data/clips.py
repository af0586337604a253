"""Which frames make a clip: index arithmetic without torch."""

from __future__ import annotations


def reflect(index: int, count: int) -> int:
    """Fold any index into [0, count) by symmetric reflection, the edge frames repeated.

    Example:
        >>> [reflect(i, 3) for i in range(-4, 7)]
        [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0]
    """
    index %= 2 * count
    return index if index < count else 2 * count - 1 - index


def clip_before(target: int, count: int, length: int, step: float = 1.0) -> list[int]:
    """The `length` frames up to and including `target`, `step` frames apart, reflected at the start.

    Args:
        target: Index of the last frame, in [0, count).
        count: Frames in the video.
        length: Frames in the clip.
        step: Distance between neighbouring frames of the clip; 2 makes motion twice as fast.

    Example:
        >>> clip_before(9, 20, 4), clip_before(9, 20, 4, step=2.0), clip_before(1, 20, 4)
        ([6, 7, 8, 9], [3, 5, 7, 9], [1, 0, 0, 1])
    """
    return [reflect(target - round(step * back), count) for back in reversed(range(length))]
