"""What the conventions of benchmarks change, measured on validation images of the gaze pack with hd2s-lite.

python experiments/metrics.py --root path/to/gaze
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import hd2s
from hd2s.data.datasets import gaze
from hd2s.data.transforms import SIGMA_FRACTION, density_map, fixation_map
from hd2s.inference.engines import open_engine
from hd2s.metrics.functional import Fixations, auc_borji, auc_judd, auc_shuffled, cc, nss, quantise, sim


def rows(still: gaze.Still, map_: torch.Tensor, pool: Fixations, key: int) -> dict[str, float]:
    """Scores of one image under each convention."""
    size = (map_.shape[1], map_.shape[2])
    counts = fixation_map(still.points, *size)
    sigma = SIGMA_FRACTION * size[1]
    g = torch.from_numpy(density_map(counts, (sigma, sigma)))[None].double()
    each = Fixations.from_maps(torch.from_numpy(counts)[None])
    once, coarse, keys = each.once(), quantise(map_), torch.tensor([key])
    seeds = [auc_shuffled(map_, each, pool, seed=s, keys=keys).item() for s in range(5)]
    scores = {
        "SIM, shifted to minimum 0": sim(map_, g),
        "SIM, divided by the sum only": sim(map_, g, normalise="sum"),
        "CC": cc(map_, g),
        "CC, 8 bits": cc(coarse, g),
        "NSS, coincident fixations count each": nss(map_, each),
        "NSS, count once": nss(map_, once),
        "NSS, 8 bits": nss(coarse, each),
        "AUC-J, count each": auc_judd(map_, each),
        "AUC-J, count once": auc_judd(map_, once),
        "AUC-J, 8 bits": auc_judd(coarse, each),
        "AUC-B": auc_borji(map_, each, keys=keys),
        "s-AUC, pool with multiplicity": auc_shuffled(map_, each, pool, keys=keys),
        "s-AUC, union": auc_shuffled(map_, once, pool.once(), keys=keys),
    }
    return {name: value.item() for name, value in scores.items()} | {
        "s-AUC of a frame, standard deviation over seeds": float(np.std(seeds, ddof=1))
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--root", type=Path, required=True, help="the gaze pack")
    root = parser.parse_args().root
    engine = open_engine(hd2s.load("hd2s-lite"), precision="float32")
    stills = gaze.stills(root, "validation")
    maps = [next(iter(hd2s.predict(still.path, model=engine))).saliency for still in stills]
    relative = [still.points / map_.shape[::-1] for still, map_ in zip(stills, maps, strict=True)]
    found = []
    for i, (still, saliency) in enumerate(zip(stills, maps, strict=True)):
        size = (saliency.shape[0], saliency.shape[1])
        others = np.concatenate([*relative[:i], *relative[i + 1 :]])
        pool = Fixations.from_points([others], size, picture_hw=(1, 1), outside="drop")
        map_ = torch.from_numpy(np.ascontiguousarray(saliency))[None].double()
        found.append(rows(still, map_, pool, i))
    table = Table("convention", "mean", title=f"{len(found)} images")
    for name in found[0]:
        table.add_row(name, f"{np.nanmean([row[name] for row in found]):.4f}")
    Console().print(table)


if __name__ == "__main__":
    main()
