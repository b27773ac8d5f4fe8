"""Train, compare and judge chest X-ray classifiers with PyTorch Lightning and Hydra."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xray_lightning.predictor import Prediction, Predictor, load

__all__ = ["Prediction", "Predictor", "__version__", "load"]
__version__ = version("xray-lightning")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from xray_lightning import predictor  # PyTorch takes seconds to import, which commands' --help need not wait for

    return getattr(predictor, name)
