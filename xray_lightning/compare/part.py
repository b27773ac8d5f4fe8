"""A part of two runs, such as their settings, with what differs in it."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Difference(NamedTuple):
    """What is not the same: what it is in run a and in run b, and how much that is. None: missing, or told by `by`."""

    what: str
    a: Any
    b: Any
    by: str = ""


Found = tuple[int, list[Difference]]  # with how many were compared


@dataclass(frozen=True)
class Part:
    """`compared` is the number of `unit` looked at, 0 where a run has none. `result`: of what came out of a run, and
    not of what went into it."""

    name: str
    unit: str
    compared: int
    differences: list[Difference]
    result: bool


def of_values(name: str, unit: str, a: Any, b: Any, *, result: bool) -> Part:
    """Of plain data, whose leaves are the same where all their digits are."""
    before, now = dict(flat(a)), dict(flat(b))
    keys = list(before | now)
    return Part(name, unit, len(keys), [d for k in keys if (d := change(k, before.get(k), now.get(k)))], result)


def of_files(
    name: str, unit: str, folders: tuple[Path, Path], file: str, compare: Callable[[], Found], *, result: bool
) -> Part:
    """Of a file of each run's folder. Where only one has it, that is a difference; where none has, there is none."""
    has = [(folder / file).is_file() for folder in folders]
    if all(has):
        return Part(name, unit, *compare(), result)
    there = ["there" if found else None for found in has]
    return Part(name, unit, 0, [Difference(file, there[0], there[1])] * any(has), result)


def change(what: str, a: Any, b: Any) -> Difference | None:
    """None where a and b are the same by their text, which has all digits, and one for every NaN."""
    if repr(a) == repr(b):
        return None
    by = ""
    if all(isinstance(x, int | float) and not isinstance(x, bool) for x in (a, b)):
        try:
            by = f"{b - a:+.3g}"
        except OverflowError:  # of a whole number that no float can hold
            by = "far apart"
    return Difference(what, a, b, by)


def flat(node: Any) -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings and lists, in their order, each with its keys joined by dots."""
    todo = [("", node)]
    while todo:  # and no recursion, since a file may be nested to any depth
        key, value = todo.pop()
        if isinstance(value, dict | list) and value:
            inner = value.items() if isinstance(value, dict) else enumerate(value)
            todo += reversed([(f"{key}.{k}" if key else str(k), v) for k, v in inner])
        elif key:
            yield key, value


def only_in_one(a: Collection[str], b: Collection[str]) -> list[Difference]:
    """Names of images that one run alone has."""
    alone = (set(a).difference(b), "there", None), (set(b).difference(a), None, "there")
    return [Difference("images of one alone", x, y, such_as(names)) for names, x, y in alone if names]


def such_as(names: Collection[str]) -> str:
    return f"{len(names)} images, such as {min(names)}"
