"""What metrics.json and status.json of a run folder must look like, which somebody else may have written."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("a name with letters that cannot be printed")
    return name


Name = Annotated[str, AfterValidator(_printable)]
Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """Types as they are written, nothing turned into another; more may be there, and is not read."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Estimate(Part):
    value: float | None
    low: float | None = None
    high: float | None = None


Measured = _Estimate | float | None
Rates = dict[str, float | None]


class _OfClass(Part):
    __pydantic_extra__: dict[str, Measured]
    n: Count


class _Scores(Part):
    log_loss: Measured
    brier: Measured
    ece: Measured


class _Calibration(Part):
    temperature: float
    before: _Scores
    after: _Scores


class _Gap(Part):
    sensitivity: Measured = None
    specificity: Measured = None


class _Achieved(Part):
    sensitivity: Measured
    specificity: Measured
    ppv: Measured = None
    npv: Measured = None
    accuracy: Measured = None


class _Point(Part):
    threshold: float
    test: _Achieved
    validation: Rates | None = None
    gap: _Gap | None = None


class _Subgroup(Part):
    by: Name
    value: Name
    of_class: Name = Field(alias="class")
    n: Count
    recall: Measured


class _Interval(Part):
    level: float
    method: str
    resamples: int


class _Seen(Part):
    trained: Count
    chosen: Count
    identical: Count


class _Audit(Part):
    images: Count
    groups: Count
    patients_known: Count
    identical: Count
    near_identical: Count
    leaked: dict[str, Count]


class Environment(Part):
    command: str | None = None


class Record(Part):
    dataset: Name
    model: Name
    seed: int | None
    split: str = "test"
    n: Count
    groups: Count | None = None
    classes: Annotated[list[Name], Field(min_length=2)]
    positive: Name | None = None
    metrics: dict[str, _Estimate]
    per_class: dict[str, _OfClass] = {}
    confusion_matrix: list[list[Count]] = []
    interval: _Interval | None = None
    calibration: _Calibration | None = None
    operating_points: dict[str, dict[str, _Point]] | None = None
    validation: Rates | None = None
    subgroups: list[_Subgroup] | None = None
    reference: dict[str, float] | None = None
    seen: _Seen | None = None
    notes: list[str] | None = None
    images: dict[str, dict[str, Count]] | None = None
    audit: _Audit | None = None
    bad_images: dict[str, str] | None = None
    environment: Environment | None = None
    checkpoint: str | None = None

    def model_post_init(self, context: Any) -> None:
        sides = {len(self.confusion_matrix), *map(len, self.confusion_matrix)}
        if self.confusion_matrix and sides != {len(self.classes)}:
            raise ValueError("a confusion matrix of other classes")


class _Augment(Part):
    pass


class _Named(Part):
    name: Name = "?"
    augment: _Augment | None = None


class _Settings(Part):
    dataset: _Named = _Named()
    model: _Named = _Named()
    seed: int | None = None
    callbacks: dict[str, dict[str, Any]] = {}


class Status(Part):
    state: str
    started: str | None = None
    ended: str | None = None
    seconds: float | None = None
    error: str | None = None
    settings: _Settings


def what_is_wrong(kind: type[BaseModel], content: Mapping[str, Any] | None) -> str:
    """Where a file's content is not what this program writes there, and how; empty where it is."""
    if content is None:
        return "it is no JSON object"
    try:
        kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))[:100]}: {first['msg']}"
    return ""
