"""One server process from start to end: check, load, try, listen, answer, seal."""

from __future__ import annotations

import os
from pathlib import Path

from prefect_mlops.deployments.server import _http
from prefect_mlops.deployments.server._config import Config
from prefect_mlops.deployments.server._errors import StartRefused
from prefect_mlops.deployments.server._model import load
from prefect_mlops.deployments.server._records import Spool
from prefect_mlops.deployments.server._say import say
from prefect_mlops.deployments.server.app import App

GRACE_SECONDS = 20


def run(path: Path) -> int:
    """Serve what the configuration at `path` says until SIGTERM or SIGINT; returns the exit code."""
    try:
        config = Config.read(path)
        app = App(config, load(config), _spool(config))
    except StartRefused as error:
        say(str(error))
        return os.EX_CONFIG
    try:
        app.spool.open()
        listener = _http.listen(config.socket, config.host, config.port)
    except OSError as error:
        say(f"cannot listen on {_place(config)} and record in {config.spool}: {error}")
        return os.EX_TEMPFAIL
    place = config.socket or "{}:{}".format(*listener.getsockname()[:2])
    say(f"{config.service}, release {config.release}, process {os.getpid()}, listens on {place}")
    try:
        _http.serve(app, listener, app.spool.tick, GRACE_SECONDS)
    finally:
        app.close()
    return os.EX_OK


def _spool(config: Config) -> Spool:
    constant = {
        "namespace": config.namespace,
        "service": config.service,
        "release": config.release,
        "model": config.model,
        "instance": config.instance,
    }
    return Spool(config.spool, constant)


def _place(config: Config) -> str:
    return config.socket or f"{config.host}:{config.port}"
