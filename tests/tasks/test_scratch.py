"""Temporary folders of tasks are gone when nobody needs them any more, and not before."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from prefect_mlops.tasks._scratch import scratch_folder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_gone_after_the_block_with_all_that_is_in_it(temporary: Path) -> None:
    with scratch_folder() as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").touch(mode=0o400)
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_is_swept_and_nothing_else(temporary: Path) -> None:
    (temporary / "somebody-elses").mkdir()
    with scratch_folder() as living:
        left = living.with_name("mlops-scratch-left")
        (left / "model").mkdir(parents=True)
        (living.with_name("mlops-scratch-file")).touch()
        (living.with_name("mlops-scratch-link")).symlink_to(temporary / "somebody-elses")
        with scratch_folder() as folder:
            assert folder != living
            assert not left.exists()
            assert living.is_dir()
    assert sorted(path.name for path in temporary.iterdir()) == [
        "mlops-scratch-file",
        "mlops-scratch-link",
        "somebody-elses",
    ]
