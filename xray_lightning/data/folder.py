"""Any set of images with a folder for each class, or a table that lists them: no class of its own is needed."""

import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from xray_lightning.data.catalog import Entry, Layout, image_files
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.download import KaggleSource
from xray_lightning.data.listing import OFFICIAL, Line, below, few, read_table, repeated
from xray_lightning.data.splits import TEST
from xray_lightning.errors import XRayError, folder_errors

log = logging.getLogger(__name__)
NO_CLASS = ("__macosx", "images", "masks")  # folders that come with a data set and tell no class
TEST_FRACTION = 0.15  # where nobody published a test set
EXPECTED = (
    "A data set is a folder for each class, <root>/<class>/*.png (or <class>/images/*.png), or a published split, "
    "<root>/train/<class>/*.png and <root>/test/<class>/*.png. For any other: dataset.folders or dataset.table."
)


class FolderDataModule(XRayDataModule):
    """Classes are the folders below the root that hold images, those of `folders`, or the labels of a table.

    The official test is `test/`, or what the table's `split` says; where there is none, or `test_fraction` is
    set, one is split off. `val`, too small to choose on in most sets, counts as training as in `PneumoniaDataModule`.
    Raises XRayError for a root, a table or a pattern that cannot be used.
    """

    def __init__(
        self,
        name: str,
        root: str,
        *,
        folders: Mapping[str, str | Sequence[str]] | None = None,
        patient_pattern: str | None = None,
        table: str | None = None,
        kaggle: KaggleSource | None = None,
        **shared: Any,
    ) -> None:
        if kaggle is not None and not isinstance(kaggle, KaggleSource):
            raise XRayError("dataset.kaggle needs _target_: xray_lightning.data.download.KaggleSource.")
        self.name, self.root, self.kaggle = name, Path(root), kaggle  # what _how_to_get tells
        with folder_errors():
            there = self.root.is_dir()
        if not there:
            expected = "" if kaggle else f" {EXPECTED}"
            raise XRayError(
                f"There is no folder {root}: dataset.root=<folder> names one.{expected}\n{self._how_to_get()}"
            )
        self.pattern = _compiled(patient_pattern)
        self.table = self.root / table if table else None  # of an absolute path, that path
        self.lines = read_table(self.table) if self.table else None
        with folder_errors():
            self.layout = Layout(self._classes(folders), official=_official, patient=self._patient)
        super().__init__(name=name, root=root, **shared)
        told = ", ".join(f"{label} {name}" for label, name in enumerate(self.class_names))
        positive = f"; {self.class_names[1]} is the positive one" if len(self.class_names) == 2 else ""
        log.info("%s: classes %s%s", name, told, positive)

    def _classes(self, folders: Mapping[str, str | Sequence[str]] | None) -> dict[str, list[str]]:
        if self.lines is None or not any(line.label for line in self.lines):
            return named_folders(folders) if folders is not None else class_folders(self.root)
        if folders is not None:
            raise XRayError(
                f"dataset.folders and the label column of {self.table} both say the classes. Leave out one."
            )
        labels = sorted({line.label for line in self.lines}, key=_alphabetical)
        if len(labels) < 2:
            raise XRayError(f"All images in {self.table} have the label {labels[0]}. A classifier needs two classes.")
        return {label: [] for label in labels}

    def entries(self) -> list[Entry]:
        entries = super().entries() if self.lines is None else self._listed(self.lines)
        if twice := repeated(entry.path for entry in entries):
            raise XRayError(f"dataset.folders has the same images under two folders: {few(twice)}.")
        # a checkpoint knows its images by their contents: they may have got other names since
        if self.pattern and self.known_test is None and not any(self._patient(Path(e.path).stem) for e in entries):
            raise XRayError(
                f"dataset.patient_pattern={self.pattern.pattern} finds no patient in any of {len(entries)} file names, "
                f"such as {Path(entries[0].path).stem}. Its first group is the patient, or without one the whole match."
            )
        self._tell_patients(entries)
        return entries

    def _listed(self, lines: Sequence[Line]) -> list[Entry]:
        """The images of a table that belong to the chosen classes, sorted by path."""
        if lost := [line.path for line in lines if not (self.root / line.path).is_file()]:
            raise XRayError(f"{self.table} lists files that are not in {self.root}: {few(lost)}. Correct the table.")
        owners = {folder: name for name, folders in self.layout.folders.items() for folder in folders}
        labels = {name: label for label, name in enumerate(self.class_names)}
        entries, strays = [], []
        for line in lines:
            folder = PurePosixPath(line.path).parent.as_posix()
            name = line.label or owners.get(folder) or owners.get(folder.removesuffix("/images"))
            if name is None:
                strays.append(line.path)
            elif name in labels:
                patient = line.patient or self._patient(Path(line.path).stem)
                official = line.split or _official(folder)
                entries.append(Entry(line.path, labels[name], name, patient, line.source, official, line.subtype))
        if strays:
            raise XRayError(
                f"{self.table} lists files in no class folder: {few(strays)}. The classes are in "
                f"{few(owners)}. Add a label column, or say in dataset.folders where a class lies."
            )
        if lacking := sorted(labels.keys() - {entry.class_name for entry in entries}):
            raise XRayError(f"{self.table} lists no image of {few(lacking)}. Add some, or set dataset.classes.")
        return sorted(entries, key=lambda entry: entry.path)

    def _tell_patients(self, entries: Sequence[Entry]) -> None:
        """Says how many there are, and warns of what a pattern for other names, or for one class alone, looks like."""
        classes: dict[str, set[int]] = defaultdict(set)
        for entry in entries:
            classes[entry.patient].add(entry.label)
        classes.pop("", None)
        if not classes:
            return
        known = sum(bool(entry.patient) for entry in entries)
        level = logging.INFO if 2 * known > len(entries) else logging.WARNING
        told = "%s: the patient of %d of %d images is known, %d patients"
        log.log(level, told, self.name, known, len(entries), len(classes))
        if several := sum(len(labels) > 1 for labels in classes.values()):
            log.warning(
                "%s: %d of %d patients have images of several classes and can only be trained on. If these are other "
                "people, numbered anew in each class, tell them apart in the patient column of dataset.table.",
                self.name,
                several,
                len(classes),
            )

    def _patient(self, stem: str) -> str:
        return patient_in(stem, self.pattern) if self.pattern else ""

    def _split(self) -> list[str]:
        anew = self.split_file is None and self.test_fraction is None
        if anew and {row.official == TEST for row in self.rows} != {True, False}:
            self.test_fraction = TEST_FRACTION
            log.info("%s has no official test: %g of each class is split off", self.name, TEST_FRACTION)
        return super()._split()


