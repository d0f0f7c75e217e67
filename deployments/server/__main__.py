"""`python -m prefect_mlops.deployments.server CONFIG`, a path or the JSON document itself.

Exit codes: 0 after SIGTERM or SIGINT; 78 (EX_CONFIG) where what is to be served is wrong; 75
(EX_TEMPFAIL) where the store, or the place to listen or to record, cannot be had now; 64 (EX_USAGE).
"""

from __future__ import annotations

import os
import signal
import sys

from prefect_mlops.deployments.server._config import Config
from prefect_mlops.deployments.server._errors import StartRefused, StoreUnavailable
from prefect_mlops.deployments.server._files import read
from prefect_mlops.deployments.server._say import say
from prefect_mlops.deployments.server._store import connect

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def main(arguments: list[str]) -> int:
    """Serve what the configuration `arguments[0]` says; returns the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m prefect_mlops.deployments.server CONFIG\n")
        return os.EX_USAGE
    signal.signal(signal.SIGTERM, _leave)
    for name in _THREADS:  # a request is one row: more threads only wait for each other
        os.environ.setdefault(name, "1")
    try:
        config = Config.read(arguments[0])
        store = connect(config)
        config, files = read(config, store)
        # What was refused was refused at once; and numpy, which comes with this, reads the lines above.
        from prefect_mlops.deployments.server._run import run

        return run(config, files, store)
    except StartRefused as error:
        say(str(error))
        return os.EX_CONFIG
    except StoreUnavailable as error:
        say(str(error))
        return os.EX_TEMPFAIL


def _leave(number: int, frame: object) -> None:
    """SIGTERM before anything is served."""
    sys.exit(os.EX_OK)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
