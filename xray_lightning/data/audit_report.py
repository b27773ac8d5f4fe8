"""What an audit found, as Markdown for the terminal and for audit.md: first what is wrong, then the tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xray_lightning.data.shortcuts import HINTS, OF_THE_FILM, TELLS
from xray_lightning.data.splits import UNUSED

BAD_SHOWN = 20
Record = Mapping[str, Any]


def report(record: Record) -> str:
    """The text of audit.md for the content of audit.json."""
    title = f"# Audit of {record['dataset']}{', synthetic radiographs' if record['synthetic'] else ''}"
    parts = [title, f"Images in `{record['root']}`.", "## Findings", *_findings(record)]
    parts += ["## Images of each class and split", _counts(record), *_published(record)]
    parts += ["## Shared images", _shared(record["shared"])]
    if "against" in record:
        parts += [f"## Shared with {record['against']['dataset']}", *_against(record["against"])]
    parts += ["## Files of each class", _files(record["files"])]
    parts += ["## Exposure of each class", _exposure(record["exposure"])]
    parts += ["## What tells the class without a look at the lungs", *_shortcuts(record)]
    if record["bad"]:
        parts += ["## Files that cannot be used", *_bad(record["bad"])]
    return "\n\n".join(parts) + "\n"


def _findings(record: Record) -> Iterator[str]:
    shared = record["shared"]
    findings = []
    for what, why in (
        ("two splits", "this is a **leak**: training refuses it unless told to go on"),
        ("two classes", "one film cannot have two diagnoses; such groups are kept in train"),
        ("two patients", "one film under two patients' names; their groups are joined"),
    ):
        counts = {kind: n for kind, n in shared[what].items() if kind != "which" and n}
        if counts:
            kinds = ", ".join(f"{n} {kind}" for kind, n in counts.items())
            where = ", ".join(f"{n} {sides}" for sides, n in shared[what].get("which", {}).items())
            findings.append(f"Pairs across {what}: {kinds}{f' ({where})' if where else ''}; {why}.")
    if "against" in record:
        findings += _against_findings(record["against"])
    for shortcut in record["shortcuts"]:
        film = shortcut["attribute"] in OF_THE_FILM
        told = ", ".join(f"{name} ({shortcut['index'][name]:.2f})" for name in shortcut["tells"])
        if told:
            advice = "; the lungs may explain a part of that" if film else ": a **shortcut** that a network can take"
            findings.append(f"{shortcut['attribute'].capitalize()} alone tells {told}{advice}.")
    short = {f: c for f, c in record["published"].items() if c["found"] != c["published"]}
    if short:
        total = sum(c["found"] for c in record["published"].values())
        published = sum(c["published"] for c in record["published"].values())
        findings.append(f"{total} images where the publisher counts {published}: not the complete data set.")
    if record["bad"]:
        findings.append(f"{len(record['bad'])} files cannot be used, see below.")
    yield "\n".join(f"- {finding}" for finding in findings) if findings else "Nothing was found to be wrong."


def _against_findings(against: Record) -> Iterator[str]:
    shared = sum(c["shared"] for c in against["classes"].values())
    total = sum(c["images"] for c in against["classes"].values())
    name = against["dataset"]
    if not shared:
        yield f"No image is shared with {name}."
        return
    yield f"{shared} of {total} images are in {name} too: scores on one say little of a model trained on the other."
    for key, text in (
        ("trained here, tested there", f"{{}} pairs have their image here in train and in {name} in test."),
        ("trained there, tested here", f"{{}} pairs have their image in {name} in train and here in test."),
    ):
        if against[key]:
            yield text.format(against[key])


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _counts(record: Record) -> str:
    sides = list(record["images"])
    classes = list(next(iter(record["images"].values())))
    rows = [[name, *(counts := [record["images"][s][name] for s in sides]), sum(counts)] for name in classes]
    totals = [sum(record["images"][s].values()) for s in sides]
    table = _table(["class", *sides, "all"], [*rows, ["all", *totals, sum(totals)]])
    note = (
        "\n\n*unused*: outside the official test, but of a patient or a film that is in it." if UNUSED in sides else ""
    )
    return table + note


def _published(record: Record) -> list[str]:
    if not record["published"]:
        return []
    rows = [
        [
            folder,
            c["published"],
            c["found"],
            "" if c["found"] == c["published"] else f"{c['found'] - c['published']:+d}",
        ]
        for folder, c in record["published"].items()
    ]
    return [_table(["folder", "published", "found", "difference"], rows)]


def _shared(shared: Record) -> str:
    kinds = list(shared["pairs"])
    rows = [
        [where, *(shared[key][kind] if key != "pairs" or kind != "same patient" else "" for kind in kinds)]
        for where, key in (
            ("in the data set", "pairs"),
            ("across two splits", "two splits"),
            ("across two classes", "two classes"),
            ("across two patients", "two patients"),
        )
    ]
    known = f"{shared['patients']} patients are known by file name, {shared['without a patient']} images have none."
    groups = f"{shared['groups']} groups stay together in the split; the largest has {shared['largest group']} images."
    return f"{_table(['pairs', *kinds], rows)}\n\n{known} {groups} The pairs are listed in `shared.csv`."


def _against(against: Record) -> list[str]:
    rows = [
        [name, c["images"], c["shared"], ", ".join(f"{n} {where}" for where, n in c["where"].items()) or "–"]
        for name, c in against["classes"].items()
    ]
    kinds = ", ".join(f"{n} {kind}" for kind, n in against["pairs"].items()) or "none"
    name = against["dataset"]
    return [
        _table(["class here", "images", "shared", f"class and split in {name}"], rows),
        f"Pairs: {kinds}. They are listed in `shared_with_{name}.csv`.",
    ]


def _files(files: Record) -> str:
    def some(counts: Mapping[str, int]) -> str:
        return ", ".join(f"{name} {n}" for name, n in counts.items())

    rows = []
    for name, f in files.items():
        size, count = f["commonest_size"] or ("–", 0)
        middle = f"{f['median_width']:.0f}x{f['median_height']:.0f}" if count else "–"
        rows.append([name, some(f["formats"]), some(f["modes"]), f["sizes"], f"{size} ({count})", middle])
    header = ["class", "formats", "colour modes", "sizes", "commonest size", "median width x height"]
    sources = [f"Sources of {name}: {some(f['sources'])}." for name, f in files.items() if f["sources"]]
    return "\n\n".join([_table(header, rows), *sources])


def _exposure(exposure: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    names = list(next(iter(exposure.values())))
    rows = [
        [name, *(f"{q[1]:.0f} ({q[0]:.0f} to {q[2]:.0f})" for q in values.values())]
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
    return [_table(["attribute", "balanced accuracy", *classes], rows), note]


def _bad(bad: Mapping[str, str]) -> list[str]:
    lines = [f"- `{path}` {problem}" for path, problem in sorted(bad.items())]
    more = [f"- … and {len(lines) - BAD_SHOWN} more, in audit.json"] * (len(lines) > BAD_SHOWN)
    return ["\n".join(lines[:BAD_SHOWN] + more)]
