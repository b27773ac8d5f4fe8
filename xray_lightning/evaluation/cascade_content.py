"""What stands in cascade.json: what systems and parts of the test images are called, and which parts to show."""

from collections.abc import Mapping
from typing import Any

CASCADE, OPEN, ALONE, MATCHED = (
    "cascade",
    "cascade, second stage may say healthy",
    "diagnosis alone",
    "diagnosis, matched",
)
UNSEEN, ALL = "unseen by the screen", "all"
Content = Mapping[str, Any]


def parts_shown(content: Content) -> dict[str, Content]:
    """The parts of the test images that there are, the headline first, and each once: where the screen knows no image,
    those that it does not know are all."""
    parts = content["test"]
    own = {name: part for name, part in parts.items() if part["images"]}
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
