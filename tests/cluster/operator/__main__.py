"""Run the stand-in for Seldon's operator: `python -m tests.cluster.operator --kubeconfig FILE`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
from pathlib import Path

from tests.cluster import kube
from tests.cluster.operator.admission import Admission
from tests.cluster.operator.controller import Controller


async def operate(kubeconfig: Path, namespace: str, address: str) -> None:
    """Validate and carry out SeldonDeployments until cancelled; says `ready` on standard output when it does."""
    async with kube.connect(kubeconfig) as cluster, Admission(address) as admission:
        await admission.register(cluster, namespace)
        print("ready", flush=True)
        await Controller(cluster, namespace).run()


async def _until_stopped(kubeconfig: Path, namespace: str, address: str) -> None:
    work = asyncio.ensure_future(operate(kubeconfig, namespace, address))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await work


def main() -> None:
    """Read the arguments and work until stopped; the webhook stays registered, as it does for the real operator."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.operator", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True, help="file that says how to reach the cluster")
    parser.add_argument("--namespace", default="", help="the only namespace to look at; all, if left out")
    parser.add_argument("--address", default="127.0.0.1", help="where the API server reaches the webhook")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(_until_stopped(given.kubeconfig, given.namespace, given.address))


if __name__ == "__main__":
    main()
