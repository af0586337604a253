"""Metrics against cases worked by hand and against plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hd2s.errors import HD2SError, InputShapeError, UnknownNameError
from hd2s.metrics import common
from hd2s.metrics.functional import (
    EPSILON,
    Fixations,
    cc,
    information_gain,
    kl_divergence,
    nss,
    quantise,
    sim,
)
from metrics.oracles import Array, loop_cc, loop_ig, loop_kl, loop_nss, loop_sim


def maps(*, sparse: bool = False, count: int = 4) -> Tensor:
    """(count, 6, 7) float64, not negative; `sparse` gives small counts, mostly 0."""
    values = torch.rand(count, 6, 7, dtype=torch.float64)
    return (values * 4 - 2.5).clamp(min=0).ceil() if sparse else values


# --- by hand ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "density", "expected"),
    [
        ([[1, 2], [3, 4]], [[10, 20], [30, 40]], 1.0),
        ([[1, 2], [3, 4]], [[4, 3], [2, 1]], -1.0),
        ([[1, 0], [0, 0]], [[0, 1], [0, 0]], -1 / 3),
        ([[1, 1], [0, 0]], [[1, 0], [1, 0]], 0.0),
    ],
)
def test_cc_by_hand(prediction: list[list[float]], density: list[list[float]], expected: float) -> None:
    value = cc(torch.tensor([prediction], dtype=torch.float64), torch.tensor([density], dtype=torch.float64))
    assert value.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("prediction", "fixations", "expected"),
    [
        ([[0, 0], [0, 4]], [[0, 0], [0, 1]], 1.5),  # mean 1, std 2
        ([[0, 0], [0, 4]], [[1, 0], [0, 0]], -0.5),
        ([[0, 0], [0, 4]], [[1, 0], [0, 3]], 1.0),  # (-0.5 + 3 * 1.5) / 4: coincident fixations count each
        ([[0, 0], [0, 4]], [[1, 1], [1, 1]], 0.0),
    ],
)
def test_nss_by_hand(prediction: list[list[float]], fixations: list[list[int]], expected: float) -> None:
    value = nss(torch.tensor([prediction], dtype=torch.float64), torch.tensor([fixations]))
    assert value.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("prediction", "density", "expected"),
    [
        ([[1, 1], [1, 1]], [[1, 0], [0, 0]], math.log(4)),
        ([[1, 3], [0, 0]], [[1, 1], [0, 0]], 0.5 * math.log(2) + 0.5 * math.log(2 / 3)),
        ([[2, 2], [4, 0]], [[1, 1], [2, 0]], 0.0),
        ([[0, 1], [0, 0]], [[1, 0], [0, 0]], -math.log(EPSILON)),  # looked at where nothing was predicted
    ],
)
def test_kl_by_hand(prediction: list[list[float]], density: list[list[float]], expected: float) -> None:
    value = kl_divergence(
        torch.tensor([prediction], dtype=torch.float64), torch.tensor([density], dtype=torch.float64)
    )
    assert value.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("prediction", "density", "minmax", "divided"),
    [
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]], 1.0, 1.0),
        ([[1, 0], [0, 0]], [[0, 0], [0, 1]], 0.0, 0.0),
        ([[2, 1], [1, 1]], [[0, 0], [0, 1]], 0.0, 0.2),  # a floor of 1 counts only without the shift
        ([[1, 1], [0, 0]], [[0, 2], [2, 0]], 0.5, 0.5),
    ],
)
def test_sim_by_hand(
    prediction: list[list[float]], density: list[list[float]], minmax: float, divided: float
) -> None:
    p, g = torch.tensor([prediction], dtype=torch.float64), torch.tensor([density], dtype=torch.float64)
    assert sim(p, g).item() == pytest.approx(minmax, abs=1e-12)
    assert sim(p, g, normalise="sum").item() == pytest.approx(divided, abs=1e-12)
    assert sim(g, p).item() == pytest.approx(minmax, abs=1e-12)


@pytest.mark.parametrize(
    ("prediction", "fixations", "expected"),
    [
        ([[1, 1], [1, 1]], [[0, 1], [0, 2]], 0.0),
        ([[2, 0], [1, 1]], [[1, 0], [0, 0]], 1.0),
        ([[2, 0], [1, 1]], [[3, 0], [1, 0]], 0.75),  # coincident fixations count each
        ([[4, 0], [0, 0]], [[0, 1], [0, 0]], math.log2(EPSILON) - math.log2(0.25)),
    ],
)
def test_information_gain_by_hand(
    prediction: list[list[float]], fixations: list[list[int]], expected: float
) -> None:
    p, uniform = torch.tensor([prediction], dtype=torch.float64), torch.ones(1, 2, 2, dtype=torch.float64)
    value = information_gain(p, torch.tensor([fixations]), uniform)
    assert value.item() == pytest.approx(expected, abs=1e-9)


def test_quantised_maps_have_256_levels() -> None:
    levels = quantise(torch.linspace(-0.1, 1.1, 5000)).unique() * 255
    torch.testing.assert_close(levels, torch.arange(256.0))


# --- by loops, and what must hold for any maps ------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "reference", "sparse"),
    [
        (cc, loop_cc, False),
        (nss, loop_nss, True),
        (kl_divergence, loop_kl, False),
        (kl_divergence, loop_kl, True),
    ],
)
def test_equals_a_plain_loop_over_each_map_of_a_batch(
    metric: Callable[[Tensor, Tensor], Tensor], reference: Callable[[Array, Array], float], sparse: bool
) -> None:
    prediction, truth = maps(), maps(sparse=sparse)
    expected = [reference(p, t) for p, t in zip(prediction.numpy(), truth.numpy(), strict=True)]
    values = metric(prediction, truth)
    assert values.shape == (4,)
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    single = metric(prediction.float(), truth.float())
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-5)


def test_sim_and_information_gain_equal_plain_loops() -> None:
    prediction, density, counts = maps(), maps(), maps(sparse=True)
    pairs = list(zip(prediction.numpy(), density.numpy(), strict=True))
    for normalise, shift in (("minmax", True), ("sum", False)):
        expected = [loop_sim(p, g, shift=shift) for p, g in pairs]
        np.testing.assert_allclose(sim(prediction, density, normalise=normalise), expected, rtol=1e-12)
    expected = [
        loop_ig(p, f, density[1].numpy()) for p, f in zip(prediction.numpy(), counts.numpy(), strict=True)
    ]
    np.testing.assert_allclose(information_gain(prediction, counts, density[1:2]), expected, rtol=1e-12)


class _Fresh(TorchDispatchMode):
    """Notes the largest tensor that is made, in numbers, beside views of some that were there."""

    def __init__(self, *there: Tensor) -> None:
        super().__init__()
        self._there = {tensor.untyped_storage().data_ptr() for tensor in there}
        self.largest = 0

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = call(*args, **(kwargs or {}))
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and made.untyped_storage().data_ptr() not in self._there:
                self.largest = max(self.largest, made.numel())
        return result


def test_large_maps_are_scored_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "_PIECE", 100)
    prediction, density = torch.rand(2, 2, 20, 32, dtype=torch.float64) + 0.5
    counts = (torch.rand(2, 20, 32) > 0.9).long()
    fixations = Fixations.from_maps(counts)
    calls: list[tuple[Callable[[], Tensor], Callable[[Array, Array, Array], float]]] = [
        (lambda: cc(prediction, density), lambda p, g, f: loop_cc(p, g)),
        (lambda: sim(prediction, density), lambda p, g, f: loop_sim(p, g)),
        (lambda: sim(prediction, density, normalise="sum"), lambda p, g, f: loop_sim(p, g, shift=False)),
        (lambda: nss(prediction, fixations), lambda p, g, f: loop_nss(p, f)),
    ]
    for call, loop in calls:
        with _Fresh(prediction, density) as made:
            values = call()
        triples = zip(prediction.numpy(), density.numpy(), counts.numpy(), strict=True)
        np.testing.assert_allclose(values, [loop(*triple) for triple in triples], rtol=1e-9)
        assert made.largest < prediction.numel() / 2  # memory that is new takes longer than what is computed


def test_fixations_and_maps_of_counts_give_the_same() -> None:
    prediction, counts = maps(), maps(sparse=True)
    fixations = Fixations.from_maps(counts)
    torch.testing.assert_close(nss(prediction, fixations), nss(prediction, counts))
    once = fixations.once()
    torch.testing.assert_close(nss(prediction, once), nss(prediction, counts > 0))
    assert not torch.equal(nss(prediction, once), nss(prediction, counts))


@pytest.mark.parametrize("metric", [cc, nss])
def test_scale_and_offset_of_the_prediction_do_not_matter(metric: Callable[[Tensor, Tensor], Tensor]) -> None:
    prediction, truth = maps(), maps(sparse=True)
    torch.testing.assert_close(metric(7 * prediction - 3, truth), metric(prediction, truth))
    torch.testing.assert_close(metric(-prediction, truth), -metric(prediction, truth))


def test_scales_of_both_maps_do_not_matter_to_kl() -> None:
    prediction, truth = maps(), maps()
    torch.testing.assert_close(kl_divergence(7 * prediction, truth / 9), kl_divergence(prediction, truth))


def test_a_map_agrees_with_itself() -> None:
    truth = maps()
    torch.testing.assert_close(cc(truth, truth), torch.ones(4, dtype=torch.float64))
    assert kl_divergence(truth, truth).abs().max() < 1e-12
    assert (kl_divergence(maps(), truth) > 0).all()


@pytest.mark.parametrize("metric", [cc, nss])
def test_what_is_undefined_is_nan(metric: Callable[[Tensor, Tensor], Tensor]) -> None:
    truth = maps(sparse=True, count=2)
    assert metric(torch.full_like(truth, 0.5), truth).isnan().all()
    truth[1] = 0  # a constant density, and no fixations
    assert metric(maps(count=2), truth).isnan().tolist() == [False, True]


@pytest.mark.parametrize("metric", [cc, nss, kl_divergence])
def test_gradients_reach_the_prediction_and_are_finite(metric: Callable[[Tensor, Tensor], Tensor]) -> None:
    prediction, truth = maps(count=2), maps(sparse=True, count=2)
    prediction[0, 0, 0] = 0.0
    assert torch.autograd.gradcheck(lambda p: metric(p, truth), maps(count=2).requires_grad_())
    single = prediction.float().requires_grad_()
    metric(single, truth.float()).sum().backward()
    assert single.grad is not None
    assert single.grad.isfinite().all()
    assert single.grad.any()


def test_constant_maps_are_recognised_in_spite_of_rounding() -> None:
    for value in (0.1, 1 / 3, 1e-20, 1e6):
        constant = torch.full((1, 360, 640), value)
        assert cc(constant, torch.rand(1, 360, 640)).isnan()
        assert nss(constant, torch.ones(1, 360, 640)).isnan()
        assert sim(constant, torch.rand(1, 360, 640)).isnan()
    almost = constant.clone()
    almost[0, 0, 0] *= 1.01
    assert cc(almost, almost).item() == pytest.approx(1, abs=1e-3)


def test_nan_in_a_map_gives_nan_for_that_map_only() -> None:
    prediction, truth, counts = maps(), maps(), maps(sparse=True)
    prediction[2, 0, 0] = torch.nan
    scores = (
        cc(prediction, truth),
        sim(prediction, truth),
        nss(prediction, counts),
        nss(prediction, Fixations.from_maps(counts)),
        kl_divergence(prediction, truth),
        information_gain(prediction, counts, truth),
    )
    for values in scores:
        assert values.isnan().tolist() == [False, False, True, False]


def test_zero_maps_and_no_fixations_are_undefined() -> None:
    zero, truth = torch.zeros(1, 2, 2), torch.rand(1, 2, 2)
    assert sim(zero, truth, normalise="sum").isnan()
    assert kl_divergence(zero, truth).isnan()
    assert information_gain(truth, zero, truth).isnan()
    assert information_gain(zero, torch.ones(1, 2, 2), truth).isnan()


def test_half_precision_and_integers_are_scored_in_float32() -> None:
    prediction, truth = maps(), maps()
    expected = cc(prediction.half().float(), truth.half().float())
    torch.testing.assert_close(cc(prediction.half(), truth.half()), expected)
    assert cc((prediction * 255).byte(), (truth * 255).byte()).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: cc(m, m[:, :5]), InputShapeError, "Resize the prediction"),
        (lambda m: cc(m[0], m[0]), InputShapeError, r"\(B, H, W\), got \(6, 7\)"),
        (lambda m: nss(m, m[:2]), InputShapeError, r"\(2, 6, 7\), the prediction is \(4, 6, 7\)"),
        (lambda m: nss(m, Fixations.from_maps(m[:, :5] > 0.5)), InputShapeError, "Resize the prediction"),
        (lambda m: information_gain(m, m > 0.5, m[:3]), InputShapeError, "same shape"),
        (lambda m: sim(m, m, normalise="max"), UnknownNameError, "Known: minmax, sum"),
    ],
)
def test_wrong_shapes_and_names_are_refused(
    call: Callable[[Tensor], Tensor], error: type[HD2SError], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(maps())
