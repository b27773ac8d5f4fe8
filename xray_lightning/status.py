"""status.json: how a run stands, so that a sweep knows what is left to do."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from filelock import FileLock, Timeout

from xray_lightning.artifacts import read_json, write_json
from xray_lightning.errors import XRayError
from xray_lightning.processes import is_first

log = logging.getLogger(__name__)
RUNNING, DONE, FAILED = "running", "done", "failed"
INTERRUPTED = "interrupted"  # the error of a run that was stopped by a signal
LOCK = ".lock"
PATIENCE = 0.25  # seconds: other jobs of a sweep hold a run for a moment to see whether one that says it is running is


@contextmanager
def recorded(folder: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Keeps status.json of a run folder: running, then done, or failed with its reason, and the times.

    The seconds are of all attempts with these settings. Raises XRayError where another process is at the same run.
    """
    if not is_first():  # another process of one run on several devices
        yield
        return
    busy = f"{folder} is being run by another process. Wait for it, or stop it first."
    with alone(folder, busy, patience=PATIENCE):
        status: dict[str, Any] = {
            "state": RUNNING,
            "started": _now(),
            "ended": None,
            "seconds": None,
            "error": None,
        }
        status["settings"] = dict(settings)
        before, begin = _seconds_before(folder, settings), monotonic()
        write_json(folder / "status.json", status)

        def end(state: str, error: str | None) -> None:
            times = {"ended": _now(), "seconds": round(before + monotonic() - begin, 1)}
            write_json(folder / "status.json", status | times | {"state": state, "error": error})

        try:
            yield
        except BaseException as error:
            try:
                end(FAILED, _reason(error))
            except OSError as full:  # of the disk, say: the error that comes first is the one to be told
                log.warning("%s could not be written: %s", folder / "status.json", full.strerror or full)
            raise
        end(DONE, None)


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt | SystemExit):  # Lightning answers Ctrl-C with SystemExit
        return INTERRUPTED
    return str(error) if isinstance(error, XRayError) else f"{type(error).__name__}: {error}"


@contextmanager
def alone(folder: Path, refusal: str, patience: float = 0.0) -> Iterator[None]:
    """Holds a folder for this process, also against other machines that share it. Raises XRayError(refusal) where
    another one holds it for longer than `patience` seconds. However a process ends, its hold ends with it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=patience)
    except Timeout:
        raise XRayError(refusal) from None
    except OSError as error:
        raise XRayError(f"{folder} cannot be written to ({error.strerror or error}).") from error
    try:
        yield
    finally:
        lock.release()


def is_held(folder: Path) -> bool:
    """Whether a process is at work on the folder. Otherwise a run that says it is running was killed."""
    if not (folder / LOCK).exists():
        return False
    try:
        with alone(folder, ""):
            return False
    except XRayError:  # where it cannot be written to, another user may be at work
        return True


def _seconds_before(folder: Path, settings: Mapping[str, Any]) -> float:
    """Spent on earlier attempts at the same run; of one that was killed, until its last whole epoch."""
    status = read_json(folder / "status.json") or {}
    if not unfinished(folder, settings):
        return 0.0
    try:
        told = status.get("seconds")
        ended = (folder / "history.csv").stat().st_mtime
        seconds = ended - datetime.fromisoformat(status["started"]).timestamp() if told is None else float(told)
    except (OSError, ValueError, TypeError, KeyError):
        return 0.0
    return max(0.0, seconds)


def refuse_failed(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raises XRayError for a run that failed before with these settings, unless it was interrupted."""
    status = read_json(folder / "status.json") or {}
    if status.get("state") == FAILED and status.get("error") != INTERRUPTED and not _differing(status, settings):
        raise XRayError(f"It failed before ({status.get('error')}), and failed=keep leaves it so.")


def note_failure(folder: Path, reason: str) -> None:
    """Writes why a run failed whose own processes could not, or did not know."""
    status = read_json(folder / "status.json") or {}
    if status.get("state") in (RUNNING, FAILED):  # one that is done may still have been drawing figures
        write_json(folder / "status.json", status | {"state": FAILED, "ended": _now(), "error": reason})


def is_done(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the folder holds a finished run. Raises XRayError where that had other settings."""
    status = read_json(folder / "status.json")
    results = (read_json(folder / name) for name in ("metrics.json", "cascade.json"))
    if status is None or status.get("state") != DONE or not any(results):
        return False
    if not isinstance(status.get("settings"), dict):
        return False
    if differing := _differing(status, settings):
        changes = "\n".join(f"  {k}: {before} -> {now}" for k, (before, now) in [*differing.items()][:10])
        raise XRayError(
            f"{folder} is done, with other settings:\n{changes}\n"
            "Give the sweep another name, or the settings it was begun with."
        )
    return True


def _differing(status: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ, sorted, with the value before and now."""
    noted = status.get("settings")
    before, now = dict(_flat(noted if isinstance(noted, dict) else {})), dict(_flat(settings))
    keys = sorted(before.keys() | now.keys())
    return {k: (before.get(k), now.get(k)) for k in keys if before.get(k) != now.get(k)}


def unfinished(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the folder holds a run with these settings that was begun and is not done."""
    status = read_json(folder / "status.json") or {}
    return status.get("state") in (RUNNING, FAILED) and not _differing(status, settings)


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