def class_folders(root: Path) -> dict[str, list[str]]:
    """Classes in alphabetical order, each with its folders below `root`: in train/, test/ and the like where these
    hold folders with images, else in the root itself. Raises XRayError where there are not two."""
    top = _subfolders(root)
    sides = [folder for folder in top if folder.name.lower() in OFFICIAL]
    split = [folder for side in sides for folder in _subfolders(side)]
    found = [f for f in split if image_files(f)] or [f for f in top if f not in sides and image_files(f)]
    classes: dict[str, list[str]] = {}
    for folder in sorted(found, key=lambda f: _alphabetical(f.name)):
        classes.setdefault(folder.name, []).append(folder.relative_to(root).as_posix())
    read = {*found, *(folder.parent for folder in found)}
    others = [folder.relative_to(root).as_posix() for folder in [*top, *split] if folder not in read]
    if len(classes) < 2:
        raise XRayError(
            f"Folders with images in {root}: {few(classes)}; other folders: {few(others)}. At least two classes are "
            f"needed. {EXPECTED}"
        )
    if others:
        log.warning("Not read, being no class folders: %s. dataset.folders can say otherwise.", few(others))
    return classes


def named_folders(folders: Mapping[str, str | Sequence[str]]) -> dict[str, list[str]]:
    """`dataset.folders` as lists of paths with forward slashes. Raises XRayError for what is no such mapping."""
    classes = {}
    for name, given in folders.items():
        places = [given] if isinstance(given, str) else given
        if not isinstance(name, str):
            raise XRayError(f"dataset.folders has the class {name!r}, which is no text. Write it in quotes.")
        if not isinstance(places, list | tuple) or not places or not all(below(place) for place in places):
            raise XRayError(
                f"dataset.folders.{name}={given!r} is not valid. Give a folder below dataset.root, or a list."
            )
        classes[name] = [below(place) for place in places]
    return classes


def patient_in(stem: str, pattern: re.Pattern[str]) -> str:
    """The first group of the pattern where it is found in a file name, or without groups all that is found, or ''."""
    match = pattern.search(stem)
    return (match[1 if pattern.groups else 0] or "") if match else ""


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern) if pattern else None
    except re.error as error:
        raise XRayError(f"dataset.patient_pattern={pattern} is no regular expression: {error}.") from error


def _official(folder: str) -> str:
    return OFFICIAL.get(folder.split("/")[0].lower(), "")


def _subfolders(folder: Path) -> list[Path]:
    return [f for f in folder.iterdir() if f.is_dir() and f.name[0] != "." and f.name.lower() not in NO_CLASS]


def _alphabetical(name: str) -> tuple[str, str]:
    return name.casefold(), name
