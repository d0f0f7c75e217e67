"""A store's bytes in an S3-compatible bucket, through obstore."""

from __future__ import annotations

import mmap
import os
import random
import re
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

import boto3
import obstore
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store
from prefect.blocks.core import Block

from prefect_mlops.blocks._backend import CHUNK, SCRATCH
from prefect_mlops.blocks._location import BucketName
from prefect_mlops.blocks._location import endpoint as checked_endpoint
from prefect_mlops.blocks.errors import StoreRefused, StoreUnreachable

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

_TIMEOUT_SECONDS = 30
_SLOWEST = 1 << 20
"""Bytes a second below which an upload counts as stuck."""
_LARGEST = 5 << 30
"""The most bytes that S3 takes in one create-only request."""
_SMALL = 8 << 20
_CONFLICTS = 6
_KEYS_REFUSED = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "XAdminUserNotFound", "ExpiredToken", "InvalidToken"}
_RETRY: RetryConfig = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=15),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
}


class Bucket:
    """Keys are objects below a prefix, written with `If-None-Match: *`.

    Args:
        url: How the store is called in errors.
        where: The bucket and the prefix.
        options: Settings of obstore's S3Store: endpoint, region, credential provider.
    """

    lanes = 16

    def __init__(self, url: str, where: BucketName, options: dict[str, Any]) -> None:
        self._url, self._where, self._options = url, where, options
        self._store = self._client({"timeout": timedelta(seconds=_TIMEOUT_SECONDS)})
        self._streams = self._client(
            {"timeout": timedelta(days=1), "read_timeout": timedelta(seconds=_TIMEOUT_SECONDS)}
        )

    def put_new(self, key: str, data: bytes) -> bool:
        return self._put(self._store, key, data)

    def put_new_stream(self, key: str, chunks: Iterable[bytes | memoryview]) -> bool:
        """A copy on this machine's disk, which nobody can change, is sent from there."""
        if self.has(key):
            return False
        with tempfile.TemporaryFile() as file:
            for chunk in chunks:
                file.write(chunk)
            size = file.tell()
            if size > _LARGEST:
                reason = f"{key} has {size} bytes, and one request may carry {_LARGEST}"
                raise StoreRefused(self._url, reason, "split the file")
            file.seek(0)
            if size <= _SMALL:
                return self.put_new(key, file.read())
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return self._put(
                    self._client({"timeout": timedelta(seconds=_TIMEOUT_SECONDS + size // _SLOWEST)}), key, data
                )

    def get(self, key: str) -> bytes | None:
        with self._told("GET", key):
            try:
                return bytes(obstore.get(self._store, key).bytes())
            except FileNotFoundError as error:
                return self._absent(key, error)

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        with self._told("GET", key):
            try:
                return bytes(obstore.get_range(self._store, key, start=start, length=length))
            except FileNotFoundError as error:
                return self._absent(key, error)

    def stream(self, key: str) -> Iterator[bytes] | None:
        with self._told("GET", key):
            try:
                chunks = obstore.get(self._streams, key).stream(min_chunk_size=CHUNK)
            except FileNotFoundError as error:
                return self._absent(key, error)
        return self._chunks(key, chunks)

    def has(self, key: str) -> bool:
        with self._told("HEAD", key):
            try:
                obstore.head(self._store, key)
            except (FileNotFoundError, PermissionDeniedError, UnauthenticatedError):
                return self.get(key) is not None  # the answer to a HEAD has no body that would say why
        return True

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Sorted per page as S3 does, so overall; obstore takes whole segments, so filter the last one."""
        folder = prefix.rpartition("/")[0]
        with self._told("LIST", prefix):
            for page in obstore.list(self._store, prefix=folder or None, offset=after or None):
                for item in page:
                    if item["path"].startswith(prefix) and not item["path"].startswith(SCRATCH):
                        yield item["path"]

    def folders(self, prefix: str) -> tuple[str, ...]:
        with self._told("LIST", prefix):
            found = obstore.list_with_delimiter(self._store, prefix=prefix)["common_prefixes"]
        return tuple(path.removeprefix(prefix).strip("/") for path in found)

    def delete(self, key: str) -> None:
        with self._told("DELETE", key):
            obstore.delete(self._store, key)

    def _client(self, options: ClientConfig) -> S3Store:
        plain = self._options.get("endpoint", "").startswith("http://")
        return S3Store(
            self._where.bucket,
            prefix=self._where.prefix or None,
            client_options={"allow_http": plain, "connect_timeout": timedelta(seconds=5), **options},
            retry_config=_RETRY,
            **self._options,
        )

    def _put(self, store: S3Store, key: str, data: bytes | mmap.mmap) -> bool:
        """Some servers answer 409 to one of two writers before either is done; obstore takes it for "exists"."""
        with self._told("PUT", key):
            for number in range(_CONFLICTS):
                time.sleep(number * random.uniform(0.05, 0.15))  # noqa: S311 - the other writer, or our own first try, is at it
                try:
                    obstore.put(store, key, data, mode="create", use_multipart=False)
                except AlreadyExistsError:
                    if self.has(key):
                        return False
                else:
                    return True
        raise StoreUnreachable(self._url, f"it refuses {key} as taken and has nothing there")

    def _chunks(self, key: str, chunks: Iterable[Any]) -> Iterator[bytes]:
        with self._told("GET", key):
            for chunk in chunks:
                yield bytes(chunk)

    def _absent(self, key: str, error: FileNotFoundError) -> None:
        """A missing bucket, a wrong key or a wrong server are 404 as well; none of them is an empty store."""
        if "<Code>NoSuchKey</Code>" not in str(error):
            self._tell("GET", key, str(error), error)

    @contextmanager
    def _told(self, verb: str, key: str) -> Generator[None]:
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            self._tell(verb, key, str(error), error)

    def _tell(self, verb: str, key: str, text: str, cause: Exception) -> NoReturn:
        """Say in one sentence what the server, or the way to it, said."""
        status = _first(r"status code: (\d{3})", text)
        code = _first(r"<Code>(\w+)</Code>", text)
        if status is None or status.startswith("5"):
            reason = _first(r" - ((?:HTTP error|Server returned)[^\n<]*)", text) or text.splitlines()[0]
            deepest = re.findall(r'message: "([^"]*)"|kind: (Timeout)', text)
            words = [reason.strip(" :"), *(" ".join(deepest[-1]).strip().lower() for _ in deepest[-1:])]
            raise StoreUnreachable(self._url, f"{verb} {key}: {', '.join(words)}") from cause
        if code == "NoSuchBucket":
            raise StoreRefused(self._url, "there is no such bucket", "create it, or correct the url") from cause
        if code in _KEYS_REFUSED:
            reason = f"its server does not accept the keys ({code})"
            advice = "correct the block that `credentials` names, or else AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            raise StoreRefused(self._url, reason, advice) from cause
        if status in ("401", "403"):
            reason = f"access is denied to {verb} {key} ({code or status})"
            raise StoreRefused(self._url, reason, "give these keys the right to list, read and write there") from cause
        said = _first(r"<Message>([^<]*)</Message>", text) or "no words of an S3 server"
        reason = f"{verb} {key} was answered {status} {code or ''}: {said}"
        advice = "check `endpoint` (or AWS_ENDPOINT_URL), `region` (or AWS_REGION) and the url"
        raise StoreRefused(self._url, reason, advice) from cause


def connect(url: str, where: BucketName, credentials: str | None, endpoint: str | None, region: str | None) -> Bucket:
    """The bucket, with keys from the block called `credentials`, or else from where boto3 looks for them.

    What neither the store nor that block says of endpoint and region, AWS's own variables say.
    """
    region = region or os.environ.get("AWS_REGION")  # which every SDK of AWS reads, but not that of Python
    session, block = boto3.Session(region_name=region), None
    if credentials:
        block = _load(url, credentials)
        session = block.get_boto3_session()
    if session.get_credentials() is None:
        advice = "name a block in `credentials`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise StoreRefused(url, "there are no keys for it", advice)
    server = endpoint or (block and block.aws_client_parameters.endpoint_url) or _endpoint_by_variable()
    options: dict[str, Any] = {
        "credential_provider": Boto3CredentialProvider(session),
        "region": region or session.region_name or "us-east-1",
    }
    if server:
        options["endpoint"] = checked_endpoint(server)
    return Bucket(url, where, options)


def _endpoint_by_variable() -> str | None:
    """The endpoint of S3 that AWS's own tools are told by; the more special variable counts."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def _load(url: str, name: str) -> Any:
    try:
        load: Any = Block.load  # inside a running event loop it would give a coroutine
        return load(name, _sync=True)
    except ValueError as error:
        raise StoreRefused(url, f"there is no block {name}", "save it, or correct `credentials`") from error


def _first(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match[1] if match else None
