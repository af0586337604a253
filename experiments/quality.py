"""Judge weights on held-out pictures of the gaze pack, beside baselines and the viewers themselves.

    python experiments/quality.py --root path/to/gaze --weights old.safetensors runs/lite/weights.safetensors
    python experiments/quality.py --root path/to/gaze --weights 'cv=runs/cv/fold{fold}/weights.safetensors'
    python experiments/quality.py --root path/to/gaze --weights seeds=a.safetensors,b.safetensors

Each argument of --weights is a predictor, called by its path or NAME=PATH; paths between commas are seeds of
it: mean ± standard deviation. A file is scored on the suggested validation videos; {fold} stands for five
files, trained without folds 1 to 5 of `gaze.FOLDS`, each scored on the videos of its fold. All are scored on
every tenth image of each folder. The weights that come along were trained on all of this.

Videos are predicted whole, as `hd2s predict` does, and scored every third of a second from frame 15 on, where
at least five fixations are active: mean over frames, then clips; the images of a folder are one clip. Maps
are compared at the size of the stored pictures; densities are fixations blurred with a Gaussian of 3 % of the
width. SIM shifts maps to minimum 0 (MIT's benchmark). s-AUC draws its negatives, 100 splits with seed 0, from
all fixations of the other scored videos, or of the folder's other scored images, scaled to the picture.

"centre": a Gaussian in the middle with a standard deviation of a quarter of each side. "mean map": the
density of all fixations of the videos that are not held out with the scored one, or of the folder's training
images. "viewers": half of them (even numbers) predict the fixations and the density of the other half.
"""

from __future__ import annotations

import json
import zlib
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

import hd2s
from hd2s.data.datasets import gaze
from hd2s.data.transforms import SIGMA_FRACTION, density_map, fixation_map
from hd2s.data.video import open_source
from hd2s.evaluation.baselines import centre_prior
from hd2s.inference.engines import open_engine
from hd2s.inference.predictor import resized
from hd2s.metrics.functional import Fixations, auc_judd, auc_shuffled, cc, kl_divergence, nss, sim

METRICS = ("CC", "SIM", "NSS", "AUC-J", "s-AUC", "KLD")
SPREADS = {metric: f"{metric} ±" for metric in METRICS}  # standard deviations over seeds
BASELINES = ("centre", "mean map", "viewers")
MIN_FIXATIONS, FIRST_FRAME = 5, 15
MEAN_HW = 192, 256  # at which fixations are added up for the mean map
FOLD = "{fold}"
BARS = Console(stderr=True)

Map = NDArray[np.float32]
Items = Sequence[gaze.Still | gaze.GazeVideo]
Files = tuple[Path | None, ...]  # one for each part of the videos; None: the weights that come along
Rows = dict[str, list[list[float]]]  # clip -> frames -> metrics
Summary = dict[str, dict[str, float]]  # clip -> metric


@dataclass(frozen=True)
class Picture:
    """An image or a video, and what its maps are compared with."""

    clip: str  # what its frames are averaged into
    path: Path
    size: tuple[int, int]  # height, width
    looks: dict[int, tuple[Map, NDArray[np.bool_]]]  # frame -> fixations (N, 2), whose viewer is even (N,)
    negatives: Fixations  # in other pictures
    mean: Map  # density of training fixations, MEAN_HW


@cache
def info(path: Path) -> hd2s.VideoInfo:
    """Look up size, rate and length of an image or a video."""
    with open_source(path) as source:
        return source.info


def gather(items: Items) -> Map:
    """Collect all fixations (N, 2) as fractions of the width and the height."""
    found = [item.points / (info(item.path).width, info(item.path).height) for item in items]
    return np.concatenate([np.empty((0, 2)), *found]).astype(np.float32)


def density(points: Map, size: tuple[int, int]) -> Map:
    """Blur fixations at a size."""
    return density_map(fixation_map(points, *size), (SIGMA_FRACTION * size[1],) * 2)


