"""status.json: how a run stands, so that a sweep knows what is left to do."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from xray_lightning.artifacts import read_json, write_json
from xray_lightning.errors import XRayError
from xray_lightning.processes import is_first

RUNNING, DONE, FAILED = "running", "done", "failed"


@contextmanager
def recorded(folder: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Keeps status.json of a run folder: running, then done, or failed with its reason, and the times."""
    if not is_first():  # another process of one run on several devices
        yield
        return
    status: dict[str, Any] = {
        "state": RUNNING,
        "started": _now(),
        "ended": None,
        "seconds": None,
        "error": None,
    }
    status["settings"] = dict(settings)
    begin = monotonic()
    write_json(folder / "status.json", status)

    def end(state: str, error: str | None) -> None:
        times = {"ended": _now(), "seconds": round(monotonic() - begin, 1)}
        write_json(folder / "status.json", status | times | {"state": state, "error": error})

    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # Lightning answers Ctrl-C with SystemExit
        end(FAILED, "interrupted")
        raise
    except BaseException as error:
        end(FAILED, str(error) if isinstance(error, XRayError) else f"{type(error).__name__}: {error}")
        raise
    end(DONE, None)


def note_failure(folder: Path, reason: str) -> None:
    """Writes why a run failed whose own processes could not, or did not know."""
    if status := read_json(folder / "status.json"):
        write_json(folder / "status.json", status | {"state": FAILED, "ended": _now(), "error": reason})


def is_done(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the folder holds a finished run. Raises XRayError where that had other settings."""
    status = read_json(folder / "status.json")
    if status is None or status.get("state") != DONE or read_json(folder / "metrics.json") is None:
        return False
    settings_before = status.get("settings")
    if not isinstance(settings_before, dict):
        return False
    before = dict(_flat(settings_before))
    now = dict(_flat(settings))
    differing = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
    if differing:
        changes = "\n".join(f"  {k}: {before.get(k)} -> {now.get(k)}" for k in differing[:10])
        raise XRayError(
            f"{folder} is done, with other settings:\n{changes}\n"
            "Give the sweep another name, or the settings it was begun with."
        )
    return True


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
