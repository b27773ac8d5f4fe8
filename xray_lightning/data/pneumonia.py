"""Kermany et al., "Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning", Cell 2018."""

from typing import ClassVar

from xray_lightning.data.catalog import Layout, kermany_patient, kermany_subtype
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.download import KaggleSource


def _official(folder: str) -> str:
    """Kaggle's 16-image val is too small to choose anything on, so it counts as training data."""
    return "test" if folder.startswith("test/") else "train"


class PneumoniaDataModule(XRayDataModule):
    """Pediatric radiographs, NORMAL 0 and PNEUMONIA 1. Test is the official folder; the rest is split by patient.

    Reads `{train,val,test}/{NORMAL,PNEUMONIA}` alone: the archive's second copy in `chest_xray/` and its
    `__MACOSX/` entries are not images.
    """

    layout = Layout(
        folders={c: [f"{split}/{c}" for split in ("train", "val", "test")] for c in ("NORMAL", "PNEUMONIA")},
        optional=frozenset({"val/NORMAL", "val/PNEUMONIA"}),
        official=_official,
        patient=kermany_patient,
        subtype=kermany_subtype,
    )
    kaggle = KaggleSource(
        handle="paultimothymooney/chest-xray-pneumonia",
        folder="chest_xray",
        counts={
            "train/NORMAL": 1341,
            "train/PNEUMONIA": 3875,
            "val/NORMAL": 8,
            "val/PNEUMONIA": 8,
            "test/NORMAL": 234,
            "test/PNEUMONIA": 390,
        },
    )
    published_test: ClassVar = 624
    reference: ClassVar = {
        "cnn": {"accuracy": 0.7756, "recall": 0.9949, "precision": 0.7376, "f1": 0.8472},
        "resnet50": {"accuracy": 0.8542, "recall": 0.9821, "precision": 0.8201, "f1": 0.8938},
    }
