"""The tables of a two-stage system's page, and that of a sweep's cascades."""

from collections.abc import Mapping, Sequence
from typing import Any

from xray_lightning.evaluation.cascade_content import (
    ALONE,
    CASCADE,
    MATCHED,
    OPEN,
    Content,
    conclusion,
    described,
)
from xray_lightning.evaluation.cascade_table import CascadeRow, scores_of
from xray_lightning.evaluation.report.numbers import Estimate, estimate, interval, p_value, signed
from xray_lightning.evaluation.report.run_tables import confusion_table
from xray_lightning.evaluation.report.tables import Cell, Column, Line, Table, measured, whole, words

SHARES = ("sensitivity", "specificity", "accuracy")
METRICS = {name: name for name in SHARES} | {"macro_f1": "macro F1"}
RULES = {
    CASCADE: "what the screen does not flag is healthy, all else the likeliest disease",
    OPEN: "what the screen does not flag is healthy, all else the likeliest class",
    ALONE: "the likeliest class",
    MATCHED: "healthy below a threshold that has the screen's sensitivity on validation, else the likeliest disease",
}


def cascades_table(rows: Sequence[CascadeRow], links: Mapping[str, str]) -> Table:
    """A line for each part of the test images of each cascade; `links` maps their folders' names to addresses."""
    columns = [Column("cascade", False), Column("asked"), Column("conclusion", False), Column("images")]
    columns += [Column("accuracy"), Column("accuracy", about="diagnosis alone"), Column("difference")]
    columns += [Column("macro F1"), *map(Column, SHARES[:2]), Column("spared")]
    lines = []
    for row in rows:
        name = Cell(row.run, " → ".join(row.origins), row.run, links.get(row.run, ""))
        for known, part in row.parts.items():
            found = scores_of(part)
            scores = [_change(v) if metric == "accuracy_difference" else measured(v, 3) for metric, v in found.items()]
            images = Cell(str(part["images"]), known.split()[0], part["images"])
            lines.append(Line([name, words(row.sensitivity), words(conclusion(part["differences"])), images, *scores]))
        if not row.parts:
            lines.append(Line([name, words(row.sensitivity), words(row.state), *[Cell("")] * 8], row.state))
    caption = (
        "The systems of two stages, each on its test images: on all, and where the screen knows some, on those "
        "unseen by it. Asked is the sensitivity to any disease that the "
        "screen's threshold was fixed at on validation. The difference is the accuracy of the cascade less that of "
        "the diagnosis alone. Below each value is its 95 % interval. The study's conclusion, that two stages are "
        "better than one, holds where the cascade is more accurate than the diagnosis alone, and than it with a "
        "threshold of its own."
    )
    return Table(caption, columns, lines, sortable=len(lines) > 1)


def systems_table(content: Content, name: str) -> Table:
    part = content["test"][name]
    columns = [Column("system", False), *map(Column, METRICS.values()), Column("spared stage two")]
    lines = []
    for system, found in part["systems"].items():
        spared = measured(part["spared"], 3) if system in (CASCADE, OPEN) else Cell("")
        lines.append(Line([words(system), *(measured(found[metric], 3) for metric in METRICS), spared]))
    counts = ", ".join(f"{n} {c}" for c, n in part["counts"].items() if n)
    caption = (
        f"{described(content, name)} ({counts}). Sensitivity is to any disease, specificity of {content['healthy']}; "
        f"accuracy and macro F1 are over all {len(content['classes'])} classes. Below each value is its 95 % interval."
    )
    return Table(caption, columns, lines)


def differences_table(content: Content, name: str) -> Table:
    columns = [Column("the cascade less", False)]
    for metric in SHARES:
        columns += [Column(metric), Column("McNemar p", about=metric)]
    columns += [Column("p", about="accuracy"), Column("p", about="accuracy, Holm"), Column("macro F1")]
    lines = []
    for found in content["test"][name]["differences"]:
        cells = [words(found["b"])]
        for metric in SHARES:
            p = found[metric]["mcnemar"]
            cells += [_change(found[metric]), Cell(p_value(p), _only(found[metric]), p)]
        cells += [Cell(p_value(found["accuracy"][p]), key=found["accuracy"][p]) for p in ("p", "adjusted")]
        lines.append(Line([*cells, _change(found["macro_f1"])]))
    caption = (
        f"Differences on {described(content, name)}, with 95 % intervals. Above 0 the cascade is better. Below "
        "McNemar's p is how many images only the cascade and only the other system has right."
    )
    return Table(caption, columns, lines)


def _change(found: Mapping[str, float | None]) -> Cell:
    value = estimate(found)
    ends = [
        None if end is None else min(1.0, max(-1.0, end)) for end in (value.low, value.high)
    ]  # normal ones reach out
    return Cell(signed(value.value), interval(Estimate(value.value, *ends)), value.value)


def _only(found: Mapping[str, Any]) -> str:
    return f"{found['only_a']} : {found['only_b']}"


def sweep_table(content: Content, name: str) -> Table:
    """Each sensitivity asked of validation; the one whose systems the other tables are about is marked."""
    columns = [Column("asked of validation")]
    columns += [Column(metric, about=CASCADE) for metric in (*SHARES, "spared")]
    columns += [Column(metric, about=MATCHED) for metric in SHARES]
    lines = []
    for line in content["test"][name]["sweep"]:
        asked = line["validation_sensitivity"]
        mark = "chosen" if asked == content["sensitivity"] else ""
        two, one = (line["systems"][system] for system in (CASCADE, MATCHED))
        found = [*(two[metric] for metric in SHARES), line["spared"], *(one[metric] for metric in SHARES)]
        lines.append(Line([Cell(f"{asked:g}", mark, asked), *(measured(value, 3) for value in found)]))
    caption = f"{described(content, name)}, by the sensitivity to any disease that thresholds were fixed at."
    return Table(caption, columns, lines)


def networks_table(content: Content) -> Table:
    columns = [Column("network", False), Column("model", False), Column("trained on", False), Column("classes", False)]
    columns += [Column("seed"), Column("training images"), Column("validation images")]
    lines = []
    for role in ("screen", "diagnosis"):
        found = content[role]
        images = [whole(sum(found["images"][side].values())) for side in ("train", "val")]
        texts = map(words, (found["model"], found["dataset"], ", ".join(found["classes"])))
        lines.append(Line([Cell(role, found["checkpoint"]), *texts, whole(found["seed"]), *images]))
    return Table("The networks. A screen flags its second class.", columns, lines)


def confusion_tables(content: Content, name: str) -> dict[str, Table]:
    record = {"classes": content["classes"], "split": "test"}
    matrices = content["test"][name]["confusion_matrices"]
    return {system: confusion_table(record | {"confusion_matrix": matrix}) for system, matrix in matrices.items()}
