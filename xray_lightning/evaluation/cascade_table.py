"""What a cascade's command says at its end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xray_lightning.console import table_console
from xray_lightning.evaluation.cascade_content import described, parts_shown
from xray_lightning.evaluation.report.numbers import estimate, with_interval


def show_cascade(content: Mapping[str, Any], folder: Path) -> None:
    """Prints what each system has on each part of the test images, the verdicts, and where results and figures lie."""
    console = table_console()
    fixed, notes = content["fixed_on"], content["notes"]
    console.print(
        f"Threshold of the screen {content['threshold']:.4f}: sensitivity {content['sensitivity']:g} on "
        f"{fixed['validation']} validation images, of which the screen knows {fixed['seen_by_the_screen']}",
        soft_wrap=True,
    )
    for name, part in parts_shown(content).items():
        _show_part(console, described(content, name), part)
    if notes:
        console.print(Text(", ".join(notes), style="yellow"), soft_wrap=True)
    places = {"Report": folder / "report.html", "Results": folder / "cascade.json", "Figures": folder / "figures"}
    for what, place in places.items():
        if place.exists():
            console.print(Text(f"{what:<9} {place}"), soft_wrap=True)


def _show_part(console: Console, images: str, part: Mapping[str, Any]) -> None:
    counts = ", ".join(f"{count} {c}" for c, count in part["counts"].items() if count)
    title = Text(f"{images} ({counts})")
    table = Table("system", title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for metric in next(iter(part["systems"].values())):
        table.add_column(metric.replace("_f1", " F1"), justify="right")
    for system, found in part["systems"].items():
        table.add_row(system, *(with_interval(estimate(value), 3) for value in found.values()))
    console.print(table)
    spared = estimate(part["spared"])
    console.print(f"Not flagged, so spared the second stage: {with_interval(spared, 3)}", highlight=False)
    console.print(part["verdict"], soft_wrap=True, highlight=False)
