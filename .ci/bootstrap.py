"""Makes the environment `.venv` from `requirements.lock`, fetching what it takes into `.tools`.

Started by the Makefile through bootstrap.sh with whatever Python 3 there is (3.6 is enough), so it
uses the standard library only. Nothing happens when `.venv` is already what it should be.

    bootstrap.py          make `.venv`, if need be
    bootstrap.py --lock   resolve pyproject.toml into requirements.lock and the images' locks again

Everything is pinned by hash: uv by `.ci/uv.txt`, the rest (build backend included) by the lock.
Indexes, proxies and certificates are whatever pip was told, by file or by environment.
"""

import fcntl
import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
VENV = ROOT / ".venv"
STAMP = VENV / ".made-of.json"
LOCK = ROOT / "requirements.lock"
IMAGES = ROOT / "deployments" / "images"
VERSIONS = ("3.12", "3.13", "3.11")  # best first: the seldon extra exists for 3.12 only

# Prints what a Python is, or fails where it lacks what we need; `_base_executable` sees through a venv.
PROBE = """
import ctypes, json, os, platform, sqlite3, ssl, sys, sysconfig
assert platform.python_implementation() == "CPython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
path = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
print(json.dumps([path, platform.python_version()]))
"""


class Stop(Exception):
    """Why this cannot go on, and what to do, in one sentence."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def attempt(command, **options):
    """The exit code of a program that writes to standard error, or wherever the options say."""
    options.setdefault("stdout", 2)
    return subprocess.run([str(part) for part in command], check=False, stdin=subprocess.DEVNULL, **options).returncode


def answer(command, **options):
    """What a program prints, or "" where it fails."""
    options.update(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    done = subprocess.run([str(part) for part in command], check=False, **options)
    return done.stdout.decode() if done.returncode == 0 else ""


def run(command, **options):
    """Run a program; a failure ends everything."""
    code = attempt(command, **options)
    if code:
        raise Stop("`%s` failed with exit code %d; see above" % (" ".join(map(str, command)), code))


# --- which Python ----------------------------------------------------------------------------


def probe(path):
    """The (path, version) behind an interpreter that starts, else None: some shims exit 127."""
    try:
        return tuple(json.loads(answer([path, "-I", "-c", PROBE], timeout=60)))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def wanted(version):
    return ".".join(version.split(".")[:2]) in VERSIONS


def pyenv_roots():
    """Where pyenv keeps its versions, found through its shims too, since HOME may be empty."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    shims = [os.path.dirname(folder.rstrip("/")) for folder in folders if folder.rstrip("/").endswith("/shims")]
    named = [os.environ.get("PYENV_ROOT", ""), os.path.expanduser("~/.pyenv")]
    return [root for root in dict.fromkeys(named + shims) if root and os.path.isdir(root)]


def candidates():
    """Interpreters worth a try, the best version first."""
    folders = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    for version in VERSIONS:
        for folder in folders:
            yield os.path.join(folder, "python" + version)
        for root in pyenv_roots():
            for found in glob.glob(os.path.join(root, "versions", version + "*", "bin", "python3")):
                yield found
        for found in glob.glob(str(TOOLS / "python" / ("cpython-" + version + "*") / "bin" / "python3")):
            yield found
    for folder in folders:
        for name in ("python3", "python"):
            yield os.path.join(folder, name)


def chosen():
    """The (path, version) to build on: the one in PYTHON, else the best that starts, else None."""
    named = os.environ.get("PYTHON")
    if named:
        path = shutil.which(named) or named
        found = probe(path)
        if not found or not wanted(found[1]):
            what = "is Python " + found[1] if found else "does not start as a complete CPython"
            raise Stop("PYTHON=%s %s; name a Python 3.11, 3.12 or 3.13" % (named, what))
        return found
    tried = {}
    for path in candidates():
        if path not in tried and os.access(path, os.X_OK):
            tried[path] = probe(path)
            if tried[path] and tried[path][1].startswith(VERSIONS[0] + "."):
                return tried[path]
    usable = [found for found in tried.values() if found and wanted(found[1])]
    return min(usable, key=lambda found: VERSIONS.index(found[1].rpartition(".")[0])) if usable else None


# --- uv ----------------------------------------------------------------------------------------


def cache_settings():
    """Caches of our own where HOME cannot keep any."""
    home = os.environ.get("HOME", "")
    if home and os.access(home, os.W_OK):
        return {}
    return {"UV_CACHE_DIR": str(TOOLS / "cache" / "uv"), "PIP_CACHE_DIR": str(TOOLS / "cache" / "pip")}


