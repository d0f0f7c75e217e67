"""Keeping secrets out of code that is kept: by the names of files, and line by line. Free of Prefect.

A guess either way: a line that is blanked without need costs little, and what does not look like a secret is kept.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import PurePath

_FILES = (".env*", "*.pem", "*.key", "*.p12", "*.pfx", "credential*", "secret*", "id_rsa*", "id_ecdsa*", "id_ed25519*")

_TOKENS = re.compile(
    r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"  # Amazon
    r"|\bgh[pousr]_\w{30}|\bgithub_pat_\w{20}|\bglpat-[\w-]{20}"
    r"|\bxox[abeoprs]-[\w-]{10}|\bhooks\.slack\.com/services/\w"
    r"|\bAIza[\w-]{35}|\bya29\.[\w-]{20}"  # Google
    r"|\bsk-[\w-]{20}|\b[rs]k_live_\w{16}|\bhf_\w{30}|\bpn[ub]_\w{30}|\bpypi-[\w-]{40}|\bnpm_\w{36}"
    r"|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}"  # JSON Web Token
    r"|\bAccountKey=[\w+/]{40}"  # Azure
    r"|://[^/\s:@\"']*:[^/\s@\"']+@"  # a URL with a password
)
_ASSIGNED = re.compile(
    r"(?i)(passw(or)?d|passphrase|secret|token(?!i[sz])|credential|(api|access|account|private|encryption)_?key)"
    r"\w*[\"'\]]*(\s*:\s*[\w.\[\]| ]+)?\s*[=:]\s*\(?\s*[rbuf]{0,2}[\"'][^\"'\s]{4,}[\"']"
)
_LITERAL = re.compile(r"[\"']([\w+/=-]{20,})[\"']")
_KEY_BEGINS, _KEY_ENDS = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"), re.compile(r"-----END [A-Z ]*PRIVATE KEY")

_BLANK = "# blanked: it looked like a secret"


def is_named_like_a_secret(path: str) -> bool:
    """Whether a file has a name that files with secrets have."""
    return any(fnmatch(PurePath(path).name.lower(), pattern) for pattern in _FILES)


def blanked(text: str, *, keep: int = 0) -> tuple[str, list[int]]:
    """`text` without the lines that look as if they held a secret, and the numbers of these lines, from 1.

    Args:
        text: Code, or a diff.
        keep: How many characters at the start of each line stay: 1 in a diff.
    """
    lines = text.split("\n")
    wrong = sorted({*_with_a_token(lines), *_of_a_private_key(lines)})
    for number in wrong:
        lines[number] = lines[number][:keep] + _BLANK
    return "\n".join(lines), [number + 1 for number in wrong]


def _with_a_token(lines: list[str]) -> Iterator[int]:
    for number, line in enumerate(lines):
        drawn = any(_looks_drawn(found[1]) for found in _LITERAL.finditer(line))
        if drawn or _TOKENS.search(line) or _ASSIGNED.search(line):
            yield number


def _looks_drawn(word: str) -> bool:
    """Whether a word is drawn at random: bits of entropy a character, with the limits of the tool detect-secrets."""
    if re.fullmatch("[0-9a-fA-F-]{32,}", word):
        return _entropy(word) > 3
    return _entropy(word) > 4.5


def _entropy(word: str) -> float:
    shares = [count / len(word) for count in Counter(word).values()]
    return -sum(share * math.log2(share) for share in shares)


def _of_a_private_key(lines: list[str]) -> Iterator[int]:
    inside = False
    for number, line in enumerate(lines):
        inside = inside or bool(_KEY_BEGINS.search(line))
        if inside:
            yield number
        inside = inside and not _KEY_ENDS.search(line)
