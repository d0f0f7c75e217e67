"""A model server of the contract with a trivial model, for tests: `stub_server.py CONFIG`.

Its model is the file `behaviour.json`: `{"answer": ..., "crash": ..., "delay": ..., ...}`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path


async def serve(config: dict, behaviour: dict) -> None:
    stopping = asyncio.Event()
    spool = (Path(config["spool"]) / "seen.jsonl").open("a")
    busy: set[asyncio.Task] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not stopping.is_set():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                _, path, _ = head[0].split(" ")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                work = asyncio.ensure_future(answer(path, headers, len(body)))
                busy.add(work)
                status, document = await work
                busy.discard(work)
                data = json.dumps(document).encode()
                writer.write(
                    f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n"
                    f"x-release: {config['release']}\r\nx-model-digest: {config['model']}\r\n"
                    f"x-request-id: {headers.get('x-request-id', '')}\r\n\r\n".encode()
                    + data
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(path: str, headers: dict, length: int) -> tuple[int, dict]:
        if path == "/ready":
            ready = {"pid": os.getpid(), "release": config["release"], "model": config["model"]}
            return 200, ready | {"instance": config["instance"]}
        await asyncio.sleep(behaviour.get("delay", 0))
        seen = {"path": path, "headers": headers, "length": length, "pid": os.getpid()}
        spool.write(json.dumps(seen) + "\n")
        spool.flush()
        return behaviour.get("status", 200), {"answer": behaviour.get("answer"), **seen}

    socket = Path(config["socket"])
    socket.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(handle, path=str(socket), backlog=512, limit=2**20)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await stopping.wait()
    server.close()
    if busy:
        await asyncio.wait(busy)
    socket.unlink(missing_ok=True)


def main() -> None:
    config = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(config["folder"])
    for file in config["files"]:
        found = hashlib.sha256((folder / file["path"]).read_bytes()).hexdigest()
        if "sha256:" + found != file["digest"]:
            print(f"{file['path']}: expected {file['digest']}, found sha256:{found}", file=sys.stderr)
            sys.exit(78)
    behaviour = json.loads((folder / "behaviour.json").read_text())
    if "crash" in behaviour:
        print(behaviour["crash"], file=sys.stderr)
        sys.exit(behaviour.get("code", 1))
    time.sleep(behaviour.get("boot", 0))
    asyncio.run(serve(config, behaviour))


if __name__ == "__main__":
    main()
