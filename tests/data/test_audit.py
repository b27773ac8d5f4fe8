"""What an audit says of real files with planted faults, as a record, as text, as figures and as a command."""

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from copy import deepcopy
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from PIL import Image

from xray_lightning.data.anatomy import dice
from xray_lightning.data.audit import audit
from xray_lightning.data.audit_figures import films_figure, pairs_figure
from xray_lightning.data.audit_report import report
from xray_lightning.data.covid import CovidDataModule
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.folder import FolderDataModule
from xray_lightning.data.overlap import within
from xray_lightning.data.phantoms import radiograph
from xray_lightning.data.pneumonia import PneumoniaDataModule
from xray_lightning.errors import XRayError

FolderWriter = Callable[..., Path]
Record = dict[str, Any]
FILM, TWIN = "COVID/images/COVID-102.png", "COVID/images/COVID-103.jpg"
FIRST, COPY = "Normal/images/Normal-1.png", "Normal/images/Normal-100.png"
BAD = {"Normal/images/Normal-104.png": "is empty", "Viral Pneumonia/images/Viral Pneumonia-105.png": "is a web page"}
KINDS = {"identical": 0, "near-identical": 0}


@pytest.fixture(scope="module")
def film() -> Image.Image:
    drawn, _ = radiograph(dice("person"), dice("pose"), (224, 280), False, "covid")
    return Image.fromarray(drawn)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, covid_root: Path, pneumonia_root: Path, film: Image.Image) -> Path:
    """Both Kaggle layouts with planted copies, twins and broken files; not to be changed."""
    root = tmp_path_factory.mktemp("planted")
    covid = shutil.copytree(covid_root, root / "COVID-19_Radiography_Dataset")
    kermany = shutil.copytree(pneumonia_root, root / "chest_xray")
    shutil.copy(covid / FIRST, covid / COPY)
    shutil.copy(covid / "COVID/images/COVID-1.png", covid / "Normal/images/Normal-101.png")
    film.save(covid / FILM)
    film.save(covid / TWIN, quality=80)
    for (path, _), content in zip(BAD.items(), ("", "<html>Sign in</html>"), strict=True):
        (covid / path).write_text(content)
    shutil.copy(kermany / "train/PNEUMONIA/person1_bacteria_1.jpeg", kermany / "train/PNEUMONIA/person77_virus_77.jpeg")
    same = "Viral Pneumonia/images/Viral Pneumonia-1.png"
    shutil.copy(covid / same, kermany / "test/PNEUMONIA/person300_virus_1.png")
    film.resize((180, 150)).save(kermany / "test/NORMAL/IM-0300-0001.jpeg", quality=75)
    return root


@pytest.fixture(scope="module")
def covid(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., XRayDataModule]:
    cache = tmp_path_factory.mktemp("cache")

    def build(**settings: Any) -> CovidDataModule:
        defaults = {"root": str(data / "COVID-19_Radiography_Dataset"), "image_size": 16, "cache_dir": str(cache)}
        skip = {"test_fraction": 0.15, "on_bad_image": "skip", "on_leak": "warn"}
        return CovidDataModule("covid", **defaults | skip | settings)

    return build


@pytest.fixture(scope="module")
def pneumonia(data: Path, tmp_path_factory: pytest.TempPathFactory) -> PneumoniaDataModule:
    cache = str(tmp_path_factory.mktemp("cache"))
    return PneumoniaDataModule("pneumonia", str(data / "chest_xray"), image_size=16, cache_dir=cache)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def record(covid: Callable[..., XRayDataModule], pneumonia: PneumoniaDataModule, folder: Path) -> Record:
    """Of covid against pneumonia, with its files in `folder`."""
    return audit(covid(), pneumonia, folder)


