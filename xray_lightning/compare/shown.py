"""A comparison as people and programs read it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from xray_lightning.compare.part import Difference, Part
from xray_lightning.compare.runs import Comparison
from xray_lightning.console import printable

LISTED = 10  # differences of a part
LONGEST = 80  # letters of a value
CONTEXT = 20  # letters that long values are shown from, before they part
ASIDE = ("command", "overrides", "folder", "variables.XRAY_CACHE")  # of the environment: they cause nothing themselves


def run_table(comparison: Comparison) -> Table:
    """Every part, with its differences below it."""
    table = Table("", "A", "B", "difference", box=None, pad_edge=False, header_style="bold")
    for part in comparison.parts:
        style = "bold red" if part.differences and part.result else "bold yellow" if part.differences else "bold"
        table.add_row(Text(part.name, style=style), "", "", Text(_summary(part), style=style))
        for difference in part.differences[:LISTED]:
            table.add_row(*map(_cell, _line(difference)))
        if len(part.differences) > LISTED:
            table.add_row("", "", "", f"… and {len(part.differences) - LISTED} more, which --json lists")
    return table


def sweep_table(found: Mapping[str, Comparison | str]) -> Table:
    """A line for each run of the two sweeps."""
    table = Table("run", "results", "differing", box=None, pad_edge=False, header_style="bold")
    for name, comparison in found.items():
        if isinstance(comparison, str):
            table.add_row(_cell(name), Text("not compared", style="bold red"), _cell(comparison))
            continue
        parts = ", ".join(f"{p.name} ({_summary(p)})" for p in comparison.parts if p.differences)
        result = Text("the same") if comparison.same else Text("differ", style="bold red")
        table.add_row(_cell(name), result, _cell(parts or "nothing"))
    return table


def verdict(comparison: Comparison) -> str:
    """Whether the results are the same; if not, what may be the reason."""
    results = [part for part in comparison.parts if part.result]
    if comparison.same:
        compared = ", ".join(f"{part.compared} {part.unit} of {part.name}" for part in results if part.compared)
        return f"The results are the same, bit for bit: {compared}."
    differing = ", ".join(part.name for part in results if part.differences)
    return f"The results differ: {differing}. {_reason(comparison)}"


def _reason(comparison: Comparison) -> str:
    given = {
        part.name: [d.what for d in part.differences if part.name != "environment" or d.what not in ASIDE]
        for part in comparison.parts
        if not part.result
    }
    named = "; ".join(f"{name}: {_few(whats)}" for name, whats in given.items() if whats)
    reasons = [f"What went in differs, too: {named}."] if named else []
    if comparison.unrepeatable:
        reasons.append(f"No two such runs need be the same: {comparison.unrepeatable}.")
    return " ".join(reasons) or "What went in is the same, as far as the runs tell, so they should not differ."


def _few(names: list[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:6])
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"


def plain(found: Comparison | Mapping[str, Comparison | str]) -> Any:
    """For JSON: all differences, by run in sweeps."""
    if not isinstance(found, Comparison):
        return {name: c if isinstance(c, str) else plain(c) for name, c in found.items()}
    parts = {
        part.name: {"compared": part.compared, "unit": part.unit, "result": part.result}
        | {"differences": [difference._asdict() for difference in part.differences]}
        for part in found.parts
    }
    return {"same": found.same, "unrepeatable": found.unrepeatable, "parts": parts}


def _summary(part: Part) -> str:
    if not part.compared and not part.differences:
        return "in neither run"
    if not part.differences:
        return f"the same ({part.compared} {part.unit})"
    return f"{len(part.differences)} differences" if len(part.differences) != 1 else "1 difference"


def _line(difference: Difference) -> Iterator[object]:
    yield f"  {difference.what}"
    values = difference.a, difference.b
    texts = ["" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value) for value in values]
    alike = next((n for n, (x, y) in enumerate(zip(*texts, strict=False)) if x != y), 0) - CONTEXT
    cut = alike > 0 and max(map(len, texts)) > LONGEST
    yield from (f"…{text[alike:]}" if cut else text for text in texts)
    yield difference.by


def _cell(value: object) -> Text:
    text = printable(value)
    return Text(text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…")


def show(console: Console, folders: tuple[Path, Path], found: Comparison | Mapping[str, Comparison | str]) -> None:
    """Prints table and verdict."""
    for letter, folder in zip("AB", folders, strict=True):
        console.print(Text(f"{letter}  {printable(folder)}"), soft_wrap=True)
    console.print()
    if isinstance(found, Comparison):
        console.print(run_table(found))
        console.print(Text(f"\n{verdict(found)}"), soft_wrap=True)
        return
    console.print(sweep_table(found))
    same = sum(isinstance(c, Comparison) and c.same for c in found.values())
    console.print(
        Text(f"\nOf {len(found)} runs, {same} have the same results, bit for bit. Two run folders show more.")
    )
