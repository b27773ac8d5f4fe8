"""python -m xray_lightning.compare <run A> <run B>"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from xray_lightning.console import table_console
from xray_lightning.errors import XRayError


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what differs between two runs or two sweeps. The exit status: 0 where all results are the same bit for
    bit, 1 where some differ, 2 where folders cannot be compared."""
    parser = argparse.ArgumentParser(
        prog="python -m xray_lightning.compare",
        description="Lists what differs between two runs, two cascades, or the runs of two sweeps that have the same "
        "names: settings, environment and data, and what came of them: metrics, predictions, history and weights.",
        epilog="Exit status: 0 where all results are the same, bit for bit, whatever else differs; 1 where results "
        "differ; 2 where the folders cannot be compared.",
    )
    for letter in ("a", "b"):
        parser.add_argument(letter, type=Path, help="outputs/runs/<run>, outputs/sweeps/<name>/<run>, or a sweep's")
    parser.add_argument("--json", action="store_true", help="print all differences, as JSON")
    args = parser.parse_args(arguments)
    # PyTorch takes seconds to import, which --help need not wait for
    from xray_lightning.compare.runs import Comparison, compare_runs, compare_sweeps, is_sweep
    from xray_lightning.compare.shown import plain, show

    try:
        sweeps = {folder: is_sweep(folder) for folder in (args.a, args.b)}
        if len({*sweeps.values()}) > 1:
            raise XRayError("One folder is a run's and the other a sweep's. Give two of a kind.")
        found = compare_sweeps(args.a, args.b) if sweeps[args.a] else compare_runs(args.a, args.b)
    except XRayError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(plain(found), indent=2))
    else:
        show(table_console(), (args.a, args.b), found)
    every = [found] if isinstance(found, Comparison) else found.values()
    return 0 if all(isinstance(c, Comparison) and c.same for c in every) else 1


if __name__ == "__main__":
    sys.exit(main())
