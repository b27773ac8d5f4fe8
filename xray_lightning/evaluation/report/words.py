"""What a report says in sentences: the summary, and what to know before believing it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xray_lightning.evaluation.cascade_table import CascadeRow
from xray_lightning.evaluation.report.data import IMAGES, Comparison, Run
from xray_lightning.evaluation.report.numbers import (
    as_number,
    count,
    equals,
    estimate,
    listed,
    number,
    signed,
    with_interval,
)
from xray_lightning.evaluation.report.trust import MOST_NAMED, trust

RETOLD = ("were trained on", "were validated on")  # how the note ends that a sentence on what was seen replaces
SIGNIFICANT = 0.05


def summary(runs: Sequence[Run], comparisons: Sequence[Comparison], cascades: Sequence[CascadeRow]) -> list[str]:
    """A paragraph or two a data set, of numbers alone, and one on cascades."""
    datasets = list(dict.fromkeys(run.row.dataset for run in runs))
    sentences = []
    if len(runs) > 1:
        told = _states([run.row.state for run in runs])
        sentences.append(f"{len(runs)} runs on {count(len(datasets), 'data set')}: {told}.")
    for dataset in datasets:
        done = [run for run in runs if run.row.dataset == dataset and run.record]
        if done:
            compared = [c for c in comparisons if c["dataset"] == dataset]
            sentences.append(" ".join([_scores(done), *_references(done), *_differences(compared)]))
            sentences += [" ".join(found)] if (found := trust(done)) else []
    if cascades:
        told = _states([cascade.state for cascade in cascades])
        sentences.append(f"{count(len(cascades), 'cascade')} of two stages: {told}.")
    return sentences


def _states(states: Sequence[str]) -> str:
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def _scores(done: Sequence[Run]) -> str:
    record = done[0].record
    groups = f" of {count(record['groups'], 'patient group')}" if record.get("groups") else ""
    images = IMAGES.get(record["split"], "images").removesuffix("s")
    text = f"On {count(record['n'], images)}{groups} of {record['dataset']}: "
    ranked = sorted(done, key=lambda run: estimate(run.record["metrics"].get("auroc")).value or 0.0, reverse=True)
    if len(ranked) > MOST_NAMED:
        text += f"of {len(ranked)} runs sorted by AUROC, the first and the last have "
        ranked = [ranked[0], ranked[-1]]
    return text + "; ".join(score(run) for run in ranked) + "."


def score(run: Run) -> str:
    metrics = run.record["metrics"]
    accuracy, auroc = (with_interval(estimate(metrics.get(name)), 3) for name in ("accuracy", "auroc"))
    return f"{run.short} accuracy {accuracy} and AUROC {auroc}"


def _references(done: Sequence[Run]) -> Iterator[str]:
    told: dict[str, str] = {}
    for run in done:
        published = (run.record.get("reference") or {}).get("accuracy")
        if published is not None:
            found = estimate(run.record["metrics"].get("accuracy"))
            told.setdefault(run.row.model, f"{number(published, 3)} for {run.row.model}{_placed(published, found)}")
    if told:
        yield f"The reference study gives accuracy {listed(list(told.values()))}."


def _placed(published: float, found: Any) -> str:
    if not found.bounded:
        return ""
    where = "below" if published < found.low else "above" if published > found.high else "inside"
    return f" ({where} this run's interval)"


def _differences(compared: Sequence[Comparison]) -> Iterator[str]:
    tests = {"accuracy": "accuracy_p_holm", "auroc": "delong_p_holm"}
    shown = {"accuracy": "accuracy", "auroc": "AUROC"}
    if len(compared) == 1:
        parts = []
        for metric, column in tests.items():
            difference, p = (as_number(compared[0].get(name)) for name in (f"{metric}_difference", column))
            if difference is not None and p is not None:
                size = signed(difference).lstrip("+−")
                parts.append(f"by {size} in {shown[metric]} ({equals(p)})")
        if parts:
            yield f"The two differ {listed(parts)}."
    elif compared:
        parts = []
        for metric, column in tests.items():
            n = sum(1 for c in compared if (p := as_number(c.get(column))) is not None and p < SIGNIFICANT)
            parts.append(f"{n} in {shown[metric]}")
        yield f"Of {len(compared)} pairs, {listed(parts)} differ at p < {SIGNIFICANT} after Holm's correction."


def facts(runs: Sequence[Run], cascades: Sequence[CascadeRow]) -> dict[str, list[str]]:
    """What to know before believing the scores, and what it is about (nothing named where it is about all)."""
    notes: dict[str, list[str]] = {}
    for run in runs:
        seen = run.record.get("seen")
        told = [n for n in run.record.get("notes") or [] if not (seen and n.endswith(RETOLD))]
        for note in [*told, *([_seen(seen, run.record["n"])] if seen else [])]:
            notes.setdefault(note, []).append(run.name)
    scored = [cascade for cascade in cascades if cascade.content]
    for cascade in scored:
        for note in cascade.notes:
            notes.setdefault(note, []).append(cascade.run)
    done = sum(bool(run.record) for run in runs) + len(scored)
    return {note: [] if len(names) == done else names for note, names in notes.items()}


def _seen(seen: Mapping[str, int], n: int) -> str:
    if not seen["trained"] and not seen["chosen"]:
        return f"None of these {n} images or their patients is known to have been used for training or validation."
    return (
        f"The model was trained on {seen['trained']} of these {n} images or their patients "
        f"({seen['identical']} as the same files); {seen['chosen']} more were used for validation."
    )


def when(statuses: Sequence[Mapping[str, Any]]) -> str:
    """From the first start to the last end, by status.json."""
    started = min((status["started"] for status in statuses if status.get("started")), default="")
    ended = max((status["ended"] for status in statuses if status.get("ended")), default="")
    times = [moment[:16].replace("T", " ") for moment in (started, ended) if moment]
    if len(times) == 2 and times[0][:10] == times[1][:10]:
        times[1] = times[1][11:]
    zone = " UTC" if (started or ended).endswith("+00:00") else ""
    return " to ".join(times) + zone


def audited(record: dict[str, Any]) -> str:
    """What looking through all images of the data set found."""
    found = record.get("audit")
    if not found:
        return ""
    leaked = " and ".join(f"{n} {side}" for side, n in found["leaked"].items())
    across = f"{leaked} images have one of their group on another side" if leaked else "no group is on two sides"
    parts = [
        f"{count(found['images'], 'image')} in {count(found['groups'], 'group')} by patient, copies and twins",
        f"the patient of {found['patients_known']} is known",
        f"{count(found['identical'], 'pair')} of identical files and {found['near_identical']} of twins, which are "
        "near-identical films",
        *([] if record.get("seen") else [f"{across} of the split"]),
    ]
    return f"{'; '.join(parts)}."


def interval_method(record: dict[str, Any]) -> str:
    found = record.get("interval")
    if not found:
        return ""
    return f"{100 * found['level']:.0f} % intervals: {found['method']}, {found['resamples']} resamples."
