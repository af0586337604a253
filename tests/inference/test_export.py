"""Exported files give PyTorch's maps in their own runtimes, or there are none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from torch import Tensor, nn

import hd2s
from command import contents
from hd2s.errors import MissingExtraError, OutputError, UnknownNameError
from hd2s.inference import export as exporting
from hd2s.inference.export import FORMATS, TOLERANCE, Whole, export
from hd2s.inference.graphs import core
from hd2s.models import HD2S
from hd2s.models.decoder import Decoder, Stage, dense_conv
from hd2s.models.domain import Priors, Smoothing
from hd2s.types import InputSpec

SPEC = InputSpec(height=64, width=96, num_frames=4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
SUFFIX = {"onnx": ".onnx", "openvino": ".xml"}


class Encoder(nn.Module):
    """Four levels of one convolution each, all at stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv3d(3, 4, 3, (1, 2, 2), 1) for _ in range(4))

    def forward(self, clip: Tensor) -> list[Tensor]:
        return [level(clip).relu() for level in self.levels]


def tiny() -> HD2S:
    """The hierarchy around a tiny encoder: what an export has to cope with, in a second.

    Whole networks take a minute; that they can be exported is tested in tests/models/test_export.py.
    """
    model = HD2S(
        Encoder(),
        [nn.Sequential(nn.Conv3d(4, 4, (SPEC.num_frames, 1, 1)), nn.Flatten(1, 2)) for _ in range(4)],
        [Decoder(4 + Priors.COUNT, [Stage(2, scale=1)], dense_conv) for _ in range(4)],
        SPEC,
        clip_lengths=(SPEC.num_frames,),
        scale=2,
        priors=[Priors() for _ in range(4)],
        smoothing=Smoothing(),
    )
    with torch.no_grad():
        for decoder in model.decoders:
            decoder.head.weight.mul_(5)
        model.fusion.weight.fill_(4)
        model.fusion.bias.fill_(-8)
    return model.eval()


def clips(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (*shape, 3), np.uint8)


