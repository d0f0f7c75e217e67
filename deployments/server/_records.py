"""Records of what was predicted, and of what people later said about it.

Every answer is recorded before it leaves. A record first lies in a **spool file**,
`open-<pid>-<n>.jsonl`, one JSON object per line, and is then sealed with its neighbours into a
**segment**, `segment-<newest time>-<sha256 of its bytes>.parquet`; the spool file is deleted only
when its segment is on disk and, where there is a store, the segment only when the store has it.
Both forms have the same columns with the same meaning:

| column | type | meaning |
|---|---|---|
| `kind` | string | `prediction` or `feedback` |
| `request_id` | string | id of the prediction: the gateway's `x-request-id`, which answers carry too |
| `client_request_id` | string, null | the caller's own: `x-client-request-id`, else `meta.puid` or `id` of the body |
| `attempt` | int32 | which try of the gateway this was, from 1 |
| `time` | timestamp (us, UTC) | when the request had arrived; in JSON `2026-11-21T10:13:00.123456Z` |
| `namespace`, `service` | string | what was asked |
| `release`, `model` | string | digests of what answered |
| `role` | string | role of the arm: `live`, `warm` or `shadow` |
| `instance` | string | which process of the release |
| `rows` | int32 | rows in the request; 0 in feedback |
| `input_names`, `inputs` | string | JSON text: the fields, and one array of values per row; null in feedback |
| `output_names`, `outputs` | string, null | JSON text likewise; `outputs` is null where the model failed |
| `latency_ms` | double | from the request's arrival to this record |
| `status` | int32 | status of the answer |
| `error` | string, null | why the model failed |
| `feedback_id` | string, null | id of the feedback itself |
| `reward` | double, null | the feedback's reward |
| `truth` | string, null | JSON text of the feedback's truth, as it was sent |

A gateway may repeat a request, and a machine that dies between two steps may seal a spool file
twice: readers take one record per (`kind`, `request_id`, `release`, `role`, `attempt`,
`feedback_id`). A last line without its line end was never answered and is no record.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from prefect_mlops.deployments.server._say import say
from prefect_mlops.deployments.server._sealer import Keep, Sealer

MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_FILE_RECORDS = 50_000
MAX_FILE_AGE_SECONDS = 60.0
MAX_FILE_AGE_SECONDS_WITH_STORE = 2.0


class SpoolFull(Exception):
    """A record could not be written, so its answer must not leave."""


class Spool:
    """The folder in which one server process records its answers.

    Only the thread that answers may call it; sealing happens in a thread of its own.

    Args:
        folder: Where spool files and segments lie; made if it is not there.
        constant: The columns that are the same in every record of this process.
        keep: Takes a segment to where it is kept; without it, segments stay in the folder.
    """

    def __init__(self, folder: Path, constant: dict[str, Any], keep: Keep | None = None) -> None:
        self.folder = folder
        self._constant = b"," + orjson.dumps(constant)[1:] + b"\n"
        self._path: Path | None = None
        self._file = -1
        self._number = self._size = self._records = 0
        self._born = 0.0
        self._full = False
        self._seconds = MAX_FILE_AGE_SECONDS_WITH_STORE if keep else MAX_FILE_AGE_SECONDS
        self._sealer = Sealer(folder, keep)

    def open(self) -> None:
        """Make the folder, and have what a killed process left behind sealed.

        Raises:
            OSError: If the folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        left = sorted(self.folder.glob("open-*.jsonl"))
        self._start_file()
        self._sealer.start()
        for path in left:
            self._sealer.put(path)

    def append(self, records: Iterable[dict[str, Any]]) -> None:
        """Write `records`; when this returns, they survive the death of this process.

        Raises:
            SpoolFull: If they could not all be written; then none of them is.
        """
        end = self._constant
        lines = [orjson.dumps(record, option=orjson.OPT_UTC_Z)[:-1] + end for record in records]
        data = b"".join(lines)
        try:
            self._write(data)
        except OSError as error:
            if not self._full:
                say(f"{self.folder} does not take records, so nothing is answered until it does: {error.strerror}")
            self._full = True
            raise SpoolFull(f"it could not be recorded: {error.strerror}") from error
        self._full = False
        self._size += len(data)
        self._records += len(lines)

    def tick(self) -> None:
        """Hand a spool file that is long or old enough over for sealing. Call it about once a second."""
        old = time.monotonic() - self._born > self._seconds
        if self._records and (old or self._size >= MAX_FILE_BYTES or self._records >= MAX_FILE_RECORDS):
            self.rotate()
        self._sealer.again()

    def close(self) -> None:
        """Seal everything, take it to where it is kept, then stop."""
        if self._file >= 0:
            self.rotate(reopen=False)
        self._sealer.stop()

    def _write(self, data: bytes) -> None:
        if self._file < 0 or os.fstat(self._file).st_nlink == 0:
            self._restart()
        written = os.write(self._file, data)
        if written == len(data):
            return
        try:
            os.ftruncate(self._file, self._size)
        except OSError:
            self.rotate(reopen=False)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _restart(self) -> None:
        if self._file >= 0:
            say(f"{self._path} was deleted with {self._records} records; a new one is made")
            os.close(self._file)
            self._file = -1
        self.folder.mkdir(parents=True, exist_ok=True)
        self._start_file()

    def _start_file(self) -> None:
        while True:
            self._number += 1
            path = self.folder / f"open-{os.getpid()}-{self._number}.jsonl"
            try:
                self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileExistsError:
                continue
            break
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._path, self._size, self._records, self._born = path, 0, 0, time.monotonic()

    def rotate(self, *, reopen: bool = True) -> None:
        """Have the spool file sealed, and start the next."""
        path, old = self._path, self._file
        self._file = -1
        os.close(old)
        if path is not None:
            self._sealer.put(path)
        if reopen:
            try:
                self._start_file()
            except OSError as error:
                say(f"no new spool file could be made in {self.folder}: {error.strerror}")
