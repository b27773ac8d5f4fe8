"""Predictions for files: from Python, and for the commands.

>>> from xray_lightning import load
>>> model = load("best.ckpt")
>>> model.predict("films/*.png")[0].probabilities  # doctest: +SKIP
{'NORMAL': 0.03, 'PNEUMONIA': 0.97}
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np

from xray_lightning.data.decode import BadImage, read_bytes
from xray_lightning.data.incoming import Incoming, read_image
from xray_lightning.data.parallel import in_order
from xray_lightning.errors import XRayError
from xray_lightning.evaluation.overlay import free_name, heat_map, write_overlay
from xray_lightning.found import found_files
from xray_lightning.stage import Opinion, Stage

File = str | Path
BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """What is said of one file.

    `answer` is one class, or at operating points of more than two classes all that reach their threshold joined by
    " + ", or "none"; of two stages also "not flagged". `probabilities` are calibrated and sum to 1; empty where no
    network was asked. `screening` are those of the first of two stages. `error` completes the sentence `<file> …`;
    then there is no answer.
    """

    path: str
    answer: str | None = None
    reason: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)
    screening: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    error: str | None = None
    overlay: str | None = None


class Predictor(ABC):
    """One checkpoint, or a screen and a diagnosis. `load` makes them."""

    point: str  # the operating point that decides

    @property
    @abstractmethod
    def stages(self) -> Sequence[Stage]:
        """In the order in which they are asked."""

    @abstractmethod
    def _judged(self, names: Sequence[str], images: Sequence[Incoming]) -> list[tuple[Prediction, Opinion, int]]:
        """For each image what is said, and the opinion (and its row) that an overlay explains."""

    def predict(
        self, inputs: File | Iterable[File], *, batch_size: int = BATCH, overlay: File | None = None
    ) -> list[Prediction]:
        """Of files, of folders with all images below them, or of patterns such as films/*.png, in that order.

        A file that cannot be read has an `error`, and the others go on. With `overlay` a picture of what spoke for
        each answer is written into that folder. Raises XRayError where there is no file at all.
        """
        return list(self.stream(found_files(inputs), batch_size=batch_size, overlay=overlay))

    def stream(
        self, files: Sequence[Path], *, batch_size: int = BATCH, overlay: File | None = None
    ) -> Iterator[Prediction]:
        """As `predict`, for files alone, each as soon as its batch is done: memory does not grow with their number."""
        if not isinstance(batch_size, int) or batch_size < 1:
            raise XRayError(f"batch_size={batch_size} is not valid. Give a whole number of at least 1.")
        read = in_order(self._read, files, "Predicting")
        for batch in iter(lambda: list(islice(read, batch_size)), []):
            yield from self._batch(batch, overlay)

    def predict_bytes(
        self, name: str, content: bytes
    ) -> tuple[Prediction, Incoming | None, tuple[Opinion, np.ndarray | None] | None]:
        """What is said of a file's content; the image in it, and of the network that had the last word its opinion and
        its Grad-CAM (S, S) from 0 to 1, or None of a model that has none. Of a broken file there is an error alone."""
        try:
            image = read_image(name, content, self._size())
        except BadImage as problem:
            return Prediction(name, error=str(problem)), None, None
        ((prediction, opinion, row),) = self._judged([name], [image])
        return prediction, image, (opinion.only(row), heat_map(opinion, row))

    def _size(self) -> int:
        return max(stage.model.image_size for stage in self.stages)

    def _read(self, file: Path) -> tuple[str, Incoming | str]:
        try:
            return str(file), read_image(file.name, read_bytes(file), self._size())
        except BadImage as problem:
            return str(file), str(problem)

    def _batch(self, batch: Sequence[tuple[str, Incoming | str]], overlay: File | None) -> Iterator[Prediction]:
        names = [name for name, image in batch if isinstance(image, Incoming)]
        images = [image for _, image in batch if isinstance(image, Incoming)]
        judged = iter(self._judged(names, images) if images else [])
        for name, image in batch:
            if isinstance(image, str):
                yield Prediction(name, error=image)
                continue
            prediction, opinion, row = next(judged)
            if overlay is not None:
                target = free_name(Path(overlay), Path(name).stem)
                write_overlay(target, image.image, opinion, row, prediction.answer or "", name)
                prediction = replace(prediction, overlay=str(target))
            yield prediction


class Single(Predictor):
    """One network."""

    def __init__(self, stage: Stage, point: str = "default") -> None:
        self.stage = stage
        self.point = point
        self.thresholds = stage.thresholds(point)

    @property
    def stages(self) -> Sequence[Stage]:
        return [self.stage]

    def _judged(self, names: Sequence[str], images: Sequence[Incoming]) -> list[tuple[Prediction, Opinion, int]]:
        opinion = self.stage.look(images)
        told = []
        for row, (name, image) in enumerate(zip(names, images, strict=True)):
            p = opinion.probabilities_of(row)
            answer, reason = self.stage.decide(p, self.thresholds, self.point)
            warnings = image.warnings + opinion.warnings_of(row, image)
            told.append((Prediction(name, answer, reason, p, warnings=warnings), opinion, row))
        return told


class TwoStages(Predictor):
    """A screen of two classes, whose positive one sends an image on to the diagnosis."""

    def __init__(self, screen: Stage, diagnosis: Stage, point: str = "sensitivity_98") -> None:
        if len(screen.classes) != 2:
            raise XRayError(
                f"{screen.path} tells apart {', '.join(screen.classes)}: a screen has two classes. Of two checkpoints "
                "the first is the screen: ckpt=[<screen>,<diagnosis>]."
            )
        self.screen, self.diagnosis = screen, diagnosis
        self.point = point
        (self.threshold,) = screen.thresholds(point).values()

    @property
    def stages(self) -> Sequence[Stage]:
        return [self.screen, self.diagnosis]

    def _judged(self, names: Sequence[str], images: Sequence[Incoming]) -> list[tuple[Prediction, Opinion, int]]:
        first = self.screen.look(images)
        positive = self.screen.classes[1]
        flagged = [row for row in range(len(images)) if first.probabilities[row, 1] >= self.threshold]
        second = self.diagnosis.look([images[row] for row in flagged]) if flagged else None
        told = []
        for row, (name, image) in enumerate(zip(names, images, strict=True)):
            screening = first.probabilities_of(row)
            sign = "≥" if row in flagged else "<"
            reason = f"screen: p({positive}) {screening[positive]:.3f} {sign} {self.threshold:.3f} ({self.point})"
            warnings = image.warnings + first.warnings_of(row, image)
            if second is None or row not in flagged:
                answer = Prediction(name, "not flagged", reason, {}, screening, warnings)
                told.append((answer, first, row))
                continue
            place = flagged.index(row)
            p = second.probabilities_of(place)
            warnings += [w for w in second.warnings_of(place, image) if w not in warnings]
            told.append((Prediction(name, max(p, key=p.__getitem__), reason, p, screening, warnings), second, place))
        return told


def load(ckpt: File | Sequence[File], *, device: str = "auto", operating_point: str | None = None) -> Predictor:
    """A checkpoint, or two, [screen, diagnosis], for predictions; nothing in them is executed.

    `device`: auto, cpu or gpu. `operating_point`: default, sensitivity_95, sensitivity_98 or balanced, thresholds
    that validation has fixed; None: default, of a screen sensitivity_98. Raises XRayError for what cannot be used.
    """
    paths = [ckpt] if isinstance(ckpt, str | Path) else list(ckpt)
    if len(paths) not in (1, 2):
        raise XRayError(f"ckpt names {len(paths)} checkpoints. Give one, or two: [<screen>,<diagnosis>].")
    first, *second = [Stage.load(Path(path), device) for path in paths]
    if second:
        return TwoStages(first, second[0], operating_point or "sensitivity_98")
    return Single(first, operating_point or "default")
