"""UCF Sports with gaze: clips of nine sports, watched by 16 people.

Layout: `training/Diving-Side-005/{images,maps,fixation}/*.png`, `testing/...`.
"""

from __future__ import annotations

from pathlib import Path

from hd2s.data.datasets import shots
from hd2s.data.datasets.base import Found, Layout
from hd2s.weights.catalog import GAZE_LICENSE

FPS = 10.0

_ACTIONS = "Diving|Golf|Kicking|Lifting|Riding|Run|SkateBoarding|Swing|Walk"


def recognise(root: Path) -> bool:
    """Tell by the names of shots."""
    return shots.names_match(root, rf"({_ACTIONS})[A-Za-z-]*-\d+$")


def read(root: Path, split: str) -> Found:
    """List the shots of a split."""
    return shots.read(root, split, "ucfsports", FPS)


LAYOUT = Layout(
    name="ucfsports",
    title="UCF Sports",
    splits=tuple(shots.FOLDERS),
    description=f"{shots.DESCRIPTION}, shots named Diving-Side-001",
    license=GAZE_LICENSE,
    citation="Mathe, Sminchisescu: Actions in the Eye, TPAMI 2015; Rodriguez, Ahmed, Shah, CVPR 2008",
    recognise=recognise,
    read=read,
)
