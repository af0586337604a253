"""Which frames make up the window of each target frame: index arithmetic without torch.

The rule of HD2S for a video of N frames and windows of T: target t from T - 1 on sees frames
t - T + 1 ... t. The first T - 1 targets have no whole past; they see their future reversed in time,
t + T - 1 ... t, reflected symmetrically where the video ends. So any N >= 1 works.
"""

from __future__ import annotations

from hd2s.data.clips import reflect


def window(target: int, count: int, length: int) -> list[int]:
    """The frames of one target's window, the target itself last.

    Example:
        >>> window(9, 20, 4), window(1, 20, 4), window(1, 3, 4)
        ([6, 7, 8, 9], [4, 3, 2, 1], [1, 2, 2, 1])
    """
    if target >= length - 1:
        return list(range(target - length + 1, target + 1))
    return [reflect(target + back, count) for back in reversed(range(length))]


def opening(count: int, length: int) -> list[int]:
    """The run of frames that holds the windows of all targets without a whole past, last target first.

    Sliding a window of `length` over the run gives targets min(count, length - 1) - 1 ... 0.

    Args:
        count: Frames in the video, or known so far; 2 * (length - 1) are enough.
        length: Frames in a window, T.

    Example:
        >>> opening(20, 4)
        [5, 4, 3, 2, 1, 0]
    """
    first = min(count, length - 1) - 1 + length - 1
    return [reflect(index, count) for index in range(first, -1, -1)]
