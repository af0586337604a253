"""Show a video beside its overlay as a small animated WebP; it made the picture in README.md.

python examples/side_by_side.py examples/bigbuckbunny.mp4 docs/overlay.webp
"""

from __future__ import annotations

import sys
import tempfile

import numpy as np
from PIL import Image

import hd2s
from hd2s.data.video import open_source

WIDTH, EVERY = 400, 2  # pixels of each half; frames

video, picture = sys.argv[1:]
with tempfile.TemporaryDirectory() as folder:
    overlay = hd2s.render(video, folder).results["overlay"]
    with open_source(video) as left, open_source(overlay) as right:
        height = round(WIDTH * left.info.height / left.info.width)
        duration = round(1000 * EVERY / float(left.info.fps))
        pairs = [(a.rgb(height, WIDTH), b.rgb(height, WIDTH)) for a, b in zip(left, right, strict=True)]
first, *rest = (Image.fromarray(np.hstack(pair)) for pair in pairs[::EVERY])
first.save(picture, save_all=True, append_images=rest, duration=duration, loop=0, quality=60)
