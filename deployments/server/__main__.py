"""`python -m prefect_mlops.deployments.server CONFIG.json`: check, load, try, listen, answer, seal.

Exit codes: 0 after SIGTERM or SIGINT, 78 (EX_CONFIG) where what is to be served is wrong, 75
(EX_TEMPFAIL) where the place to listen or to record is not to be had now, 64 (EX_USAGE).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect_mlops.deployments.server._config import Config

GRACE_SECONDS = 20
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def main(arguments: list[str]) -> int:
    """Serve what the configuration at `arguments[0]` says; returns the exit code."""
    if len(arguments) != 1:
        return _say(os.EX_USAGE, "usage: python -m prefect_mlops.deployments.server CONFIG.json")
    signal.signal(signal.SIGTERM, _leave)
    # One request is one row: more threads only wait for each other. Must be set before numpy is imported.
    for name in _THREADS:
        os.environ.setdefault(name, "1")
    from prefect_mlops.deployments.server._config import Config
    from prefect_mlops.deployments.server._errors import StartRefused

    try:
        return _run(Config.read(Path(arguments[0])))
    except StartRefused as error:
        return _say(os.EX_CONFIG, str(error))


def _run(config: Config) -> int:
    from prefect_mlops.deployments.server import _http
    from prefect_mlops.deployments.server._model import load
    from prefect_mlops.deployments.server.app import App

    model = load(config)
    spool = _spool(config)
    app = App(config, model, spool)
    try:
        spool.open()
        listener = _http.listen(config.socket, config.host, config.port)
    except OSError as error:
        return _say(os.EX_TEMPFAIL, f"{config.socket or config.port} or {config.spool} cannot be used: {error}")
    place = config.socket or "{}:{}".format(*listener.getsockname()[:2])
    _say(0, f"{config.service}, release {config.release}, process {os.getpid()}, listens on {place}")
    try:
        _http.serve(app, listener, spool.tick, GRACE_SECONDS)
    finally:
        app.batcher.close()
        spool.close()
    return 0


def _spool(config: Config) -> Any:
    from prefect_mlops.deployments.server._records import Spool

    return Spool(
        config.spool,
        {
            "namespace": config.namespace,
            "service": config.service,
            "release": config.release,
            "model": config.model,
            "instance": config.instance,
        },
    )


def _leave(number: int, frame: object) -> None:
    """SIGTERM before anything is served."""
    sys.exit(0)


def _say(code: int, sentence: str) -> int:
    print(f"model server: {sentence}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
