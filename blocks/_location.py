"""Where a store is: its url, taken apart and checked."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from prefect_mlops.blocks.errors import Invalid

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"([A-Za-z0-9!_.*'()=-]+(/[A-Za-z0-9!_.*'()=-]+)*)?")
_RULE = "is an absolute folder, file:///folder or s3://bucket/prefix"
_CREDENTIALS = re.compile(r"(aws-credentials|minio-credentials)/[a-z0-9-]+")


class BucketName(NamedTuple):
    """A bucket and the folder in it."""

    bucket: str
    prefix: str


def place(url: str) -> Path | BucketName:
    """The folder or the bucket that `url` names.

    Raises:
        Invalid: If it names neither.
    """
    if url.startswith("/"):
        return _folder(url, url)
    parts = urlsplit(url)
    if parts.username or parts.password or "@" in parts.netloc:
        raise Invalid(
            "the url of a store", "holds no secret", f"{parts.scheme}://...@...", "name `credentials` instead"
        )
    if parts.query or parts.fragment:
        raise Invalid("the url of a store", f"{_RULE}, without ? and #", url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return _folder(unquote(parts.path), url)
    if parts.scheme == "s3":
        return _bucket(parts.netloc, parts.path.strip("/"), url)
    raise Invalid("the url of a store", _RULE, url)


def _folder(path: str, url: str) -> Path:
    if "\0" in path or not path.startswith("/") or ".." in PurePosixPath(path).parts or not path.strip("/"):
        raise Invalid("the url of a store", f"{_RULE}, not the root, without ..", url)
    return Path("/" + str(PurePosixPath(path)).lstrip("/"))


def _bucket(bucket: str, prefix: str, url: str) -> BucketName:
    if not _BUCKET.fullmatch(bucket):
        raise Invalid("the bucket of a store", "is 3 to 63 lower-case letters, digits, dots and dashes", url)
    if not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/")):
        raise Invalid("the prefix of a store", "is words of letters, digits and !_.*'()=- between slashes", url)
    return BucketName(bucket, prefix)


def endpoint(text: str) -> str:
    """The url of an S3-compatible server: encrypted, unless it is on this machine or says http itself."""
    url = text if "://" in text else f"{'http' if _loopback(text) else 'https'}://{text}"
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise Invalid(
            "the endpoint of a store", "holds no secret", f"{parts.scheme}://...@...", "name `credentials` instead"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise Invalid("the endpoint of a store", "is like https://s3.example.com:9000", text)
    return url.rstrip("/")


def credentials(text: str) -> str:
    """The name of a credentials block."""
    if not _CREDENTIALS.fullmatch(text):
        rule = "name a block as aws-credentials/NAME or minio-credentials/NAME"
        raise Invalid("the credentials of a store", rule, text, "save the block, then give its name")
    return text


def _loopback(text: str) -> bool:
    host = urlsplit(f"//{text}").hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
