"""A server process once its files are checked: load, try, listen, answer, seal."""

from __future__ import annotations

import os

from prefect_mlops.deployments.server import _http
from prefect_mlops.deployments.server._config import Config
from prefect_mlops.deployments.server._files import Files
from prefect_mlops.deployments.server._model import load
from prefect_mlops.deployments.server._records import Spool
from prefect_mlops.deployments.server._say import say
from prefect_mlops.deployments.server._store import Store
from prefect_mlops.deployments.server.app import App

GRACE_SECONDS = 20


def run(config: Config, files: Files, store: Store | None = None) -> int:
    """Serve the model in `files` until SIGTERM or SIGINT; returns the exit code.

    Records go to `store`, or stay in the spool where there is none.

    Raises:
        StartRefused: If the model cannot be loaded or cannot answer.
    """
    app = App(config, load(files), _spool(config, store))
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


def _spool(config: Config, store: Store | None) -> Spool:
    constant = {
        "namespace": config.namespace,
        "service": config.service,
        "release": config.release,
        "model": config.model,
        "instance": config.instance,
    }
    if store is None:
        return Spool(config.spool, constant)
    room = f"records/{config.namespace}/{config.service}/{config.instance}"
    return Spool(config.spool, constant, lambda segment: store.create(f"{room}/{segment.name}", segment.read_bytes()))


def _place(config: Config) -> str:
    return config.socket or f"{config.host}:{config.port}"
