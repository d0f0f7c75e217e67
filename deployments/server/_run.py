"""A server process once its files are checked: load, try, listen, answer, seal."""

from __future__ import annotations

import os

from prefect_mlops.deployments.server import _http
from prefect_mlops.deployments.server._config import Config
from prefect_mlops.deployments.server._files import Files
from prefect_mlops.deployments.server._model import load
from prefect_mlops.deployments.server._records import Spool
from prefect_mlops.deployments.server._say import say
from prefect_mlops.deployments.server.app import App

GRACE_SECONDS = 20


def run(config: Config, files: Files) -> int:
    """Serve the model in `files` until SIGTERM or SIGINT; returns the exit code.

    Raises:
        StartRefused: If the model cannot be loaded or cannot answer.
    """
    app = App(config, load(files), _spool(config))
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