def looks_at(item: gaze.Still | gaze.GazeVideo) -> dict[int, tuple[Map, NDArray[np.bool_]]]:
    """Find the frames to score, with their fixations; the viewers of images are not told apart."""
    if isinstance(item, gaze.Still):
        return {0: (item.points, np.zeros(len(item.points), np.bool_))}
    fps = float(info(item.path).fps)
    frames = range(FIRST_FRAME, info(item.path).num_frames or 0, max(1, round(fps / 3)))
    active = {frame: item.active(frame, fps) for frame in frames}
    enough = {frame: which for frame, which in active.items() if which.sum() >= MIN_FIXATIONS}
    return {frame: (item.points[which], item.viewers[which] % 2 == 0) for frame, which in enough.items()}


def prepare(items: Items, scored: Items, training: Items) -> list[Picture]:
    """Find what maps of `items` are compared with; negatives of s-AUC are from the others of `scored`."""
    mean = density(gather(training) * np.array(MEAN_HW[::-1], np.float32), MEAN_HW)
    pictures = []
    for item in items:
        clip = item.domain if isinstance(item, gaze.Still) else f"{item.domain}/{item.path.stem}"
        size = info(item.path).height, info(item.path).width
        others = gather([other for other in scored if other.path != item.path])
        negatives = Fixations.from_points([others], size, picture_hw=(1, 1), outside="drop")
        pictures.append(Picture(clip, item.path, size, looks_at(item), negatives, mean))
    return pictures


def open_pack(root: Path, folds: Sequence[frozenset[str]]) -> tuple[list[Picture], list[list[Picture]]]:
    """List the images to score, and for each fold its videos."""
    images = []
    for folder in gaze.STILL_FOLDERS:
        held_out, training = (gaze.stills(root, split, [folder]) for split in ("validation", "train"))
        images += prepare(held_out, held_out, training)
    scored = gaze.videos(root, "validation", frozenset().union(*folds))
    parts = [(gaze.videos(root, "validation", fold), gaze.videos(root, "train", fold)) for fold in folds]
    return images, [prepare(held_out, scored, training) for held_out, training in parts]


def score(picture: Picture, maps: Iterable[tuple[int, Map]]) -> list[list[float]]:
    """Compute all `METRICS` of maps, given with the number of their frame."""
    rows = []
    for frame, map_ in maps:
        points, _ = picture.looks[frame]
        both = map_, density(points, picture.size)
        p, g = (torch.from_numpy(np.ascontiguousarray(each))[None].double() for each in both)
        f = Fixations.from_points([points], picture.size, outside="drop")
        keys = torch.tensor([zlib.crc32(f"{picture.path.stem}/{frame}".encode())])
        shuffled = auc_shuffled(p, f, picture.negatives, keys=keys)
        scores = cc(p, g), sim(p, g), nss(p, f), auc_judd(p, f), shuffled, kl_divergence(p, g)
        rows.append([value.item() for value in scores])
    return rows


def score_viewers(picture: Picture) -> list[list[float]]:
    """Score half of the viewers as predictors of the others, where both halves look at a frame."""
    both = {f: (points, even) for f, (points, even) in picture.looks.items() if even.any() and not even.all()}
    others = replace(picture, looks={f: (points[~even], ~even) for f, (points, even) in both.items()})
    return score(others, ((f, density(points[even], picture.size)) for f, (points, even) in both.items()))


def score_baselines(pictures: list[Picture]) -> dict[str, Summary]:
    """Score what needs no weights."""
    rows: dict[str, Rows] = {name: defaultdict(list) for name in BASELINES}
    for picture in track(pictures, "baselines", console=BARS):
        maps = centre_prior(*picture.size), resized(picture.mean, picture.size)
        found = [score(picture, ((frame, map_) for frame in picture.looks)) for map_ in maps]
        for name, values in zip(BASELINES, [*found, score_viewers(picture)], strict=True):
            rows[name][picture.clip] += values
    return {name: summarise([found]) for name, found in rows.items()}


def score_files(files: Files, images: list[Picture], videos: list[list[Picture]], stride: int) -> Rows:
    """Score one seed: each file on the images and its part of the videos."""
    rows: Rows = defaultdict(list)
    for file, part in zip(files, videos, strict=True):
        engine = open_engine(hd2s.load("hd2s-lite", file), precision="float32")
        for picture in track([*images, *part], str(file or "hd2s-lite"), console=BARS):
            frames = hd2s.predict(picture.path, model=engine, stride=stride)
            maps = ((frame.index, frame.saliency) for frame in frames if frame.index in picture.looks)
            rows[picture.clip] += score(picture, maps)
    return rows


