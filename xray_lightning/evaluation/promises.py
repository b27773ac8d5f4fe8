"""The terminal's table of operating points: what validation promised, and what the scored images gave."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from xray_lightning.console import table_console
from xray_lightning.evaluation.report.numbers import Estimate, estimate, number

NAMES = {
    "default": "0.5",
    "sensitivity_95": "sensitivity .95",
    "sensitivity_98": "sensitivity .98",
    "balanced": "best balanced accuracy",
}
OF_MANY = ("sensitivity_95",)  # points shown of each class where there are more than two; the report has all


def show_promises(record: Mapping[str, Any]) -> None:
    """Prints each operating point of a record, what it gave, and how well calibrated the probabilities are."""
    if not record.get("operating_points") or not record.get("calibration"):  # of a run before there were any
        return
    title = "Operating points, fixed on validation: what it promised -> what these images gave (95 % interval)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("class")
    table.add_column("fixed at")
    for heading in ("threshold", "sensitivity", "specificity", "accuracy"):
        table.add_column(heading, justify="right")
    several = len(record["classes"]) > 2
    for name, points in record["operating_points"].items():
        for key, point in points.items():
            if several and key not in OF_MANY:
                continue
            rates = [_promise(point, rate) for rate in ("sensitivity", "specificity")]
            accuracy = point["test"].get("accuracy")  # which older records lack
            rates.append(_found(estimate(accuracy)) if accuracy else "")
            table.add_row(name, NAMES.get(key, key), f"{point['threshold']:.3f}", *rates)
    console = table_console()
    console.print(table)
    calibration = record["calibration"]
    before, after = (
        {name: number(estimate(calibration[when][name]).value, 3) for name in ("log_loss", "ece")}
        for when in ("before", "after")
    )
    console.print(
        f"Calibration, temperature {calibration['temperature']:.2f} fitted on validation: log-loss "
        f"{before['log_loss']} -> {after['log_loss']}, ECE {before['ece']} -> {after['ece']}",
        soft_wrap=True,
        highlight=False,
    )


def _promise(point: Mapping[str, Any], rate: str) -> str:
    promised, found = (point.get("validation") or {}).get(rate), estimate(point["test"].get(rate))
    start = "" if promised is None or found.value is None else f"{promised:.3f} -> "
    return f"{start}{_found(found)}"


def _found(share: Estimate) -> str:
    if share.value is None:
        return "no images"
    bounds = f" ({share.low:.3f}–{share.high:.3f})" if share.bounded else ""
    return f"{share.value:.3f}{bounds}"
