"""One apply in a process of its own, to be killed or stopped: `apply.py FOLDER SERVICE FENCE SPLIT`."""

from __future__ import annotations

import sys
from pathlib import Path

from prefect_mlops.blocks import Split
from tests.blocks.serving.conftest import make_place


def main(folder: str, service: str, fence: str, split: str) -> None:
    place = make_place(Path(folder))
    print("ready", flush=True)
    sys.stdin.readline()
    place.serving(drain_seconds=2).apply(service, Split.model_validate_json(split), fence=int(fence), store=place.store)
    print("applied", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
