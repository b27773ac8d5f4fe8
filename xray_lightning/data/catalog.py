"""Folders of radiographs -> a table, one row an image."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from xray_lightning.artifacts import write_csv
from xray_lightning.data.decode import FORMATS
from xray_lightning.data.examine import Facts
from xray_lightning.data.linking import Links
from xray_lightning.data.twins import Pair
from xray_lightning.errors import XRayError

SYNTHETIC_MARKER = "SYNTHETIC.json"  # written by xray_lightning.data.phantoms beside the data sets


class MissingFolders(XRayError):
    """A data set is not where it was looked for, or holds no images."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a file's place and name tell. `path` is relative to the root, with forward slashes.

    `official` is the split that the publisher put the image in, `patient` and `source` whose it is and where
    it comes from, `subtype` what kind of its class it shows; each is empty where that is not known.
    """

    path: str
    label: int
    class_name: str
    patient: str = ""
    source: str = ""
    official: str = ""
    subtype: str = ""


@dataclass(frozen=True, slots=True)
class Radiograph:
    """One row: an Entry, what the file holds, and `group`, which stays on one side of a split.

    A group is a patient, with all images that are identical or nearly so to one of theirs; see `link_groups`.
    """

    path: str
    label: int
    class_name: str
    patient: str
    source: str
    official: str
    subtype: str
    format: str
    mode: str  # Pillow's name of the colour mode
    width: int
    height: int
    size: int  # bytes
    digest: str  # of the file's bytes
    group: str


@dataclass(frozen=True)
class Layout:
    """Where a data set keeps its images: all that differs from one data set to another.

    `folders` maps each class, in order, to its folders below the root. A folder's images lie in it or, where
    there is one, in its `images/` subfolder; nothing else in it is read. `official` tells the published split
    from a folder, `patient` the patient and `subtype` the kind of disease from a file name, and `source` the source
    from a folder; None or an empty string where it does not say.
    """

    folders: Mapping[str, Sequence[str]]
    optional: frozenset[str] = frozenset()
    official: Callable[[str], str] = lambda folder: ""
    patient: Callable[[str], str | None] = lambda stem: None
    source: Callable[[str], str] = lambda folder: ""
    subtype: Callable[[str], str] = lambda stem: ""


def image_files(folder: Path) -> list[Path]:
    """Images directly in a folder, or in its `images/` where that exists; hidden files are no images."""
    inner = folder / "images"
    found = (inner if inner.is_dir() else folder).iterdir()
    return sorted(f for f in found if f.suffix.lower() in FORMATS and not f.name.startswith("."))


def list_images(root: Path, layout: Layout, classes: Sequence[str]) -> list[Entry]:
    """The images of `classes`, labelled by their position, sorted by path. No file is opened.

    Raises MissingFolders that lists what is missing or holds no image.
    """
    todo = [(label, name, folder) for label, name in enumerate(classes) for folder in layout.folders[name]]
    missing = [f for _, _, f in todo if not (root / f).is_dir() and f not in layout.optional]
    if missing:
        raise MissingFolders(f"{root} has no {', '.join(missing)}.")
    entries = [
        Entry(
            path=file.relative_to(root).as_posix(),
            label=label,
            class_name=name,
            patient=layout.patient(file.stem) or "",
            source=layout.source(folder),
            official=layout.official(folder),
            subtype=layout.subtype(file.stem),
        )
        for label, name, folder in todo
        if (root / folder).is_dir()
        for file in image_files(root / folder)
    ]
    counts = Counter(entry.class_name for entry in entries)
    if empty := [name for name in classes if not counts[name]]:
        raise MissingFolders(f"{root} holds no images ({', '.join(FORMATS)}) of the class {', '.join(empty)}.")
    return sorted(entries, key=lambda entry: entry.path)


def make_catalog(entries: Sequence[Entry], facts: Sequence[Facts], twins: Sequence[Pair]) -> list[Radiograph]:
    """The table of whole images. Files with a problem have no place in it."""
    groups = link_groups([e.patient for e in entries], [f.digest for f in facts], twins)
    return [
        Radiograph(
            **asdict(entry),
            format=file.format,
            mode=file.mode,
            width=file.width,
            height=file.height,
            size=file.size,
            digest=file.digest,
            group=group,
        )
        for entry, file, group in zip(entries, facts, groups, strict=True)
    ]


def link_groups(patients: Sequence[str], digests: Sequence[str], twins: Sequence[Pair]) -> list[str]:
    """A group for each image: those of one patient, identical or twins, directly or in a chain, share it.

    It is named by the first of its patients, or of its digests where no patient is known.
    """
    linked = Links[str]()
    links = [(f"1{patient}", f"2{digest}") for patient, digest in zip(patients, digests, strict=True) if patient]
    for one, other in [*links, *((f"2{a}", f"2{b}") for a, b, _ in twins)]:
        linked.join(one, other)
    return [linked.first(f"2{digest}")[1:] for digest in digests]  # a patient comes before any digest


def write_catalog(path: Path, rows: Sequence[Radiograph], sides: Sequence[str]) -> None:
    """Writes the table as CSV, with the split of each image as its last column."""
    header = [*(f.name for f in fields(Radiograph)), "split"]
    write_csv(path, header, ([*asdict(row).values(), side] for row, side in zip(rows, sides, strict=True)))


def kermany_patient(stem: str) -> str | None:
    """The patient of a Kermany file name.

    `personN` restarts for bacteria and virus, so the subtype is part of the key; `NORMAL2-IM-0123` and
    `IM-0123` are different people, so the prefix is too. The last number counts a patient's images.
    """
    if match := re.fullmatch(r"(person\d+)_(bacteria|virus)_\d+(?:_\d+)?", stem):
        return f"{match[1]}_{match[2]}"
    if match := re.fullmatch(r"((?:NORMAL2-)?IM-\d+)(?:-\d+)*", stem):
        return match[1]
    return None


def kermany_subtype(stem: str) -> str:
    """bacteria or virus, as a Kermany file name tells it."""
    match = re.match(r"person\d+_(bacteria|virus)_", stem)
    return match[1] if match else ""
