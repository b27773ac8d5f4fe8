"""python -m xray_lightning.evaluation.report outputs/sweeps/<name>"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from xray_lightning.errors import XRayError
from xray_lightning.evaluation.report.page import write_report


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m xray_lightning.evaluation.report", description="Writes report.html of runs and sweeps again."
    )
    parser.add_argument("folder", nargs="+", type=Path, help="a run folder, or a sweep's: outputs/sweeps/<name>")
    status = 0
    for folder in parser.parse_args(arguments).folder:
        try:
            print(write_report(folder))
        except XRayError as error:
            print(f"Error: {error}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
