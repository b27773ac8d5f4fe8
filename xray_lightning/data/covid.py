"""COVID-19 Radiography Database (Chowdhury et al. 2020, Rahman et al. 2021)."""

from dataclasses import replace
from typing import ClassVar

from xray_lightning.data.catalog import Entry, Layout, Radiograph
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.download import KaggleSource


def _source(folder: str) -> str:
    """An audit against the Kermany set finds every image of this folder in Kermany's train folder."""
    return "Kermany" if folder == "Viral Pneumonia" else ""


class CovidDataModule(XRayDataModule):
    """Covid 0, Healthy 1, Lung_infection 2, Pneumonia 3. Test is ceil(15 %) of each class.

    Reads the `images/` folder of each class, or the class folder itself in releases without one; lung masks
    are not images to classify. File names do not tell patients: identical and near-identical images are grouped.
    """

    layout = Layout(
        folders={
            "Covid": ["COVID"],
            "Healthy": ["Normal"],
            "Lung_infection": ["Lung_Opacity"],
            "Pneumonia": ["Viral Pneumonia"],
        },
        source=_source,
    )
    kaggle = KaggleSource(
        handle="tawsifurrahman/covid19-radiography-database",
        folder="COVID-19_Radiography_Dataset",
        counts={"COVID": 3616, "Lung_Opacity": 6012, "Normal": 10192, "Viral Pneumonia": 1345},
    )
    published_test: ClassVar = 3176
    reference: ClassVar = {
        "cnn": {"accuracy": 0.8317, "f1": 0.8488},
        "resnet50": {"accuracy": 0.8780, "f1": 0.8716},
    }


class CovidScreenDataModule(CovidDataModule):
    """The same images, split alike image by image, as a screen's two classes: Healthy 0 and Disease 1, all others.

    A disease's name is its images' `subtype`.
    """

    layout = Layout(
        folders={"Healthy": ["Normal"], "Disease": ["COVID", "Lung_Opacity", "Viral Pneumonia"]},
        source=_source,
    )
    reference: ClassVar = {}

    def entries(self) -> list[Entry]:
        diagnoses = {folder: name for name, folders in CovidDataModule.layout.folders.items() for folder in folders}
        return [replace(entry, subtype=diagnoses[entry.path.split("/")[0]]) for entry in super().entries()]

    def strata(self) -> list[Radiograph]:
        labels = {name: label for label, name in enumerate(CovidDataModule.layout.folders)}
        return [replace(row, label=labels[row.subtype], class_name=row.subtype) for row in self.rows]
