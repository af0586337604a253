"""What must hold for any maps and fixations."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from hd2s.metrics.functional import (
    Fixations,
    auc_borji,
    auc_judd,
    auc_shuffled,
    cc,
    information_gain,
    kl_divergence,
    nss,
    sim,
)

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("repeatable")

SHAPE = (2, 5, 6)
# Levels that are exact in binary: affine maps with the factors below round nothing.
maps = arrays(np.int64, SHAPE, elements=st.integers(0, 16)).map(lambda a: torch.from_numpy(a / 16))
counts = arrays(np.int64, SHAPE, elements=st.sampled_from((0, 0, 0, 1, 3))).map(torch.from_numpy)
factors = st.sampled_from((0.25, 1.0, 8.0))
offsets = st.sampled_from((-2.0, 0.0, 0.5))


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, equal_nan=True, atol=1e-9, rtol=1e-9)


@given(maps, maps, counts, factors, offsets)
def test_cc_and_nss_do_not_depend_on_scale_and_offset(
    prediction: Tensor, density: Tensor, fixations: Tensor, factor: float, offset: float
) -> None:
    moved = factor * prediction + offset
    same(cc(moved, density), cc(prediction, density))
    same(cc(-moved, density), -cc(prediction, density))
    same(nss(moved, fixations), nss(prediction, fixations))
    same(sim(moved, density), sim(prediction, density))
    same(auc_borji(moved, fixations), auc_borji(prediction, fixations))
    same(kl_divergence(factor * prediction, density), kl_divergence(prediction, density))
    same(
        information_gain(factor * prediction, fixations, density),
        information_gain(prediction, fixations, density),
    )


@given(maps, counts)
def test_auc_judd_depends_on_order_only(prediction: Tensor, fixations: Tensor) -> None:
    for monotone in (torch.exp, lambda m: m**3 - 5, torch.atan):
        assert torch.equal(
            auc_judd(monotone(prediction), fixations).nan_to_num(-1),
            auc_judd(prediction, fixations).nan_to_num(-1),
        )


@given(maps, maps, counts, counts)
def test_bounds(prediction: Tensor, density: Tensor, fixations: Tensor, negatives: Tensor) -> None:
    for values, low, high in (
        (cc(prediction, density), -1, 1),
        (sim(prediction, density), 0, 1),
        (sim(prediction, density, normalise="sum"), 0, 1),
        (kl_divergence(prediction, density), 0, np.inf),
        (auc_judd(prediction, fixations), 0, 1),
        (auc_borji(prediction, fixations), 0, 1),
        (auc_shuffled(prediction, fixations, negatives), 0, 1),
    ):
        defined = values[values.isfinite()]
        assert (defined >= low - 1e-9).all()
        assert (defined <= high + 1e-9).all()


@given(maps, maps, counts)
def test_symmetric_cases(a: Tensor, b: Tensor, fixations: Tensor) -> None:
    same(cc(a, b), cc(b, a))
    same(sim(a, b), sim(b, a))
    same(information_gain(a, fixations, b), -information_gain(b, fixations, a))
    same(auc_borji(a, fixations).isnan(), auc_borji(1 - a, fixations).isnan())
    # A map and its mirror image score alike.
    same(nss(a.flip(2), fixations.flip(2)), nss(a, fixations))
    same(auc_judd(a.flip(2), fixations.flip(2)), auc_judd(a, fixations))
    # The same pool as positives and negatives: chance, up to what is drawn.
    pooled = auc_shuffled(a, fixations, fixations, splits=400)
    assert ((pooled - 0.5).abs()[pooled.isfinite()] < 0.1).all()


@given(counts, st.integers(0, 3))
def test_a_list_in_any_order_is_the_same_fixations(fixations: Tensor, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = [
        rng.permutation(np.argwhere(m)[:, ::-1].repeat(m[m > 0], axis=0).reshape(-1, 2))
        for m in fixations.numpy()
    ]
    listed, mapped = Fixations.from_points(points, SHAPE[1:]), Fixations.from_maps(fixations)
    assert torch.equal(listed.pixels, mapped.pixels)
    assert torch.equal(listed.counts, mapped.counts)
