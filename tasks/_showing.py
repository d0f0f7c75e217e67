"""What the registry shows: each release as the store has it, and its standing as the log has it. Free of Prefect.

Nothing else goes in, so that an empty registry is filled again from the log, and shows the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from prefect_mlops.blocks import Entry, Environment, ModelRegistry, Recipe, ReleaseLog, Store
from prefect_mlops.blocks.entry import Released
from prefect_mlops.blocks.state import Service
from prefect_mlops.tasks import _learning, _runtime
from prefect_mlops.tasks._plots import drawings, image
from prefect_mlops.tasks._scratch import scratch_folder

PARTS = ("data", "code", "runtime", "model", "tests", "probes")


def show_release(store: Store, registry: ModelRegistry, release: str) -> int:
    """Show a release in the registry, if it is not shown yet, and return the version it is shown under.

    Raises:
        ObjectMissing, ObjectDamaged: If something that it names is not whole.
    """
    document = store.release(release)
    if (version := registry.version_of(document.service, release)) is not None:
        return version
    tests = json.loads(store.get(document.tests))
    with scratch_folder() as scratch:
        files, model = scratch / "files", scratch / "model"
        store.checkout(document.model, model)
        for part in ("code", "runtime"):
            store.checkout(getattr(document, part), files / part)
        _write_evidence(tests, model / "signature.json", files)
        return registry.record(
            document.service,
            model / _learning.PICKLE,
            release=release,
            params=_params(_runtime.recipe_of(store, document.code)),
            metrics=tests["metrics"],
            tags={part: getattr(document, part) for part in PARTS},
            requirements=(files / "runtime" / _runtime.NEEDED).read_text().splitlines(),
            files=files,
        )


def _params(recipe: Recipe) -> dict[str, str]:
    told = {"train": recipe.train, "target": recipe.target, "holdout_percent": recipe.holdout_percent}
    return {name: str(value) for name, value in {**told, **recipe.params, "seed": recipe.seed}.items()}


def _write_evidence(tests: dict[str, Any], signature: Path, files: Path) -> None:
    (files / "tests.json").write_text(json.dumps(tests, indent=1, sort_keys=True))
    (files / "signature.json").write_bytes(signature.read_bytes())
    (files / "plots").mkdir()
    for name, drawing in drawings(tests.get("curves", {})).items():
        (files / "plots" / f"{name}.png").write_bytes(image([drawing], inches=4.8))


class Standing(NamedTuple):
    """What the log says of the releases of a service.

    Attributes:
        tags: For each release, what people call it, and the number of the entry that it stands there by.
        champion: The release that answers, or of several the one that did so alone; None if nothing does.
        challenger: The newest candidate of a training that never answered; None if there is none.
    """

    tags: dict[str, dict[str, str]]
    champion: str | None
    challenger: str | None


def standing(known: Service, entries: Iterable[Entry]) -> Standing:
    """How the releases of a service stand, after the last of the log's entries."""
    by: dict[str, int] = {}
    candidates: list[str] = []
    for entry in entries:
        if isinstance(entry.body, Released) and entry.service == known.name:
            by[entry.body.release] = entry.seq
            candidates += [entry.body.release] * (entry.closes is not None)
    champion, answered = None, set[str]()
    for change in known.changes:
        live = [arm.release for arm in change.split.live]
        answered.update(live)
        before, champion = champion, live[0] if len(live) == 1 else champion if champion in live else None
        if champion is not None and champion != before:
            by[champion] = change.closed.seq
    tags = {release: {"name": known.named(release), "entry": str(number)} for release, number in by.items()}
    return Standing(tags, champion, next((one for one in reversed(candidates) if one not in answered), None))


def show_standing(registry: ModelRegistry, log: ReleaseLog, service: str) -> None:
    """Have names and aliases in the registry as the log has them now."""
    stands = standing(log.state().service(service), log.entries())
    registry.mark(service, stands.tags, {"champion": stands.champion, "challenger": stands.challenger})


def show_all(environment: Environment) -> dict[str, dict[str, int]]:
    """Show every release of an environment's log, in the order of their numbers, and how they stand.

    Returns:
        For each service, the version that each release is shown under, by the release's name.

    Raises:
        NoLog: If the environment has no log.
        ObjectMissing, ObjectDamaged: If something that a release names is not whole. Those before it are shown.
    """
    store, registry = environment.store_block, environment.registry_block
    log = environment.log()
    shown: dict[str, dict[str, int]] = {}
    for service, known in sorted(log.begun().services.items()):
        numbered = sorted(known.numbers, key=known.numbers.__getitem__)
        shown[service] = {known.named(release): show_release(store, registry, release) for release in numbered}
        show_standing(registry, log, service)
    return shown
