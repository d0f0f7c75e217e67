"""The store in an S3-compatible bucket, through obstore."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from prefect_mlops.deployments.server._errors import StartRefused, StoreUnavailable

if TYPE_CHECKING:
    from obstore.store import RetryConfig

_RETRY: RetryConfig = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
}


class Bucket:
    """Keys are objects below a prefix. The bucket's keys are wherever AWS's own tools look for them on a server.

    Args:
        url: How people call it.
        bucket: The bucket.
        prefix: The prefix, or nothing.
        endpoint: URL of the server, or None.
        region: Region of the bucket, or None.
    """

    def __init__(self, url: str, bucket: str, prefix: str, endpoint: str | None, region: str | None) -> None:
        server = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        given = {"prefix": prefix, "endpoint": server, "region": region}
        place: dict[str, Any] = {name: value for name, value in given.items() if value}
        limits = {"allow_http": server.startswith("http://"), "connect_timeout": "3 seconds"}
        # A large model may take as long as it likes, as long as bytes come.
        reading: Any = {**limits, "timeout": "1 day", "read_timeout": "20 seconds"}
        writing: Any = {**limits, "timeout": "10 seconds"}
        self.url = url
        self._reading = S3Store(bucket, client_options=reading, retry_config=_RETRY, **place)
        self._writing = S3Store(bucket, client_options=writing, retry_config=_RETRY, **place)

    def get(self, key: str) -> bytes | None:
        with self._told():
            try:
                return bytes(obstore.get(self._reading, key).bytes())
            except FileNotFoundError as error:
                if "<Code>NoSuchKey</Code>" in str(error):
                    return None
                raise  # a bucket that is not there, or no S3 server at all

    def create(self, key: str, data: bytes) -> None:
        try:
            with self._told(), suppress(AlreadyExistsError):
                obstore.put(self._writing, key, data, mode="create", use_multipart=False)
        except StartRefused as error:
            raise StoreUnavailable(str(error)) from error

    @contextmanager
    def _told(self) -> Generator[None]:
        """Say in one sentence what the server, or the way to it, said."""
        try:
            yield
        except (FileNotFoundError, PermissionDeniedError, UnauthenticatedError) as error:
            raise StartRefused(f"{self.url} cannot be used: {_words(error)}; correct the place or its keys") from error
        except BaseError as error:
            raise StoreUnavailable(f"{self.url} does not answer: {_words(error)}") from error


def _words(error: Exception) -> str:
    """The end of obstore's first line, and the innermost reason, of its many lines."""
    text = str(error)
    first = text.splitlines()[0].rpartition(" - ")[2].strip()
    said = re.findall(r"<(?:Code|Message)>([^<]*)<", text) or re.findall(r'message: "([^"]*)"', text)[-1:]
    return ", ".join([first.partition(":")[0] if said else first, *said])
