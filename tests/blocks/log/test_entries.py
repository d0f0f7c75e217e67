"""The bytes of an entry: whatever is changed in them is noticed."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from prefect_mlops.blocks._canonical import canonical
from prefect_mlops.blocks.entry import Entry, NotAnEntry
from prefect_mlops.blocks.split import Arm, Split
from tests.blocks.log.stories import Teller, digest, memory_log

leaves = st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]))
documents = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text('abcé"\\\n\x7f'), inner))


def entry() -> Entry:
    teller = Teller(memory_log())
    teller.released(digest(1))
    return teller.asked(Split.of(digest(1)))


ENTRY = entry()
DATA = ENTRY.encode()


@settings(max_examples=150, deadline=None)
@given(documents)
def test_canonical_json_comes_back_equal_and_in_one_form(document: Any) -> None:
    line = canonical(document)
    assert json.loads(line) == document
    assert canonical(json.loads(line)) == line
    assert b"\n" not in line


@settings(max_examples=30, deadline=None)
@given(documents, st.floats())
def test_canonical_json_holds_no_float_however_deep(document: Any, number: float) -> None:
    with pytest.raises(TypeError, match="no floats"):
        canonical([{"deep": [document, number]}])


def test_an_entry_comes_back_equal() -> None:
    again = Entry.decode(ENTRY.seq, DATA)
    assert again == ENTRY
    assert again.hash == ENTRY.hash == "sha256:" + DATA.splitlines()[1].decode()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_any_changed_byte_is_refused(place: int, difference: int) -> None:
    changed = bytearray(DATA)
    changed[place] ^= difference
    with pytest.raises(NotAnEntry):
        Entry.decode(ENTRY.seq, bytes(changed))


@pytest.mark.parametrize("data", [b"", b"\n", DATA[:-1], DATA + b"\n", DATA + DATA, DATA[1:], b"\xff" * 40, b"{}\n"])
def test_more_or_fewer_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(NotAnEntry):
        Entry.decode(ENTRY.seq, data)


def sealed(line: bytes) -> bytes:
    return line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b'"seq":2', b'"seq":3', "it says that it is number 3"),
        (b'"seq":2', b'"seq": 2', "canonical"),
        (b'"seq":2', b'"seq":true', "canonical"),
        (b'"seq":2', b'"seq":2.0', "canonical"),
        (b'"seq":2', b'"seq":2,"seq":2', "canonical"),
        (b'"seq":2', b'"seq":2,"sex":2', "not an entry"),
        (b'"v":1', b'"v":2', "not an entry"),
        (b'"kind":"asked"', b'"kind":"begged"', "not an entry"),
        (b'"reason":""', b'"reason":"\\ud800"', "not an entry"),
        (b'"reason":""', b'"reason":"\\u00e9"', "canonical"),
        (b'"reason":""', b'"reason":' + b"[" * 100_000 + b"]" * 100_000, "not an entry"),
        (b'"time":"2026', '"time":"२०२६'.encode(), "not an entry"),
        (b'"percent":100', b'"percent":99', "not an entry"),
        (b'"clamped":false', b'"clamped":0', "canonical"),
    ],
)
def test_well_sealed_lies_are_refused_too(old: bytes, new: bytes, why: str) -> None:
    line = DATA.splitlines()[0]
    assert line.count(old) >= 1
    with pytest.raises(NotAnEntry, match=why):
        Entry.decode(ENTRY.seq, sealed(line.replace(old, new)))


def test_sha256sum_alone_checks_an_entry_and_its_chain(tmp_path: Path) -> None:
    teller = Teller(memory_log())
    teller.released(digest(1))
    for one in teller.log.entries():
        (tmp_path / f"{one.seq:012d}").write_bytes(one.encode())
    script = """
        set -e; before=null
        for f in 0*; do
            sum=$(head -n 1 "$f" | tr -d '\\n' | sha256sum | cut -c 1-64)
            test "$sum" = "$(tail -n 1 "$f")"
            head -n 1 "$f" | grep -q "\\"prev\\":$before,"
            before="\\"sha256:$sum\\""
        done"""
    subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True)


arms = st.lists(
    st.builds(
        lambda release, role, percent: {"release": digest(release), "role": role, "percent": percent},
        st.integers(0, 5),
        st.sampled_from(["live", "warm", "shadow"]),
        st.sampled_from([0, 1, 10, 50, 90, 100]) | st.integers(-1, 101),
    ),
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(arms, st.randoms(use_true_random=False))
def test_a_split_is_legal_or_refused(made: list[dict[str, Any]], rng: Any) -> None:
    shuffled = list(made)
    rng.shuffle(shuffled)
    try:
        split = Split.model_validate({"arms": made})
    except ValidationError:
        with pytest.raises(ValidationError):
            Split.model_validate({"arms": shuffled})
        return
    assert sum(arm.percent for arm in split.live) == (100 if split.live else 0)
    assert all(arm.percent > 0 for arm in split.live)
    shadows = [arm for arm in split.arms if arm.role == "shadow"]
    assert not shadows or (len(shadows) == 1 and split.live)
    assert len({arm.release for arm in split.arms}) == len(split.arms)
    assert Split.model_validate({"arms": shuffled}) == split == Split.model_validate_json(split.canonical())
    assert all(isinstance(arm, Arm) for arm in split.arms)
