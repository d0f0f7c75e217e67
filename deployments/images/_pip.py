"""What pip was told on this machine of where packages come from, for a build that must not keep it."""

from __future__ import annotations

import configparser
from collections.abc import Iterator, Mapping
from pathlib import Path

CERTIFICATES = "/run/certificates.pem"
"""Where a build finds the certificates."""

_FILES = ("/etc/xdg/pip/pip.conf", "/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
_KEPT = ("index-url", "extra-index-url", "find-links", "trusted-host", "proxy", "timeout", "retries")
_CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Settings by name, from pip's files and then from its variables, as pip itself reads them."""
    parser = configparser.RawConfigParser()
    parser.read(_files(environment))
    told = {
        name: value for section in ("global", "install") if section in parser for name, value in parser[section].items()
    }
    for name, value in environment.items():
        if name.startswith("PIP_") and value:
            told[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return told


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    more = [environment.get("PIP_CONFIG_FILE", "")]
    if "VIRTUAL_ENV" in environment:
        more.insert(0, f"{environment['VIRTUAL_ENV']}/pip.conf")
    for path in (*_FILES, *filter(None, more)):
        yield Path(path).expanduser()


def configuration(told: Mapping[str, str], certificates: Path | None) -> str:
    """A `pip.conf` for inside a build: indexes, and how they are reached; no folder of this machine."""
    lines = ["[global]"]
    for name in _KEPT:
        values = [value for value in told.get(name, "").split() if name != "find-links" or "://" in value]
        if values:
            lines.append(f"{name} = {' '.join(values)}")
    if certificates is not None:
        lines.append(f"cert = {CERTIFICATES}")
    return "\n".join(lines) + "\n"


def certificates(told: Mapping[str, str], environment: Mapping[str, str]) -> Path | None:
    """The file with the certificates that pip trusts here, where it is told one."""
    named = [told.get("cert", ""), *(environment.get(name, "") for name in _CERTIFICATES)]
    return next((Path(name) for name in named if name and Path(name).is_file()), None)
