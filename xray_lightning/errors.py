"""Errors that a user can cause, and the wording they share."""

from collections.abc import Iterable
from difflib import get_close_matches


class XRayError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do.

    Commands print the message without a traceback and end with status 1.
    """


def did_you_mean(word: object, valid: Iterable[object]) -> str:
    """The valid words nearest to a mistyped one, or all of them where none is near, as a sentence."""
    words = sorted({str(v) for v in valid})
    typed = str(word)
    near = get_close_matches(typed, words, n=3, cutoff=0.6)
    leaf = typed.rsplit(".", 1)[-1]
    by_leaf = [w for w in words if get_close_matches(leaf, [w.rsplit(".", 1)[-1]], cutoff=0.75)]
    near = list(dict.fromkeys([*by_leaf[:3], *near]))[:3]
    if near:
        return f"Did you mean {' or '.join(near)}?"
    shown = words if len(words) <= 12 else [*words[:12], "…"]
    return f"Valid: {', '.join(shown)}."
