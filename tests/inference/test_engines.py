"""Engines agree, and ask for what is missing."""

from __future__ import annotations

import copy
import importlib.util
import weakref
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import hd2s
import networks
from fakes import SMALL_SPEC, lively_model, moving_blob
from hd2s.data.video import open_source
from hd2s.errors import DeviceUnavailableError, MissingExtraError, UnknownNameError, WeightsError
from hd2s.inference.engines import BATCH, PRECISIONS, Engine, Maps, open_engine
from hd2s.inference.predictor import Predictor
from hd2s.inference.torch_engine import TorchEngine
from hd2s.models import HD2S, HD2SLite

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs OpenVINO")
EXAMPLE = Path(__file__).parents[2] / "examples/bigbuckbunny.mp4"
PAST = SMALL_SPEC.num_frames - 1


@pytest.fixture(scope="module")
def model() -> HD2SLite:
    return lively_model()


@pytest.fixture
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "openvino" else found(name, *rest)
    )


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two CUDA devices that nothing can be moved to."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(nn.Module, "to", lambda self, *_, **__: self)


# --- choosing ---------------------------------------------------------------------------------------


@needs_openvino
@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.parametrize(
    ("engine", "name"), [("auto", "openvino"), ("openvino", "openvino"), ("torch", "torch")]
)
def test_on_a_cpu_openvino_is_preferred(
    model: HD2SLite, monkeypatch: pytest.MonkeyPatch, engine: str, name: str, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    opened = open_engine(model, engine=engine, device=device)
    assert opened.name == name
    assert opened.device == "cpu"
    assert opened.spec == model.spec
    assert open_engine(opened) is opened


@pytest.mark.usefixtures("without_openvino")
def test_without_openvino_torch_serves_unless_openvino_was_asked_for(model: HD2SLite) -> None:
    assert isinstance(open_engine(model, device="cpu"), TorchEngine)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[openvino\]' in a clone"):
        open_engine(model, engine="openvino")


@pytest.mark.usefixtures("with_cuda")
@pytest.mark.parametrize(("device", "expected"), [("auto", "cuda"), ("cuda", "cuda"), ("cuda:1", "cuda:1")])
def test_with_cuda_torch_is_preferred(model: HD2SLite, device: str, expected: str) -> None:
    engine = open_engine(model, device=device, precision="auto")
    assert isinstance(engine, TorchEngine)
    assert (engine.device, engine.precision) == (expected, "bfloat16")
    assert open_engine(model, device=device).precision == "float32"


@needs_openvino
@pytest.mark.usefixtures("with_cuda")
def test_openvino_stays_on_the_cpu(model: HD2SLite) -> None:
    assert open_engine(model, engine="openvino").device == "cpu"
    with pytest.raises(DeviceUnavailableError, match="'openvino' runs on the CPU, not on 'cuda'"):
        open_engine(model, engine="openvino", device="cuda")


@pytest.mark.usefixtures("with_cuda")
def test_a_cuda_device_beyond_the_last_says_how_many_there_are(model: HD2SLite) -> None:
    with pytest.raises(DeviceUnavailableError, match="'cuda:2' is not there: this machine has 2"):
        open_engine(model, device="cuda:2")


@pytest.mark.parametrize("engine", ["auto", "torch"])
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_cuda_that_is_absent_is_an_error(
    model: HD2SLite, monkeypatch: pytest.MonkeyPatch, engine: str, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(
        DeviceUnavailableError, match=f"'{device}' is not there: PyTorch finds none.*--device cpu"
    ):
        open_engine(model, engine=engine, device=device)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:one", "cuda:-1", "cpu:", "cpu:0", "auto:1", ""])
def test_unknown_devices_list_the_known_ones(model: HD2SLite, device: str) -> None:
    with pytest.raises(UnknownNameError, match=f"Unknown device '{device}'.*Known: auto, cpu, cuda, cuda:N"):
        open_engine(model, device=device)


@pytest.mark.parametrize("post", ["none", "paper"])
def test_a_network_that_tells_sources_apart_needs_a_domain(post: str) -> None:
    several = networks.domain_specific("hd2s-lite")
    with pytest.raises(UnknownNameError, match=r"tells sources apart.*one of films, sports"):
        open_engine(several, engine="torch", device="cpu", post=post)
    with pytest.raises(UnknownNameError, match=r"Did you mean 'films'\?"):
        open_engine(several, domain="film", engine="torch", device="cpu", post=post)
    frames = np.stack(list(moving_blob(PAST + 1, 64, 96)))
    one = several.for_domain("sports", truncate=post == "paper")
    found, expected = (
        opened.slide(opened.encode(frames)).saliency
        for opened in (
            open_engine(several, domain="sports", engine="torch", device="cpu", post=post),
            open_engine(one, engine="torch", device="cpu", post=post),
        )
    )
    np.testing.assert_array_equal(found, expected)


def test_a_network_in_memory_takes_no_weights_and_a_plain_one_no_domain(model: HD2SLite) -> None:
    with pytest.raises(WeightsError, match=r"has weights already, so w\.pt has no place"):
        open_engine(model, "w.pt", device="cpu")
    with pytest.raises(UnknownNameError, match="no domain 'dhf1k'"):
        open_engine(model, domain="dhf1k", device="cpu")


def test_unknown_engines_list_the_known_ones(model: HD2SLite) -> None:
    message = (
        r"Unknown engine 'openvin'. Did you mean 'openvino'\? Known: auto, openvino, torch, torch-compile\."
    )
    with pytest.raises(UnknownNameError, match=message):
        open_engine(model, engine="openvin")


# --- the same maps ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def openvino_engine(model: HD2SLite) -> Engine:
    pytest.importorskip("openvino")
    return open_engine(model, engine="openvino")


# Runs are cut into pieces, of which the last is filled up; live maps come one by one.
@pytest.mark.parametrize(("encoded", "slid"), [(1, 1), (BATCH, BATCH), (3, 2), (BATCH + 1, BATCH + 3)])
def test_openvino_gives_the_maps_of_torch(
    model: HD2SLite, openvino_engine: Engine, encoded: int, slid: int
) -> None:
    frames = np.stack(list(moving_blob(PAST + slid, SMALL_SPEC.height, SMALL_SPEC.width)))

    def maps(engine: Engine) -> Maps:
        engine.prepare(live=slid == 1, conspicuity=True)
        features = None
        for start in range(0, len(frames), encoded):
            features = engine.encode(frames[start : start + encoded], features)
        assert features is not None
        return engine.slide(features, conspicuity=True)

    expected = maps(TorchEngine(model, "cpu"))
    assert expected.saliency.shape == (slid, SMALL_SPEC.height, SMALL_SPEC.width)
    assert expected.saliency.std() > 0.02
    for found, wanted in zip(maps(openvino_engine), expected, strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


class Recording(TorchDispatchMode):
    """Stands in for a CUDA graph: what it recorded, it does again with the same tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []
        self.made: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.made.update(id(each) for each in tree_leaves(result))
        self.calls.append((func, *tree_map(self._let_go, (args, kwargs or {})), result))
        return result

    def _let_go(self, value: object) -> object:
        """Do not keep a tensor that was not made here."""
        outside = isinstance(value, torch.Tensor) and id(value) not in self.made
        return weakref.ref(value) if outside else value

    def replay(self) -> None:
        for func, *given, result in self.calls:
            args, kwargs = tree_map(lambda v: v() if isinstance(v, weakref.ref) else v, given)
            for old, new in zip(tree_leaves(result), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    """All recordings that are begun, on the CPU instead of a GPU."""
    begun: list[Recording] = []

    def graph(recording: Recording, stream: object, capture_error_mode: str) -> Recording:
        begun.append(recording)
        return recording

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recording)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "Stream", object)
    return begun


@pytest.fixture
def compile_with(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[..., object]], None]]:
    """Chooses what PyTorch compiles with, as its own compiler takes minutes."""
    compile_ = torch.nn.Module.compile

    def choose(backend: Callable[..., object]) -> None:
        monkeypatch.setattr(
            torch.nn.Module, "compile", lambda module, **options: compile_(module, backend=backend, **options)
        )

    yield choose
    torch._dynamo.reset()


def check_same_maps(network: HD2S, found: Engine, wanted: Engine, *, live: bool, atol: float = 1e-5) -> None:
    """Compare engines over a video: frames one by one, or in runs that fill some batches and others not."""
    past, batch = network.spec.num_frames - 1, found.batch
    sizes = [1] * (past + 2) if live else [batch, batch + 16, 2]
    frames = np.stack(list(moving_blob(sum(sizes), 64, 96)))

    def maps(engine: Engine) -> list[Maps]:
        engine.prepare(live=live, conspicuity=True)
        features, made = None, []
        for start, size in zip(np.cumsum([0, *sizes]), sizes, strict=False):
            features = engine.encode(frames[start : start + size], features)
            if len(features[0]) > past:
                made.append(engine.slide(features, conspicuity=True))
                features = [level[-past:] for level in features]
        return made

    for made, expected in zip(maps(found), maps(wanted), strict=True):
        for map_, want in zip(made, expected, strict=True):
            np.testing.assert_allclose(map_, want, rtol=0, atol=atol)


@pytest.mark.parametrize(("name", "live"), [("hd2s-lite", False), ("hd2s", True)])
def test_a_compiled_network_gives_the_same_maps_and_is_compiled_once(
    name: str, live: bool, compile_with: Callable[[Callable[..., object]], None]
) -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    compile_with(backend)
    network = lively_model() if name == "hd2s-lite" else networks.plain("hd2s")
    found, wanted = (open_engine(network, engine=e, device="cpu") for e in ("torch-compile", "torch"))
    check_same_maps(network, found, wanted, live=live)
    assert len(graphs) == 2, "one for each part of the network"


@pytest.mark.parametrize(
    ("name", "live", "precision"),
    [
        ("hd2s-lite", False, "float32"),
        ("hd2s-lite", False, "bfloat16"),
        ("hd2s-lite", True, "float32"),
        ("hd2s", False, "float32"),
    ],
)
def test_a_recorded_network_gives_the_same_maps_and_is_recorded_once(
    name: str, live: bool, precision: str, recordings: list[Recording]
) -> None:
    network = lively_model() if name == "hd2s-lite" else networks.plain("hd2s")
    found, wanted = (TorchEngine(network, "cpu", precision, recorded=each) for each in (True, False))
    check_same_maps(network, found, wanted, live=live, atol=1e-5 if precision == "float32" else 0.02)
    assert len(recordings) == 2, "one for each part of the network"
    assert all(recording.calls for recording in recordings)


def test_an_engine_that_turns_live_is_recorded_anew(model: HD2SLite, recordings: list[Recording]) -> None:
    engine = TorchEngine(model, "cpu", recorded=True)
    for live in (False, True, False):
        check_same_maps(model, engine, TorchEngine(model, "cpu"), live=live)
    assert len(recordings) == 6


@pytest.mark.needs_cuda
@pytest.mark.parametrize(("name", "live"), [("hd2s-lite", False), ("hd2s-lite", True), ("hd2s", False)])
def test_cuda_gives_the_maps_of_the_cpu(name: str, live: bool) -> None:
    network = lively_model() if name == "hd2s-lite" else networks.plain("hd2s")
    found = open_engine(copy.deepcopy(network), device="cuda")
    check_same_maps(network, found, TorchEngine(network, "cpu"), live=live, atol=1e-4)


@pytest.mark.needs_cuda
def test_a_network_that_moves_away_is_kept_for_its_recording() -> None:
    network = lively_model()
    frames = np.stack(list(moving_blob(PAST + 1, SMALL_SPEC.height, SMALL_SPEC.width)))
    engine = open_engine(network, device="cuda")
    before = engine.slide(engine.encode(frames)).saliency
    network.cpu()
    torch.cuda.empty_cache()
    filler = torch.full((2**28,), torch.nan, device="cuda")  # 1 GiB, where the weights would have been
    assert np.array_equal(engine.slide(engine.encode(frames)).saliency, before)
    del filler


def test_a_missing_compiler_is_said_to_be_missing(
    compile_with: Callable[[Callable[..., object]], None], model: HD2SLite
) -> None:
    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        raise RuntimeError("No working C++ compiler found")

    compile_with(backend)
    engine = open_engine(model, engine="torch-compile", device="cpu")
    with pytest.raises(
        DeviceUnavailableError, match=r"cannot compile.*No working C\+\+ compiler.*--engine torch,"
    ):
        engine.encode(np.zeros((1, 64, 96, 3), np.uint8))


@needs_openvino
@pytest.mark.parametrize("live", [False, True])
def test_what_was_prepared_is_not_built_again(
    model: HD2SLite, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    from hd2s.inference.graphs import Graphs

    wanted: list[str] = []
    compiled = Graphs.compiled

    def noted(self: Graphs, part: str, shapes: list[tuple[int, ...]], *, live: bool) -> object:
        wanted.append(part)
        return compiled(self, part, shapes, live=live)

    monkeypatch.setattr(Graphs, "compiled", noted)
    engine = open_engine(model, engine="openvino")
    engine.prepare(live=live, conspicuity=False)
    features = engine.encode(np.zeros((PAST + (1 if live else BATCH), 64, 96, 3), np.uint8))
    engine.slide(features)
    assert wanted == ["encode", "slide"]


@needs_openvino
def test_what_cannot_be_prepared_is_an_error_where_it_is_needed(
    model: HD2SLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hd2s.inference.graphs import Graphs

    def broken(*arguments: object, live: bool) -> None:
        raise RuntimeError("no graph")

    monkeypatch.setattr(Graphs, "compiled", broken)
    engine = open_engine(model, engine="openvino")
    engine.prepare(live=False, conspicuity=False)
    with pytest.raises(RuntimeError, match="no graph"):
        engine.encode(np.zeros((1, 64, 96, 3), np.uint8))


# --- precision --------------------------------------------------------------------------------------


def test_unknown_precisions_list_the_known_ones(model: HD2SLite) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown precision 'half'.*Known: auto, bfloat16, float32"):
        open_engine(model, precision="half")


@pytest.mark.parametrize(("native", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_torch_chooses_bfloat16_only_where_the_processor_has_it(
    model: HD2SLite, monkeypatch: pytest.MonkeyPatch, native: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native}, raising=False)
    assert open_engine(model, engine="torch", device="cpu", precision="auto").precision == expected
    for asked in ("float32", "bfloat16"):  # it can compute in it everywhere
        assert open_engine(model, engine="torch", device="cpu", precision=asked).precision == asked


@needs_openvino
@pytest.mark.parametrize("native", [True, False])
def test_openvino_computes_in_bfloat16_only_where_the_processor_does(
    model: HD2SLite, monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    import openvino

    def capabilities(self: object, device: str, name: str) -> list[str]:
        return ["FP32", *["BF16"] * native]

    monkeypatch.setattr(openvino.Core, "get_property", capabilities)
    asked = {p: lambda p=p: open_engine(model, engine="openvino", precision=p).precision for p in PRECISIONS}
    assert asked["auto"]() == ("bfloat16" if native else "float32")
    assert asked["float32"]() == "float32"
    if native:
        assert asked["bfloat16"]() == "bfloat16"
    else:
        with pytest.raises(
            DeviceUnavailableError, match=r"does not compute in bfloat16.*--precision float32"
        ):
            asked["bfloat16"]()


@pytest.mark.parametrize(
    ("kind", "device"),
    [("torch", "cpu"), ("openvino", "cpu"), pytest.param("torch", "cuda", marks=pytest.mark.needs_cuda)],
)
@pytest.mark.parametrize("name", ["hd2s-lite", "hd2s", "hd2s with smoothing"])
def test_bfloat16_gives_nearly_the_same_maps(name: str, kind: str, device: str) -> None:
    if kind == "openvino":
        pytest.importorskip("openvino")
        from hd2s.inference.graphs import choose_precision

        if choose_precision("auto") == "float32":
            pytest.skip("OpenVINO needs a processor that computes in bfloat16")
    # Random weights of hd2s-lite and made-up pictures are further off.
    if name == "hd2s-lite":
        network = hd2s.load(name)
    else:
        network = networks.plain("hd2s", domain_specific=name != "hd2s")
    with open_source(EXAMPLE) as source:
        size = network.spec.height, network.spec.width
        frames = np.stack([frame.rgb(*size) for frame in islice(source, network.spec.num_frames)])

    def maps(precision: str) -> Maps:
        engine = open_engine(network, engine=kind, device=device, precision=precision)
        return engine.slide(engine.encode(frames), conspicuity=True)

    for found, wanted, allowed in zip(maps("bfloat16"), maps("float32"), (0.02, 0.05), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0, atol=allowed)
        assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.999
        assert not np.array_equal(found, wanted)
        assert np.unique(found).size > found.size / 2, "8 bits would show as steps"


def test_maps_of_levels_come_only_if_asked_for(model: HD2SLite, openvino_engine: Engine) -> None:
    frames = np.stack(list(moving_blob(PAST + 1, SMALL_SPEC.height, SMALL_SPEC.width)))
    for engine in (TorchEngine(model, "cpu"), openvino_engine):
        features = engine.encode(frames)
        with_levels, without = (engine.slide(features, conspicuity=asked) for asked in (True, False))
        assert without.conspicuity is None
        np.testing.assert_allclose(without.saliency, with_levels.saliency, rtol=0, atol=1e-5)


def test_results_outlive_the_next_request(openvino_engine: Engine) -> None:
    first, second = (
        np.full((1, SMALL_SPEC.height, SMALL_SPEC.width, 3), grey, np.uint8) for grey in (0, 255)
    )
    kept = openvino_engine.encode(first)
    copies = [level.copy() for level in kept]
    both = openvino_engine.encode(second, kept)
    for level, alone, kept_copy in zip(both, openvino_engine.encode(second), copies, strict=True):
        assert len(level) == 2
        np.testing.assert_array_equal(level[0], kept_copy[0])
        np.testing.assert_array_equal(level[1], alone[0])
    assert not np.array_equal(both[0][1], copies[0][0])
    assert all(np.array_equal(level, same) for level, same in zip(kept, copies, strict=True))


def test_the_torch_engine_leaves_no_trace_of_gradients(model: HD2SLite) -> None:
    predictor = Predictor(TorchEngine(model, "cpu"))
    predictor.push(np.zeros((8, 8, 3), np.uint8))
    (result,) = predictor.flush()
    assert isinstance(result.saliency, np.ndarray)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_the_torch_engine_puts_a_bounded_number_of_clips_into_the_network_at_once() -> None:
    network, sizes = networks.plain("hd2s"), []
    network.decoders[0].register_forward_pre_hook(lambda _, level: sizes.append(len(level[0])))
    engine, count = TorchEngine(network, "cpu"), 2 * BATCH + 1
    length = network.spec.num_frames
    frames = np.stack(list(moving_blob(length - 1 + count, 64, 64)))
    features = engine.encode(frames)
    found = engine.slide(features, conspicuity=True)
    assert sizes == [BATCH, BATCH, 1]
    assert found.conspicuity is not None
    for index in (0, BATCH - 1, BATCH, count - 1):
        alone = engine.slide([level[index : index + length] for level in features], conspicuity=True)
        np.testing.assert_allclose(found.saliency[index], alone.saliency[0], rtol=0, atol=1e-5)
        np.testing.assert_allclose(found.conspicuity[index], alone.conspicuity[0], rtol=0, atol=1e-5)
