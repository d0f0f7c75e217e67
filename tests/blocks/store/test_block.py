"""The store as a Prefect block."""

from __future__ import annotations

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite
from prefect.testing.utilities import prefect_test_harness
from pydantic import SecretStr, ValidationError

from prefect_mlops.blocks.errors import StoreRefused
from prefect_mlops.blocks.store import Store
from tests.blocks.store.servers import ACCESS, SECRET


class TestStoreBlock(BlockStandardTestSuite):
    @pytest.fixture
    def block(self) -> type[Store]:
        return Store

    @pytest.mark.skip(reason="it fetches the logo from the internet")
    def test_has_a_valid_image(self, block: type[Block]) -> None: ...


def test_the_slug_never_changes() -> None:
    assert Store.get_block_type_slug() == "mlops-store"
    assert Store._block_type_name == "MLOps Store"


@pytest.mark.parametrize(
    "url",
    [
        "/srv/store",
        "/srv/with space/größe",
        "file:///srv/store",
        "file://localhost/srv",
        "s3://bucket",
        "s3://my.bucket/a/b",
        "s3://bucket/a/",
    ],
)
def test_urls(url: str) -> None:
    assert Store(url=url).url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "store",
        "./store",
        "~/store",
        "/",
        "//",
        "/srv/../etc",
        "/a\0b",
        "file://host/srv",
        "file:relative",
        "http://host/x",
        "gs://bucket/x",
        "s3://",
        "s3:///x",
        "s3://B/x",
        "s3://bucket/../x",
        "s3://bucket/a//b",
        "s3://bucket/x?y=1",
        "s3://bucket/ä b",
    ],
)
def test_garbage_is_refused_in_one_sentence(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Store(url=url)
    (error,) = caught.value.errors()
    assert "of a store" in error["msg"]
    assert "\n" not in error["msg"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", "s3://ACCESS:hunter2@bucket/x"),
        ("endpoint", "https://user:hunter2@host"),
        ("endpoint", "ftp://host"),
        ("endpoint", "https://"),
        ("credentials", "prod"),
        ("credentials", "secret/prod"),
        ("credentials", "AKIAHUNTER2/x"),
    ],
)
def test_other_fields_and_secrets(field: str, value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Store(**{"url": "s3://bucket/x", field: value})
    assert "hunter2" not in str(caught.value)


def test_a_misspelt_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="endpont"):
        Store.model_validate({"url": "s3://bucket/x", "endpont": "http://host"})


@pytest.mark.slow
def test_credentials_blocks(s3: str, bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved, loaded, and resolved by name when first used, with nothing in the environment."""
    from prefect_aws import AwsCredentials, MinIOCredentials
    from prefect_aws.client_parameters import AwsClientParameters

    secret = SecretStr(SECRET)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with prefect_test_harness(server_startup_timeout=120):
        at_server = AwsClientParameters(endpoint_url=s3)
        AwsCredentials(aws_access_key_id=ACCESS, aws_secret_access_key=secret, aws_client_parameters=at_server).save(
            "prod"
        )
        MinIOCredentials(minio_root_user=ACCESS, minio_root_password=secret).save("lab")
        Store(url=bucket_url, credentials="aws-credentials/prod").save("one")
        Store(url=bucket_url, credentials="minio-credentials/lab", endpoint=s3, region="us-east-1").save("two")
        one, two = Store.load("one"), Store.load("two")
        assert isinstance(one, Store)
        assert isinstance(two, Store)
        assert two.get(one.put(b"a")) == b"a"
        with pytest.raises(StoreRefused, match="there is no block aws-credentials/none; save it"):
            Store(url=bucket_url, credentials="aws-credentials/none").put(b"a")
