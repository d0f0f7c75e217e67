"""The model's files: each read once, checked against its digest, and used from memory as it was checked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from prefect_mlops.deployments.server._config import Config, ModelFile
from prefect_mlops.deployments.server._errors import StartRefused
from prefect_mlops.deployments.server._signature import Signature

MODEL, SIGNATURE = "model.pkl", "signature.json"


@dataclass(frozen=True, slots=True)
class Files:
    """What was checked: the pickled model and its signature."""

    model: bytes
    signature: Signature


def read(config: Config) -> Files:
    """Check every file that `config` names; nothing is unpickled, and files that it does not name are not read.

    Raises:
        StartRefused: If one is missing or has another size or digest, or the signature is none.
    """
    checked = {file.path: verified(config.folder, file) for file in config.files}
    for path in (MODEL, SIGNATURE):
        if path not in checked:
            raise StartRefused(f"model {config.model} must have the file {path}, its files are {sorted(checked)}")
    return Files(checked[MODEL], Signature.parse(checked[SIGNATURE]))


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
