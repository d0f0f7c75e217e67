"""Runs every benchmark: `python -m tests.benchmarks [WORD ...]`, or `make bench`.

Prints one JSON line per benchmark on standard output and everything else on standard error.
Words narrow it down to the modules whose name contains one of them. Exit code 0 when all were
measured (whether a goal was met is the line's `met`), 1 when one could not be, 2 when none was found.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tests.benchmarks import Unmeasured


@contextmanager
def _results() -> Generator[TextIO]:
    """The real standard output; descriptor 1 itself, children's too, leads to standard error."""
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(real, "w", encoding="utf-8") as results:
        yield results


def _modules(words: list[str]) -> list[str]:
    names = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))
    return [name for name in names if not words or any(word in name for word in words)]


def _measure(module: str, results: TextIO) -> bool:
    """Print the lines of one module; whether all of it was measured."""
    try:
        for benchmark in importlib.import_module(f"tests.benchmarks.{module}").run():
            print(json.dumps(benchmark.document()), file=results, flush=True)
    except Unmeasured as why:
        print(f"{module}: not measured: {why}", file=sys.stderr)
        return False
    except Exception:  # one broken benchmark must not hide the others' figures
        traceback.print_exc()
        return False
    return True


def main(words: list[str]) -> int:
    """Measure, print, and return the exit code."""
    modules = _modules(words)
    if not modules:
        print(f"no benchmark matches {words}; see tests/benchmarks/bench_*.py", file=sys.stderr)
        return 2
    with _results() as results:
        measured = [_measure(module, results) for module in modules]
    return 0 if all(measured) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
