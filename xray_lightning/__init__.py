"""Train, compare and judge chest X-ray classifiers with PyTorch Lightning and Hydra."""

from importlib.metadata import version

__version__ = version("xray-lightning")
