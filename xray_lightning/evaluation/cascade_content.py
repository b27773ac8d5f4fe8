"""What stands in cascade.json: what systems and parts of the test images are called, which parts to show, and what the
file must look like, which somebody else may have written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from xray_lightning.artifacts import read_json
from xray_lightning.errors import XRayError
from xray_lightning.evaluation.stored import Count, Environment, Name, Part, what_is_wrong

CASCADE, OPEN, ALONE, MATCHED = (
    "cascade",
    "cascade, second stage may say healthy",
    "diagnosis alone",
    "diagnosis, matched",
)
SYSTEMS = (CASCADE, OPEN, ALONE, MATCHED)
BEFORE = ("path", "group", "label", "screen", "flagged")  # in predictions.csv, then the classes, then SYSTEMS
UNSEEN, ALL = "unseen by the screen", "all"
Content = Mapping[str, Any]


def read_cascade(folder: Path) -> dict[str, Any]:
    """The content of cascade.json. Raises XRayError where it is broken, or of an earlier version."""
    file = folder / "cascade.json"
    content = read_json(file)
    if problem := what_is_wrong(Cascade, content):
        raise XRayError(f"{file} is broken or of an earlier version ({problem}). Run its test again.")
    return content or {}


def parts_shown(content: Content) -> dict[str, Content]:
    """The parts of the test images that there are, the headline first, and each once: where the screen knows no image,
    those that it does not know are all."""
    parts = content["test"]
    own = {name: parts[name] for name in (UNSEEN, ALL) if parts[name]["images"]}
    return {ALL: parts[ALL]} if known_to_screen(content) == 0 else own


def known_to_screen(content: Content) -> int:
    """How many test images the screen was trained or chosen on."""
    return int(content["test"][ALL]["images"] - content["test"][UNSEEN]["images"])


def described(content: Content, part: str) -> str:
    """Such as "660 test images of covid, of which the screen knows 299"."""
    images = f"{content['test'][part]['images']} test images of {content['dataset']}"
    if part == UNSEEN:
        return f"{images} that the screen does not know"
    known = known_to_screen(content)
    return f"{images}, of which the screen knows {known or 'none'}"


def conclusion(differences: Sequence[Content]) -> str:
    """Whether two stages are better than one, by the "differences" of a part: in accuracy, where the 95 % interval
    leaves out 0, than the diagnosis alone and than the diagnosis with a threshold of its own."""
    lows = [pair["accuracy"]["low"] for pair in differences if pair["b"] in (ALONE, MATCHED)]
    better = sum(low is not None and low > 0 for low in lows)
    return "holds" if better == len(lows) else "holds in part" if better else "does not hold"


def against_alone(part: Content) -> Content:
    """By how much the cascade differs from the diagnosis alone."""
    return next(pair for pair in part["differences"] if pair["b"] == ALONE)


def _just(*names: str) -> AfterValidator:
    def check(found: dict[str, Any]) -> dict[str, Any]:
        if found.keys() != {*names}:
            raise ValueError(f"not of {'; '.join(names)}")
        return found

    return AfterValidator(check)


Fraction = Annotated[float, Field(ge=-1e-9, le=1 + 1e-9)]  # as far as rounding reaches out
Images = Annotated[int, Field(ge=0, le=10**9)]
Counts = dict[str, Images]


class _Share(Part):
    value: Fraction | None
    low: Fraction | None
    high: Fraction | None


class _Shares(Part):
    sensitivity: _Share
    specificity: _Share
    accuracy: _Share


class _Scores(_Shares):
    macro_f1: _Share


class _Gap(Part):
    value: float | None
    low: float | None
    high: float | None


class _Change(_Gap):
    p: float | None
    adjusted: float | None
    only_a: Count
    only_b: Count
    mcnemar: float | None


class _Difference(Part):
    b: Literal[OPEN, ALONE, MATCHED]  # type: ignore[valid-type]
    sensitivity: _Change
    specificity: _Change
    accuracy: _Change
    macro_f1: _Gap


class _Line(Part):
    validation_sensitivity: float
    spared: _Share
    systems: Annotated[dict[str, _Shares], _just(CASCADE, OPEN, MATCHED)]


class _Nothing(Part):
    images: Literal[0]


class _Judged(Part):
    images: Annotated[int, Field(ge=1)]
    counts: Counts
    verdict: str
    spared: _Share
    systems: Annotated[dict[str, _Scores], _just(*SYSTEMS)]
    confusion_matrices: Annotated[dict[str, list[list[Images]]], _just(*SYSTEMS)]
    differences: Annotated[list[_Difference], Field(min_length=3, max_length=3)]
    sweep: Annotated[list[_Line], Field(min_length=1)]

    def model_post_init(self, context: Any) -> None:
        if len({pair.b for pair in self.differences}) < len(self.differences):
            raise ValueError("a system that is compared twice")


class _Sides(Part):
    train: Counts
    val: Counts


class _Network(Part):
    checkpoint: str
    dataset: Name
    model: Name
    seed: int | None
    classes: list[Name]
    images: _Sides


class _FixedOn(Part):
    validation: Count
    counts: Counts
    seen_by_the_screen: Count
    left_out: Count


class Cascade(Part):
    screen: _Network
    diagnosis: _Network
    dataset: Name
    classes: Annotated[list[Name], Field(min_length=2)]
    healthy: Name
    sensitivity: float
    threshold: float
    matched_threshold: float
    fixed_on: _FixedOn
    notes: list[Name]
    test: Annotated[dict[str, _Judged | _Nothing], _just(UNSEEN, ALL)]
    environment: Environment

    def model_post_init(self, context: Any) -> None:
        if isinstance(self.test[ALL], _Nothing):
            raise ValueError("a test without images")
        for part in self.test.values():
            for matrix in part.confusion_matrices.values() if isinstance(part, _Judged) else ():
                if {len(matrix), *map(len, matrix)} != {len(self.classes)}:
                    raise ValueError("a confusion matrix of other classes")
