"""LocalServing as a Prefect block."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites import BlockStandardTestSuite

from prefect_mlops.blocks import LocalServing, ServingTarget
from prefect_mlops.blocks.errors import TargetUnreachable


class TestStandards(BlockStandardTestSuite):
    @pytest.fixture
    def block(self) -> type[LocalServing]:
        return LocalServing

    @pytest.mark.skip(reason="asks the internet for the logo")
    def test_has_a_valid_image(self, block: type[Block]) -> None: ...


def test_it_is_a_serving_target_and_its_home_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    serving = LocalServing(home=Path("here"))
    assert isinstance(serving, ServingTarget)
    assert serving.home == tmp_path / "here"


def test_looking_at_a_place_that_never_started_starts_nothing(tmp_path: Path) -> None:
    serving = LocalServing(home=tmp_path / "h")
    assert str(serving.observe("credit")) == "nothing"
    assert serving.services() == ()
    with pytest.raises(TargetUnreachable, match="never started"):
        serving.address("credit")
    with pytest.raises(TargetUnreachable):
        serving.counters("credit")
    serving.stop()
    assert not (tmp_path / "h").exists()
