"""In sentences: how far the images that were scored kept what validation promised."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xray_lightning.evaluation.report.data import Run, side_of
from xray_lightning.evaluation.report.numbers import NONE, estimate, listed, number, with_interval

MOST_NAMED = 3
POINT = "sensitivity_95"


def trust(done: Sequence[Run]) -> list[str]:
    """How far the runs of one data set kept what validation promised. What was chosen on is no test of it."""
    judged = [run for run in done if run.record.get("seen") or run.record["split"] == "test"]
    return [*worsened(judged), *promised(judged)]


def worsened(runs: Sequence[Run]) -> Iterator[str]:
    """Of which runs of a data set the temperature made the log-loss worse."""
    changed = {}
    for run in runs:
        found = run.record.get("calibration") or {}
        before, after = (estimate((found.get(when) or {}).get("log_loss")).value for when in ("before", "after"))
        if before is not None and after is not None and round(after, 3) > round(before, 3):
            changed[run.short] = f"{number(before, 3)} to {number(after, 3)}"
    if changed:
        side = side_of([run.record for run in runs])
        names, values = listed(list(changed)), "; ".join(changed.values())
        start = f"On {runs[0].row.dataset}, the temperature fitted on validation made the log-loss of {names} on {side}"
        yield f"{start} worse ({values}), as happens where validation is not like {side}."


def promised(runs: Sequence[Run]) -> Iterator[str]:
    """Of two classes: what the threshold for sensitivity 0.95 gave."""
    points = {
        run.short: run.record["operating_points"][run.record["positive"]][POINT]
        for run in runs
        if POINT in ((run.record.get("operating_points") or {}).get(run.record.get("positive")) or {})
    }
    side = side_of([run.record for run in runs])
    kept = {name: point for name, point in points.items() if point.get("validation")}
    if not kept:
        return
    start = f"At the threshold that validation set for sensitivity 0.95, {side} gave"
    if len(kept) > MOST_NAMED:
        ranges = (f"{rate} {_range(kept, rate)}" for rate in ("sensitivity", "specificity"))
        yield f"{start} {len(kept)} runs {' and '.join(ranges)}."
    else:
        yield f"{start} {'; '.join(f'{name} {_outcome(point)}' for name, point in kept.items())}."
    broken = [
        f"the {rate} of {_few(names)} lies {where}"
        for rate in ("sensitivity", "specificity")
        for where in ("above", "below")
        if (names := [name for name, point in kept.items() if _off(point, rate) == where])
    ]
    if broken:
        told = listed(broken)
        yield f"{told[0].upper()}{told[1:]} what validation promised: the 95 % interval of the difference excludes 0."


def _few(names: Sequence[str]) -> str:
    return listed([*names]) if len(names) <= MOST_NAMED else f"{len(names)} of these runs"


def _outcome(point: Mapping[str, Any]) -> str:
    rates = []
    for rate in ("sensitivity", "specificity"):
        found, hoped = estimate(point["test"].get(rate)), point["validation"].get(rate)
        rates.append(f"{rate} {with_interval(found, 3)} against {number(hoped, 3)}")
    return f"{listed(rates)} on validation"


def _range(points: Mapping[str, Mapping[str, Any]], rate: str) -> str:
    """Lowest and highest of the points, and of their promises."""
    ends = []
    for side in ("test", "validation"):
        values = [v for point in points.values() if (v := estimate(point[side].get(rate)).value) is not None]
        ends.append(f"{number(min(values), 3)} to {number(max(values), 3)}" if values else NONE)
    return f"{ends[0]} ({ends[1]} on validation)"


def _off(point: Mapping[str, Any], rate: str) -> str:
    """Where the rate lies when the interval of its gap excludes 0; empty where it does not."""
    gap = estimate((point.get("gap") or {}).get(rate))
    if gap.low is None or gap.high is None:
        return ""
    return "above" if gap.low > 0 else "below" if gap.high < 0 else ""
