"""A reader of stores that knows docs/format.md and nothing of ours: `python reader.py FOLDER` prints what is wrong."""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Faults = Iterator[tuple[str, str]]
OBJECT = re.compile(r"objects/sha256/([0-9a-f]{2})/([0-9a-f]{62})")
ENTRY = re.compile(r"(?!objects/|tmp/)((?:[a-z0-9][a-z0-9._-]*/)+[a-z0-9][a-z0-9._-]*)/([0-9]{12})")
RELEASE = {"format", "service", "data", "code", "runtime", "model", "tests", "probes", "components"}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def canonical(data: bytes) -> dict[str, Any]:
    """The document, or {} where its bytes are not canonical JSON."""
    try:
        document = json.loads(data)
        again = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except ValueError:
        return {}
    return document if again == data and isinstance(document, dict) else {}


def sealed(data: bytes) -> dict[str, Any]:
    line, _, seal = data.partition(b"\n")
    return canonical(line) if seal == sha(line).encode() + b"\n" else {}


def named(document: object) -> set[str]:
    """Every digest that stands anywhere in a document."""
    if isinstance(document, (dict, list)):
        values = document.values() if isinstance(document, dict) else document
        return {digest for value in values for digest in named(value)}
    return {document} if isinstance(document, str) and re.fullmatch(r"sha256:[0-9a-f]{64}", document) else set()


def check(folder: Path) -> Faults:
    """Each key that breaks a rule, and the rule."""
    values = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    identity = sealed(values.pop("store.json", b""))
    if identity.get("format") != 1 or not re.fullmatch("[0-9a-f]{32}", identity.get("id", "")):
        yield "store.json", "says which store this is"
    objects = {"".join(match.groups()): value for key, value in values.items() if (match := OBJECT.fullmatch(key))}
    digests = {f"sha256:{digits}" for digits in objects}
    for digits, value in objects.items():
        if digits != sha(value):
            yield f"objects/sha256/{digits[:2]}/{digits[2:]}", "has the digest that its key says"
        document = canonical(value)
        if set(document) in ({"files"}, RELEASE):
            yield from ((digest, f"is there, for {digits} names it") for digest in named(document) - digests)
    yield from check_entries(values, digests)


def check_entries(values: dict[str, bytes], digests: set[str]) -> Faults:
    for key, value in values.items():
        if not re.match("tmp/", key) and not OBJECT.fullmatch(key) and not ENTRY.fullmatch(key):
            yield key, "is no stray"
        if match := ENTRY.fullmatch(key):
            previous = values.get(f"{match[1]}/{int(match[2]) - 1:012d}") if int(match[2]) else b""
            if previous is None:
                yield f"{match[1]}/{int(match[2]) - 1:012d}", "is no gap"
            if not sealed(value):
                yield key, "is sealed"
            before = sha((previous or b"").partition(b"\n")[0])
            missing = named(sealed(value)) - {*digests, f"sha256:{before}"}
            yield from ((digest, f"is there, for {key} names it") for digest in missing)


def files(folder: Path, snapshot: str) -> dict[str, bytes]:
    """The files of a snapshot: path and bytes."""

    def value(digest: str) -> bytes:
        data = (folder / "objects" / "sha256" / digest[7:9] / digest[9:]).read_bytes()
        assert f"sha256:{sha(data)}" == digest
        return data

    found = [(file["path"], file["size"], value(file["digest"])) for file in canonical(value(snapshot))["files"]]
    assert [path for path, _, _ in found] == sorted({path for path, _, _ in found})
    assert all(size == len(data) for _, size, data in found)
    return {path: data for path, _, data in found}


if __name__ == "__main__":
    faults = sorted(check(Path(sys.argv[1])))
    print("".join(f"{key} {rule}\n" for key, rule in faults), end="")
    sys.exit(bool(faults))
