"""What the page is told of a file, and of the model: plain data for JSON and the template."""

from base64 import b64encode
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from xray_lightning.data.incoming import SUFFIXES
from xray_lightning.evaluation.gallery import relevance_colours
from xray_lightning.evaluation.overlay import shown
from xray_lightning.predictor import Prediction, Predictor


class Answers:
    """Calling it with a file's name and content gives the answer that page.js shows."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def __call__(self, name: str, content: bytes) -> dict[str, Any]:
        prediction, image, explained = self.predictor.predict_bytes(name, content)
        if image is None or explained is None:
            return {"name": name, "error": prediction.error}
        opinion, heat = explained
        return {
            "name": name,
            "error": None,
            "decision": prediction.answer,
            "why": prediction.reason,
            "warnings": [f"{warning[0].upper()}{warning[1:]}." for warning in prediction.warnings],
            "stages": self._stages(prediction),
            "image": _embedded(shown(image.image, opinion, 0)),
            "heat": None if heat is None else _embedded(_coloured(heat)),
            "heat_class": opinion.likeliest(0),
        }

    def _stages(self, prediction: Prediction) -> list[dict[str, Any]]:
        asked = [shares for shares in (prediction.screening, prediction.probabilities) if shares]
        titles = ["Screen", "Diagnosis"] if len(self.predictor.stages) == 2 else ["Classes"]
        called = (prediction.answer or "").split(" + ")  # of the last stage; a screen calls no class
        return [
            {"title": title, "probabilities": [*shares.items()], "called": [] if title == "Screen" else called}
            for title, shares in zip(titles, asked, strict=False)  # the diagnosis is not always asked
        ]


def page_of(predictor: Predictor, limit: float) -> dict[str, Any]:
    """What the template shows; `limit` in megabytes."""
    models = []
    for stage in predictor.stages:
        trained = stage.model.card["data"]["arguments"]["name"]
        models.append(f"{stage.model.name}, trained on {trained}: {', '.join(stage.classes)}")
    return {
        "title": "Chest X-ray classifier",
        "facts": " → ".join(models) + f". Operating point: {predictor.point}.",
        "formats": "PNG, JPEG, TIFF, BMP, WebP or DICOM",
        "accept": ",".join(SUFFIXES),
        "limit": f"{limit:g}",
    }


def _coloured(heat: np.ndarray) -> Image.Image:
    """(S, S) from 0 to 1 -> RGBA, as clear as it is weak."""
    return Image.fromarray(np.uint8(np.rint(relevance_colours()(heat) * 255)))


def _embedded(image: Image.Image) -> str:
    """As a data URI of a PNG."""
    written = BytesIO()
    image.save(written, "PNG")
    return f"data:image/png;base64,{b64encode(written.getvalue()).decode()}"