def run(path: Path, frames: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
    """Run a file as its user would."""
    names = ["saliency", "conspicuity"]
    if path.suffix == ".onnx":
        return InferenceSession(path).run(names, {"frames": frames})  # type: ignore[no-any-return]
    results = core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(frames)
    return [results[name] for name in names]


@torch.no_grad()
def expected(model: HD2S, frames: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Normalise as the specification says, and ask the network."""
    mean, std = (torch.tensor(value).view(3, 1, 1, 1) for value in (SPEC.mean, SPEC.std))
    clip = (torch.from_numpy(frames).permute(0, 4, 1, 2, 3) / 255 - mean) / std
    return [maps.numpy() for maps in model(clip)]


def agree(path: Path, model: HD2S, frames: NDArray[np.uint8]) -> None:
    for got, want in zip(run(path, frames), expected(model, frames), strict=True):
        assert got.shape == want.shape
        assert want.std() > 100 * TOLERANCE, "such maps would agree with any others"
        np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("format", FORMATS)
def test_maps_are_those_of_pytorch(format: str, tmp_path: Path) -> None:
    model, path = tiny(), tmp_path / f"new/net{SUFFIX[format]}"
    files = export(path, format, model)
    assert files == [path.with_suffix(suffix) for suffix in FORMATS[format].suffixes]
    assert contents(path.parent) == sorted(file.name for file in files)
    agree(path, model, clips(1, 4, 64, 96))


@pytest.mark.parametrize("format", FORMATS)
def test_batch_and_size_can_be_dynamic(format: str, tmp_path: Path) -> None:
    model, path = tiny(), tmp_path / f"net{SUFFIX[format]}"
    export(path, format, model, dynamic=True)
    for batch, height, width in ((1, 64, 96), (5, 64, 96), (2, 128, 32)):
        agree(path, model, clips(batch, 4, height, width))


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("onnx") / "net.onnx", "onnx", tiny())[0]


def test_inputs_and_outputs_of_onnx(onnx: Path) -> None:
    session = InferenceSession(onnx)
    assert [(port.name, port.type, port.shape) for port in session.get_inputs()] == [
        ("frames", "tensor(uint8)", [1, 4, 64, 96, 3])
    ]
    assert [(port.name, port.type, port.shape) for port in session.get_outputs()] == [
        ("saliency", "tensor(float)", [1, 64, 96]),
        ("conspicuity", "tensor(float)", [1, 4, 64, 96]),
    ]


def test_metadata_of_onnx(onnx: Path) -> None:
    facts = InferenceSession(onnx).get_modelmeta().custom_metadata_map
    assert facts["hd2s_version"] == hd2s.__version__
    assert [facts[key] for key in ("num_frames", "height", "width")] == ["4", "64", "96"]
    assert "RGB" in facts["input"]


def test_metadata_of_the_weights_that_come_along() -> None:
    facts = exporting._metadata(tiny(), "hd2s-lite", None, "films")
    assert (facts["model"], facts["license"], facts["domain"]) == ("hd2s-lite", "Apache-2.0", "films")
    assert len(facts["weights_sha256"]) == 64
    assert "OSIE [MIT]" in facts["trained_on"]


class Stub:
    """A format whose files are empty and whose maps are PyTorch's plus something, or an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
        self.added = 0.0
        self.error: BaseException | None = None
        self.suffixes = FORMATS[format].suffixes
        stub = FORMATS[format]._replace(write=self.write, run=self.run)
        monkeypatch.setattr(exporting, "_program", lambda whole, *_: whole)
        monkeypatch.setitem(FORMATS, format, stub)

    def write(self, program: Any, shapes: object, facts: object, path: Path) -> None:
        self.whole = program
        for suffix in self.suffixes:
            path.with_suffix(suffix).write_text("new")

    def run(self, path: Path) -> Any:
        if self.error:
            raise self.error
        return lambda frames: [maps.numpy() + self.added for maps in self.whole(torch.from_numpy(frames))]


@pytest.fixture(params=FORMATS)
def format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stub(format: str, monkeypatch: pytest.MonkeyPatch) -> Stub:
    return Stub(monkeypatch, format)


def test_other_maps_are_refused_and_nothing_is_left(format: str, stub: Stub, tmp_path: Path) -> None:
    stub.added = 2e-4
    with pytest.raises(OutputError, match=r"not written: its 'saliency' .* by 0.0002, more than 0.0001"):
        export(tmp_path / f"net{SUFFIX[format]}", format, tiny())
    assert contents(tmp_path) == []


def test_maps_that_are_no_numbers_or_of_another_shape_are_refused() -> None:
    whole, frames = Whole(tiny().requires_grad_(False)), clips(1, 4, 64, 96)
    maps = expected(tiny(), frames)
    for wrong in ([maps[0] * np.nan, maps[1]], [maps[0][0], maps[1]]):
        with pytest.raises(OutputError, match="differs"):
            exporting._compare(Path("x"), whole, lambda _, wrong=wrong: wrong, iter([frames]))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_broken_export_leaves_what_was_there(
    format: str, stub: Stub, error: BaseException, tmp_path: Path
) -> None:
    path = tmp_path / f"net{SUFFIX[format]}"
    path.write_text("before")
    stub.error = error
    with pytest.raises((KeyboardInterrupt, OutputError)):
        export(path, format, tiny(), overwrite=True)
    assert contents(tmp_path) == [path.name]
    assert path.read_text() == "before"


def test_files_are_replaced_if_asked_for(format: str, stub: Stub, tmp_path: Path) -> None:
    files = [tmp_path / f"net{suffix}" for suffix in stub.suffixes]
    files[-1].write_text("before")
    with pytest.raises(OutputError, match=rf"{files[-1].name}' exists already.*--overwrite"):
        export(files[0], format, tiny())
    assert export(files[0], format, tiny(), overwrite=True) == files
    assert [file.read_text() for file in files] == ["new"] * len(files)
    assert contents(tmp_path) == sorted(file.name for file in files)


def test_bad_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match=r"'onx'. Did you mean 'onnx'\? Known: onnx, openvino"):
        export(tmp_path / "net.onnx", "onx")
    with pytest.raises(OutputError, match=r"does not end in \.xml"):
        export(tmp_path / "net.onnx", "openvino")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"Cannot write.*Choose another place"):
        export(tmp_path / "file" / "net.onnx", "onnx", tiny())
    monkeypatch.setitem(FORMATS, "onnx", FORMATS["onnx"]._replace(packages=("no_such_package",)))
    with pytest.raises(MissingExtraError, match=r"no_such_package.*pip install '\.\[export\]' in a clone"):
        export(tmp_path / "net.onnx", "onnx")
