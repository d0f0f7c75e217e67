"""What the server refuses: to start, or to answer."""

from __future__ import annotations

from typing import Any

MAX_VALUE_CHARACTERS = 60

Headers = tuple[tuple[bytes, bytes], ...]


class StartRefused(Exception):
    """The server will not serve this: its configuration, its model's bytes or the model itself is wrong."""


class StoreUnavailable(Exception):
    """The store does not answer now; it may later."""


class RequestRefused(Exception):
    """A request that gets no prediction.

    Args:
        status: HTTP status code.
        reason: One word for programs, in capitals as Seldon writes them.
        info: One sentence for people.
        headers: What the answer's head says beside what every answer says.
    """

    def __init__(self, status: int, reason: str, info: str, headers: Headers = ()) -> None:
        super().__init__(status, reason, info, headers)
        self.status, self.reason, self.info, self.headers = status, reason, info, headers

    def __str__(self) -> str:
        return self.info


class ModelFailed(Exception):
    """The model raised, or answered what its signature does not allow."""


def model_failed(release: str, error: ModelFailed) -> RequestRefused:
    """There is no prediction, since the model of `release` itself failed."""
    return RequestRefused(500, "MODEL_FAILED", f"the model of release {release} {error}")


def bad_data(info: str) -> RequestRefused:
    """The request's body breaks the protocol or the signature; `info` says how."""
    return RequestRefused(400, "BAD_DATA", info)


def shown(value: Any) -> str:
    """`value` as an error message shows it: in JSON's own words, and never long."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value[: MAX_VALUE_CHARACTERS + 1] if isinstance(value, str) else value)
    return text if len(text) <= MAX_VALUE_CHARACTERS else text[:MAX_VALUE_CHARACTERS] + "…"
