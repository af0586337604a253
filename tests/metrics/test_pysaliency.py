"""Metrics against numbers of pysaliency (Kümmerer et al.), which the MIT/Tübingen benchmark is made with.

They were stored by experiments/pysaliency_golden.py: pysaliency does not import beside the versions that
hd2s is tested with.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hd2s.metrics.functional import Fixations, auc_judd, cc, information_gain, kl_divergence, nss, sim

GOLDEN = Path(__file__).parents[1] / "golden" / "pysaliency.npz"


@pytest.mark.parametrize("kind", ["random", "levels", "sparse", "one pixel", "offset", "constant"])
def test_scores_are_those_of_pysaliency(kind: str) -> None:
    with np.load(GOLDEN) as golden:
        expected = golden[f"scores/{kind}"].T
        prediction, density = (torch.from_numpy(golden[name]) for name in (f"maps/{kind}", "densities"))
        points = list(golden["points"])
    size = (prediction.shape[1], prediction.shape[2])
    fixations = Fixations.from_points(points, size)
    assert int(fixations.counts.max()) > 1
    area = size[0] * size[1]
    n_minus_1 = np.sqrt(1 - 1 / area)  # pysaliency's standard deviation divides by n
    if kind == "constant":  # it calls these 0, here they are undefined
        assert expected[0].tolist() == expected[4].tolist() == [0, 0, 0]
        expected[[0, 2, 4]] = np.nan
    values = {
        "CC": (cc(prediction, density), expected[0]),
        "SIM": (sim(prediction, density, normalise="sum"), expected[1]),
        "SIM after the shift": (sim(prediction, density), expected[2]),
        "KLD": (kl_divergence(prediction, density), expected[3]),
        "NSS": (nss(prediction, fixations), expected[4] * n_minus_1),
        "AUC-Judd": (auc_judd(prediction, fixations), expected[5]),
    }
    if prediction.min() > 0:  # its regularisation is another one, which matters at 0
        values["IG"] = (information_gain(prediction, fixations, density), expected[6])
    for name, (ours, theirs) in values.items():
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-6, atol=1e-6, err_msg=name)
