"""Metrics against cases worked by hand and against plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from hd2s.metrics.functional import EPSILON, cc, kl_divergence, nss

Array = NDArray[np.float64]


def loop_cc(p: Array, q: Array) -> float:
    return float(np.corrcoef(p.ravel(), q.ravel())[0, 1])


def loop_nss(p: Array, fixations: Array) -> float:
    mean = sum(p.flat) / p.size
    std = math.sqrt(sum((v - mean) ** 2 for v in p.flat) / (p.size - 1))
    total = sum(count * (v - mean) / std for v, count in zip(p.flat, fixations.flat, strict=True))
    return total / sum(fixations.flat)


def loop_kl(p: Array, t: Array) -> float:
    return sum(
        (b / t.sum()) * math.log(EPSILON + (b / t.sum()) / (a / p.sum() + EPSILON))
        for a, b in zip(p.flat, t.flat, strict=True)
    )


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
