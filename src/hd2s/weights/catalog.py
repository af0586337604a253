"""The weights that hd2s knows: where they come from, what they may be used for, how good they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hd2s.types import InputSpec


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """A data set that weights were trained on."""

    name: str
    license: str
    citation: str


@dataclass(frozen=True, kw_only=True)
class WeightRecord:
    """One weight file.

    Attributes:
        name: The network it is for.
        path: Where it lies.
        sha256: Of the file.
        size_bytes: Of the file.
        license: Of the weights.
        commercial_use: Whether the licence of the weights allows it.
        input: What the network wants to be fed.
        trained_on: Data sets, the encoder's first.
        scores: {data set: {metric: value}} on data that was held out.
        date: Of the training, ISO 8601.
        recipe: The command that repeats it.
    """

    name: str
    path: Path
    sha256: str
    size_bytes: int
    license: str
    commercial_use: bool
    input: InputSpec
    trained_on: tuple[TrainingSet, ...]
    scores: dict[str, dict[str, float]]
    date: str
    recipe: str


_GAZE = (
    TrainingSet(
        name="OSIE",
        license="MIT",
        citation="Xu, Jiang, Wang, Kankanhalli, Zhao: Predicting human gaze beyond pixels. JoV, 2014",
    ),
    TrainingSet(
        name="crowd",
        license="MIT",
        citation="Jiang, Xu, Zhao: Saliency in crowd. ECCV, 2014",
    ),
    TrainingSet(
        name="scene",
        license="MIT",
        citation="Liang, Jiang, Liang, Zhao: Saliency prediction with scene structural guidance. SMC, 2017",
    ),
    TrainingSet(
        name="HEVC",
        license="free to use, citing the paper",
        citation="Xu, Jiang, Sun, Ye, Wang: Learning to detect video saliency with HEVC features. TIP, 2017",
    ),
)

WEIGHTS: dict[str, WeightRecord] = {
    "hd2s-lite": WeightRecord(
        name="hd2s-lite",
        path=Path(__file__).with_name("hd2s-lite.safetensors"),
        sha256="c5d1e2b5e1acda047d2b907bead24fd50918dd17ec5ea524fc95bcd1bc7f4cca",
        size_bytes=7030034,
        license="Apache-2.0",
        commercial_use=True,
        input=InputSpec(height=192, width=256, num_frames=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        trained_on=(
            TrainingSet(
                name="ImageNet (start of the encoder)",
                license="Apache-2.0 (EfficientNet-Lite0 weights)",
                citation="Tan, Le: EfficientNet. ICML, 2019; Russakovsky et al.: ImageNet. IJCV, 2015",
            ),
            *_GAZE,
        ),
        scores={
            "OSIE": {"CC": 0.773, "NSS": 2.812, "KLD": 0.509},
            "crowd": {"CC": 0.778, "NSS": 1.830, "KLD": 0.345},
            "scene": {"CC": 0.743, "NSS": 1.908, "KLD": 0.554},
            "HEVC": {"CC": 0.711, "NSS": 4.324, "KLD": 0.781},
        },
        date="2026-11-24",
        recipe="hd2s train recipes/lite.toml",
    ),
}
