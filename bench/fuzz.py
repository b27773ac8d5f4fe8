"""Bad input, by the thousand: what each kind of case ends in, and every finding.

python bench/fuzz.py --cases 300                          # of each kind
python bench/fuzz.py --kind "run folders" --first 17 --cases 1    # one again
"""

import argparse
import logging
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.fuzz.kinds import KINDS
from tests.fuzz.oracle import Fault, outcome
from tests.fuzz.world import World


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100, help="of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--kind", choices=list(KINDS), action="append", help="all, unless given")
    options = parser.parse_args()
    logging.getLogger("xray_lightning").propagate = False
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        world = World(Path(folder))
        for kind in options.kind or KINDS:
            _try(kind, world, range(options.first, options.first + options.cases))


def _try(kind: str, world: World, numbers: range) -> None:
    counts: Counter[str] = Counter()
    begin, slowest = time.monotonic(), (0.0, 0)
    for number in numbers:
        started = time.monotonic()
        try:
            counts[outcome(KINDS[kind](Random(f"{kind} {number}"), world))] += 1
        except Fault as fault:
            counts["fault"] += 1
            print(f"--- {kind} {number}: {fault}", flush=True)
        slowest = max(slowest, (time.monotonic() - started, number))
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    took = f"{time.monotonic() - begin:.0f} s, the slowest {slowest[0]:.1f} s (number {slowest[1]})"
    print(f"=== {kind}: {len(numbers)} cases, {told}; {took}", flush=True)


if __name__ == "__main__":
    main()
