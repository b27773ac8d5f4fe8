"""Numbers as people read them, the same in report.html and MODEL_CARD.md."""

from typing import Any, NamedTuple

NONE = "—"


class Estimate(NamedTuple):
    """A measured value and its 95 % interval; what could not be determined is None."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def bounded(self) -> bool:
        return self.low is not None and self.high is not None


def estimate(found: Any) -> Estimate:
    """A value of metrics.json: with its interval, a bare number, or null."""
    if isinstance(found, dict):
        return Estimate(found.get("value"), found.get("low"), found.get("high"))
    return Estimate(found)


def as_number(text: str | None) -> float | None:
    """A cell of a CSV; None of one that is empty or no number."""
    try:
        return float(text) if text else None
    except ValueError:
        return None


def number(value: float | None, digits: int = 4) -> str:
    return NONE if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    return NONE if value is None else f"{value:+.{digits}f}".replace("-", "−")


def interval(found: Estimate, digits: int = 3) -> str:
    """Its two ends, or nothing where there is no interval. A range with a minus sign in it is written with a word."""
    if not found.bounded:
        return ""
    low, high = number(found.low, digits), number(found.high, digits)
    return f"{low} to {high}" if "−" in low + high else f"{low}–{high}"


def with_interval(found: Estimate, digits: int = 4) -> str:
    return f"{number(found.value, digits)} ({interval(found)})" if found.bounded else number(found.value, digits)


def p_value(p: float | None) -> str:
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def equals(p: float) -> str:
    """A p-value inside a sentence."""
    return "p\u00a0<\u00a00.001" if p < 0.001 else f"p\u00a0=\u00a0{p:.3f}"


def count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def listed(parts: list[str]) -> str:
    """Parts of a sentence, with "and" before the last."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def percent(found: Estimate) -> str:
    """A share as a percentage, with its interval; a line does not break before the sign."""
    if found.value is None:
        return NONE
    ends = "" if found.low is None or found.high is None else f" ({100 * found.low:.1f}–{100 * found.high:.1f}\u00a0%)"
    return f"{100 * found.value:.1f}\u00a0%{ends}"
