"""The conventions of published benchmarks, which change numbers and so go into every report.

What a benchmark has not published is said to be so, and what is done here instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from hd2s.errors import UnknownNameError
from hd2s.metrics.functional import Normalisation


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How one benchmark compares maps.

    Attributes:
        name: Name of the preset.
        metrics: Names of its metrics, as in `METRICS` of hd2s.metrics.modules.
        size_hw: Height and width at which maps are compared; None for those of each ground-truth map.
        quantise: True if predictions are rounded to 8 bits first.
        multiplicity: True if coincident fixations count each, False if a fixated pixel counts once.
        sim: Normalisation of the maps in SIM.
        shuffled: Where the negatives of the shuffled AUC come from; empty if it is not measured.
        splits: Draws of negatives to average over.
        seed: Of these draws; no benchmark has published one.
        frames: Which frames are scored.
        source: Where the conventions are from.
    """

    name: str
    metrics: tuple[str, ...]
    size_hw: tuple[int, int] | None
    quantise: bool
    multiplicity: bool
    sim: Normalisation
    shuffled: str
    splits: int = 100
    seed: int = 0
    frames: str
    source: str

    def describe(self) -> str:
        """Lines for a report.

        Example:
            >>> print(find("dhf1k").describe().splitlines()[1])
            compared at: 360 x 640
        """
        size = (
            "size of the ground truth" if self.size_hw is None else f"{self.size_hw[0]} x {self.size_hw[1]}"
        )
        draws = f"{self.shuffled}; {self.splits} splits with as many negatives as fixations, seed {self.seed}"
        lines = {
            "preset": f"{self.name} ({self.source})",
            "compared at": size,
            "predictions": "rounded to 8 bits" if self.quantise else "as they are",
            "coincident fixations": "count each" if self.multiplicity else "count once",
            "SIM": "each map shifted to minimum 0, divided by its sum"
            if self.sim == "minmax"
            else "each map divided by its sum",
            "negatives of s-AUC": draws if self.shuffled else "not measured",
            "frames": self.frames,
        }
        return "\n".join(f"{key}: {value}" for key, value in lines.items())


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="dhf1k",
            metrics=("auc_judd", "sim", "auc_shuffled", "cc", "nss"),
            size_hw=(360, 640),
            quantise=True,
            multiplicity=False,
            sim="minmax",
            shuffled="union of the fixation maps of other videos",
            frames="all; the benchmark's own tool scores a subset that is not published",
            source="Wang et al., CVPR 2018, with MIT's code",
        ),
        *(
            Preset(
                name=name,
                metrics=("cc", "sim", "nss", "auc_judd"),
                size_hw=None,
                quantise=True,
                multiplicity=True,
                sim="minmax",
                shuffled="",
                frames="all",
                source=f"msu-video-group/{repository}: bench.py reads each map min-max normalised before SIM "
                "divides by the sum",
            )
            for name, repository in (
                ("aim2024", "ECCVW24_Saliency_Prediction"),
                ("ntire2026", "NTIRE26_Saliency_Prediction"),
            )
        ),
        Preset(
            name="mit",
            metrics=("auc_judd", "sim", "auc_borji", "auc_shuffled", "cc", "nss", "kld"),
            size_hw=None,
            quantise=True,
            multiplicity=False,
            sim="minmax",
            shuffled="union of the fixation maps of 10 other pictures; which ones is not published",
            frames="all",
            source="Bylinskii et al., TPAMI 2019; cvzoya/saliency, code_forMetrics",
        ),
    )
}


def find(name: str) -> Preset:
    """Look a preset up.

    Raises:
        UnknownNameError: There is none of this name.

    Example:
        >>> find("ntire2026").multiplicity
        True
        >>> find("dhf")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        hd2s.errors.UnknownNameError: Unknown preset 'dhf'. Did you mean 'dhf1k'? Known: ...
    """
    if name not in PRESETS:
        raise UnknownNameError.among("preset", name, PRESETS)
    return PRESETS[name]
