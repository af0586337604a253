"""Where hd2s keeps what can be made or fetched again."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder() -> Path:
    """Return the folder for what can be made again: `$HD2S_CACHE` or the platform's cache folder."""
    chosen = os.environ.get("HD2S_CACHE")
    return Path(chosen) if chosen else user_cache_path("hd2s", appauthor=False)