def install_uv(python, program):
    """Install uv by a Python's own pip, in a venv where it can make one (Debian splits that off); whether it worked."""
    folder = program.parent.parent
    pip, target = [folder / "bin" / "python", "-m", "pip"], []
    shutil.rmtree(str(folder), ignore_errors=True)
    if attempt([python, "-m", "venv", folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        pip, target = [python, "-m", "pip"], ["--target", folder]
        shutil.rmtree(str(folder), ignore_errors=True)
    command = [*pip, "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:"]
    return attempt([*command, *target, "-r", ROOT / ".ci" / "uv.txt"]) == 0 and program.exists()


def uv(python):
    """The path of the pinned uv, installed if need be."""
    program, stamp = TOOLS / "uv" / "bin" / "uv", TOOLS / "uv" / ".pinned"
    pinned = (ROOT / ".ci" / "uv.txt").read_text()
    if program.exists() and stamp.exists() and stamp.read_text() == pinned:
        return program
    say("installing uv into .tools")
    for path in dict.fromkeys([python, sys.executable, *filter(os.path.exists, ["/usr/bin/python3"])]):
        if path and install_uv(path, program):
            stamp.write_text(pinned)
            return program
    raise Stop("pip could not install uv (see above); check the network, or on Debian `apt install python3-venv`")


def pip_settings():
    """What pip was told of indexes, proxies and certificates, in the words of uv."""
    words = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "find-links": "UV_FIND_LINKS"}
    words.update({"cert": "SSL_CERT_FILE", "proxy": "ALL_PROXY", "trusted-host": "UV_INSECURE_HOST"})
    pip = TOOLS / "uv" / "bin" / "pip"
    told = {}
    for line in answer([pip, "config", "list"]).splitlines() if pip.exists() else []:
        name, _, value = line.partition("=")
        word = words.get(name.rpartition(".")[2])
        values = value.strip("'\"").replace("\\n", " ").split()
        if word == "UV_FIND_LINKS":  # pip passes over a folder that is gone, uv does not
            values = [",".join(link for link in values if "://" in link or os.path.isdir(link))]
        if word and any(values):  # `:env:` comes last and wins, as it does with pip
            told[word] = " ".join(values)
    return told


def environment():
    """The environment for uv: the user's own settings win over what pip was told."""
    told = {"UV_SYSTEM_CERTS": "true", "UV_PYTHON_INSTALL_DIR": str(TOOLS / "python"), "UV_NO_PROGRESS": "1"}
    told.update(pip_settings())
    told.update({name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "UV_PYTHON")})
    return told


# --- the environment -----------------------------------------------------------------------------


def fetch_python(program):
    """A Python that uv can get, for a machine that has none of ours."""
    say("no Python 3.11, 3.12 or 3.13 starts here; asking uv for 3.12")
    if attempt([program, "python", "install", "--no-bin", VERSIONS[0]], env=environment()) == 0:
        found = chosen()
        if found:
            return found
    raise Stop("uv could not get a Python; install 3.11, 3.12 or 3.13, or run `make PYTHON=/path/to/python3.12 ...`")


def recipe():
    """Digest of everything that the environment is made of."""
    digest = hashlib.sha256(str(ROOT).encode())  # programs in it name this folder
    for path in (LOCK, ROOT / "pyproject.toml", ROOT / ".ci" / "uv.txt", Path(__file__)):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def up_to_date():
    """Whether `.venv` was made of the present files, by the Python that is asked for, and starts."""
    try:
        made = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return False
    if made["recipe"] != recipe() or probe(str(VENV / "bin" / "python")) != tuple(made["python"]):
        return False
    return not os.environ.get("PYTHON") or chosen() == tuple(made["python"])


def make():
    """Build `.venv` on the best Python, then write down what it was made of."""
    found = chosen()
    program = uv(found[0] if found else None)
    path, version = found or fetch_python(program)
    say("making .venv with Python %s from requirements.lock" % version)
    if not version.startswith(VERSIONS[0]):
        say("Python %s: the seldon extra is not installed and not tested, it needs Python 3.12" % version)
    settings = environment()
    if STAMP.exists():
        STAMP.unlink()
    if probe(str(VENV / "bin" / "python")) != (path, version):
        run([program, "venv", "--quiet", "--clear", "--no-project", "--python", path, VENV], env=settings)
    pip = [program, "pip", "--quiet"]
    at = ["--python", VENV / "bin" / "python"]
    run([*pip, "sync", *at, "--require-hashes", LOCK], env=settings)
    run([*pip, "install", *at, "--no-deps", "--no-build-isolation", "--editable", ROOT], env=settings)
    STAMP.write_text(json.dumps({"recipe": recipe(), "python": [path, version]}))


def lock():
    """Resolve pyproject.toml anew, for all our Pythons at once; the files name no registry.

    The images get the very versions that are tested, each only what it needs.
    """
    found = chosen()
    program = uv(found[0] if found else None)
    compile_lock(program, LOCK, "--all-extras", "--group", "dev", "pyproject.toml")
    tested = ("--constraints", LOCK.name)
    compile_lock(program, IMAGES / "serving.lock", "--group", "serving", *tested)
    compile_lock(program, IMAGES / "flows.lock", "--extra", "production", "pyproject.toml", *tested)


def compile_lock(program, path, *what):
    """Have uv write one lock; what is pinned in it already stays, where it can."""
    command = [program, "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
    command += ["--no-header", "--no-emit-index-url", "--no-emit-find-links"]
    run([*command, "--output-file", path.relative_to(ROOT), *what], cwd=str(ROOT), env=environment())


def main(arguments):
    """Do what was asked, one process at a time."""
    TOOLS.mkdir(exist_ok=True)
    os.environ.update(cache_settings())
    os.environ.setdefault("PIP_ROOT_USER_ACTION", "ignore")  # nothing is installed outside this folder
    with (TOOLS / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if arguments == ["--lock"]:
            lock()
        elif not up_to_date():
            make()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (Stop, OSError) as why:
        sys.exit("make: %s" % why)
