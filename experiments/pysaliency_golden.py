"""Score small maps with pysaliency and store maps and scores for the tests.

    python experiments/pysaliency_golden.py tests/golden/pysaliency.npz

pysaliency 0.2.22 comes as source and needs a C compiler, `pkg_resources` (setuptools < 82) and `numpy.trapz`
(numpy < 2.4), which are not what hd2s is tested with: run this in an environment of its own.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

if not hasattr(np, "trapz"):  # gone in numpy 2.4
    np.trapz = np.trapezoid  # noqa: NPY201

from pysaliency import metrics, roc, saliency_map_models

HEIGHT, WIDTH, POINTS, MAPS = 12, 15, 20, 3  # coincident fixations happen
EPSILON = 2.2204e-16

Array = NDArray[np.float64]


def predictions(rng: np.random.Generator) -> dict[str, Array]:
    """Maps (MAPS, HEIGHT, WIDTH) of several kinds."""
    values = rng.random((MAPS, HEIGHT, WIDTH))
    return {
        "random": values,
        "levels": np.floor(values * 4) / 4,
        "sparse": np.where(values > 0.9, values, 0),
        "one pixel": (values == values.max((1, 2), keepdims=True)).astype(float),
        "offset": 1000 + values,
        "constant": np.ones_like(values),
    }


def scores(prediction: Array, density: Array, points: NDArray[np.int64]) -> list[float]:
    """CC, SIM, SIM after the shift, KLD, NSS, AUC-Judd, IG."""
    xs, ys = points.T
    negatives = saliency_map_models._get_unfixated_values(prediction, ys, xs)
    p, base = (metrics.convert_saliency_map_to_density(m, EPSILON) for m in (prediction, density))
    return [
        metrics.CC(prediction, density),
        metrics.SIM(prediction, density),
        metrics.SIM(prediction - prediction.min(), density - density.min()),
        metrics.MIT_KLDiv(prediction, density),
        metrics.NSS(prediction, xs, ys).mean(),
        roc.general_roc(prediction[ys, xs], negatives, judd=1)[0],
        np.mean(np.log2(p[ys, xs]) - np.log2(base[ys, xs])),
    ]


def main() -> None:
    """Write the file."""
    rng = np.random.default_rng(7)
    maps = predictions(rng)
    densities = rng.random((MAPS, HEIGHT, WIDTH))
    points = rng.integers(0, (WIDTH, HEIGHT), (MAPS, POINTS, 2))
    content: dict[str, Any] = {"densities": densities, "points": points}
    with np.errstate(divide="ignore"):  # logarithms of densities that are 0
        for name, batch in maps.items():
            content[f"maps/{name}"] = batch
            content[f"scores/{name}"] = np.array(
                [scores(*row) for row in zip(batch, densities, points, strict=True)]
            )
    made = f"pysaliency {version('pysaliency')}, numpy {np.__version__}, {Path(__file__).name}"
    np.savez_compressed(sys.argv[1], made_with=made, **content)


if __name__ == "__main__":
    main()
