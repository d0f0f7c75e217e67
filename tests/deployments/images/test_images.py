"""What an image is made of decides whether it is built; what a build is told stays out of it."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import grimp
import pytest

from prefect_mlops.deployments.images import _pip
from prefect_mlops.deployments.images.__main__ import IMAGES, main

BASE = "registry.example/python:3.12"
TOOL = f"""#!{sys.executable}
'''Stands in for buildah: keeps the names of images, and the Containerfile's folder and secrets of each build.'''
import json, os, pathlib, shutil, sys
home, words = pathlib.Path(os.environ["IMAGES"]), sys.argv[1:]
def known(name): return home / name.replace("/", "_")
if words[0] == "pull":
    print(os.environ["BASE_ID"])
elif words[0] == "inspect":
    if not known(words[-1]).exists(): sys.exit("no such image")
    print(json.dumps({{"FromImageDigest": "sha256:d"}}))
elif words[0] == "build":
    folder = known(words[words.index("--tag") + 1])
    shutil.copytree(words[-1], folder)
    for word in words:
        if word.startswith("--secret"):
            kind, _, path = word.partition("id=")[2].partition(",src=")
            shutil.copy(path, folder / f"secret-{{kind}}")
    (folder / "words").write_text(" ".join(words))
else:
    (home / words[0]).write_text(" ".join(words))
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in for buildah, the first thing on PATH, keeps images."""
    tool, images = tmp_path / "bin" / "buildah", tmp_path / "images"
    tool.parent.mkdir()
    images.mkdir()
    tool.write_text(TOOL)
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("IMAGES", str(images))
    monkeypatch.setenv("BASE_ID", "1")
    (tmp_path / "prefect_mlops-1.2.3-py3-none-any.whl").write_bytes(b"wheel")
    return images


def _build(home: Path, capsys: pytest.CaptureFixture[str], *more: str) -> list[str]:
    (wheel,) = home.parent.glob("*.whl")
    assert main([str(wheel), "--base", BASE, *more]) == 0
    return capsys.readouterr().out.splitlines()


def test_both_images_are_built_of_the_wheel_and_their_locks(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = _build(home, capsys)
    assert [line.partition(":1.2.3-")[0] for line in said] == [f"localhost/prefect-mlops-{image}" for image in IMAGES]
    assert all(line.endswith("@sha256:d") for line in said)
    for line, image in zip(said, IMAGES, strict=True):
        folder = home / line.partition("@")[0].replace("/", "_")
        built = {path.name for path in folder.iterdir()} - {"words", "secret-pip", "secret-certificates"}
        assert built == {"Containerfile", f"{image}.lock", "prefect_mlops-1.2.3-py3-none-any.whl"}
        assert f"--build-arg=BASE={BASE} --build-arg=LOCK={image}.lock" in (folder / "words").read_text()


def test_an_image_is_built_again_when_what_it_is_made_of_changed(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def names() -> list[str]:
        return _build(home, capsys, "--only", "serving")

    first = names()
    assert names() == first
    assert len(list(home.iterdir())) == 1
    (wheel,) = home.parent.glob("*.whl")
    wheel.write_bytes(b"other wheel")
    second = names()
    monkeypatch.setenv("BASE_ID", "2")
    assert len({*first, *second, *names()}) == len(list(home.iterdir())) == 3


def test_what_pip_was_told_is_a_secret_of_the_build(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = home.parent / "authority.pem"
    authority.write_text("authority")
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:key@index.example/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", f"/wheels https://wheels.example {home}")
    monkeypatch.setenv("PIP_CERT", str(authority))
    [name] = _build(home, capsys, "--only", "serving")
    folder = home / name.partition("@")[0].replace("/", "_")
    told = (folder / "secret-pip").read_text()
    assert "index-url = https://me:key@index.example/simple\n" in told
    assert "find-links = https://wheels.example\n" in told
    assert f"cert = {_pip.CERTIFICATES}\n" in told
    assert (folder / "secret-certificates").read_text() == "authority"
    assert "key" not in (folder / "words").read_text() + (folder / "Containerfile").read_text()


def test_variables_win_over_files(tmp_path: Path) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = https://one.example\nproxy = http://proxy.example\n[install]\nretries = 9\n")
    told = _pip.settings({"PIP_CONFIG_FILE": str(file), "PIP_INDEX_URL": "https://two.example", "PIP_PROXY": ""})
    wanted = {"index-url": "https://two.example", "proxy": "http://proxy.example", "retries": "9"}
    assert {name: told[name] for name in wanted} == wanted


def test_a_machine_that_builds_no_images_is_told_what_to_install(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(home))
    assert main(["prefect_mlops-1.2.3-py3-none-any.whl"]) == 1
    assert "buildah, podman or docker" in capsys.readouterr().err


def test_images_and_archives_go_where_they_are_asked_for(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [name] = _build(home, capsys, "--only", "flows", "--repository", "registry.example/team", "--push")
    image = name.partition("@")[0]
    assert image.startswith("registry.example/team/prefect-mlops-flows:1.2.3-")
    assert (home / "push").read_text() == f"push --quiet {image}"
    _build(home, capsys, "--only", "flows", "--archives", str(home / "archives"))
    assert (
        f"docker-archive:{home}/archives/flows.tar:localhost/prefect-mlops-flows:1.2.3-" in (home / "push").read_text()
    )


def test_the_serving_image_has_all_that_the_server_imports() -> None:
    graph = grimp.build_graph("prefect_mlops", include_external_packages=True, cache_dir=None)
    server = {"prefect_mlops.deployments.server"} | graph.find_descendants("prefect_mlops.deployments.server")
    server -= {"prefect_mlops.deployments.server.seldon"}  # for the wrapper, which is an extra
    imported = {name for module in server for name in graph.find_modules_directly_imported_by(module)} - server
    lock = (Path(_pip.__file__).parent / "serving.lock").read_text()
    names = {line.partition("==")[0] for line in lock.splitlines() if "==" in line}
    standard = set(sys.stdlib_module_names)
    assert {name for name in imported - standard if not name.startswith("prefect_mlops")} <= names
