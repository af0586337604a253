"""Measure how hd2s-lite bears changed videos of the gaze pack, and how much its maps flicker.

    python experiments/robustness.py --root path/to/gaze [--weights FILE] [--markdown | --json]

Robustness: each validation video is changed in memory, predicted whole by `hd2s.predict` and scored at the
size of the stored picture, every third of a second from frame 15 on, where the scored part has five active
fixations: mean over frames, then videos. Densities: fixations blurred by a Gaussian of 3 % of the width.

    unchanged       the decoded frames as RGB arrays
    grey            the luma in all three channels
    dark            values x 0.25
    blurred         by a Gaussian with a standard deviation of 1 % of the width
    JPEG            each frame through JPEG of quality 10
    letterboxed     black bars above and below, each 12.5 % of the new height: 16:9 becomes 4:3
    portrait        only the middle, 9:16 and as high as the picture; scored with the fixations in it
    pillarboxed     the picture outside of that middle is black; scored in the middle
    mirrored        left and right exchanged, also for the fixations
    60 fps, 10 fps  frames repeated or dropped; each scored time has the map of the nearest new frame
    cuts            the odd seconds, then the even ones, are replaced by those of the third video after it,
                    scaled to its size; scored in its own frames behind a cut, the first 16 and later ones

Columns: CC, NSS and KLD; "CC before", of the unchanged video's maps on the same frames and part; "CC of
maps", between both maps; "in bars", the share of a map's sum in the black bars.

Flicker: the mean absolute change of a map, scaled to mean 1, from one frame to the next, over the pixels
where the picture hardly changes: luma, blurred as above, by less than 2/255. "viewers" is that of the density
of fixations. Pairs of frames with five active fixations each; mean over pairs, then videos. Goal: ratio <= 1.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.box import HEAVY_HEAD, MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table

import hd2s
from hd2s.data.datasets import gaze
from hd2s.data.transforms import SIGMA_FRACTION, density_map, fixation_map
from hd2s.data.video import open_source
from hd2s.inference.engines import Engine, open_engine
from hd2s.metrics.functional import cc, kl_divergence, nss

MIN_FIXATIONS, FIRST_FRAME = 5, 15
COLUMNS = ("CC", "NSS", "KLD", "CC before", "CC of maps", "in bars")

Array = NDArray[Any]  # a picture (H, W, 3) uint8, or a map (H, W) float32
Rows = dict[str, list[list[float]]]  # name -> values of each frame or video
Tables = dict[str, dict[str, dict[str, float]]]  # title -> row -> column


class Clip:
    """A decoded video with its fixations."""

    def __init__(self, video: gaze.GazeVideo) -> None:
        with open_source(video.path) as source:
            self.video, self.fps, self.frames = video, source.info.fps, [frame.rgb() for frame in source]

    @property
    def due(self) -> range:
        """Frames to be scored if they have enough fixations."""
        return range(FIRST_FRAME, len(self.frames), max(1, round(self.fps / 3)))

    def counts(self, index: int) -> Array:
        """Fixations that are active in a frame, (H, W)."""
        points = self.video.points[self.video.active(index, float(self.fps))]
        return fixation_map(points, *self.frames[0].shape[:2])

    def density(self, counts: Array) -> Array:
        """Blur the fixations of the picture or of a part of it."""
        return density_map(counts, (SIGMA_FRACTION * self.frames[0].shape[1],) * 2)


def luma(image: Array) -> Array:
    """The luma (H, W) of a picture."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def blur(array: Array) -> Array:
    """Blur a picture, or its luma, by 1 % of the width."""
    return np.asarray(cv2.GaussianBlur(array, (0, 0), 0.01 * array.shape[1]))


def compress(image: Array) -> Array:
    """Send a picture through JPEG; red and blue change places, as OpenCV wants them."""
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), (cv2.IMWRITE_JPEG_QUALITY, 10))
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1]


def middle(array: Array) -> Array:
    """Cut the middle 9:16 part out of a picture or a map."""
    kept = round(array.shape[0] * 9 / 16)
    left = (array.shape[1] - kept) // 2
    return array[:, left : left + kept]


def blacken_sides(image: Array) -> Array:
    """Paint all but the middle 9:16 part black."""
    boxed = np.zeros_like(image)
    middle(boxed)[:] = middle(image)
    return boxed


@dataclass(frozen=True)
class Change:
    """What becomes of each picture, and where its map is scored."""

    edit: Callable[[Array], Array] = lambda image: image
    inside: Callable[[Array], Array] = lambda saliency: saliency  # of the changed video: the part to score
    part: Callable[[Array], Array] = lambda saliency: saliency  # of the unchanged video: that same part
    fps: Fraction | None = None  # frames a second; None keeps them


