"""What a checkpoint's card must look like before anything is believed of it."""

from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from torch import Tensor

from xray_lightning.data.decode import LARGEST_SIDE

FILM = 512  # bytes of a remembered film


def _films(value: Any) -> Any:
    if not (isinstance(value, Tensor) and value.dtype == torch.uint8 and value.shape[1:] == (FILM,)):
        raise ValueError(f"no uint8 tensor (N, {FILM})")
    return value


def _numbers(value: Any) -> Any:
    if not (isinstance(value, Tensor) and value.is_floating_point() and bool(value.isfinite().all())):
        raise ValueError("no tensor of finite numbers")
    return value


Films = Annotated[Tensor, BeforeValidator(_films)]
Numbers = Annotated[Tensor, BeforeValidator(_numbers)]
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    """Types as they are written, nothing turned into another; what is not named here may be anything plain."""

    model_config = ConfigDict(strict=True, extra="allow", arbitrary_types_allowed=True, allow_inf_nan=False)


class _Point(_Part):
    threshold: float
    tp: Count
    fn: Count
    tn: Count
    fp: Count


class _Familiarity(_Part):
    mean: Numbers
    std: Numbers
    directions: Numbers
    variances: Numbers
    rest: Numbers
    limit: Numbers

    def model_post_init(self, context: Any) -> None:
        width, count = len(self.mean.flatten()), len(self.variances.flatten())
        shapes = [tuple(value.shape) for value in vars(self).values()]
        if shapes != [(width,), (width,), (width, count), (count,), (), ()]:
            raise ValueError("shapes that do not fit each other")


class _Arguments(_Part):
    name: str
    image_size: Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
    resize: Literal["stretch", "pad", "crop"]


class _Images(_Part):
    train: list[str]
    val: list[str]
    test: list[str]


class _RememberedFilms(_Part):
    train: Films
    val: Films


class _Patients(_Part):
    train: list[str]
    val: list[str]


class _Data(_Part):
    module: str
    arguments: _Arguments
    leaked: dict[str, Count]
    images: _Images
    films: _RememberedFilms
    patients: _Patients


class _Card(_Part):
    model: str
    classes: list[str]
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    temperature: Annotated[float, Field(gt=0)]
    operating_points: dict[str, dict[str, _Point]]
    weights: str = ""
    validation: dict[str, float | None] | None = None
    familiarity: _Familiarity | None = None
    data: _Data

    def model_post_init(self, context: Any) -> None:
        judged = self.classes[1:] if len(self.classes) == 2 else self.classes
        points = self.operating_points
        if list(points) not in ([], judged) or not all("default" in own for own in points.values()):
            raise ValueError("operating points that are not those of the classes")


def what_is_wrong(card: Any) -> str:
    """Where a card is not as this program writes it, and how; empty where all that is read of it is as it should be."""
    try:
        _Card.model_validate(card)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))[:100]}: {first['msg']}"
    return ""