def summarise(seeds: list[Rows]) -> Summary:
    """Average over frames, then over seeds; "hevc" is the mean of the videos."""
    found = {c: np.array([np.mean(rows[c], axis=0) for rows in seeds]) for c in seeds[0] if seeds[0][c]}
    videos = [values for clip, values in found.items() if "/" in clip]
    found |= {gaze.VIDEO_FOLDER: np.mean(videos, axis=0)} if videos else {}
    summary = {clip: dict(zip(METRICS, v.mean(axis=0).tolist(), strict=True)) for clip, v in found.items()}
    for clip, values in found.items() if len(seeds) > 1 else ():
        summary[clip] |= zip(SPREADS.values(), values.std(axis=0, ddof=1).tolist(), strict=True)
    return summary


def read_weights(arguments: Sequence[str]) -> Mapping[str, Sequence[Files]]:
    """Turn arguments of --weights into the files of each predictor's seeds, or end with what is wrong."""
    given: dict[str, list[str]] = {}
    for argument in arguments:
        name, _, paths = argument.rpartition("=")
        first = Path(paths.split(",")[0])
        names = first.stem, *reversed(first.parts[:-1])  # runs/lite/weights.safetensors is "lite"
        name = name or next((n for n in names if n != "weights" and FOLD not in n), first.stem)
        if name in (*given, *BASELINES):
            raise SystemExit(f"Two predictors are called '{name}': name them, NAME=PATH.")
        given[name] = paths.split(",")
    crossed = {FOLD in path for paths in given.values() for path in paths}
    if len(crossed) > 1:
        raise SystemExit(f"Paths with and without {FOLD} are scored on different videos: give one kind only.")
    folds = range(1, len(gaze.FOLDS) + 1) if True in crossed else [1]
    found = {
        name: [tuple(Path(path.replace(FOLD, str(fold))) for fold in folds) for path in paths]
        for name, paths in given.items()
    }
    if missing := [str(f) for seeds in found.values() for files in seeds for f in files if not f.is_file()]:
        raise SystemExit(f"There is no weight file {', '.join(missing)}.")
    return found or {"hd2s-lite": [(None,)]}


def tables(results: dict[str, Summary], style: box.Box) -> list[Table]:
    """Lay out all metrics of videos and OSIE, and CC and NSS of each clip."""
    short, full = Table("data", "predictor", *METRICS, box=style), Table("CC, NSS", *results, box=style)
    for clip in (gaze.VIDEO_FOLDER, "osie"):
        for name, row in ((name, clips[clip]) for name, clips in results.items() if clip in clips):
            cells = [f"{row[m]:.3f}" + (f" ± {row[s]:.3f}" if s in row else "") for m, s in SPREADS.items()]
            short.add_row(clip, name, *cells)
    for clip in next(iter(results.values())):
        rows = [clips.get(clip) for clips in results.values()]
        full.add_row(clip, *(f"{row['CC']:.3f}, {row['NSS']:.2f}" if row else "" for row in rows))
    return [short, full]


def main() -> None:
    """Print tables, or JSON."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="the gaze pack")
    parser.add_argument("--weights", nargs="+", default=[], help="PATH or NAME=PATH[,PATH...]; see above")
    parser.add_argument("--stride", type=int, default=1, help="of `hd2s predict`")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print tables in Markdown")
    options = parser.parse_args()
    predictors = read_weights(options.weights)
    parts = len(next(iter(predictors.values()))[0])
    images, videos = open_pack(options.root, gaze.FOLDS if parts > 1 else [gaze.VALIDATION_VIDEOS])
    results = {
        name: summarise([score_files(files, images, videos, options.stride) for files in seeds])
        for name, seeds in predictors.items()
    }
    results |= score_baselines([*images, *(video for part in videos for video in part)])
    style, width = (box.MARKDOWN, 1000) if options.markdown else (box.HEAVY_HEAD, None)
    if options.json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    else:
        Console(width=width).print(*tables(results, style))


if __name__ == "__main__":
    main()
