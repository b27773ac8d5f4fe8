"""The images of a diagnosis' own split as two networks see them: it, and a screen that may know some of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from omegaconf import DictConfig, OmegaConf

from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.seen import known_images
from xray_lightning.data.splits import TEST
from xray_lightning.errors import XRayError
from xray_lightning.evaluation.cascade import Scored
from xray_lightning.predictor import Predictor, Single
from xray_lightning.scored import own_images
from xray_lightning.stage import Stage


class Side(NamedTuple):
    """N images of one side of the split: what both networks say of them, their paths, whether the screen was trained
    or chosen on them, (N,) bool, the name of their data set, and whether it is synthetic."""

    scored: Scored
    paths: list[str]
    seen: np.ndarray
    dataset: str
    synthetic: bool

    @classmethod
    def scored_by(cls, screen: Stage, diagnosis: Stage, cfg: DictConfig, split: str) -> "Side":
        """Images are known to the screen by content, or of its own data set by patient."""
        data: XRayDataModule = own_images(OmegaConf.merge(cfg, {"split": split}), diagnosis.model)  # type: ignore[arg-type]
        rows = data.rows_of(TEST)
        images = [data.rows[row] for row in rows]
        files = [data.root / image.path for image in images]
        remembered = screen.model.card["data"]
        own = (remembered["module"], remembered["arguments"]["name"]) == (type(data).__module__, data.name)
        assert data.collection is not None
        scored = Scored(
            _probabilities(Single(screen), files)[:, 1],
            _probabilities(Single(diagnosis), files),
            data.labels[rows],
            [image.group for image in images],
        )
        seen = known_images(remembered, data.collection, rows, same_patients=own)
        return cls(scored, [image.path for image in images], seen, str(data.name), data.synthetic)

    def unseen(self) -> Scored:
        """Of the images that the screen does not know."""
        rows, found = np.flatnonzero(~self.seen), self.scored
        groups = [group for group, seen in zip(found.groups, self.seen, strict=True) if not seen]
        return Scored(found.screen[rows], found.diagnosis[rows], found.labels[rows], groups)


def _probabilities(predictor: Predictor, files: Sequence[Path]) -> np.ndarray:
    def each() -> Iterator[list[float]]:
        for prediction in predictor.stream(files):
            if prediction.error:
                raise XRayError(f"{prediction.path} {prediction.error}, though it was a whole image when this began.")
            yield list(prediction.probabilities.values())

    return np.array(list(each()))
