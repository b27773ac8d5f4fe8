"""Names, paths and commands in Markdown, where they are nothing but text: they come from files that others made."""

import re


def escaped(name: object) -> str:
    """A name as it is, on one line, whatever it means in Markdown."""
    text = re.sub(r"[\\`*|<>\[\]~&]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", str(name))
    return re.sub(r"\s+", " ", text)


def code(path: str) -> str:
    """A path as code, between more backticks than it holds itself."""
    path = re.sub(r"\s+", " ", path)
    return f"{_fence(path, 1)} {path} {_fence(path, 1)}" if "`" in path else f"`{path}`"


def block(text: str) -> str:
    """Lines as a block of code, which nothing in them ends."""
    return f"{_fence(text, 3)}\n{text}\n{_fence(text, 3)}"


def _fence(text: str, least: int) -> str:
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))
