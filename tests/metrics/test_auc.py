"""Areas under ROC curves against cases worked by hand and straight loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hd2s.errors import InputShapeError
from hd2s.metrics.draws import uniform
from hd2s.metrics.functional import Fixations, auc_borji, auc_judd, auc_shuffled
from metrics.oracles import loop_auc_judd, loop_auc_splits


def ties(count: int = 6) -> tuple[Tensor, Tensor]:
    """Maps (count, 6, 7) of few levels and their counts of fixations."""
    prediction = torch.randint(0, 5, (count, 6, 7)).double()
    fixations = (torch.rand(count, 6, 7) * 4 - 2.5).clamp(min=0).ceil().long()
    fixations[:, 0, 0] = 2
    return prediction, fixations


@pytest.mark.parametrize(
    ("prediction", "fixations", "expected"),
    [
        ([[1, 2], [3, 4]], [[0, 0], [0, 1]], 1.0),
        ([[1, 2], [3, 4]], [[0, 0], [1, 0]], 1 - 1 / 6),  # over (1/3, 1)
        ([[1, 2], [3, 4]], [[1, 0], [0, 0]], 0.5),  # straight from (0, 0) to (1, 1)
        ([[1, 2], [3, 4]], [[0, 1], [0, 3]], 1 - 1 / 16),  # (0, 3/4), (1/2, 1)
        ([[2, 2], [1, 1]], [[1, 0], [0, 0]], 1 - 1 / 6),  # the tie counts as a false positive: (1/3, 1)
        ([[7, 7], [7, 7]], [[1, 0], [0, 0]], 0.5),
    ],
)
def test_auc_judd_by_hand(prediction: list[list[float]], fixations: list[list[int]], expected: float) -> None:
    value = auc_judd(torch.tensor([prediction], dtype=torch.float64), torch.tensor([fixations]))
    assert value.item() == pytest.approx(expected, abs=1e-12)


def test_auc_judd_equals_a_loop_over_thresholds() -> None:
    for prediction, fixations in (ties(), (torch.randn(6, 6, 7).double(), ties()[1])):
        expected = [loop_auc_judd(p, f) for p, f in zip(prediction.numpy(), fixations.numpy(), strict=True)]
        np.testing.assert_allclose(auc_judd(prediction, fixations), expected, atol=1e-12)
        assert auc_judd(prediction.float(), fixations).dtype == torch.float32


def test_sampled_auc_by_hand() -> None:
    prediction = torch.tensor([[[0.0, 0.25], [0.55, 1.0]]])
    fixations = torch.tensor([[[0, 0], [1, 0]]])
    for pixel, expected in enumerate((1.0, 1.0, 0.5, 0.0)):  # all negatives are in one pixel
        negatives = torch.zeros(4, dtype=torch.int64)
        negatives[pixel] = 5
        assert auc_shuffled(prediction, fixations, negatives.view(1, 2, 2)).item() == expected
    near = torch.tensor([[[0.0, 0.51], [0.55, 1.0]]])  # between the same two thresholds
    assert auc_shuffled(near, fixations, torch.tensor([[[0, 1], [0, 0]]])).item() == 0.5


@pytest.mark.parametrize("shuffled", [False, True])
def test_sampled_auc_equals_a_loop_over_splits_and_thresholds(shuffled: bool) -> None:
    prediction, fixations = ties()
    prediction /= 7  # thresholds fall on some of the levels
    negatives = ties()[1]
    keys, splits = torch.arange(6) + 40, 5
    expected = []
    for p, f, n, key in zip(prediction.numpy(), fixations.numpy(), negatives.numpy(), keys, strict=True):
        numbers = uniform(3, key[None], splits * int(f.sum()))[0].numpy()
        pool = np.repeat(np.arange(42), n.ravel() if shuffled else 1)
        pixels = pool[np.floor(numbers * len(pool)).astype(int)].reshape(splits, -1)
        expected.append(loop_auc_splits(p, f, pixels.tolist()))
    settings = {"seed": 3, "keys": keys, "splits": splits}
    if shuffled:
        values = auc_shuffled(prediction, fixations, negatives, **settings)
    else:
        values = auc_borji(prediction, fixations, **settings)
    np.testing.assert_allclose(values, expected, atol=1e-12)


def test_a_map_scores_the_same_alone_and_in_any_batch() -> None:
    prediction, fixations = ties()
    negatives = Fixations.from_maps(ties()[1])
    keys = torch.arange(6)
    pool = Fixations.from_maps(ties(1)[1])
    for values in (
        auc_borji(prediction, fixations, keys=keys),
        auc_shuffled(prediction, fixations, negatives, keys=keys),
        auc_shuffled(prediction, fixations, pool, keys=keys),
        auc_judd(prediction, fixations),
    ):
        assert values.unique().numel() > 3
    alone = [auc_borji(prediction[i : i + 1], fixations[i : i + 1], keys=keys[i : i + 1]) for i in range(6)]
    assert torch.equal(torch.cat(alone), auc_borji(prediction, fixations, keys=keys))
    other = auc_borji(prediction, fixations, keys=keys, seed=1)
    assert not torch.equal(other, torch.cat(alone))
    torch.testing.assert_close(other, torch.cat(alone), atol=0.05, rtol=0)


def test_draws_are_uniform_and_independent() -> None:
    numbers = uniform(5, torch.arange(100), 1000)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    shares = torch.histc(numbers.float(), 10, 0, 1) / numbers.numel()
    assert (shares - 0.1).abs().max() < 0.005
    assert torch.corrcoef(numbers[:20]).fill_diagonal_(0).abs().max() < 0.15
    assert torch.equal(uniform(5, torch.arange(100), 10), numbers[:, :10])
    # From SplitMix64 written with Python's integers.
    assert uniform(0, torch.tensor([7]), 2)[0].tolist() == [0.5243459416779314, 0.30213903321684277]


def test_what_is_undefined_is_nan() -> None:
    prediction, fixations = ties(3)
    prediction[0] = 0.5
    fixations[1] = 0
    assert auc_borji(prediction, fixations).isnan().tolist() == [True, True, False]
    assert auc_shuffled(prediction, fixations, ties(1)[1]).isnan().tolist() == [True, True, False]
    assert auc_judd(prediction, fixations).isnan().tolist() == [False, True, False]
    assert auc_judd(prediction, torch.ones_like(fixations)).isnan().all()
    assert auc_shuffled(prediction, fixations, torch.zeros(1, 6, 7)).isnan().all()
    negatives = ties(3)[1]
    negatives[2] = 0
    assert auc_shuffled(prediction, fixations, negatives)[2].isnan()
    assert auc_borji(prediction, torch.zeros_like(fixations)).isnan().all()


@pytest.mark.parametrize("fixated", [True, False])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_map_that_is_not_finite_scores_nan_and_leaves_the_others_alone(bad: float, fixated: bool) -> None:
    prediction, fixations = ties(2)
    expected = auc_judd(prediction, fixations)[1]
    y, x = ((fixations[0] > 0) == fixated).nonzero()[0]
    prediction[0, y, x] = bad
    assert auc_judd(prediction, fixations)[0].isnan()
    assert auc_judd(prediction, fixations)[1] == expected
    assert auc_borji(prediction, fixations).isnan().tolist() == [True, False]


def test_negatives_of_another_size_are_refused() -> None:
    prediction, fixations = ties(3)
    with pytest.raises(InputShapeError, match=r"Scale them with Fixations\.from_points"):
        auc_shuffled(prediction, fixations, torch.ones(1, 7, 6))
    with pytest.raises(InputShapeError, match="for the 3 maps"):
        auc_shuffled(prediction, fixations, torch.ones(2, 6, 7))


@pytest.mark.needs_cuda
def test_cuda_gives_the_same() -> None:
    prediction, fixations = ties()
    moved = prediction.cuda(), Fixations.from_maps(fixations).to(torch.device("cuda"))
    torch.testing.assert_close(auc_judd(*moved).cpu(), auc_judd(prediction, fixations))
    torch.testing.assert_close(auc_borji(*moved).cpu(), auc_borji(prediction, fixations))
    torch.testing.assert_close(
        auc_shuffled(*moved, moved[1]).cpu(), auc_shuffled(prediction, fixations, fixations)
    )
