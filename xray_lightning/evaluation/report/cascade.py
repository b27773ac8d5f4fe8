"""The page of a two-stage system, as data, from cascade.json and the files beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xray_lightning.evaluation.cascade_content import (
    ALL,
    UNSEEN,
    Content,
    described,
    known_to_screen,
    parts_shown,
    read_cascade,
)
from xray_lightning.evaluation.report import words
from xray_lightning.evaluation.report.cascade_tables import (
    RULES,
    confusion_tables,
    differences_table,
    networks_table,
    sweep_table,
    systems_table,
)
from xray_lightning.evaluation.report.data import embedded, environment_lines, status_of, text_of
from xray_lightning.evaluation.report.numbers import count, estimate, number, percent

PARTS = {"unseen": UNSEEN, "all": ALL}  # as files of figures end
TITLES = {
    "sweep": "Sweep over the screen's sensitivity",
    "confusion_cascade": "Confusion matrix of the cascade",
    "confusion_alone": "Confusion matrix of the diagnosis alone",
}
CAUTIONS = {
    "sweep": "Compare systems at one sensitivity, which is a vertical line: a threshold that validation fixed reaches "
    "another sensitivity here."
}


def cascade_page(folder: Path) -> dict[str, Any]:
    """What the template shows. Raises XRayError where cascade.json is broken, or of an earlier version."""
    content = read_cascade(folder)
    shown = parts_shown(content)
    command = content["environment"].get("command")
    return {
        "title": f"Two stages {folder.resolve().name}",
        "when": words.when([status_of(folder)]),
        "facts": {note: [] for note in content["notes"]},
        "summary": _summary(content),
        "rules": RULES,
        "results": [systems_table(content, name) for name in shown],
        "differences": [differences_table(content, name) for name in shown],
        "figures_of_systems": _figures(content, folder),
        "sweeps": [sweep_table(content, name) for name in shown],
        "method": _method(content),
        "networks": networks_table(content),
        "confusions": {described(content, name): confusion_tables(content, name) for name in shown},
        "limits": list(_limits(content)),
        "commands": {"The command": command} if command else {},
        "environment": environment_lines(content["environment"]),
        "config": text_of(folder / ".hydra" / "config.yaml"),
        "name": folder.resolve().name,
    }


def _summary(content: Content) -> list[str]:
    """A paragraph a part: the verdict, and what the cascade saves."""
    told = [
        f"{part['verdict']} The screen does not flag {percent(estimate(part['spared']))} of the images, which the "
        f"second stage is spared. These are {described(content, name)}."
        for name, part in parts_shown(content).items()
    ]
    if not content["test"][UNSEEN]["images"]:
        told.append("The screen knows all of the test images: how it does on others, they do not tell.")
    return told


def _figures(content: Content, folder: Path) -> list[dict[str, Any]]:
    """Those that are there; of one kind the headline's first, beside the other that it is compared with."""
    wanted = [(kind, end) for kind in TITLES for end in PARTS]
    files = {(kind, end): folder / "figures" / f"{kind}_{end}.png" for kind, end in wanted}
    return [_figure(content, *key, file) for key, file in files.items() if file.is_file()]


def _figure(content: Content, kind: str, end: str, file: Path) -> dict[str, Any]:
    title = f"{TITLES[kind]}, {described(content, PARTS[end])}"
    alt = f"{title}. Its numbers stand in the tables of this page."
    return {"title": title, "alt": alt, "src": embedded(file), "is_gallery": False, "caution": CAUTIONS.get(kind, "")}


def _method(content: Content) -> list[str]:
    """How thresholds were fixed, and which images count as known to the screen."""
    fixed, asked = content["fixed_on"], f"{content['sensitivity']:g}"
    images = f"{count(fixed['validation'], 'validation image')} of the diagnosis ({counted(fixed['counts'])})"
    if fixed["seen_by_the_screen"]:
        known = (
            f"The screen knows {fixed['seen_by_the_screen']} of these: too few others are left to fix a "
            "threshold on. Having been trained or chosen on them, it may be less sensitive elsewhere."
        )
    else:
        out = fixed["left_out"]
        known = "The screen knows none of these." + f" {out} more, which it knows, were left out." * bool(out)
    return [
        f"The screen flags an image where its probability of disease is at least {number(content['threshold'])}: the "
        f"highest threshold that has sensitivity {asked} to any disease on {images}. {known} The threshold of the "
        f"diagnosis, matched, on its own probability of any disease was fixed in the same way on the same images: "
        f"{number(content['matched_threshold'])}. No test image was looked at to choose anything.",
        "An image counts as known to the screen where the same file, a near-identical film or, in the screen's own "
        "data set, another image of its patient was trained or validated on. They are found by content. "
        f"{known_to_screen(content) or 'None'} of the {content['test'][ALL]['images']} test images are known to it.",
        "95 % intervals respect patient groups: Wilson with a design effect for proportions, a sandwich estimate over "
        "group sums for their differences, BCa bootstrap for macro F1 and its differences.",
    ]


def counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in counts.items() if n)


def _limits(content: Content) -> list[str]:
    missing = {
        name: absent
        for name, part in parts_shown(content).items()
        if (absent := [c for c, n in part["counts"].items() if not n])
    }
    return [
        *(
            f"Of the {described(content, name)}, none is of {' or '.join(absent)}: accuracy there is over the other "
            "classes alone, and macro F1 is not defined."
            for name, absent in missing.items()
        ),
        "Thresholds keep what they promise on images like those of validation. Elsewhere both systems have another "
        "sensitivity and specificity.",
        "Each network is one training with one seed. What another training would change is not in these intervals.",
        "Differences are not adjusted for their number, but for the column that says so (Holm). McNemar's exact p "
        "takes images as independent: with several images a patient it is too small.",
        "The study's conclusion is about its own networks and data. What is tested here is whether it holds for these.",
    ]
