"""What is measured and how: a benchmark's conventions, the metrics, and which frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hd2s.errors import InputShapeError, UnknownNameError
from hd2s.metrics import presets
from hd2s.metrics.presets import Preset

GRID = (360, 640)  # rows and columns on which the fixations of other videos are counted


@dataclass(frozen=True)
class Metric:
    """A metric as reports show it.

    Attributes:
        title: Its usual name.
        higher: Whether more is better.
        of: What it compares predictions with: "density" or "fixations".
    """

    title: str
    higher: bool
    of: str


METRICS = {
    "cc": Metric("CC", True, "density"),
    "sim": Metric("SIM", True, "density"),
    "kld": Metric("KLD", False, "density"),
    "nss": Metric("NSS", True, "fixations"),
    "ig": Metric("IG", True, "fixations"),
    "auc_judd": Metric("AUC-J", True, "fixations"),
    "auc_borji": Metric("AUC-B", True, "fixations"),
    "auc_shuffled": Metric("s-AUC", True, "fixations"),
}
PLAIN = Preset(
    name="plain",
    metrics=("cc", "sim", "kld", "nss", "ig", "auc_judd", "auc_shuffled"),
    size_hw=None,
    quantise=False,
    multiplicity=True,
    sim="minmax",
    shuffled="fixations of the other videos",
    frames="all",
    source="of no benchmark",
)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """All that decides on a number besides the prediction and the data.

    Attributes:
        preset: A benchmark's conventions.
        metrics: Names in `METRICS`.
        every: Every how many frames one is scored, from the first on.
    """

    preset: Preset
    metrics: tuple[str, ...]
    every: int = 1

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Rows and columns on which the fixations of other videos are counted."""
        return self.preset.size_hw or GRID

    def settings(self) -> dict[str, str]:
        """Say in words what was done."""
        lines = dict(line.split(": ", 1) for line in self.preset.describe().splitlines())
        lines["frames"] = "all" if self.every == 1 else f"one of {self.every}, from the first on"
        if "auc_shuffled" in self.metrics:
            rows, columns = self.grid_hw
            counted = "each fixation counts" if self.preset.multiplicity else "each cell counts once"
            lines["negatives of s-AUC"] = (
                f"fixations in all other videos of the split, on a grid of {rows} x {columns}, {counted}; "
                f"{self.preset.splits} splits with as many as there are fixations, seed {self.preset.seed}"
            )
        else:
            lines["negatives of s-AUC"] = "not measured"
        if "ig" in self.metrics:
            lines["baseline of IG"] = "the centre prior"
        return lines


def choose(data_name: str, preset: str | None, metrics: Sequence[str] | None, every: int) -> Protocol:
    """Choose a protocol: the named preset, or that of the benchmark of the data set, or `PLAIN`.

    Raises:
        UnknownNameError: There is no such preset or metric.
        InputShapeError: `every` is not positive.

    Example:
        >>> choose("dhf1k", None, None, 1).preset.name, choose("gaze", None, ["cc"], 1).metrics
        ('dhf1k', ('cc',))
    """
    chosen = PLAIN
    if preset is not None and preset != PLAIN.name:
        if preset not in presets.PRESETS:
            raise UnknownNameError.among("preset", preset, (*presets.PRESETS, PLAIN.name))
        chosen = presets.find(preset)
    elif preset is None and data_name in presets.PRESETS:
        chosen = presets.find(data_name)
    for name in metrics or ():
        if name not in METRICS:
            raise UnknownNameError.among("metric", name, METRICS)
    if every < 1:
        raise InputShapeError(f"Every how many frames one is scored must be 1 or more, got {every}.")
    return Protocol(preset=chosen, metrics=tuple(dict.fromkeys(metrics or chosen.metrics)), every=every)
