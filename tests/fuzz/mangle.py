"""Damage: to bytes, to text in columns, and to values of nested plain data."""

import copy
from collections.abc import Iterator
from random import Random
from typing import Any

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 2**31, 2**63, 10**30, -(10**30), 0.5, -0.5, 1e308, 1e-320,
    float("nan"), float("inf"), float("-inf"), "", " ", "a", "0.5", "nan", "None", "-", "../..", "/", "a/b", "a\nb",
    "\x00", "\x1b[31m", "é", "\udcff", "𝔛", "<script>", "[red]", "{{ x }}", "%s", "a" * 5000, [], [[]], [None], [1],
    ["a"], {}, {"a": 1}, {"value": "a"}, {"": None}, [{}], (1, 2), b"\xff", {1: 2},
)  # fmt: skip
ODD_CELLS = (
    "", " ", "0", "-1", "nan", "inf", "1e999", "é", "\udcff", "\x00", '"', ",", "a,b", "\r", "a\nb", "x" * 200_000,
    "../../x", "/etc/passwd", "C:\\x", "train", "test", "val", "TRAIN", "unused", "True",
)  # fmt: skip


def damaged(content: bytes, rng: Random) -> bytes:
    """Cut, with bits flipped, bytes put in or left out, parts of it twice, or nothing of it left."""
    how = rng.randrange(9)
    at = rng.randrange(max(1, len(content)))
    end = min(len(content), at + rng.choice([1, 4, 64, 4096]))
    if how == 0:
        return content[:at]
    if how == 1:
        return content[at:]
    if how == 2:
        return content[:at] + content[end:]
    if how == 3:
        return content[:end] + content[at:]
    if how == 4:
        return content[:at] + bytes(end - at) + content[end:]
    if how == 5:
        return rng.choice(
            [b"", b"\0", b"\n", b"{}", b"\x80\x04.", b"\xff\xfe", b"\xef\xbb\xbf", b"PK\x03\x04" + content]
        )
    flipped = bytearray(content)
    for _ in range(rng.choice([1, 3, 30])):
        # half of the flips in the first bytes, where headers are
        place = rng.randrange(max(1, min(len(content), 200 if how > 6 else len(content))))
        if flipped:
            flipped[place] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def with_odd_values(content: Any, rng: Random, count: int = 1, odd: tuple[Any, ...] = ODD_VALUES) -> tuple[Any, str]:
    """A copy of nested plain data with parts of it changed, removed or added; and what was done, in words."""
    content, told = copy.deepcopy(content), []
    for _ in range(count):
        places = list(_places(content, ""))
        if not places:
            break
        holder, key, where = rng.choice(places)
        how = rng.randrange(8)
        if how == 0:
            del holder[key]
            told.append(f"without {where}")
        elif how == 1 and isinstance(holder, dict):
            holder[rng.choice(["", "new", "\udcff", "a.b", "<b>"])] = copy.deepcopy(holder[key])
            told.append(f"{where} twice")
        else:
            holder[key] = copy.deepcopy(rng.choice(odd))
            told.append(f"{where}={holder[key]!r:.60}")
    return content, ", ".join(told)


def _places(content: Any, where: str) -> Iterator[tuple[Any, Any, str]]:
    keys = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        yield content, key, f"{where}.{key}"
        yield from _places(content[key], f"{where}.{key}")


def damaged_table(text: str, rng: Random) -> bytes:
    """CSV with odd cells, columns and lines, or with its bytes damaged."""
    lines = [line.split(",") for line in text.splitlines()]
    for _ in range(rng.choice([1, 1, 2, 5])):
        line = rng.choice(lines)
        how = rng.randrange(8)
        if how == 0:
            lines.append(list(line))
        elif how == 1:
            lines.remove(line)
        elif how == 2 and line:
            line.pop(rng.randrange(len(line)))
        elif how == 3:
            line.insert(rng.randrange(len(line) + 1), rng.choice(ODD_CELLS))
        elif how == 4:
            column = rng.randrange(len(lines[0]) or 1)
            for other in lines:
                other[column : column + 1] = []
        elif line:
            line[rng.randrange(len(line))] = rng.choice(ODD_CELLS)
        lines = lines or [[]]
    content = "\n".join(",".join(line) for line in lines).encode("utf-8", "surrogateescape")
    return damaged(content, rng) if rng.randrange(4) == 0 else content
