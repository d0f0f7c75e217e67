"""The project's own model server behind the gateway."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from prefect_mlops.blocks import LocalServing, Release, Split
from prefect_mlops.blocks.errors import ArmNotReady
from tests.blocks.serving.conftest import NONE, Place


class Doubling:
    """A model whose answer is easy to check."""

    def predict(self, rows: Any) -> Any:
        return rows["x"].to_numpy() * 2


def release(place: Place, name: str, pickled: bytes) -> str:
    folder = place.folder / "models" / name
    folder.mkdir(parents=True)
    (folder / "model.pkl").write_bytes(pickled)
    inputs = [{"name": "x", "type": "number", "nullable": False, "example": 1.5}]
    signature = {"format": 1, "inputs": inputs, "output": {"kind": "values", "names": ["prediction"]}}
    (folder / "signature.json").write_text(json.dumps(signature))
    digests = dict.fromkeys(("data", "code", "runtime", "tests", "probes"), NONE)
    return place.store.put_release(Release(service="credit", model=place.store.add(folder).id, **digests))


def test_our_own_server_is_started_pinned_and_refused(place: Place) -> None:
    cloudpickle.register_pickle_by_value(__import__(__name__, fromlist=["Doubling"]))
    good = release(place, "good", cloudpickle.dumps(Doubling()))
    bad = release(place, "bad", b"no pickle at all")
    serving = LocalServing(home=place.home)
    serving.apply("credit", Split.of(good), fence=1, store=place.store)

    assert serving.observe("credit").ready == {good: 2}
    answer = place.ask(body=json.dumps({"data": {"names": ["x"], "ndarray": [[2.0], [3.0]]}}).encode())
    assert (answer.status, answer.release) == (200, good)
    assert [row[0] for row in answer.body["data"]["ndarray"]] == [4.0, 6.0]
    assert place.ask(body=b"{").status == 400

    with pytest.raises(ArmNotReady) as caught:
        serving.apply("credit", Split.of(bad, warm=[good]), fence=2, store=place.store)
    assert caught.value.last_words
    assert place.ask(pin=good, body=json.dumps({"data": {"names": ["x"], "ndarray": [[2.0]]}}).encode()).status == 200
    assert serving.observe("credit").shows(Split.of(good))
    records = list((place.home / "serving" / "records" / "credit").rglob("*"))
    assert any(path.is_file() for path in records)


def test_the_digest_in_the_configuration_is_the_one_of_the_bytes(place: Place) -> None:
    place.apply(Split.of(place.release("a")))
    configuration = json.loads(next((place.home / "serving" / "servers").rglob("*.json")).read_bytes())
    for file in configuration["files"]:
        data = (Path(configuration["folder"]) / file["path"]).read_bytes()
        assert file["digest"] == "sha256:" + hashlib.sha256(data).hexdigest()
