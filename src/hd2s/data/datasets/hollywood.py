"""Hollywood-2 with gaze: shots of film scenes, watched by 16 people.

Layout: `training/actioncliptrain00001_1/{images,maps,fixation}/*.png`, `testing/actioncliptest...`; the
last number of a shot's name counts the shots of a clip, whose frames are numbered through.
"""

from __future__ import annotations

from pathlib import Path

from hd2s.data.datasets import shots
from hd2s.data.datasets.base import Found, Layout
from hd2s.weights.catalog import GAZE_LICENSE

FPS = 24.0


def recognise(root: Path) -> bool:
    """Tell by the names of shots."""
    return shots.names_match(root, "actionclip")


def read(root: Path, split: str) -> Found:
    """List the shots of a split."""
    return shots.read(root, split, "hollywood", FPS)


LAYOUT = Layout(
    name="hollywood",
    title="Hollywood-2",
    splits=tuple(shots.FOLDERS),
    description=f"{shots.DESCRIPTION}, shots named actioncliptrain00001_1",
    license=GAZE_LICENSE,
    citation="Mathe, Sminchisescu: Actions in the Eye, TPAMI 2015; Marszałek, Laptev, Schmid, CVPR 2009",
    recognise=recognise,
    read=read,
)
