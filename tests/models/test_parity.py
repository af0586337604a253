"""The published networks, number by number: `tests/golden` was computed with the authors' code.

The golden file is float32 itself. In float64 our maps lie within 6e-6 of it, which is its own rounding; in
float32 both round, so twice as much is allowed. Rounding grows with the values: features of up to 30 and
log-probabilities of up to 8 are compared relative to their largest.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import Tensor

import published
from hd2s import models
from hd2s.losses import hierarchical_kl
from hd2s.models import HD2S, DomainHD2S
from hd2s.models.adversary import Adversary
from hd2s.weights import io

with np.load(published.GOLDEN / "golden_seed1.npz") as npz:
    # 8-bit pictures are made by hd2s.inference
    EXPECTED = {key: value for key, value in npz.items() if not key.endswith("/png")}
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-5}


def encoder_of(file: io.WeightFile, dtype: torch.dtype) -> HD2S:
    model = models.build(file.header.network, file.header.spec)
    io.load_into(model.encoder, file.state, file)
    return model.eval().to(dtype)


def features(model: HD2S, clip: Tensor) -> dict[str, Tensor]:
    """The shape of each level of the encoder, and 512 values of it."""
    found, x = {}, clip
    for number, level in enumerate(model.encoder.levels, start=1):
        x = level(x)
        found[f"features{number}/shape"] = torch.tensor(x.shape)
        found[f"features{number}/sample"] = x.flatten()[np.linspace(0, x.numel() - 1, 512).astype(np.int64)]
    return found


def of_hd2s(model: HD2S, clip: Tensor) -> dict[str, Tensor]:
    saliency, conspicuity = output = model(clip)
    levels = {f"conspicuity{i + 2}": conspicuity[0, i] for i in range(4)}
    losses = hierarchical_kl(output, published.target())
    kld = torch.stack([losses[name] for name in ("level2", "level3", "level4", "level5", "output")])
    return {"saliency": saliency[0], **levels, **features(model, clip), "kld": kld}


def of_hd2s_da(model: HD2S, clip: Tensor, file: io.WeightFile) -> dict[str, Tensor]:
    adversary = Adversary(model).to(clip).eval()
    io.load_into(adversary, file.heads, file)
    log_probs = adversary(model.collapse(model.encoder(clip)), 1.0)
    heads = {f"domain_log_probs{i + 2}": log_probs[0, i] for i in range(4)}
    return {"saliency": model(clip).saliency[0], **heads}


def of_hd2s_dsl(model: DomainHD2S, clip: Tensor) -> dict[str, Tensor]:
    found = {}
    for source in published.SOURCES:
        plain = model.for_domain(source.lower(), truncate=True)
        unsmoothed: list[Tensor] = []
        plain.smoothing.register_forward_pre_hook(lambda _, maps, into=unsmoothed: into.append(maps[0][0, 0]))
        saliency, conspicuity = plain(clip)
        found[f"{source}/saliency"], found[f"{source}/unsmoothed"] = saliency[0], unsmoothed[0]
        found[f"{source}/conspicuity2"], found[f"{source}/conspicuity5"] = (
            conspicuity[0, 0],
            conspicuity[0, 3],
        )
    found["DHF1K/prior_maps5"] = model.for_domain("dhf1k").priors[3].maps(4, 6)
    return found


@functools.cache
@torch.no_grad()
def results(family: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """What we compute for one kind of checkpoint, by the golden file's keys."""
    file, clip = published.read(family), published.clip().to(dtype)
    if file.encoder_only:
        found = features(encoder_of(file, dtype), clip)
    else:
        model = models.restore(file).to(dtype)
        found = {
            "hd2s": lambda: of_hd2s(model, clip),
            "hd2s_da": lambda: of_hd2s_da(model, clip, file),
            "hd2s_dsl": lambda: of_hd2s_dsl(model, clip),
        }[family]()
    return {f"{family}/{key}" if key != "kld" else "loss/kld": value for key, value in found.items()}


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("key", EXPECTED)
def test_is_what_the_published_code_computes(key: str, dtype: torch.dtype) -> None:
    family = "hd2s" if key == "loss/kld" else key.partition("/")[0]
    found, expected = results(family, dtype)[key].numpy(), EXPECTED[key]
    assert found.shape == expected.shape
    largest = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[dtype] * largest)


def test_every_key_of_the_golden_file_is_computed() -> None:
    computed = {key for family in published.FAMILIES for key in results(family, torch.float32)}
    assert computed == set(EXPECTED)


@pytest.mark.parametrize("key", [key for key, value in EXPECTED.items() if value.ndim == 2])
def test_the_golden_maps_vary_by_more_than_the_tolerance(key: str) -> None:
    assert EXPECTED[key].std() > 10 * TOLERANCE[torch.float32]
