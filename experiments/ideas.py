"""Does each idea of the paper help? Short trainings of hd2s-lite on the gaze pack, with and without it.

    python experiments/ideas.py --gaze path/to/gaze --clips path/to/videos --output runs/ideas
    python experiments/ideas.py --output runs/ideas --table

Each run (a variant and a seed) leaves its scores in a JSON file in the output folder; the same command again
does what is missing. `--table` prints the tables of docs/experiments.md from what is there. Decoded frames
are kept in the output folder, too (about 0.5 GB).

Scores are as in `experiments/quality.py`, on the same held-out pictures: every tenth image of each folder and
ten videos, here once a second from frame 15 on, where at least five fixations are active; mean over frames,
then clips. Maps are enlarged to the size of the stored pictures and compared there.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import seed_everything
from torch import Tensor, nn

from hd2s.data.clips import clip_before
from hd2s.data.datasets import open_dataset
from hd2s.data.transforms import fixation_map, normalise
from hd2s.inference.predictor import resized
from hd2s.metrics.functional import cc, kl_divergence, nss
from hd2s.models import HD2S, DomainHD2S, HD2SOutput, build, lite, load_encoder
from hd2s.training.clip_recipe import ClipRecipe
from hd2s.training.clip_run import STEPS, ClipData, imagenet_path, make_trainer
from hd2s.training.clips import ClipAugment, ClipSource
from hd2s.training.plots import read_curves
from hd2s.training.steps import AdversarialStep
from hd2s.types import InputSpec

STILLS = ("osie", "crowd", "scene")
SOURCES = (*STILLS, "hevc")
METRICS = ("CC", "NSS", "KLD")
SEEDS = (1, 2, 3)
SPEC = replace(lite.SPEC, height=96, width=128, num_frames=8)
BATCH = 4
LAST_PART = 4  # domain accuracies are of the last 1/4 of a training
FIRST_FRAME, MIN_FIXATIONS = 15, 5
# What a source has for itself: the attribute of its network. The decoders' convolutions are shared anyway.
MODULES = {"priors": "priors", "smoothing": "smoothing", "batch-norms": "decoders", "fusion": "fusion"}

Scores = dict[str, dict[str, float]]  # source -> metric -> value
Result = dict[str, Any]
Column = Callable[[Result], float | None]
Predict = Callable[[str, Tensor], Tensor]  # source, clips (B, 3, T, H, W) -> maps (B, h, w)


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        method: See `ClipRecipe`.
        sources: Labelled folders of the gaze pack, in turn.
        supervise_levels: See `ClipRecipe`.
        reversal: For adversarial training, whether the heads' gradients reach the network.
        shared: Of `MODULES`, those that the sources of a domain-specific network have in common.
        smoothing: Whether that of a domain-specific network does anything.
        steps: Steps of the optimiser.
    """

    method: str
    sources: tuple[str, ...] = SOURCES
    supervise_levels: bool = True
    reversal: bool = True
    shared: tuple[str, ...] = ()
    smoothing: bool = True
    steps: int = 160


_ADAPTATION = Variant("adversarial", STILLS[:2], supervise_levels=False, steps=120)
VARIANTS = {
    "plain": Variant("supervised"),
    "output": Variant("supervised", supervise_levels=False),
    "reversal": _ADAPTATION,
    "probes": replace(_ADAPTATION, reversal=False),
    "stills": replace(_ADAPTATION, method="supervised"),
    "own": Variant("domain_specific"),
    **{f"shared-{module}": Variant("domain_specific", shared=(module,)) for module in MODULES},
    "shared": Variant("domain_specific", shared=tuple(MODULES)),
    "unsmoothed": Variant("domain_specific", smoothing=False),
}
CENTRE = "centre"  # not trained


class TrainingData(ClipData):
    """The batches of a recipe, without validation. Images are clips of one frame.

    To the network that is the same as many equal frames, with less work.
    """

    def __init__(self, recipe: ClipRecipe, spec: InputSpec) -> None:
        super().__init__(recipe, spec)
        for source in self.sources:
            if source.name in STILLS:
                source.spec = replace(spec, num_frames=1)

    def val_dataloader(self) -> Any:
        """Nothing: scores are taken after the training."""
        return []


