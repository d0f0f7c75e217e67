"""The command at a laptop: an environment that is not on this machine, by its store alone."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from prefect_mlops.blocks import Environment, ModelRegistry, SeldonServing, Store
from prefect_mlops.blocks._bucket import connect
from prefect_mlops.blocks._location import BucketName
from prefect_mlops.deployments.local.place import Place
from tests.blocks.store.servers import ACCESS, BUCKET, SECRET, free_port, proxied, s3_server
from tests.places import SERVICE, Said, ask, run, say


@pytest.fixture
def url(bare_place: Place) -> str:
    """The folder of a store; nothing more of the place that it belongs to is named."""
    return str(bare_place.home / "store")


@pytest.fixture
def laptop(tmp_path: Path) -> dict[str, str]:
    """The variables of somebody who has no Prefect and no AWS set up."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "AWS_", "MLFLOW_"))}
    nothing = {"AWS_CONFIG_FILE": "none", "AWS_SHARED_CREDENTIALS_FILE": "none", "AWS_EC2_METADATA_DISABLED": "true"}
    return ours | nothing | {"PREFECT_HOME": str(tmp_path / "prefect")}


# --- a store in a folder -----------------------------------------------------------------


def test_status_is_that_of_the_place_without_what_only_the_place_has(bare_place: Place, url: str) -> None:
    said = say(url, "status", "--json")
    at_home = say(bare_place.home, "status", "--json").document
    assert said.code == 0, said
    assert said.document["agrees"] is True
    assert said.document == at_home | {"home": None, "stopped": None}
    assert "served as asked" in say(url, "status").out


def test_everything_that_reads_needs_the_store_alone(bare_place: Place, url: str) -> None:
    request_id = ask(bare_place).headers["x-request-id"]
    for words in (("releases",), ("trace", request_id), ("verify",), ("registry",)):
        here, there = say(bare_place.home, *words, "--json"), say(url, *words, "--json")
        assert there.code == 0, there
        assert there.document.keys() == here.document.keys()
    assert say(url, "releases", "--json").document == say(bare_place.home, "releases", "--json").document
    assert say(url, "verify", "--json").document["anchors"][f"the gateway of {SERVICE}"] >= 0


def live(said: Said) -> list[str]:
    assert said.code == 0, said
    return [arm["release"] for arm in said.document["live"]]


def test_without_any_prefect_a_rollback_is_done_and_no_server_is_started(
    url: str, laptop: dict[str, str], tmp_path: Path
) -> None:
    said = run(url, "rollback", SERVICE, "--reason", "complaints", "--json", env=laptop)
    assert live(said) == ["credit-v1"]
    assert said.document["run"] is None
    assert "no Prefect is named by PREFECT_API_URL or your profile: doing it without a flow run" in said.err
    said = run(url, "reconcile", "--json", env=laptop | {"PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true"})
    assert said.document["services"][SERVICE].startswith("as it should be: credit-v1 live")
    assert list(tmp_path.rglob("prefect.db*")) == [], "that is what a server of Prefect's keeps"
    assert live(say(url, "rollback", SERVICE, "--to", "credit-v2", "--json")) == ["credit-v2"]


def test_a_prefect_that_is_down_or_refuses_holds_nothing_up(
    url: str, laptop: dict[str, str], refusing: str, tmp_path: Path
) -> None:
    down = f"http://127.0.0.1:{free_port()}/api"
    said = run(url, "status", "--json", env=laptop | {"PREFECT_API_URL": down})
    assert (said.code, said.document["prefect"]) == (0, {"url": down.removesuffix("/api"), "up": False})
    said = run(url, "rollback", SERVICE, "--to", "credit-v1", "--json", env=laptop | {"PREFECT_API_URL": down})
    assert live(said) == ["credit-v1"]
    assert f"Prefect at {down} does not answer: doing it without a flow run" in said.err
    said = run(url, "rollback", SERVICE, "--to", "credit-v2", "--json", env=laptop | {"PREFECT_API_URL": refusing})
    assert live(said) == ["credit-v2"]
    assert "has no environment 'local' that can be used" in said.err
    assert "401" in said.err
    assert "Traceback" not in said.err


