"""hd2s: predict where people look in a video, frame by frame.

The public door. Names are loaded at their first use, so that `import hd2s` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hd2s import errors as errors
    from hd2s.evaluation.run import evaluate as evaluate
    from hd2s.inference.pipeline import predict as predict
    from hd2s.inference.pipeline import render as render
    from hd2s.inference.predictor import Predictor as Predictor
    from hd2s.inference.writers import Style as Style
    from hd2s.models import load as load
    from hd2s.types import InputSpec as InputSpec
    from hd2s.types import SaliencyFrame as SaliencyFrame
    from hd2s.types import VideoInfo as VideoInfo

_HOME = {
    "InputSpec": "hd2s.types",
    "Predictor": "hd2s.inference.predictor",
    "SaliencyFrame": "hd2s.types",
    "Style": "hd2s.inference.writers",
    "VideoInfo": "hd2s.types",
    "evaluate": "hd2s.evaluation.run",
    "load": "hd2s.models",
    "predict": "hd2s.inference.pipeline",
    "render": "hd2s.inference.pipeline",
}
__version__ = "0.1.0"
__all__ = [
    "InputSpec",
    "Predictor",
    "SaliencyFrame",
    "Style",
    "VideoInfo",
    "__version__",
    "errors",
    "evaluate",
    "load",
    "predict",
    "render",
]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("hd2s.errors")
    if name not in _HOME:
        raise AttributeError(f"module 'hd2s' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
