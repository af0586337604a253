"""Show a video beside its saliency as a small animated WebP; it made the picture in README.md.

python examples/side_by_side.py examples/bigbuckbunny.mp4 docs/overlay.webp
"""

from __future__ import annotations

import sys

import cv2
import numpy as np
from PIL import Image

import hd2s
from hd2s.data.video import open_source

WIDTH, EVERY = 400, 2  # pixels of each half; frames

video, picture = sys.argv[1:]
halves = []
with open_source(video) as source:
    height = round(WIDTH * source.info.height / source.info.width)
    fps = float(source.info.fps)
    for frame, result in zip(source, hd2s.predict(video), strict=True):
        if frame.index % EVERY == 0:
            image = frame.rgb(height, WIDTH)
            halves.append((image, cv2.resize(result.saliency, (WIDTH, height), interpolation=cv2.INTER_AREA)))

peak = max(saliency.max() for _, saliency in halves)
pictures = []
for image, saliency in halves:
    share = np.clip(saliency / peak, 0, 1)
    heat = cv2.applyColorMap((255 * share).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    opacity = 0.7 * np.minimum(1, 2 * share)[..., None]
    overlay = (opacity * heat + (1 - opacity) * image).astype(np.uint8)
    pictures.append(Image.fromarray(np.hstack((image, overlay))))
pictures[0].save(
    picture, save_all=True, append_images=pictures[1:], duration=round(1000 * EVERY / fps), loop=0, quality=60
)