class _Refuses(BaseHTTPRequestHandler):
    """A Prefect server that is well, and lets nobody in who has no password."""

    def do_GET(self) -> None:
        healthy = self.path.endswith("/health")
        body = b"true" if healthy else b"{}"
        self.send_response(200 if healthy else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def refusing() -> Iterator[str]:
    """Its API's url."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()


# --- what was said wrong -----------------------------------------------------------------


@pytest.mark.parametrize("command", ["up", "demo", "stop"])
def test_what_only_the_local_place_can_is_refused(tmp_path: Path, command: str) -> None:
    said = say(str(tmp_path), command, "--json")
    assert said.code == 2
    assert f"`{command}` is for the local place" in said.document["error"]["message"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "is empty"),
        ("http://bucket/x", "is an absolute folder, file:///folder or s3://bucket/prefix"),
        ("s3://Bucket/x", "bucket of a store"),
        ("s3://access:hidden@bucket/x", "holds no secret"),
    ],
)
def test_an_url_that_names_no_store(url: str, words: str) -> None:
    said = say(url, "status", "--json")
    assert said.code == 2
    assert words in said.document["error"]["message"]
    assert "hidden" not in said.out + said.err


def test_a_home_and_a_store_are_not_named_at_once(tmp_path: Path) -> None:
    said = say(tmp_path, "--store", str(tmp_path), "status", "--json")
    assert (said.code, said.document["error"]["type"]) == (2, "Usage")


def test_a_log_that_is_not_there_is_told_with_those_that_are(url: str, tmp_path: Path) -> None:
    said = say(url, "--environment", "production", "status", "--json")
    assert (said.code, said.document["error"]["type"]) == (3, "NoLog")
    assert "there are those of local: name one with --environment" in said.document["error"]["message"]
    said = say(str(tmp_path / "typo"), "status", "--json")
    assert (said.code, said.document["error"]["type"]) == (3, "NoLog")
    assert not (tmp_path / "typo").exists()
    assert say(url, "--environment", "../local", "status").code == 2


def test_variables_name_store_and_environment_until_a_home_is_named(url: str, tmp_path: Path) -> None:
    told = os.environ | {"PREFECT_MLOPS_STORE": url, "PREFECT_MLOPS_ENVIRONMENT": "nosuch"}
    said = run(tmp_path / "none", "status", "--json", env=told)
    assert said.document["error"]["type"] == "NoHome"
    said = run(f"{url}/../store", "status", "--json", env=told | {"PREFECT_MLOPS_STORE": "s3://other"})
    assert "'nosuch' has no log" in said.document["error"]["message"]


# --- a store in a bucket -----------------------------------------------------------------


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The url of a real S3-compatible server."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def keys(laptop: dict[str, str], s3: str) -> dict[str, str]:
    """AWS's own variables that lead to it."""
    return laptop | {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL_S3": s3}


@pytest.fixture
def copied(bare_place: Place, s3: str, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """A copy of the place's store in a bucket."""
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    prefix = uuid.uuid4().hex
    bucket = connect(f"s3://{BUCKET}/{prefix}", BucketName(BUCKET, prefix), None, None, "us-east-1")
    folder = bare_place.home / "store"
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_relative_to(folder / "tmp"):
            bucket.put_new(str(path.relative_to(folder)), path.read_bytes())
    return f"s3://{BUCKET}/{prefix}"


def test_a_bucket_is_read_by_awss_own_variables(copied: str, keys: dict[str, str], bare_place: Place) -> None:
    status = run(copied, "status", "--json", env=keys)
    assert status.code == 0, status
    assert status.document["store"] == copied
    assert status.document["services"] == say(bare_place.home, "status", "--json").document["services"]
    assert say(copied, "releases", "--json").document == say(bare_place.home, "releases", "--json").document
    verified = say(copied, "verify", "--json")
    assert (verified.code, verified.document["verified"]) == (0, True)


def test_whoever_looks_from_outside_goes_another_way_to_the_bucket_than_pods(
    keys: dict[str, str], s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    registry = ModelRegistry(tracking_uri="sqlite://")
    with proxied(s3) as inside:
        environment = Environment(name="production")
        store = Store(url=url, endpoint=inside.url, region="us-east-1")
        environment.use(store, SeldonServing(gateway="http://g", image="i"), registry)
        environment.log()
    found = Environment.remembered(Store(url=url), "production").store_block
    assert (found.endpoint, found.region) == (inside.url, "us-east-1")
    assert found.id == Store(url=url).id


@pytest.mark.parametrize(
    ("url", "wrong", "kind", "words"),
    [
        (f"s3://{BUCKET}/x", {"AWS_SECRET_ACCESS_KEY": "hidden"}, "StoreRefused", "does not accept the keys"),
        (f"s3://{BUCKET}/x", {"AWS_ACCESS_KEY_ID": ""}, "StoreRefused", "there are no keys"),
        (f"s3://{BUCKET}/x", {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}, "StoreUnreachable", "does not answer"),
        ("s3://nosuchbucket/x", {}, "StoreRefused", "there is no such bucket"),
        (f"s3://{BUCKET}/nosuchprefix", {}, "NoLog", "has no log"),
    ],
    ids=["refused keys", "no keys", "nobody there", "no bucket", "no log"],
)
def test_a_bucket_that_cannot_be_read_is_one_sentence(
    keys: dict[str, str], url: str, wrong: dict[str, str], kind: str, words: str
) -> None:
    said = run(url, "status", "--json", env=keys | wrong)
    error = json.loads(said.out)["error"]
    assert (said.code, error["type"]) == (3, kind)
    assert words in error["message"]
    assert "hidden" not in said.out + said.err
    assert said.err == ""
