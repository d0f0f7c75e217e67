"""docs/format.md is right and enough: a program that knows only it can read a store, and `sha256sum` can check one."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from prefect_mlops.blocks._canonical import canonical, digest
from prefect_mlops.blocks.release import Release
from prefect_mlops.blocks.store import Store
from tests.blocks.store import reader

DOCUMENT = (Path(__file__).resolve().parents[3] / "docs" / "format.md").read_text()
ODD = 'a"b\\c/\x00\x08\t\n\x0c\r\x1f\x7f\u2028é\U0001f600'


def _sealed(document: object) -> bytes:
    line = canonical(document)
    return line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n"


@pytest.fixture
def filled(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A store with one of everything, and the ids of what is in it."""
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "größe \U0001f600").write_bytes(os.urandom(200_000))
    (source / "a\nb").write_bytes(b"")
    store = Store(url=str(tmp_path / "store"))
    snapshot, document = store.add(source).id, store.put(canonical({"odd": ODD, "n": [0, -1, True, None]}))
    release = Release(
        service="credit",
        data=snapshot,
        code=snapshot,
        runtime=snapshot,
        model=snapshot,
        tests=document,
        probes=document,
    )
    ids = {"snapshot": snapshot, "document": document, "release": store.put_release(release)}
    previous = None
    for number in range(4):
        entry = {"prev": previous, "seq": number, "store": store.id, **ids, "reason": ODD}
        previous = digest(canonical(entry))
        assert store.journal("log/local").append(number, _sealed(entry))
    return tmp_path / "store", ids


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    """The reader as a program of its own, which could not import ours if it wanted to."""
    command = [sys.executable, "-I", "-S", reader.__file__, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60, check=False)


def shell(folder: Path, number: int) -> str:
    """What a command of the document prints."""
    command = re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL)[number]
    done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def test_a_stranger_can_read_everything(filled: tuple[Path, dict[str, str]]) -> None:
    folder, ids = filled
    assert (run(folder).stdout, run(folder).returncode) == ("", 0)
    source = folder.parent / "source"
    assert reader.files(folder, ids["snapshot"]) == {
        path.relative_to(source).as_posix(): path.read_bytes() for path in source.rglob("*") if path.is_file()
    }
    key = folder / "objects" / "sha256" / ids["release"][7:9] / ids["release"][9:]
    assert reader.canonical(key.read_bytes()).keys() == set(Release.model_fields)
    assert shell(folder, 0) == shell(folder, 1) == ""


def test_a_stranger_names_any_changed_byte(filled: tuple[Path, dict[str, str]]) -> None:
    """Both the reader and `sha256sum`; 25 random bytes of random files."""
    folder, _ = filled
    rng = random.Random(0)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for _ in range(25):
        path = rng.choice([path for path in paths if path.stat().st_size])
        kept, at = path.read_bytes(), rng.randrange(path.stat().st_size)
        path.write_bytes(kept[:at] + bytes([kept[at] ^ (1 << rng.randrange(8))]) + kept[at + 1 :])
        key = path.relative_to(folder).as_posix()
        assert key in dict(reader.check(folder))
        assert key in shell(folder, 0) + shell(folder, 1)
        path.write_bytes(kept)
    assert run(folder).returncode == 0


def test_a_stranger_names_what_is_missing_or_strange(filled: tuple[Path, dict[str, str]]) -> None:
    folder, _ = filled
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in paths:
        kept = path.read_bytes()
        path.unlink()
        said = run(folder)
        newest = path.name == "000000000003"
        assert said.returncode == (0 if newest else 1), path  # a tail cut off shows only from outside the store
        path.write_bytes(kept)
    (folder / "log" / "local" / "note.txt").write_text("hello")
    assert run(folder).stdout == "log/local/note.txt is no stray\n"


def test_the_document_agrees_with_the_code() -> None:
    """Its examples are true, and its tables name every member."""
    manifest, identifier = _examples()
    assert digest(manifest.encode()) == identifier
    assert json.loads(manifest)["files"][0]["digest"] == digest(b"1,2\n")
    for member in Release.model_fields:
        assert f"| `{member}` |" in DOCUMENT
    line, seal = re.findall(r'^(\{"format".*)\n([0-9a-f]{64})$', DOCUMENT, re.MULTILINE)[0]
    assert hashlib.sha256(line.encode()).hexdigest() == seal
    assert digest(b"") in DOCUMENT


def _examples() -> tuple[str, str]:
    manifest = re.search(r'^\{"files".*$', DOCUMENT, re.MULTILINE)
    identifier = re.search(r"therefore the id\n`(sha256:[0-9a-f]{64})`", DOCUMENT)
    assert manifest
    assert identifier
    return manifest[0], identifier[1]


def test_canonical_json_is_as_the_document_says() -> None:
    escapes = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
    for code in [*range(0x300), 0xFFFD, 0xFFFF, 0x1F600, 0x10FFFF]:
        character = chr(code)
        written = escapes.get(character, f"\\u00{code:02x}" if code < 0x20 else character)
        assert canonical([character]) == f'["{written}"]'.encode()
    assert (
        canonical({"\U0001f600": 1, "\uffff": 2, "é": 3, "z": 4, "Z": 5})
        == '{"Z":5,"z":4,"é":3,"\uffff":2,"\U0001f600":1}'.encode()
    )
    assert canonical([0, -1, 10**30, True, False, None]) == b"[0,-1,1000000000000000000000000000000,true,false,null]"
