"""One lock for all our Pythons: pinned by hash, complete, in step with pyproject.toml, naming no registry."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable, Iterator

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.project import PYPROJECT, ROOT

PLACES = [(python, platform) for python in ("3.11", "3.12", "3.13") for platform in ("linux", "darwin")]


def _pins(text: str) -> Iterator[tuple[Requirement, list[str]]]:
    """Every requirement of a lock with its hashes."""
    for entry in re.sub(r"\s*#.*", "", text).replace("\\\n", " ").splitlines():
        if entry.strip():
            requirement, *hashes = entry.split("--hash=")
            yield Requirement(requirement.strip()), [digest.strip() for digest in hashes]


LOCK = (ROOT / "requirements.lock").read_text()
PINS = list(_pins(LOCK))


def _environment(python: str, platform: str) -> dict[str, str]:
    system = {"linux": "Linux", "darwin": "Darwin"}[platform]
    # Python 3.11.2 lies before a bound that some requirements have; later ones are like 3.11.7.
    here = {"python_version": python, "python_full_version": f"{python}.7", "sys_platform": platform}
    return {**{name: str(value) for name, value in default_environment().items()}, **here, "platform_system": system}


def _applies(requirement: Requirement, environment: dict[str, str], extras: Iterable[str] = ("",)) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**environment, "extra": extra}) for extra in extras)


def _pinned(python: str, platform: str) -> dict[str, str]:
    """Name to version, as an installer reads the lock there; asserts that each is pinned once."""
    environment = _environment(python, platform)
    here = [requirement for requirement, _ in PINS if _applies(requirement, environment)]
    versions = {str(canonicalize_name(pin.name)): str(pin.specifier).removeprefix("==") for pin in here}
    assert len(versions) == len(here), "a name is pinned twice"
    return versions


IMAGES = [f"deployments/images/{image}.lock" for image in ("serving", "flows")]


@pytest.mark.parametrize("name", ["requirements.lock", ".ci/uv.txt", *IMAGES])
def test_every_pin_is_exact_and_hashed(name: str) -> None:
    if not (ROOT / name).exists():
        pytest.skip(f"{name} is not part of an sdist")
    pins = list(_pins((ROOT / name).read_text()))
    assert pins
    loose = [str(pin) for pin, hashes in pins if not re.fullmatch(r"==[^*,]+", str(pin.specifier)) or not hashes]
    assert not loose
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for _, hashes in pins for digest in hashes)


@pytest.mark.parametrize("name", ["requirements.lock", *IMAGES])
def test_it_names_no_registry_and_no_address(name: str) -> None:
    lock = (ROOT / name).read_text()
    assert "://" not in lock
    assert not [line for line in lock.splitlines() if line.startswith("-") or " @ " in line]


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_gets_the_very_files_that_are_tested(name: str) -> None:
    def files(pins: Iterable[tuple[Requirement, list[str]]]) -> set[tuple[str, str, str]]:
        return {(pin.name, str(pin.specifier), digest) for pin, digests in pins for digest in digests}

    assert files(_pins((ROOT / name).read_text())) <= files(PINS)


@pytest.mark.parametrize(("python", "platform"), PLACES)
def test_it_satisfies_pyproject_everywhere(python: str, platform: str) -> None:
    pinned = _pinned(python, platform)
    project = PYPROJECT["project"]
    wanted = project["dependencies"] + [one for extra in project["optional-dependencies"].values() for one in extra]
    wanted += PYPROJECT["dependency-groups"]["dev"] + PYPROJECT["build-system"]["requires"]
    for requirement in map(Requirement, wanted):
        if _applies(requirement, _environment(python, platform)):
            version = pinned.get(canonicalize_name(requirement.name))
            assert version, f"{requirement} is not in the lock; run `make lock`"
            assert requirement.specifier.contains(version), f"{requirement} but {version}; run `make lock`"


def test_the_seldon_extra_is_there_on_312_only() -> None:
    assert {python for python, platform in PLACES if "seldon-core" in _pinned(python, platform)} == {"3.12"}


def test_what_is_installed_here_is_what_is_locked() -> None:
    pinned = {canonicalize_name(pin.name): str(pin.specifier)[2:] for pin, _ in PINS if _applies(pin, _here())}
    installed = {str(canonicalize_name(found.name)): found.version for found in importlib.metadata.distributions()}
    installed.pop("prefect-mlops")
    assert installed == pinned


def _here() -> dict[str, str]:
    return {name: str(value) for name, value in default_environment().items()}