UNCHANGED = Change()
CHANGES = {
    "unchanged": UNCHANGED,
    "grey": Change(lambda image: np.repeat(luma(image)[..., None], 3, axis=2)),
    "dark": Change(lambda image: np.rint(image * 0.25).astype(np.uint8)),
    "blurred": Change(blur),
    "JPEG": Change(compress),
    "letterboxed": Change(
        lambda image: np.pad(image, ((len(image) // 6,) * 2, (0, 0), (0, 0))),
        inside=lambda saliency: saliency[len(saliency) // 8 : -(len(saliency) // 8)],
    ),
    "portrait": Change(middle, part=middle),
    "pillarboxed": Change(blacken_sides, inside=middle, part=middle),
    "mirrored": Change(np.fliplr, part=np.fliplr),
    "60 fps": Change(fps=Fraction(60)),
    "10 fps": Change(fps=Fraction(10)),
}


def predict(frames: Iterable[Array], fps: Fraction, engine: Engine) -> Iterator[Array]:
    """The maps of a video in memory."""
    return (r.saliency for r in hd2s.predict(map(np.ascontiguousarray, frames), model=engine, fps=float(fps)))


def score(clip: Clip, index: int, change: Change, saliency: Array, before: Array) -> list[list[float]]:
    """One row with the scores of a frame, none if it has too few fixations."""
    inside, before, counts = change.inside(saliency), change.part(before), change.part(clip.counts(index))
    if counts.sum() < MIN_FIXATIONS:
        return []
    maps = (inside, before, counts, clip.density(counts))
    p, b, c, t = (torch.from_numpy(np.ascontiguousarray(m))[None].double() for m in maps)
    scores = [metric.item() for metric in (cc(p, t), nss(p, c), kl_divergence(p, t), cc(b, t), cc(p, b))]
    return [[*scores, 1 - float(inside.sum() / saliency.sum())]]


def score_change(clip: Clip, change: Change, engine: Engine, before: Sequence[Array]) -> list[list[float]]:
    """Change a video, predict it and score its frames, given the maps of the unchanged one."""
    fps = change.fps or clip.fps
    count = math.ceil(len(clip.frames) * fps / clip.fps)
    shown = (change.edit(clip.frames[int(i * clip.fps / fps)]) for i in range(count))
    due = {min(round(index * fps / clip.fps), count - 1): index for index in clip.due}
    maps = before if change is UNCHANGED else predict(shown, fps, engine)
    shots = ((due[i], saliency) for i, saliency in enumerate(maps) if i in due)
    return [row for i, saliency in shots for row in score(clip, i, change, saliency, before[i])]


def splice(clip: Clip, other: Clip, parity: int) -> Iterator[Array]:
    """Even (0) or odd (1) seconds of a video; the others are of another, repeated if it is shorter."""
    for i, image in enumerate(clip.frames):
        there = other.frames[int(i / clip.fps * other.fps) % len(other.frames)]
        own = int(i / clip.fps) % 2 == parity
        yield image if own else cv2.resize(there, image.shape[1::-1], interpolation=cv2.INTER_AREA)


def score_cuts(clip: Clip, other: Clip, engine: Engine, before: Sequence[Array]) -> Rows:
    """Score the frames of a video soon and later after a cut; the first second has none before it."""
    rows: Rows = defaultdict(list)
    for parity in (0, 1):
        for i, saliency in enumerate(predict(splice(clip, other, parity), clip.fps, engine)):
            second = int(i / clip.fps)
            if i in clip.due and second > 0 and second % 2 == parity:
                name = "cuts, first 16" if i - math.ceil(second * clip.fps) < 16 else "cuts, later"
                rows[name] += score(clip, i, UNCHANGED, saliency, before[i])
    return rows


def flicker(clip: Clip, maps: Sequence[Array]) -> list[list[float]]:
    """Mean changes of the map and of the viewers' density in each pair of frames."""
    rows = []
    for pair in ((i - 1, i) for i in range(1, len(maps))):
        counts = [clip.counts(i) for i in pair]
        then, now = (blur(luma(clip.frames[i]).astype(np.float32)) for i in pair)
        still = np.abs(now - then) < 2
        if still.any() and all(c.sum() >= MIN_FIXATIONS for c in counts):
            both = [maps[i] for i in pair], [clip.density(c) for c in counts]
            rows.append([float(np.abs(b / b.mean() - a / a.mean())[still].mean()) for a, b in both])
    return rows


def measure(root: Path, engine: Engine) -> Tables:
    """Fill both tables."""
    changes: Rows = defaultdict(list)
    flickers: Rows = defaultdict(list)
    videos = gaze.videos(root, "validation")
    for i, video in enumerate(track(videos, "videos", console=Console(stderr=True))):
        clip, other = Clip(video), Clip(videos[(i + 3) % len(videos)])  # neighbours may show one scene
        maps = list(predict(clip.frames, clip.fps, engine))
        rows = {name: score_change(clip, change, engine, maps) for name, change in CHANGES.items()}
        for name, values in (rows | score_cuts(clip, other, engine, maps)).items():
            changes[name] += [np.mean(values, axis=0).tolist()] if values else []
        flickers[video.path.stem] = [np.mean(flicker(clip, maps), axis=0).tolist()]
    flickers["mean"] = [row for rows in flickers.values() for row in rows]
    tables: Tables = defaultdict(dict)
    for name, values in changes.items():
        tables["change"][name] = dict(zip(COLUMNS, np.mean(values, axis=0).tolist(), strict=True))
    for name, values in flickers.items():
        ours, theirs = np.mean(values, axis=0).tolist()
        tables["flicker"][name] = {"hd2s-lite": ours, "viewers": theirs, "ratio": ours / theirs}
    return tables


def main() -> None:
    """Print both tables, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="the gaze pack")
    parser.add_argument("--weights", type=Path, help="weight file; the one that comes along by default")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print Markdown")
    form.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    tables = measure(options.root, open_engine(hd2s.load("hd2s-lite", options.weights), precision="float32"))
    if options.json:
        print(json.dumps(tables, indent=2))
        return
    for title, rows in tables.items():
        table = Table(title, *rows[next(iter(rows))], box=MARKDOWN if options.markdown else HEAVY_HEAD)
        for name, row in rows.items():
            table.add_row(name, *(f"{value:.3f}" if value else "" for value in row.values()))
        Console().print(table)


if __name__ == "__main__":
    main()
