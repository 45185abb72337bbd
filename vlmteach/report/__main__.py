"""`vlmteach report`: writes the page of a run or a sweep again, or one page that compares several.

    vlmteach report runs/first
    vlmteach report runs/first runs/second
    vlmteach report runs/first --watch

One folder gets `report.html` in it (so do the runs of a sweep), several get `comparison.html` in
the folder that they share. With --watch the page is served on this machine and fills while the run
goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vlmteach import exits
from vlmteach.report.build import write_report
from vlmteach.report.serve import address_of, watch
from vlmteach.stops import stoppable


def main(words: Sequence[str] | None = None) -> int:
    """Writes or serves the page; the exit code is 0, or 2 where a folder holds no run."""
    cli = argparse.ArgumentParser(
        prog="vlmteach report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="output folders")
    cli.add_argument("--watch", action="store_true", help="serve it on loopback, kept up to date")
    options = cli.parse_args(words)
    try:
        with stoppable():
            if options.watch:
                return watch(options.runs)
            page = write_report(options.runs)
    except (ValueError, OSError) as error:
        return exits.refused(error)
    print(f"{page}\n{address_of(page)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
