"""Synthetic data sets: layout, patients, determinism, and that a folder is there whole or not at all."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xray_lightning.data import phantoms
from xray_lightning.data.phantoms import Phantom, plan, write_phantom, write_phantoms
from xray_lightning.errors import XRayError

IMAGES, SIZE = 60, 48
HEALTHY = re.compile(r"((?:NORMAL2-)?IM-\d{4})-\d{4}(-\d{4})?\.jpeg")
SICK = re.compile(r"(person\d+_(?:bacteria|virus))_\d+\.jpeg")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantoms(tmp_path_factory.mktemp("phantoms") / "data", images=IMAGES, size=SIZE)


def files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def patients(listed: list[Phantom], split: str, label: str) -> set[str]:
    pattern = HEALTHY if label == "NORMAL" else SICK
    matches = [pattern.fullmatch(Path(p.path).name) for p in listed if f"/{split}/{label}/" in p.path]
    assert matches and all(matches)
    return {match[1] for match in matches if match}


def test_layout_names_and_counts(root: Path) -> None:
    written = set(files(root))
    listed = plan(IMAGES, seed=0)
    images = {p.path for p in listed}
    masks = {path.replace("/images/", "/masks/") for path in images if "/images/" in path}
    assert written == images | masks | {"SYNTHETIC.json"}
    assert Counter(path.split("/")[0] for path in images) == dict.fromkeys(phantoms.FOLDERS, IMAGES)
    for label in phantoms.COVID:
        numbers = len([p for p in images if f"/{label}/images/" in p])
        assert {f"{phantoms.FOLDERS[1]}/{label}/images/{label}-{i + 1}.png" for i in range(numbers)} <= images


@pytest.mark.parametrize("images", [40, 61, 400, 1001])
def test_class_proportions_follow_the_real_sets(images: int) -> None:
    listed = plan(images, seed=3)
    folders = Counter(str(Path(p.path).parent) for p in listed)
    assert len(listed) == 2 * images == len({p.path for p in listed})
    for split, share in phantoms.PNEUMONIA.items():
        sick, healthy = (folders[f"chest_xray/{split}/{label}"] for label in ("PNEUMONIA", "NORMAL"))
        assert abs(sick - share * (sick + healthy)) <= 0.5
    assert folders["chest_xray/val/NORMAL"] == folders["chest_xray/val/PNEUMONIA"] <= 8
    covid = {label: folders[f"{phantoms.FOLDERS[1]}/{label}/images"] for label in phantoms.COVID}
    assert sorted(covid, key=covid.__getitem__)[2:] == ["Lung_Opacity", "Normal"]
    assert min(covid.values()) >= 0.09 * images


@pytest.mark.parametrize("seed", range(5))
def test_test_patients_are_not_in_train_and_val_patients_are(seed: int) -> None:
    listed = plan(400, seed)
    for label in ("NORMAL", "PNEUMONIA"):
        train, val, test = (patients(listed, split, label) for split in ("train", "val", "test"))
        assert not test & (train | val)
        assert val <= train
        # Some patients have several images, or grouping them would never be put to the test.
        assert len(train) < len([p for p in listed if f"/train/{label}/" in p.path])
    sick = patients(listed, "train", "PNEUMONIA")
    numbers = [{name.split("_")[0] for name in sick if name.endswith(kind)} for kind in ("bacteria", "virus")]
    assert numbers[0] & numbers[1]  # the numbers restart: the number alone is no patient


def test_a_finding_changes_the_lungs_and_not_the_exposure() -> None:
    grid = phantoms.Grid(1.2, 1.2, 40)
    for index in range(6):
        person, pose = phantoms.dice(f"{index}"), phantoms.dice(f"{index}/1")
        healthy, fields = phantoms.attenuation(grid, person, pose, index % 2 == 0, "normal")
        mask = phantoms.radiograph(person, pose, (64, 70), True, "normal")[1]
        for finding in ("bacteria", "virus", "covid", "opacity"):
            sick, _ = phantoms.attenuation(grid, person, pose, index % 2 == 0, finding)
            change = np.abs(sick - healthy)
            assert change[fields].mean() > 2 * change[~fields].mean()
            assert np.array_equal(phantoms.radiograph(person, pose, (64, 70), True, finding)[1], mask)


def lung_statistics(film: np.ndarray, mask: np.ndarray) -> list[float]:
    """Grey level and texture of six lung zones, relative to the film."""
    grey = (film - film[mask > 0].mean()) / film.std()
    values = [1.0, grey[mask == 0].mean()]
    for rows in (slice(8, 26), slice(26, 38), slice(38, 56)):
        for columns in (slice(0, 32), slice(32, 64)):
            zone = grey[rows, columns][mask[rows, columns] > 0]
            values += [zone.mean(), zone.std()] if zone.size else [0.0, 0.0]
    return values


@pytest.mark.parametrize("finding", ["bacteria", "covid"])
def test_a_simple_classifier_learns_something_and_misses_something(finding: str) -> None:
    rows = []
    for index in range(300):
        person, pose = phantoms.dice(f"{index}"), phantoms.dice(f"{index}/1")
        films = phantoms.radiograph(person, pose, (64, 64), False, (finding, "normal")[index % 2])
        rows.append(lung_statistics(*films))
    x, y = np.array(rows), np.tile([1.0, -1.0], 150)
    weights = np.linalg.solve(x[:200].T @ x[:200] + np.eye(x.shape[1]), x[:200].T @ y[:200])
    accuracy = np.mean(np.sign(x[200:] @ weights) == y[200:])
    assert 0.6 < accuracy < 0.97


def test_images_read_as_their_formats(root: Path) -> None:
    shapes = []
    for path in root.glob("chest_xray/*/*/*.jpeg"):
        with Image.open(path) as image:
            assert image.format == "JPEG" and image.mode in ("L", "RGB")
            assert 1.05 < image.width / image.height < 1.65
            shapes.append((image.size, image.mode))
    assert len({size for size, _ in shapes}) > 20
    assert {mode for _, mode in shapes} == {"L", "RGB"}
    for path in root.glob("COVID*/*/*/*.png"):
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "L", (SIZE, SIZE))


def test_masks_mark_the_dark_lungs_of_their_image(root: Path) -> None:
    darker = []
    for path in root.glob("COVID*/Normal/images/*.png"):
        mask = np.asarray(Image.open(path.parent.with_name("masks") / path.name))
        image = np.asarray(Image.open(path)).astype(float)
        inside = mask == 255
        assert set(np.unique(mask)) == {0, 255} and 0.1 < inside.mean() < 0.5
        lungs = np.flatnonzero(inside.any(axis=0))
        between = ~inside[:, lungs[0] : lungs[-1]] & inside.any(axis=1)[:, None]
        darker.append(image[:, lungs[0] : lungs[-1]][between].mean() - image[inside].mean())
    assert np.mean(np.array(darker) > 0) > 0.95 and np.mean(darker) > 20


def test_bytes_depend_on_seed_and_name_only(root: Path, tmp_path: Path) -> None:
    listed = plan(IMAGES, seed=0)
    for phantom in listed:
        (tmp_path / phantom.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / phantom.path).parent.with_name("masks").mkdir(exist_ok=True)
    for phantom in reversed(listed[::9]):
        write_phantom(tmp_path, phantom, SIZE, seed=0)
        first = (tmp_path / phantom.path).read_bytes()
        assert first == (root / phantom.path).read_bytes()
        write_phantom(tmp_path, phantom, SIZE, seed=1)
        assert first != (tmp_path / phantom.path).read_bytes()


def test_workers_do_not_change_the_bytes(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phantoms.os, "cpu_count", lambda: 1)
    assert files(write_phantoms(tmp_path / "again", images=IMAGES, size=SIZE)) == files(root)


def test_no_two_images_are_alike(root: Path) -> None:
    bodies = [body for name, body in files(root).items() if "/masks/" not in name]
    assert len(set(bodies)) == len(bodies)


def test_images_of_one_patient_share_the_anatomy() -> None:
    def film(patient: str, name: str) -> np.ndarray:
        person, pose = phantoms.dice(f"0/{patient}"), phantoms.dice(f"0/{name}")
        grid = phantoms.Grid(1.2, 1.2, 30)
        return phantoms.attenuation(grid, person, pose, False, "bacteria")[0].ravel()

    same = [np.corrcoef(film(str(i), f"{i}/1"), film(str(i), f"{i}/2"))[0, 1] for i in range(12)]
    other = [np.corrcoef(film(str(i), f"{i}/1"), film(f"{i + 1}", f"{i}/2"))[0, 1] for i in range(12)]
    assert np.median(same) > np.median(other)


def test_a_finished_folder_is_left_as_it_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("drew again")

    monkeypatch.setattr(phantoms, "write_phantom", never)
    assert write_phantoms(root, images=IMAGES, size=SIZE) == root
    marker = json.loads((root / "SYNTHETIC.json").read_text())
    assert marker == {
        "synthetic": True,
        "generator": "xray_lightning.data.phantoms",
        "version": phantoms.VERSION,
        "images": IMAGES,
        "size": SIZE,
        "seed": 0,
    }


def test_other_arguments_replace_the_folder(tmp_path: Path) -> None:
    old = files(write_phantoms(tmp_path / "data", images=40, size=32))
    new = files(write_phantoms(tmp_path / "data", images=40, size=32, seed=7))
    name = "COVID-19_Radiography_Dataset/COVID/images/COVID-1.png"
    assert json.loads(new["SYNTHETIC.json"])["seed"] == 7 and old[name] != new[name]
    assert {p.name for p in tmp_path.iterdir()} <= {"data", ".data.lock"}


def test_user_data_is_never_overwritten(root: Path, tmp_path: Path) -> None:
    (tmp_path / "chest_xray").mkdir()
    (tmp_path / "chest_xray" / "mine.jpeg").write_bytes(b"mine")
    with pytest.raises(XRayError, match="not synthetic"):
        write_phantoms(tmp_path, images=40, size=32)
    assert list(files(tmp_path)) == ["chest_xray/mine.jpeg"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(XRayError, match=str(tmp_path / "file")):
        write_phantoms(tmp_path / "file", images=40, size=32)


def test_user_data_beside_phantoms_is_never_overwritten(tmp_path: Path) -> None:
    root = write_phantoms(tmp_path / "data", images=40, size=32)
    (root / "notes.txt").write_text("mine")
    with pytest.raises(XRayError, match="left alone"):
        write_phantoms(root, images=41, size=32)
    assert (root / "notes.txt").read_text() == "mine"


def test_an_empty_folder_is_filled_and_a_failure_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (tmp_path / ".data.partial").mkdir()  # what a killed process leaves
    (tmp_path / ".data.partial" / "half").write_text("x")
    drawn = []

    def fails(folder: Path, phantom: Phantom, size: int, seed: int) -> None:
        drawn.append(phantom)
        if len(drawn) > 20:
            raise RuntimeError("killed")
        write_phantom(folder, phantom, size, seed)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(phantoms, "write_phantom", fails)
        write_phantoms(root, images=40, size=32)
    assert not any(root.iterdir())
    assert {p.name for p in tmp_path.iterdir()} <= {"data", ".data.lock"}
    assert len(files(write_phantoms(root, images=40, size=32))) == 2 * 40 + 40 + 1


@pytest.mark.parametrize(("images", "size"), [(39, 64), (400, 31)])
def test_too_small_is_refused(tmp_path: Path, images: int, size: int) -> None:
    with pytest.raises(XRayError, match="images >= 40"):
        write_phantoms(tmp_path / "data", images=images, size=size)
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(XRayError, match="Cannot write phantoms"):
        write_phantoms(tmp_path / "file" / "data", images=40, size=32)
