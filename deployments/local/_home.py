"""Where things are in the folder of the local place. Imports no Prefect, for it decides how Prefect starts."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

HEARTBEAT_SECONDS = "30"
"""As often as Prefect allows, so that a killed run is noticed soon."""


@dataclass(frozen=True)
class Home:
    """The folder of a local place and the names in it."""

    path: Path

    @classmethod
    def chosen(cls, path: Path | None) -> Home:
        """The folder that was named, else the one of `PREFECT_MLOPS_HOME`, else `~/.prefect-mlops`."""
        named = path or Path(os.environ.get("PREFECT_MLOPS_HOME") or "~/.prefect-mlops")
        return cls(named.expanduser().resolve())

    @property
    def store(self) -> Path:
        """Objects and the log."""
        return self.path / "store"

    @property
    def prefect(self) -> Path:
        """What our Prefect server and its clients keep."""
        return self.path / "prefect"

    @property
    def mlflow(self) -> Path:
        """MLflow's records and files."""
        return self.path / "mlflow"

    @property
    def receipts(self) -> Path:
        """What remembers the newest log entry outside the store."""
        return self.path / "receipts"

    @property
    def logs(self) -> Path:
        """What the programs say."""
        return self.path / "logs"

    @property
    def is_begun(self) -> bool:
        """Whether something was ever stored here."""
        return (self.store / "store.json").exists()

    @property
    def prefect_port(self) -> int | None:
        """The port of our Prefect server, which it keeps from its first start on."""
        try:
            port = json.loads((self.prefect / "port.json").read_bytes())["port"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return port if isinstance(port, int) else None

    @property
    def prefect_url(self) -> str | None:
        """Where our Prefect server's pages are, once it has a port."""
        return f"http://127.0.0.1:{self.prefect_port}" if self.prefect_port else None

    def client_settings(self) -> dict[str, str]:
        """Settings that lead a Prefect client to our server, as environment variables."""
        settings = {
            "PREFECT_HOME": str(self.prefect),
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": HEARTBEAT_SECONDS,
            "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        return settings | ({"PREFECT_API_URL": f"{self.prefect_url}/api"} if self.prefect_url else {})

    def isolate(self) -> None:
        """Make Prefect, where it is imported after this, use our settings only: no profile, no key of the user's."""
        for name in list(os.environ):
            if name.startswith("PREFECT_") and not name.startswith("PREFECT_MLOPS_"):
                del os.environ[name]
        os.environ.update(self.client_settings())
        if not (self.prefect.is_dir() and os.access(self.prefect, os.W_OK)):
            scratch = tempfile.mkdtemp(prefix="prefect-mlops-")
            atexit.register(shutil.rmtree, scratch, ignore_errors=True)
            os.environ["PREFECT_HOME"] = scratch

    def make(self) -> None:
        """Make the folder, readable for its owner only, and those in it that others rely on."""
        for folder in (self.path, self.prefect, self.mlflow):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def refusal(self) -> str | None:
        """Why nothing can be kept here, as a rule that it breaks; None if it can."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None if _can_be_made(self.path) else "is a folder, or can be made"
        if not stat.S_ISDIR(found.st_mode):
            return "is a folder"
        if found.st_uid != os.getuid():
            return "is your own"
        return None if os.access(self.path, os.W_OK | os.X_OK) else "can be written to"


def _can_be_made(folder: Path) -> bool:
    """Whether `folder` is there, or could be made, for this user to write in."""
    nearest = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
