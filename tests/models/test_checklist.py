"""What holds for every network, plain, domain-specific or folded for one domain."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

import networks
import published
from hd2s import models
from hd2s.errors import InputShapeError
from hd2s.models import HD2S
from hd2s.weights import io
from networks import KINDS, NAMES, PLAIN, Kind

# B, T, H, W; T of hd2s-lite is that of its spec, or 1
SHAPES = {
    "hd2s": [(2, 8, 32, 64), (1, 16, 64, 32), (1, 8, 96, 32), (3, 16, 32, 32)],
    "hd2s-lite": [(2, 16, 32, 64), (1, 1, 64, 32), (1, 16, 96, 32), (3, 1, 32, 32)],
}
BAD_SHAPES = {
    "hd2s": [
        ((3, 8, 64, 96), r"\(B, 3, T, H, W\), got \(3, 8, 64, 96\)"),
        ((1, 1, 8, 64, 96), r"got \(1, 1, 8, 64, 96\)"),
        ((1, 8, 3, 64, 96), r"got \(1, 8, 3, 64, 96\)"),
        ((1, 3, 1, 64, 96), r"T must be one of \(8, 16\).* is \(8, 64, 96\)"),
        ((1, 3, 15, 64, 96), r"nearest valid size is \(16, 64, 96\)"),
        ((1, 3, 8, 65, 100), r"nearest valid size is \(8, 64, 96\)"),
        ((1, 3, 16, 8, 120), r"nearest valid size is \(16, 32, 128\)"),
        ((1, 3, 8, 0, 96), r"nearest valid size is \(8, 32, 96\)"),
    ],
    "hd2s-lite": [
        ((3, 16, 64, 96), r"\(B, 3, T, H, W\), got \(3, 16, 64, 96\)"),
        ((1, 3, 8, 64, 96), r"T must be one of \(1, 16\).* is \(1, 64, 96\)"),
        ((1, 3, 16, 65, 100), r"nearest valid size is \(16, 64, 96\)"),
        ((1, 3, 16, 64, 0), r"nearest valid size is \(16, 64, 32\)"),
    ],
}
BY_SHAPE = [(kind, shape) for kind in KINDS for shape in SHAPES[kind.name]]
BY_BAD_SHAPE = [(kind, *bad) for kind in KINDS for bad in BAD_SHAPES[kind.name]]
# of the maps, from those in float32: largest difference, correlation
HALF = {torch.float16: (0.02, 0.999), torch.bfloat16: (0.15, 0.95)}


@pytest.mark.parametrize(("kind", "shape"), BY_SHAPE, ids=str)
@torch.no_grad()
def test_maps_have_the_input_size_and_lie_between_0_and_1(
    kind: Kind, shape: tuple[int, int, int, int]
) -> None:
    batch, frames, height, width = shape
    predict = kind.predict(networks.shared(kind))
    saliency, conspicuity = predict(torch.randn(batch, 3, frames, height, width))
    assert saliency.shape == (batch, height, width)
    assert conspicuity.shape == (batch, 4, height, width)
    for maps in (saliency, *conspicuity.unbind(1)):
        assert maps.dtype == torch.float32
        assert 0 < maps.min() < maps.max() < 1


@pytest.mark.parametrize(("kind", "shape", "message"), BY_BAD_SHAPE, ids=str)
def test_other_shapes_are_refused_and_the_nearest_valid_one_is_named(
    kind: Kind, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputShapeError, match=message):
        kind.predict(networks.shared(kind))(torch.zeros(shape))


@pytest.mark.parametrize("kind", KINDS, ids=str)
@torch.no_grad()
def test_a_batch_gives_the_maps_of_its_clips_one_by_one_each_time_the_same(kind: Kind) -> None:
    model = networks.shared(kind)
    predict, clips = kind.predict(model), networks.clips(model, 3)
    output = predict(clips)
    for maps, again in zip(output, predict(clips), strict=True):
        assert torch.equal(maps, again)
    assert (output.saliency[0] - output.saliency[1]).abs().max() > 0.01, "equal clips would prove nothing"
    for index in range(3):
        for maps, alone in zip(output, predict(clips[index : index + 1]), strict=True):
            torch.testing.assert_close(maps[index], alone[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@torch.no_grad()
def test_a_deep_copy_gives_the_same_maps_and_is_independent(kind: Kind) -> None:
    model = networks.shared(kind)
    clip = networks.clips(model, 1)
    expected = kind.predict(model)(clip)
    other = copy.deepcopy(model)
    for maps, copied in zip(expected, kind.predict(other)(clip), strict=True):
        assert torch.equal(maps, copied)
    for value in other.state_dict().values():
        value.fill_(0.5)
    assert torch.equal(kind.predict(model)(clip).saliency, expected.saliency)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@torch.no_grad()
def test_a_state_gives_another_network_the_same_maps(kind: Kind) -> None:
    model = networks.shared(kind)
    clip = networks.clips(model, 1)
    other = copy.deepcopy(model)
    for value in other.state_dict().values():
        value.fill_(0.5)
    assert not torch.allclose(kind.predict(other)(clip).saliency, kind.predict(model)(clip).saliency)
    other.load_state_dict(model.state_dict(), strict=True)
    for maps, found in zip(kind.predict(model)(clip), kind.predict(other)(clip), strict=True):
        assert torch.equal(maps, found)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.folded], ids=str)
@torch.no_grad()
def test_a_weight_file_gives_the_same_maps(kind: Kind) -> None:
    model = networks.shared(kind)
    domains = networks.DOMAINS if kind.domain else ()
    header = io.Header(network=kind.name, spec=model.spec, domains=domains)
    restored, clip = models.restore(published.rewritten(model, header)), networks.clips(model, 1)
    assert restored.spec == model.spec
    for maps, found in zip(kind.predict(model)(clip), kind.predict(restored)(clip), strict=True):
        assert torch.equal(maps, found)


@pytest.mark.parametrize("dtype", list(HALF), ids=str)
@pytest.mark.parametrize("kind", PLAIN, ids=str)
@torch.no_grad()
def test_half_precision_gives_nearly_the_same_maps(kind: Kind, dtype: torch.dtype) -> None:
    model = networks.shared(kind)
    clip = networks.clips(model, 1)[..., :32, :]
    for maps, found in zip(model(clip), copy.deepcopy(model).to(dtype)(clip.to(dtype)), strict=True):
        assert found.dtype == dtype
        difference, correlation = HALF[dtype]
        torch.testing.assert_close(found.float(), maps, rtol=0, atol=difference)
        assert torch.corrcoef(torch.stack((found.float().flatten(), maps.flatten())))[0, 1] > correlation


@pytest.mark.parametrize("kind", PLAIN, ids=str)
@torch.no_grad()
def test_sliding_over_encoded_frames_equals_whole_clips(kind: Kind) -> None:
    model = copy.deepcopy(networks.shared(kind)).double()
    assert isinstance(model, HD2S)
    count, length = 2, model.spec.num_frames
    frames = networks.clips(model, 2).double().transpose(1, 2).flatten(0, 1)[: length - 1 + count]
    ring = [torch.cat(parts) for parts in zip(*(model.encode(f[None]) for f in frames), strict=True)]
    found = model.slide(ring)
    assert found.saliency.shape[0] == found.conspicuity.shape[0] == count
    for index in range(count):
        clip = frames[index : index + length].transpose(0, 1)[None]
        for maps, whole in zip(found, model(clip), strict=True):
            torch.testing.assert_close(maps[index], whole[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("changes", [{"height": 100}, {"width": 33}, {"num_frames": 4}])
def test_an_input_that_no_clip_could_have_is_refused(name: str, changes: dict[str, int]) -> None:
    spec = replace(networks.TINY, **changes)
    if name == "hd2s-lite" and "num_frames" in changes:
        assert models.build(name, spec).spec == spec  # its filters are as long as its spec says
    else:
        with pytest.raises(InputShapeError, match="multiples of 32"):
            models.build(name, spec)


def test_there_are_no_networks_beside_these() -> None:
    assert tuple(models.BUILDERS) == NAMES
    assert models.BUILDERS["hd2s"]().spec == replace(networks.TINY, height=128, width=192, num_frames=16)