def lines_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def tables(text: str) -> list[list[list[str]]]:
    """The cells of each table of a Markdown text as a reader shows them."""
    found: list[list[list[str]]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and token.level == 4 + (token.map is None):
            found[-1][-1].append("".join(child.content for child in token.children or []))
    return found


def test_counts_are_those_of_the_files(record: Record) -> None:
    images = {"Covid": 13, "Healthy": 24, "Lung_infection": 14, "Pneumonia": 8}
    assert {name: sum(side[name] for side in record["images"].values()) for name in images} == images
    assert record["published"] == {
        "COVID": {"published": 3616, "found": 13},
        "Lung_Opacity": {"published": 6012, "found": 14},
        "Normal": {"published": 10192, "found": 25},
        "Viral Pneumonia": {"published": 1345, "found": 9},
    }
    assert record["files"]["Covid"]["formats"] == {"PNG": 12, "JPEG": 1}
    assert record["files"]["Covid"]["commonest_size"] == ["12x12", 11]
    assert record["files"]["Pneumonia"]["sources"] == {"Kermany": 8}
    assert set(record["bad"]) == set(BAD)
    assert all(BAD[path] in problem for path, problem in record["bad"].items())


def test_planted_copies_and_twins_are_found(record: Record, folder: Path) -> None:
    shared = record["shared"]
    assert shared["pairs"] == {"identical": 2, "near-identical": 1}
    assert shared["two classes"] == {"identical": 1, "near-identical": 0}
    assert shared["two patients"] == KINDS
    assert (shared["groups"], shared["largest group"], shared["without a patient"]) == (56, 2, 59)
    pairs = {(line["kind"], *sorted((line["path_a"], line["path_b"]))) for line in lines_of(folder / "shared.csv")}
    assert pairs == {
        ("identical", FIRST, COPY),
        ("identical", "COVID/images/COVID-1.png", "Normal/images/Normal-101.png"),
        ("near-identical", FILM, TWIN),
    }


def test_a_grouped_split_has_no_leak(record: Record) -> None:
    assert record["leaks"] == []
    assert record["shared"]["two splits"] == KINDS | {"same patient": 0, "which": {}}


def test_images_of_the_other_data_set_are_found(record: Record, pneumonia: PneumoniaDataModule, folder: Path) -> None:
    against = record["against"]
    assert against["pairs"] == {"identical": 1, "near-identical": 2}
    assert against["classes"] == {
        "Covid": {"images": 13, "shared": 2, "where": {"NORMAL (test)": 2}},
        "Healthy": {"images": 24, "shared": 0, "where": {}},
        "Lung_infection": {"images": 14, "shared": 0, "where": {}},
        "Pneumonia": {"images": 8, "shared": 1, "where": {"PNEUMONIA (test)": 1}},
    }
    lines = lines_of(folder / against["file"])
    assert len(lines) == 3 and {line["patient_b"] for line in lines} == {"IM-0300", "person300_virus"}
    trained = sum(line["split_a"] == "train" for line in lines)
    assert (against["trained here, tested there"], against["trained there, tested here"]) == (trained, 0)


def test_two_patients_of_one_film_are_found(pneumonia: PneumoniaDataModule, tmp_path: Path) -> None:
    found = audit(pneumonia, None, tmp_path)
    assert found["shared"]["two patients"] == {"identical": 1, "near-identical": 0}
    assert found["shared"]["patients"] == len({row.patient for row in pneumonia.rows})
    assert "1 identical; one film under two patients' names" in report(found)


def test_a_split_file_that_leaks_is_told(covid: Callable[..., XRayDataModule], tmp_path: Path) -> None:
    """A copy in validation and a twin in test, of images in training."""
    sides = {FIRST: "train", COPY: "val", FILM: "train", TWIN: "test"}
    file = tmp_path / "split.csv"
    file.write_text("path,split\n" + "".join(f"{path},{side}\n" for path, side in sides.items()))
    found = audit(covid(split_file=str(file), validation="block"), None, tmp_path)
    assert found["validation"] == "file" and "block of ID numbers" not in report(found)
    assert found["leaks"] == [
        {"images": 1, "of": 1, "side": "val", "in": "train"},
        {"images": 1, "of": 1, "side": "test", "in": "train"},
    ]
    which = {"train and val": 1, "test and train": 1}
    assert found["shared"]["two splits"] == {"identical": 1, "near-identical": 1, "same patient": 0, "which": which}
    assert "1 of 1 test images with their patient, a copy or a twin in train: a **leak**" in report(found)
    assert "*unused*" in report(found) and sum(found["images"]["unused"].values()) == 55


def test_the_reference_split_leaks_patients(pneumonia: PneumoniaDataModule, tmp_path: Path) -> None:
    settings = {"image_size": 16, "cache_dir": str(pneumonia.cache_dir), "split": "reference", "val_fraction": 0.4}
    found = audit(PneumoniaDataModule("pneumonia", str(pneumonia.root), **settings), None, tmp_path)
    assert found["leaks"] and found["shared"]["two splits"]["same patient"] > 0
    listed = [line for line in lines_of(tmp_path / "shared.csv") if line["kind"] == "same patient"]
    assert all(line["patient_a"] == line["patient_b"] != "" for line in listed)
    assert all({line["split_a"], line["split_b"]} == {"train", "val"} for line in listed)


@pytest.mark.parametrize(("validation", "told"), [("random", False), ("block", True)])
def test_a_block_of_validation_is_told(
    pneumonia: PneumoniaDataModule, tmp_path: Path, validation: str, told: bool
) -> None:
    settings = {"image_size": 16, "cache_dir": str(pneumonia.cache_dir), "validation": validation}
    found = audit(PneumoniaDataModule("pneumonia", str(pneumonia.root), **settings), None, tmp_path)
    assert found["validation"] == validation
    assert ("Validation: a block of ID numbers in each class." in report(found)) == told


def test_everything_is_written_and_readable(record: Record, folder: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = (folder / "audit.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse) == record
    assert (folder / "audit.md").read_text(encoding="utf-8") == report(record)
    assert len(lines_of(folder / "catalog.csv")) == 59
    figures = sorted(file.name for file in (folder / "figures").iterdir())
    assert figures == ["films.png", "shared.png", "shared_with_pneumonia.png"]
    for name in figures:
        with Image.open(folder / "figures" / name) as image:
            assert image.format == "PNG" and min(image.size) >= 300 and len(image.convert("L").getcolors()) > 100


def is_readable(figure: Figure) -> bool:
    """Whether nothing reaches over the edge, and no text over another."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    whole = figure.get_tightbbox(canvas.get_renderer())
    inside = min(whole.x0, whole.y0) > -0.01 and whole.x1 < figure.bbox_inches.x1 and whole.y1 < figure.bbox_inches.y1
    axes = figure.findobj(Axes)
    texts = [panel.title for panel in axes] + [panel.xaxis.label for panel in axes if panel.axison]
    legends = [text for legend in figure.findobj(Legend) for text in legend.get_texts()]
    boxes = [text.get_window_extent() for text in [*texts, *legends] if text.get_text()]
    return inside and not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_figures_name_their_axes_and_cut_nothing_off(covid: Callable[..., XRayDataModule], record: Record) -> None:
    data = covid()
    data.catalog()
    assert data.collection is not None
    figure = films_figure(data.collection, data)
    drawn = [axes for axes in figure.findobj(Axes) if axes.axison]
    assert [axes.get_xlabel() for axes in drawn] == [f"{n} (grey value)" for n in ("Brightness", "Contrast", "Border")]
    assert all(axes.get_ylabel() for axes in drawn)
    assert is_readable(figure)
    assert is_readable(pairs_figure(within(data.collection), data, data))


@pytest.mark.parametrize("count", [2, 3, 7, 13])
def test_any_names_and_numbers_of_classes_can_be_shown(tmp_path: Path, write_files: FolderWriter, count: int) -> None:
    """Names that mean something in Markdown or to Matplotlib, and file names that are no UTF-8."""
    odd = ["a|b", "x$^$z", "_under_", "*star*", "`tick`", "[link](x)", "Infiltration_or_consolidation"]
    names = [*odd, *(f"class {n}" for n in range(6))][:count]
    root = write_files(tmp_path / "lungs", [f"{name}/{n}.png" for name in names for n in range(12)])
    (root / os.fsdecode(f"{names[0]}/".encode() + b"\xff`|.png")).write_bytes(b"")
    copy = root / os.fsdecode(f"{names[0]}/".encode() + b"\xfe.png")
    shutil.copy(root / names[0] / "1.png", copy)
    data = FolderDataModule(
        "od|d $a$", str(root), image_size=16, cache_dir=str(tmp_path / "cache"), on_bad_image="skip"
    )
    found = audit(data, None, tmp_path)
    assert list(found["bad"]) == [f"{names[0]}/\\xff`|.png"]
    assert json.loads((tmp_path / "audit.json").read_text(encoding="utf-8")) == found
    counts, shared, *others = tables(report(found))
    assert [row[0] for row in counts] == ["class", *sorted(names, key=str.casefold), "all"]
    assert all(len(row) == len(table[0]) for table in (counts, shared, *others) for row in table)
    assert data.collection is not None
    assert is_readable(films_figure(data.collection, data))
    assert is_readable(pairs_figure(within(data.collection), data, data))


def folder_of(root: Path, **settings: Any) -> FolderDataModule:
    defaults = {"image_size": 16, "cache_dir": str(root.parent / "cache"), "on_bad_image": "skip"}
    return FolderDataModule("lungs", str(root), **defaults | settings)


def test_broken_images_alone_are_told(tmp_path: Path) -> None:
    for name in ("ill", "well"):
        (tmp_path / "lungs" / name).mkdir(parents=True)
        (tmp_path / "lungs" / name / "1.png").touch()
    with pytest.raises(XRayError, match="lungs holds not a single whole image"):
        audit(folder_of(tmp_path / "lungs"), None, tmp_path)


def test_a_class_without_a_whole_image_is_shown_as_such(tmp_path: Path, write_files: FolderWriter) -> None:
    root = write_files(tmp_path / "lungs", [f"well/{n}.png" for n in range(5)] + ["worse/1.png"])
    (root / "ill").mkdir()
    (root / "ill/1.png").touch()
    text = report(audit(folder_of(root), None, tmp_path))
    assert "- 1 file cannot be used" in text and "- `ill/1.png` is empty" in text
    assert "nan" not in (tmp_path / "audit.json").read_text() + text
    assert ["ill", "", "", "0", "–", "–"] in tables(text)[2]


def test_two_classes_are_compared_with_their_own_folders(covid: Callable[..., XRayDataModule], tmp_path: Path) -> None:
    found = audit(covid(classes=["Covid", "Healthy"]), None, tmp_path)
    assert list(found["published"]) == ["COVID", "Normal"] and "counts 13808" in report(found)
    assert list(found["bad"]) == ["Normal/images/Normal-104.png"]
    first, second = (list(s["index"].values()) for s in found["shortcuts"][:2])
    assert first[0] == pytest.approx(first[1]) and second[0] == pytest.approx(second[1])


def test_a_report_has_the_sections_that_there_is_something_for(record: Record) -> None:
    full, bare = report(record), deepcopy(record)
    bare |= {"published": {}, "bad": {}, "leaks": [], "shortcuts": [], "synthetic": True}
    bare["shared"] |= {"two classes": KINDS}
    del bare["against"]
    text = report(bare)
    assert text.startswith("# Audit of covid, synthetic radiographs\n") and full.startswith("# Audit of covid\n")
    assert "Nothing was found to be wrong." in text and "All files are alike" in text
    for section in ("| published |", "## Shared with pneumonia", "## Files that cannot be used", "Youden's index"):
        assert section in full and section not in text


def test_a_report_counts_one_and_many(record: Record) -> None:
    assert "- 2 files cannot be used" in report(record)
    assert "- 3 of 59 images also in pneumonia: " in report(record)
    changed = deepcopy(record)
    changed["bad"] = {f"{n:02d}.png": "is empty" for n in range(21)}
    changed["against"] |= {"trained here, tested there": 1, "trained there, tested here": 2}
    changed["published"] = {"COVID": {"published": 2, "found": 1}}
    changed["shared"]["largest group"] = 1
    text = report(changed)
    for words in (
        "- 21 files cannot be used",
        "- `19.png` is empty\n- … and 1 more, in audit.json\n",
        "- 1 pair with one image in train here, the other in test in pneumonia.",
        "- 2 pairs with one image in test here, the other in train in pneumonia.",
        "- 1 image where the publisher counts 2:",
        "the largest of 1 image.",
        "| COVID | 2 | 1 | -1 |",
    ):
        assert words in text
    for one in changed["against"]["classes"].values():
        one["shared"] = 0
    assert "- No image is shared with pneumonia." in report(changed)


@pytest.fixture
def command(tmp_path: Path, phantoms: Path, warm: Any) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the audit command on phantoms in an empty folder, with a cache in `tmp_path`."""
    paths = [f"paths.{name}={folder}" for name, folder in (("data", phantoms), ("cache", "cache"), ("outputs", "out"))]
    words = ["-m", "xray_lightning.data.audit", *paths]
    environment = os.environ | {"PYTHONWARNINGS": "default", "COLUMNS": "200"}

    def run(*overrides: str) -> subprocess.CompletedProcess[str]:
        done: subprocess.CompletedProcess[str] = warm([*words, *overrides], tmp_path, environment)
        return done

    return run


def state(folder: Path) -> dict[Path, tuple[int, int, int]]:
    found = {path: path.stat() for path in (folder, *folder.rglob("*"))}
    return {path: (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for path, stat in found.items()}


def test_the_command_prints_and_writes_what_it_finds(
    command: Callable[..., subprocess.CompletedProcess[str]], phantoms: Path, tmp_path: Path
) -> None:
    before = state(phantoms)
    done = command("dataset=covid", "against=pneumonia")
    assert done.returncode == 0, done.stderr
    assert state(phantoms) == before
    for told in ("Audit of covid, synthetic radiographs", "80 images where the publisher counts 21165"):
        assert told in done.stdout
    (folder,) = (tmp_path / "out/audits").iterdir()
    assert f"Written to {Path('out/audits') / folder.name}" in done.stdout.replace(f"{tmp_path}/", "")
    written = {"audit.md", "audit.json", "audit.log", "catalog.csv", "shared.csv", "shared_with_pneumonia.csv"}
    assert {file.name for file in folder.iterdir() if not file.name.startswith(".")} == written | {"figures"}
    assert (tmp_path / "cache/catalogs").is_dir()
    assert "Warning" not in done.stdout + done.stderr and "Error" not in done.stderr


def test_the_command_without_a_cache_writes_none(
    command: Callable[..., subprocess.CompletedProcess[str]], phantoms: Path, tmp_path: Path
) -> None:
    folder = phantoms / "COVID-19_Radiography_Dataset"
    done = command("dataset=folder", f"dataset.root={folder}", "dataset.name=mine", "against=covid", "cache=off")
    assert done.returncode == 0, done.stderr
    assert "80 of 80 images also in covid" in done.stdout
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("overrides", "status", "message"),
    [
        (["against=pneumonai"], 1, "against=pneumonai names no data set. Did you mean pneumonia?"),
        (["dataset=covd"], 2, "Did you mean covid"),
        (["against=covid", "dataset.root=nowhere"], 1, "data.download dataset=pneumonia"),
    ],
)
def test_a_users_mistake_is_a_message(
    command: Callable[..., subprocess.CompletedProcess[str]], overrides: list[str], status: int, message: str
) -> None:
    failed = command(*overrides)
    assert failed.returncode == status, failed.stdout + failed.stderr
    assert message in failed.stderr and "Traceback" not in failed.stderr + failed.stdout
