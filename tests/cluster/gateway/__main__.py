"""Run the tests' ingress: `python -m tests.cluster.gateway --kubeconfig FILE --port N`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import tempfile
from pathlib import Path

from tests.cluster import kube
from tests.cluster.gateway.envoy import Envoy, NotCarriedOut
from tests.cluster.gateway.mesh import KINDS, Mesh
from tests.cluster.kube import Client, Kind

_log = logging.getLogger("gateway")
_SETTLE_SECONDS = 0.005


class Gateway:
    """Keeps an Envoy at what the cluster says."""

    def __init__(self, cluster: Client, envoy: Envoy) -> None:
        self._cluster, self._envoy, self._mesh = cluster, envoy, Mesh()
        self._unread = {kind.name for kind in KINDS}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Follow the cluster until cancelled; says `ready` on standard output when it first does."""
        async with asyncio.TaskGroup() as group:
            for kind in KINDS:
                group.create_task(self._follow(kind))
            await self._carry_out()

    async def _follow(self, kind: Kind) -> None:
        async for event in self._cluster.follow(kind):
            if event is None:
                self._unread.discard(kind.name)
            else:
                self._mesh.note(kind, event)
            self._changed.set()

    async def _carry_out(self) -> None:
        said = False
        while True:
            await self._changed.wait()
            await asyncio.sleep(_SETTLE_SECONDS)
            self._changed.clear()
            if self._unread:
                continue
            try:
                await self._envoy.follow(self._mesh)
            except NotCarriedOut as error:
                _log.warning("%s", error)
                self._changed.set()  # what comes after it is still to be done
            if not said:
                print("ready", flush=True)
                said = True


async def serve(kubeconfig: Path, folder: Path, address: str, port: int) -> None:
    """Be the ingress of a cluster until cancelled; fails if Envoy ends by itself."""
    envoy = Envoy(folder, address, port)
    await envoy.start()
    try:
        async with kube.connect(kubeconfig) as cluster, asyncio.TaskGroup() as group:
            group.create_task(Gateway(cluster, envoy).run())
            group.create_task(envoy.watch())
    finally:
        await envoy.stop()


async def _until_stopped(given: argparse.Namespace) -> None:
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work = asyncio.ensure_future(serve(given.kubeconfig, folder.resolve(), given.address, given.port))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, work.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await work


def main() -> None:
    """Read the arguments and serve until stopped."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.gateway", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True, help="file that says how to reach the cluster")
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--folder", type=Path, help="folder for its files and its access log; else a temporary one")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(_until_stopped(parser.parse_args()))


if __name__ == "__main__":
    main()
