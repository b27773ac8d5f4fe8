"""python -m xray_lightning.evaluation.report outputs/sweeps/<name>"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from xray_lightning.errors import XRayError
from xray_lightning.evaluation.cascade_content import read_cascade
from xray_lightning.evaluation.report.card import write_model_card
from xray_lightning.evaluation.report.page import write_report
from xray_lightning.evaluation.runs import write_tables


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes again what is made of a folder's files, and prints where the report lies. The exit status: 0, or 1 where
    a folder is none of a run or a sweep."""
    parser = argparse.ArgumentParser(
        prog="python -m xray_lightning.evaluation.report",
        description="Writes report.html of runs and sweeps again, with a run's MODEL_CARD.md, a sweep's tables and the "
        "figures of two stages.",
    )
    parser.add_argument(
        "folder", nargs="+", type=Path, help="a run folder, also of two stages, or a sweep's: outputs/sweeps/<name>"
    )
    status = 0
    for folder in parser.parse_args(arguments).folder:
        try:
            _refresh(folder)
            print(write_report(folder))
        except XRayError as error:
            print(f"Error: {error}", file=sys.stderr)
            status = 1
    return status


def _refresh(folder: Path) -> None:
    """What the report shows of files that are made of others."""
    if (folder / "cascade.json").exists():
        from xray_lightning.evaluation.cascade_figures import draw_cascade  # and Matplotlib, which only this needs

        draw_cascade(read_cascade(folder), folder / "figures")
    elif (folder / "metrics.json").exists():
        write_model_card(folder)
    elif rows := write_tables(folder)[0]:
        # PyTorch, which a run's page can do without
        from xray_lightning.evaluation.ensemble import write_ensembles
        from xray_lightning.evaluation.versus import compare_runs

        compare_runs(folder, rows)
        write_ensembles(folder, rows)


if __name__ == "__main__":
    sys.exit(main())
