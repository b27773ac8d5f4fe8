"""What an audit found, as Markdown for the terminal and for audit.md: first what is wrong, then the tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xray_lightning.data.shortcuts import HINTS, OF_THE_FILM, TELLS
from xray_lightning.data.splits import UNUSED
from xray_lightning.markdown import code, escaped

BAD_SHOWN = 20
Record = Mapping[str, Any]


def report(record: Record) -> str:
    """The text of audit.md for the content of audit.json."""
    title = f"# Audit of {escaped(record['dataset'])}{', synthetic radiographs' if record['synthetic'] else ''}"
    parts = [title, f"Images in {code(record['root'])}.", "## Findings", _findings(record)]
    parts += ["## Images of each class and split", _counts(record), *_published(record)]
    parts += ["## Shared images", _shared(record["shared"])]
    if "against" in record:
        parts += [f"## Shared with {escaped(record['against']['dataset'])}", *_against(record["against"])]
    parts += ["## Files of each class", _files(record["files"])]
    parts += ["## Exposure of each class", _exposure(record["exposure"])]
    parts += ["## What tells the class without a look at the lungs", *_shortcuts(record)]
    if record["bad"]:
        parts += ["## Files that cannot be used", *_bad(record["bad"])]
    return "\n\n".join(parts) + "\n"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _findings(record: Record) -> str:
    findings = [*_shared_findings(record), *_against_findings(record.get("against"))]
    for shortcut in record["shortcuts"]:
        film = shortcut["attribute"] in OF_THE_FILM
        told = ", ".join(f"{escaped(name)} ({shortcut['index'][name]:.2f})" for name in shortcut["tells"])
        if told:
            advice = "; the lungs may explain a part of that" if film else ": a **shortcut** that a network can take"
            findings.append(f"{shortcut['attribute'].capitalize()} alone tells {told}{advice}.")
    if any(c["found"] != c["published"] for c in record["published"].values()):
        found = sum(c["found"] for c in record["published"].values())
        published = sum(c["published"] for c in record["published"].values())
        findings.append(
            f"{_number(found, 'image')} where the publisher counts {published}: not the published data set."
        )
    if record["bad"]:
        findings.append(f"{_number(len(record['bad']), 'file')} cannot be used, see below.")
    return "\n".join(f"- {finding}" for finding in findings) if findings else "Nothing was found to be wrong."


def _shared_findings(record: Record) -> Iterator[str]:
    for leak in record["leaks"]:
        yield (
            f"{leak['images']} of {leak['of']} {leak['side']} images with their patient, a copy or a twin in "
            f"{leak['in']}: a **leak**, scores on this split are too good."
        )
    for what, why in (
        ("two splits", ""),
        ("two classes", "; one film cannot have two diagnoses"),
        ("two patients", "; one film under two patients' names, who count as one group"),
    ):
        counts = {kind: n for kind, n in record["shared"][what].items() if kind != "which" and n}
        if counts:
            kinds = ", ".join(f"{n} {kind}" for kind, n in counts.items())
            where = ", ".join(f"{n} {sides}" for sides, n in record["shared"][what].get("which", {}).items())
            yield f"Pairs across {what}: {kinds}{f' ({where})' if where else ''}{why}."


def _against_findings(against: Record | None) -> Iterator[str]:
    if against is None:
        return
    shared = sum(c["shared"] for c in against["classes"].values())
    total = sum(c["images"] for c in against["classes"].values())
    name = escaped(against["dataset"])
    if not shared:
        yield f"No image is shared with {name}."
        return
    yield f"{shared} of {total} images also in {name}: scores on one say little of a model trained on the other."
    for key, here, there in (
        ("trained here, tested there", "train", "test"),
        ("trained there, tested here", "test", "train"),
    ):
        if against[key]:
            yield f"{_number(against[key], 'pair')} with one image in {here} here, the other in {there} in {name}."


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _counts(record: Record) -> str:
    sides = list(record["images"])
    classes = list(next(iter(record["images"].values())))
    rows = [[escaped(c), *(counts := [record["images"][s][c] for s in sides]), sum(counts)] for c in classes]
    totals = [sum(record["images"][s].values()) for s in sides]
    table = _table(["class", *sides, "all"], [*rows, ["all", *totals, sum(totals)]])
    notes = []
    if record["validation"] == "block":
        notes.append("Validation: a block of ID numbers in each class.")
    if UNUSED in sides:
        notes.append(
            "*unused*: left out by the split file or, not being in the official test, of a patient or a film that is."
        )
    return "\n\n".join([table, *notes])


def _published(record: Record) -> list[str]:
    if not record["published"]:
        return []
    rows = []
    for folder, c in record["published"].items():
        off = c["found"] - c["published"]
        rows.append([escaped(folder), c["published"], c["found"], f"{off:+d}" if off else ""])
    return [_table(["folder", "published", "found", "difference"], rows)]


def _shared(shared: Record) -> str:
    kinds = [kind for kind in shared["two splits"] if kind != "which"]
    rows = [
        [where, *(shared[key].get(kind, "") for kind in kinds)]
        for where, key in (
            ("in the data set", "pairs"),
            ("across two splits", "two splits"),
            ("across two classes", "two classes"),
            ("across two patients", "two patients"),
        )
    ]
    known = f"Patients known: {shared['patients']}; images without a known patient: {shared['without a patient']}."
    groups = (
        f"Groups that belong together: {shared['groups']}, the largest of {_number(shared['largest group'], 'image')}."
    )
    return f"{_table(['pairs', *kinds], rows)}\n\n{known} {groups} The pairs are listed in `shared.csv`."


def _against(against: Record) -> list[str]:
    rows = [
        [escaped(name), c["images"], c["shared"], _listed(c["where"]) or "–"] for name, c in against["classes"].items()
    ]
    kinds = _listed({kind: n for kind, n in against["pairs"].items() if n})
    return [
        _table(["class here", "images", "shared", f"class and split in {escaped(against['dataset'])}"], rows),
        f"Pairs: {kinds}. They are listed in {code(against['file'])}." if kinds else "No pairs.",
    ]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {escaped(name)}" for name, n in counts.items())


def _files(files: Record) -> str:
    rows = []
    for name, f in files.items():
        size, count = f["commonest_size"] or ("–", 0)
        middle = f"{f['median_width']:.0f}x{f['median_height']:.0f}" if count else "–"
        commonest = f"{size} ({count})" if count else "–"
        rows.append([escaped(name), _listed(f["formats"]), _listed(f["modes"]), f["sizes"], commonest, middle])
    header = ["class", "formats", "colour modes", "sizes", "commonest size", "median width x height"]
    sources = [f"Sources of {escaped(name)}: {_listed(f['sources'])}." for name, f in files.items() if f["sources"]]
    return "\n\n".join([_table(header, rows), *sources])


def _exposure(exposure: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    names = list(next(iter(exposure.values())))
    rows = [
        [escaped(name), *(f"{q[1]:.0f} ({q[0]:.0f} to {q[2]:.0f})" for q in values.values())]
        for name, values in exposure.items()
    ]
    note = "Median (quartiles) over images, grey values 0 to 255; border: the outer 3 % on each side."
    return f"{_table(['class', *names], rows)}\n\n{note}"


def _shortcuts(record: Record) -> list[str]:
    classes = list(record["files"])
    rows = []
    for s in sorted(record["shortcuts"], key=lambda s: -s["balanced_accuracy"]):
        marks = {c: "**" if c in s["tells"] else "*" if c in s["hints"] else "" for c in classes}
        cells = [f"{marks[c]}{s['index'][c]:.2f}{marks[c]}" for c in classes]
        rows.append([s["attribute"], f"{s['balanced_accuracy']:.2f}", *cells])
    if not rows:
        return ["All files are alike in format, size and exposure."]
    note = (
        "Balanced accuracy of naming the class from this alone, two-fold cross-validated (by chance "
        f"{1 / len(classes):.2f}), and Youden's index of each class (by chance 0; **{TELLS} or more** tells it, "
        f"*{HINTS} or more* hints at it)."
    )
    return [_table(["attribute", "balanced accuracy", *map(escaped, classes)], rows), note]


def _bad(bad: Mapping[str, str]) -> list[str]:
    lines = [f"- {code(path)} {escaped(problem)}" for path, problem in sorted(bad.items())]
    more = [f"- … and {len(lines) - BAD_SHOWN} more, in audit.json"] * (len(lines) > BAD_SHOWN)
    return ["\n".join(lines[:BAD_SHOWN] + more)]
