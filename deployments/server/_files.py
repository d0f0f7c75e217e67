"""What is served: read once, checked against the digests that name it, and used from memory as it was checked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from prefect_mlops.deployments.server import _store
from prefect_mlops.deployments.server._config import Config, ModelFile, model_file
from prefect_mlops.deployments.server._errors import StartRefused
from prefect_mlops.deployments.server._signature import Signature
from prefect_mlops.deployments.server._store import Store

MODEL, SIGNATURE = "model.pkl", "signature.json"


@dataclass(frozen=True, slots=True)
class Files:
    """What was checked: the pickled model and its signature."""

    model: bytes
    signature: Signature


def read(config: Config, store: Store | None = None) -> tuple[Config, Files]:
    """Check every file of the model; nothing is unpickled, and files that it does not name are not read.

    Args:
        config: What is to be served.
        store: Where the release is; without one, the files are in the configuration's folder.

    Returns:
        The configuration, with the model that the release names, and the files.

    Raises:
        StartRefused: If one is missing or has another size or digest, the release document or the model's
            manifest is, or the signature is none.
        StoreUnavailable: If the store does not answer.
    """
    if store is not None:
        config = _released(config, store)
    checked = {file.path: _stored(store, file) if store else verified(config.folder, file) for file in config.files}
    for path in (MODEL, SIGNATURE):
        if path not in checked:
            raise StartRefused(f"model {config.model} must have the file {path}, its files are {sorted(checked)}")
    return config, Files(checked[MODEL], Signature.parse(checked[SIGNATURE]))


def _released(config: Config, store: Store) -> Config:
    """`config` with the model that its release names."""
    release = _store.document(store, config.release, "the release", frozenset({"service", "model"}))
    if release["service"] != config.service:
        raise StartRefused(f"release {config.release} is for {release['service']}, not for {config.service}")
    manifest = _store.document(store, str(release["model"]), "the model's manifest", frozenset({"files"}))
    return replace(config, model=release["model"], files=tuple(map(model_file, manifest["files"])))


def _stored(store: Store, file: ModelFile) -> bytes:
    data = _store.verified(store, file.digest, file.path)
    if len(data) != file.size:
        raise StartRefused(f"{file.path} in {store.url} has {len(data)} bytes, its manifest says {file.size}")
    return data


def verified(folder: Path, file: ModelFile) -> bytes:
    """The bytes of `file`.

    Raises:
        StartRefused: If they cannot be read, or are not those that were named.
    """
    try:
        data = (folder / file.path).read_bytes()
    except OSError as error:
        raise StartRefused(f"{file.path} in {folder} cannot be read: {error.strerror}") from error
    found = "sha256:" + hashlib.sha256(data).hexdigest()
    if len(data) != file.size or found != file.digest:
        raise StartRefused(
            f"{file.path} in {folder} is not the file that was released: "
            f"expected {file.size} bytes with digest {file.digest}, found {len(data)} bytes with digest {found}; "
            "nothing was loaded, put the right bytes back"
        )
    return data
