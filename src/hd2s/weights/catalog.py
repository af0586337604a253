"""The weights that hd2s knows: where they come from, what they may be used for, how good they are."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hd2s.errors import UnknownNameError
from hd2s.types import InputSpec

# Of the gaze of Hollywood-2 and UCF Sports; its authors state none at vision.imar.ro/eyetracking.
GAZE_LICENSE = "academic use only, says the QUALINET register of databases"


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """A data set that weights were trained on.

    Attributes:
        name: What it is called.
        license: Of the data set.
        citation: The paper to cite.
        license_source: Where the licence is stated, for those that NOTICE does not list.
    """

    name: str
    license: str
    citation: str
    license_source: str = ""


@dataclass(frozen=True, kw_only=True)
class WeightRecord:
    """One weight file: in the package (`path`), to be downloaded (`url`), or without a public link (neither).

    Attributes:
        name: In the catalogue.
        network: The network that it is for, one of `hd2s.models.BUILDERS`.
        path: Where the file lies that comes with the package.
        url: Where the file can be downloaded.
        sha256: Of the file, or the beginning of it, as far as it is known.
        size_bytes: Of the file; None if unknown.
        size_is_exact: False if `size_bytes` is a rounded figure.
        num_parameters: That are learned; None if unknown.
        license: Of the weights.
        commercial_use: Whether the licence of the weights allows it.
        input: What the network wants to be fed.
        trained_on: Data sets, the encoder's first.
        domains: The data sets whose viewers it can imitate.
        scores: {data set: {metric: value}} on data that was held out, if need be from another training by the
            same recipe.
        paper: To cite for the weights.
        advice: What to do with the file, or how to get it, where that is not plain.
        date: Of the training, ISO 8601; empty if unknown.
        recipe: The command that repeats it; empty if hd2s did not train it.
    """

    name: str
    network: str
    path: Path | None = None
    url: str | None = None
    sha256: str = ""
    size_bytes: int | None = None
    size_is_exact: bool = True
    num_parameters: int | None = None
    license: str
    commercial_use: bool
    input: InputSpec
    trained_on: tuple[TrainingSet, ...]
    domains: tuple[str, ...] = ()
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    paper: str
    advice: str = ""
    date: str = ""
    recipe: str = ""


_HD2S = (
    "Bellitto, Proietto Salanitri, Palazzo, Rundo, Giordano, Spampinato: Hierarchical domain-adapted feature "
    "learning for video saliency prediction. IJCV, 2021. arXiv 2010.01220"
)

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
_KINETICS = TrainingSet(
    name="Kinetics-400",
    license="CC BY 4.0 (annotations)",  # the videos are on YouTube, each under its own terms
    citation="Kay et al.: The Kinetics human action video dataset. arXiv 1705.06950, 2017",
    license_source="https://www.deepmind.com/open-source/kinetics",
)
_DHF1K = TrainingSet(
    name="DHF1K",
    license="CC BY 4.0",
    citation="Wang, Shen, Guo, Cheng, Borji: Revisiting video saliency. CVPR, 2018",
    license_source="https://github.com/wenguanwang/DHF1K",
)
_HOLLYWOOD2, _UCF_SPORTS = (
    TrainingSet(
        name=name,
        license=GAZE_LICENSE,
        citation="Mathe, Sminchisescu: Actions in the eye. TPAMI, 2015",
        license_source="the QUALINET register of databases",
    )
    for name in ("Hollywood-2", "UCF Sports")
)


def _published(name: str, trained_on: tuple[TrainingSet, ...], **more: Any) -> WeightRecord:
    """Make the record of weights that the paper's authors published, and whose links are dead."""
    return WeightRecord(
        name=name,
        network="hd2s",
        license="CC BY-NC 4.0",
        commercial_use=False,
        input=InputSpec(height=128, width=192, num_frames=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        trained_on=(replace(_KINETICS, name=f"{_KINETICS.name} (start of the encoder)"), *trained_on),
        paper=_HD2S,
        advice="The published links are dead. If you have a copy, use it as it is with `hd2s predict VIDEO "
        "--model hd2s --weights FILE`, or make it a safetensors file with `hd2s weights convert IN.pt "
        "OUT.safetensors`.",
        **more,
    )


WEIGHTS: dict[str, WeightRecord] = {
    "hd2s-lite": WeightRecord(
        name="hd2s-lite",
        network="hd2s-lite",
        path=Path(__file__).with_name("hd2s-lite.safetensors"),
        sha256="a41d15794697e190d0c94839e08018496d4e068fc36dd37375ad18f444d2742d",
        size_bytes=5343322,
        num_parameters=2610461,
        license="Apache-2.0",
        commercial_use=True,
        input=InputSpec(height=192, width=320, num_frames=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        trained_on=(
            TrainingSet(
                name="ImageNet (start of the encoder)",
                license="Apache-2.0 (EfficientNet-Lite0 weights)",
                citation="Tan, Le: EfficientNet. ICML, 2019; Russakovsky et al.: ImageNet. IJCV, 2015",
            ),
            *_GAZE,
        ),
        scores={
            "OSIE": {"CC": 0.804, "NSS": 2.919, "KLD": 0.419},
            "crowd": {"CC": 0.810, "NSS": 1.909, "KLD": 0.292},
            "scene": {"CC": 0.769, "NSS": 2.021, "KLD": 0.458},
            "HEVC": {"CC": 0.765, "NSS": 4.436, "KLD": 0.619},
        },
        paper=_HD2S,
        date="2026-11-26",
        recipe="hd2s train recipes/lite.toml --set data.train_on=all",
    ),
    "s3d-kinetics400": WeightRecord(  # torchvision's S3D_Weights.KINETICS400_V1
        name="s3d-kinetics400",
        network="hd2s",
        url="https://download.pytorch.org/models/s3d-d76dad2f.pth",
        sha256="d76dad2f",  # the part that torch hub puts in the name of a file
        size_bytes=32 * 2**20,
        size_is_exact=False,
        num_parameters=8320048,
        license="BSD-3-Clause",
        commercial_use=True,
        input=InputSpec(
            height=128,
            width=192,
            num_frames=16,
            mean=(0.43216, 0.394666, 0.37645),
            std=(0.22803, 0.22145, 0.216989),
        ),
        trained_on=(_KINETICS,),
        paper="Xie, Sun, Huang, Tu, Murphy: Rethinking spatiotemporal feature learning. ECCV, 2018",
        advice="Torchvision's S3D, an encoder only: a training of hd2s starts from it. It predicts nothing "
        "by itself.",
    ),
    "hd2s": _published("hd2s", (_DHF1K,), num_parameters=29795597),
    "hd2s-da": _published("hd2s-da", (_DHF1K, replace(_UCF_SPORTS, name="UCF Sports (without labels)"))),
    "hd2s-dsl": _published(
        "hd2s-dsl",
        (_DHF1K, _HOLLYWOOD2, _UCF_SPORTS),
        domains=("dhf1k", "hollywood", "ucfsports"),
    ),
}


def find(name: str) -> WeightRecord:
    """Look weights up by their name.

    Raises:
        UnknownNameError: There are none of this name.

    Example:
        >>> find("s3d-kinetics400").license
        'BSD-3-Clause'
    """
    if name not in WEIGHTS:
        raise UnknownNameError.among("weights", name, WEIGHTS)
    return WEIGHTS[name]
