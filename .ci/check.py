"""Types, lint, format and import floors, side by side; `make check` starts it with `.venv`'s Python."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CHECKS = {
    "types": [BIN / "basedpyright", "--stats"],
    "lint": [BIN / "ruff", "check", "--quiet", "--output-format", "concise"],
    "format": [BIN / "ruff", "format", "--quiet", "--check", "--output-format", "concise"],
    "import floors": [BIN / "lint-imports", "--no-logo"],
}
# A checker that looks at nothing also finds nothing; the links in .editable make that easy to get wrong.
COUNTED = {"types": r"Total files checked: (\d+)", "import floors": r"Analyzed (\d+) files"}


def _verdict(name: str, code: int, output: str) -> str | None:
    """Why a check failed, or None."""
    if code:
        return f"{name}: failed\n{output.partition('Analysis stats')[0]}"
    looked_at = re.search(COUNTED[name], output) if name in COUNTED else None
    least = sum(1 for room in ("blocks", "tasks", "flows", "deployments") for _ in (ROOT / room).rglob("*.py"))
    if name in COUNTED and (looked_at is None or int(looked_at[1]) < least):
        return f"{name}: looked at fewer than our {least} files\n{output}"
    return None


def main() -> int:
    """Run all, then say what failed; 0 if nothing did."""
    running = {
        name: subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for name, command in CHECKS.items()
    }
    failed = False
    for name, process in running.items():
        output, _ = process.communicate()
        verdict = _verdict(name, process.returncode, output)
        print(verdict or f"{name}: ok", flush=True)
        failed |= verdict is not None
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
