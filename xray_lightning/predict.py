"""Predictions for files, of one checkpoint or of two stages. See python -m xray_lightning.predict --help."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig
from rich import box
from rich.console import Console
from rich.table import Table

from xray_lightning.artifacts import write_csv, write_json
from xray_lightning.cli import command
from xray_lightning.console import printable, table_console
from xray_lightning.errors import XRayError

if TYPE_CHECKING:
    from xray_lightning.predictor import Prediction

log = logging.getLogger(__name__)
SCREEN = "screen "  # before the classes of the first of two stages, in names of columns
SHOWN = 40  # rows of the table on the terminal


def predict(cfg: DictConfig) -> "list[Prediction]":
    """Predicts what `cfg.input` names, and writes predictions.csv, predictions.json and overlays to cfg.paths.run."""
    from xray_lightning.found import found_files
    from xray_lightning.predictor import load

    if type(cfg.overlay) is not bool:
        raise XRayError(f"overlay={cfg.overlay} is not valid. Give true or false.")
    files = found_files(texts(cfg.input))
    point = None if cfg.operating_point is None else str(cfg.operating_point)
    predictor = load(texts(cfg.ckpt), device=str(cfg.device), operating_point=point)
    folder = Path(cfg.paths.run)
    overlays = folder / "overlays" if cfg.overlay else None
    predictions = list(predictor.stream(files, batch_size=cfg.batch_size, overlay=overlays))
    *screens, last = predictor.stages
    columns = [SCREEN + name for screen in screens for name in screen.classes] + last.classes
    _write(folder, predictions, columns, texts(cfg.ckpt))
    _show(table_console(), predictions, columns)
    for stage in predictor.stages:
        if stage.familiarity is None:
            log.info("%s cannot tell which images are unlike those of its training.", stage.path)
    log.info("Written to %s: predictions.csv and predictions.json%s", folder, " and overlays/" * bool(overlays))
    log.info("Research software, not a medical device: none of this may be used for a diagnosis.")
    return predictions


def texts(given: Any) -> str | list[str]:
    """One path or several, as they came from the command line."""
    return [str(path) for path in given] if isinstance(given, ListConfig | list) else str(given)


def _shares(p: "Prediction") -> dict[str, float]:
    """By column: both stages may have a class of the same name."""
    return {SCREEN + name: share for name, share in p.screening.items()} | p.probabilities


def _write(folder: Path, predictions: "Sequence[Prediction]", columns: Sequence[str], ckpt: str | list[str]) -> None:
    header = ["path", "answer", "reason", *columns, "warnings", "error", "overlay"]

    def line(p: "Prediction") -> list[Any]:
        shares = _shares(p)
        cells = [repr(shares[name]) if name in shares else "" for name in columns]
        return [p.path, p.answer or "", p.reason, *cells, "; ".join(p.warnings), p.error or "", p.overlay or ""]

    write_csv(folder / "predictions.csv", header, map(line, predictions))
    told = [asdict(p) for p in predictions]
    write_json(folder / "predictions.json", {"ckpt": ckpt, "predictions": told})


def _show(console: Console, predictions: "Sequence[Prediction]", columns: Sequence[str]) -> None:
    table = Table("file", "answer", box=box.SIMPLE_HEAD, pad_edge=False)
    table.columns[0].overflow = "fold"
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("reason")
    for p in predictions[:SHOWN]:
        shares = _shares(p)
        cells = [f"{shares[name]:.3f}" if name in shares else "" for name in columns]
        told = f"[red]{_plain(p.error)}[/]" if p.error else _plain(p.reason)
        told += "".join(f"\n[yellow]{_plain(warning)}[/]" for warning in p.warnings)
        table.add_row(_plain(p.path), _plain(p.answer or "–"), *cells, told)
    console.print(table)
    warned = sum(bool(p.warnings) for p in predictions)
    failed = sum(p.error is not None for p in predictions)
    more = f", of which the first {SHOWN} are shown" if len(predictions) > SHOWN else ""
    told = f"{len(predictions)} files{more}: {warned} with warnings, {failed} that could not be read"
    console.print(told, highlight=False, soft_wrap=True)


def _plain(text: str) -> str:
    """Of file names and the like, in which brackets are no markup."""
    return printable(text).replace("[", r"\[")


@command("predict")
def main(cfg: DictConfig) -> None:
    failed = [p for p in predict(cfg) if p.error is not None]
    if failed:
        names = ", ".join(printable(p.path) for p in failed[:5]) + ", …" * (len(failed) > 5)
        raise XRayError(f"{len(failed)} files could not be read, and have no answer: {names}. The others are done.")


if __name__ == "__main__":
    main()