def make_recipe(variant: Variant, seed: int, options: argparse.Namespace) -> ClipRecipe:
    """The recipe of a run: recipes/lite_*.toml made short, without averaged weights."""
    gaze = {"layout": "gaze", "validation_split": "validation"}
    tables = {name: {"name": name, "root": view(options, name), **gaze} for name in SOURCES}
    targets = [tables["hevc"], {"name": "clips", "root": options.clips, "layout": "videos"}]
    rates = {"kind": "adamw", "lr": 2e-3, "encoder_lr": 2e-4, "weight_decay": 1e-2, "clip_norm": 5.0}
    table = {
        "model": "hd2s-lite",
        "method": variant.method,
        "seed": seed,
        "supervise_levels": variant.supervise_levels,
        "source": [tables[name] for name in variant.sources],
        "target": targets if variant.method == "adversarial" else [],
        "data": {"batch": BATCH, "workers": 0, "cache": options.output / "cache"},
        "optim": {"steps": variant.steps, "schedule": "cosine", "warmup": 0.1, **rates},
        "check": {"every": variant.steps // LAST_PART, "validate_every": variant.steps},
    }
    return ClipRecipe.model_validate(table)


def view(options: argparse.Namespace, name: str) -> Path:
    """A gaze pack with one folder only, as a link."""
    root: Path = options.output / "views" / name
    root.mkdir(parents=True, exist_ok=True)
    if not (root / name).exists():
        (root / name).symlink_to(options.gaze.resolve() / name)
    return root


def train(variant: Variant, recipe: ClipRecipe, folder: Path) -> HD2S | DomainHD2S:
    """Train a network; its curves are in the folder."""
    seed_everything(recipe.seed, verbose=False)
    model = build("hd2s-lite", SPEC, variant.sources if variant.method == "domain_specific" else ())
    load_encoder(model, imagenet_path())
    for module in model.modules():  # with the 0.01 of domain-specific decoders they would not settle in time
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    if isinstance(model, DomainHD2S):
        first, *others = model.networks.values()
        for name, network in ((MODULES[m], n) for m in variant.shared for n in others):
            setattr(network, name, getattr(first, name))
    for name, parameter in model.named_parameters():
        if name.endswith("smoothing.sigma") and not variant.smoothing:
            nn.init.constant_(parameter, 0.1)  # pixels: the smoothing does nothing, and gets no gradient
    data = TrainingData(recipe, model.spec)
    step = STEPS[recipe.method](model, recipe, data.num_videos)
    if isinstance(step, AdversarialStep) and not variant.reversal:
        step.adversary.register_forward_pre_hook(lambda _, arguments: (arguments[0], 0.0))  # alpha
    make_trainer(recipe, folder, []).fit(step, data)
    return model.eval()


def score(predict: Predict, spec: InputSpec, options: argparse.Namespace) -> Scores:
    """Score the held-out part of each source."""
    found: Scores = {}
    for name in SOURCES:
        videos, cache = (
            open_dataset(view(options, name), "validation", "gaze").videos,
            options.output / "cache",
        )
        source = ClipSource(name, videos, spec, labelled=True, augment=ClipAugment(), cache=cache)
        groups: dict[str, list[list[float]]] = defaultdict(list)
        for number, video in enumerate(source.videos):
            groups[video.group] += list(score_video(source, number, predict))
        means = np.mean([np.mean(values, axis=0) for values in groups.values()], axis=0)
        found[name] = dict(zip(METRICS, map(float, means), strict=True))
    return found


def score_video(source: ClipSource, number: int, predict: Predict) -> Iterator[list[float]]:
    """Score frames of one video, or an image."""
    video, footage = source.videos[number], source.footage[number]
    count, length = len(footage), source.spec.num_frames
    indices = range(FIRST_FRAME, count, max(1, round(video.fps))) if count > 1 else [0]
    for index in indices:
        points = video.fixations(index)
        if points is None or len(points) < MIN_FIXATIONS:
            continue
        clip = clip_before(index, count, length) if count > 1 else [0]
        frames = normalise(footage.frames(clip), source.spec)  # (T, 3, H, W)
        small = predict(source.name, frames.transpose(0, 1)[None])[0]
        prediction = torch.from_numpy(resized(small.numpy(), video.truth_size))[None]
        counts = torch.from_numpy(fixation_map(points, *video.truth_size))[None]
        density = torch.from_numpy(video.density(index))[None]
        scores = cc(prediction, density), nss(prediction, counts), kl_divergence(prediction, density)
        yield [value.item() for value in scores]


def predict_by(model: HD2S | DomainHD2S) -> Predict:
    """Predict by a network, as the viewers of the source if it tells sources apart."""

    @torch.inference_mode()
    def predict(source: str, clips: Tensor) -> Tensor:
        output: HD2SOutput = model(clips, source) if isinstance(model, DomainHD2S) else model(clips)
        return output.saliency

    return predict


def predict_centre(source: str, clips: Tensor) -> Tensor:
    """Predict the centre prior of experiments/quality.py."""
    y, x = (torch.linspace(-2, 2, side) for side in clips.shape[-2:])
    return torch.exp(-0.5 * (y[:, None] ** 2 + x**2)).expand(len(clips), -1, -1)


def run(variant: Variant, seed: int, options: argparse.Namespace) -> Result:
    """Train and score; return what is worth keeping."""
    recipe = make_recipe(variant, seed, options)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        model = train(variant, recipe, Path(folder))
        curves = read_curves(Path(folder))
    trained = time.monotonic()
    result: Result = {"scores": score(predict_by(model), model.spec, options)}
    result["seconds"] = {"training": trained - started, "scoring": time.monotonic() - trained}
    heads = {name[-1]: curve for name, curve in curves.items() if name.startswith("domain/level")}
    result["domain accuracy"] = {level: curve[max(curve)] for level, curve in heads.items()}
    state = model.state_dict().items()
    result["sigma"] = {name.split(".")[1]: value.item() for name, value in state if "sigma" in name}
    return result


def run_all(options: argparse.Namespace) -> None:
    """Do the runs of this process that are not done yet."""
    part, parts = options.part
    todo = [(CENTRE, 1), *((key, seed) for seed in SEEDS for key in VARIANTS)][part::parts]
    todo = [(key, seed) for key, seed in todo if not result_path(options, key, seed).exists()]
    started = time.monotonic()
    for done, (key, seed) in enumerate(todo, 1):
        if key == CENTRE:
            result: Result = {"scores": score(predict_centre, SPEC, options)}
        else:
            result = run(VARIANTS[key], seed, options)
        path = result_path(options, key, seed)
        scratch = path.with_suffix(".tmp")
        scratch.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        os.replace(scratch, path)
        left = (time.monotonic() - started) / done * (len(todo) - done)
        scores = ", ".join(f"{name} {row['CC']:.3f}" for name, row in result["scores"].items())
        print(f"{done}/{len(todo)} {key}, seed {seed}: CC {scores}; {left / 60:.0f} min left", flush=True)


def result_path(options: argparse.Namespace, key: str, seed: int) -> Path:
    """Where the result of a run is."""
    path: Path = options.output / f"{key}-{seed}.json"
    return path


def mean_score(metric: str, *sources: str) -> Column:
    """A column with the mean of a score over sources."""
    return lambda result: float(np.mean([result["scores"][source][metric] for source in sources]))


def accuracy(level: str) -> Column:
    """A column with the accuracy of a domain head, empty for runs without heads."""
    return lambda result: result.get("domain accuracy", {}).get(level)


def print_table(rows: dict[str, str], columns: dict[str, Column], options: argparse.Namespace) -> None:
    """Print a table in Markdown: mean and standard deviation over the seeds that are done."""
    print(f"\n| | seeds | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 2)}")
    for key, title in {**rows, CENTRE: "centre prior"}.items():
        paths = [path for seed in SEEDS if (path := result_path(options, key, seed)).exists()]
        results = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        cells = [str(len(results))]
        for column in columns.values():
            values = np.array([value for result in results if (value := column(result)) is not None])
            mean = f"{values.mean():.3f}" if len(values) else ""
            cells.append(f"{mean} ± {values.std(ddof=1):.3f}" if len(values) > 1 else mean)
        print(f"| {title} | {' | '.join(cells)} |")


def print_tables(options: argparse.Namespace) -> None:
    """Print the tables of docs/experiments.md."""
    videos = {f"videos {m}": mean_score(m, "hevc") for m in METRICS}
    images = {f"images {m}": mean_score(m, *STILLS) for m in METRICS}
    rows = {"plain": "output and four levels", "output": "output alone"}
    print_table(rows, videos | images, options)
    rows = {"stills": "images alone", "probes": "heads, no reversal", "reversal": "heads, reversal"}
    heads = {f"level {level}": accuracy(level) for level in "2345"}
    print_table(rows, videos | {"source CC": mean_score("CC", *STILLS[:2])} | heads, options)
    means = {m: mean_score(m, *SOURCES) for m in METRICS}
    rows = {"own": "all four own"} | {f"shared-{m}": f"{m} shared" for m in MODULES}
    rows |= {
        "shared": "all four shared",
        "unsmoothed": "all four own, no smoothing",
        "plain": "plain network",
    }
    print_table(rows, means | {f"{source} CC": mean_score("CC", source) for source in SOURCES}, options)


def main() -> None:
    """Run what is missing, or print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gaze", type=Path, help="the gaze pack")
    parser.add_argument("--clips", type=Path, help="a folder of other videos, for adaptation")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--table", action="store_true", help="print the tables")
    parser.add_argument(
        "--part", type=int, nargs=2, default=(0, 1), metavar=("I", "N"), help="only every N-th run, from I on"
    )
    options = parser.parse_args()
    if options.table:
        print_tables(options)
    elif options.gaze and options.clips:
        run_all(options)
    else:
        parser.error("--gaze and --clips are needed, unless --table is given")


if __name__ == "__main__":
    main()
