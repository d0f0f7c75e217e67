"""A model server of the contract that does as it is told, for pods: `python stub.py CONFIG`, told by `BEHAVIOUR`.

It needs no more than a Python; the whole file is given to the container as its program.
"""

import http.server
import json
import os
import signal
import sys
import threading
import time
import uuid
from typing import Any

CONFIG = json.loads(sys.argv[1])
BEHAVIOUR = json.loads(os.environ.get("BEHAVIOUR", "{}"))
COUNTS: dict[str, Any] = {"start": uuid.uuid4().hex, "release": CONFIG["release"], "requests": 0, "errors": 0}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the model server does, without a model."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.path == "/ready":
            ready = {"pid": os.getpid(), "release": CONFIG["release"], "instance": os.environ["HOSTNAME"]}
            self.answer(BEHAVIOUR.get("ready", 200), ready)
        else:
            self.answer(200, COUNTS if self.path == "/counters" else {})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        time.sleep(BEHAVIOUR.get("delay", 0))
        COUNTS["requests"] += 1
        status = BEHAVIOUR.get("status", 200)
        COUNTS["errors"] += status >= 500
        self.answer(status, {"instance": os.environ["HOSTNAME"], "request": self.headers.get("x-request-id")})

    def answer(self, status: int, document: dict) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.send_header("x-release", CONFIG["release"])
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def main() -> None:
    if "crash" in BEHAVIOUR:
        print(BEHAVIOUR["crash"], flush=True)
        sys.exit(BEHAVIOUR.get("code", 1))
    hoard = b"x" * BEHAVIOUR.get("bytes", 0)
    server = http.server.ThreadingHTTPServer(("0.0.0.0", CONFIG["port"]), Handler)
    server.daemon_threads = False
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.05)
    server.server_close()
    del hoard


main()
