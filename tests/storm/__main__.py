"""`python -m tests.storm --kills 300 --seed 1 --home DIR`: one JSON line per kill, and one of figures."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

from tests.storm.storm import Storm, line, rage


def main() -> int:
    """Let a storm rage over a home; 0 if every promise held."""
    parser = argparse.ArgumentParser(prog="python -m tests.storm", description=main.__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=int, default=50, help="questions a second")
    parser.add_argument("--home", type=Path, help="folder of the home; a temporary one otherwise")
    parser.add_argument("--victims", help="comma between them; all in turn otherwise")
    parser.add_argument("--no-prefect", action="store_true", help="neither Prefect server nor worker")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))  # and so the home is stopped
    folder = options.home or Path(tempfile.mkdtemp(prefix="storm-"))
    places = folder.absolute() / "home", folder.absolute() / "storm"
    storm = Storm(*places, seed=options.seed, rate=options.rate, prefect=not options.no_prefect)
    victims = tuple(options.victims.split(",")) if options.victims else None
    report = rage(storm, options.kills, victims, lambda one: print(line(one), flush=True))
    print(json.dumps(report), flush=True)
    return 1 if report["wrong"] or report["left"] or report["unrecorded"] else 0


if __name__ == "__main__":
    sys.exit(main())
