"""The code that trained is kept whole, by its content, with the commit that it is of, and without secrets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_mlops.blocks import Custom, Recipe, Store
from prefect_mlops.tasks._runtime import IMAGE, facts_of, is_same_code, write_code, write_runtime
from prefect_mlops.tasks._secrets import blanked

RECIPE = Recipe(name="credit", train="our_team.credit:train", target="y", tests=[Custom("our_checks:holds")])
PROJECT = {
    "README.md": "a team\n",
    "our_team/__init__.py": "",
    "our_team/credit.py": (
        "import numpy\nfrom . import features\n\n"
        "def train(frame, params):\n    import our_shared.units\n    return frame\n"
    ),
    "our_team/features.py": "from our_team.columns import *\n",
    "our_team/columns.py": "COLUMNS = ['age']\n",
    "our_team/unused.py": "import our_team.credit\n",
    "our_shared/units.py": "KILO = 1000\n",
    "our_checks.py": "def holds(model, holdout, params):\n    return True\n",
}
KEPT = ["our_checks.py", "our_shared/units.py", *(f"our_team/{name}.py" for name in ("__init__", "columns", "credit"))]
KEPT.append("our_team/features.py")
SECRET = "hunter2-" + "9f8e7d6c"  # no line of this file shall look like one
PEM = "-----BEGIN RSA " + "PRIVATE KEY-----"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A team's project in git, from which Python imports."""
    root = tmp_path / "project"
    for name, text in PROJECT.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.syspath_prepend(root)
    git(root, "init", "--quiet")
    commit(root)
    yield root
    for name in [name for name in sys.modules if name.startswith("our_")]:
        del sys.modules[name]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(url=str(tmp_path / "store"))


def git(root: Path, *words: str, **options: object) -> str:
    command = ["git", "-c", "user.name=ana", "-c", "user.email=ana@example.org", *words]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True, **options).stdout  # type: ignore[call-overload]


def commit(root: Path) -> str:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "one more")
    return git(root, "rev-parse", "HEAD").strip()


def keep(store: Store, tmp_path: Path, recipe: Recipe = RECIPE) -> str:
    folder = tmp_path / f"code-{len(list(tmp_path.iterdir()))}"
    write_code(recipe, folder)
    return store.add(folder).id


def files(store: Store, snapshot: str) -> dict[str, str]:
    return {file.path: store.get(file.digest).decode() for file in store.snapshot(snapshot).files}


def test_what_the_functions_import_from_their_project_is_kept_and_nothing_else(
    store: Store, project: Path, tmp_path: Path
) -> None:
    kept = files(store, keep(store, tmp_path))
    assert sorted(kept) == sorted(["code.json", "git.json", *KEPT])
    assert {name: text for name, text in kept.items() if name in PROJECT} == {name: PROJECT[name] for name in KEPT}
    assert Recipe.model_validate(json.loads(kept["code.json"])["recipe"]) == RECIPE
    assert str(tmp_path) not in "".join(kept.values())


def test_the_same_code_has_the_same_id_whatever_else_is_edited(store: Store, project: Path, tmp_path: Path) -> None:
    first = keep(store, tmp_path)
    (project / "README.md").write_text("a good team\n")
    (project / "our_team" / "unused.py").write_text("pass\n")
    (project / "our_team" / "new.py").write_text("pass\n")
    assert keep(store, tmp_path) == first
    commit(project)
    later = keep(store, tmp_path)
    assert later != first
    assert is_same_code(store, first, later), "only the commit is another one"
    (project / "our_team" / "columns.py").write_text("COLUMNS = ['age', 'sex']\n")
    assert not is_same_code(store, later, keep(store, tmp_path))


def test_another_recipe_is_other_code(store: Store, project: Path, tmp_path: Path) -> None:
    other = RECIPE.model_copy(update={"params": {"C": 2}})
    assert not is_same_code(store, keep(store, tmp_path), keep(store, tmp_path, other))


def test_from_the_commit_and_the_diff_the_code_is_made_again(store: Store, project: Path, tmp_path: Path) -> None:
    for name, value in {"diff.noprefix": "true", "color.ui": "always", "diff.renames": "copies"}.items():
        git(project, "config", name, value)
    (project / "our_team" / "columns.py").write_text("COLUMNS = ['age', 'größe']\n")
    (project / "our_shared" / "units.py").unlink()
    (project / "our_team" / "features.py").write_text("from our_team.columns import *\nimport our_team.fresh\n")
    (project / "our_team" / "fresh.py").write_text("FRESH = True\n")
    code = keep(store, tmp_path)
    told = facts_of(store, code, "git.json")
    assert (told["commit"], told["changed"]) == (git(project, "rev-parse", "HEAD").strip(), True)
    assert told["untracked"] == ["our_team/fresh.py"]
    kept = files(store, code)
    git(project, "worktree", "add", "--quiet", str(tmp_path / "again"), told["commit"])
    git(tmp_path / "again", "apply", "-", input=kept["changes.diff"])
    for name in ("our_team/columns.py", "our_team/features.py", "our_team/credit.py"):
        assert (tmp_path / "again" / name).read_text() == kept[name]
    assert kept["our_team/fresh.py"] == "FRESH = True\n"


def test_without_git_the_source_is_kept_all_the_same(
    store: Store, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = keep(store, tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    bare = keep(store, tmp_path)
    assert facts_of(store, bare, "git.json") == {}
    assert is_same_code(store, first, bare)


def test_an_installed_package_is_its_module_and_its_version(store: Store, tmp_path: Path) -> None:
    recipe = Recipe(name="credit", train="prefect_mlops.flows.creditco:train", target="income")
    assert (
        {"code.json", "creditco.py"}
        <= set(files(store, keep(store, tmp_path, recipe)))
        <= {
            "changes.diff",
            "code.json",
            "creditco.py",
            "git.json",
        }
    )
    recipe = Recipe(name="credit", train="sklearn.linear_model:LogisticRegression", target="income")
    assert sorted(files(store, keep(store, tmp_path, recipe))) == ["__init__.py", "code.json"]


def test_secrets_are_left_out_and_it_is_said_where(store: Store, project: Path, tmp_path: Path) -> None:
    (project / "our_team" / "columns.py").write_text(f"A = 1\npassword = '{SECRET}'\nB = 2\n")
    (project / "our_team" / "features.py").write_text("import our_team.credentials\nfrom our_team.columns import *\n")
    (project / "our_team" / "credentials.py").write_text(f"X = '{SECRET}'\n")
    code = keep(store, tmp_path)
    told, kept = facts_of(store, code, "code.json"), files(store, code)
    assert told["blanked"] == {"our_team/columns.py": [2]}
    assert told["left_out"] == ["our_team/credentials.py"]
    assert kept["our_team/columns.py"].splitlines()[::2] == ["A = 1", "B = 2"]
    assert "our_team/credentials.py" not in kept
    assert facts_of(store, code, "git.json")["blanked_in_diff"]
    assert all(SECRET.encode() not in store.get(digest) for digest in store.digests())


@pytest.mark.parametrize(
    "line",
    [
        'aws = "AKIA' + 'IOSFODNN7EXAMPLE"',
        "url = 'postgresql://ana:" + "pa55@db/credit'",
        "client = connect(api_key = 'abcd" + "1234')",
        'os.environ["MLFLOW_TRACKING_PASS' + 'WORD"] = "abcd"',
        '"access_token": "abcd' + '1234"',
        "PASSWORD: str = 'abcd" + "1234'",
        "'ghp_" + "0123456789abcdefghijABCDEFGHIJ012345'",
        "x = 'Zm9vYmFy" + "MTIzNDU2Nzg5QUJDREVGR0hJSktMTU5P'",
        "x = '0123456789abcdef" + "fedcba9876543210'",
    ],
)
def test_a_line_that_looks_like_a_secret_is_blanked(line: str) -> None:
    text, lines = blanked(f"first\n    {line}\nlast\n")
    assert lines == [2]
    assert text.split("\n")[0::2] == ["first", "last"]
    assert "abcd" not in text


def test_a_private_key_is_blanked_to_its_end_and_a_diff_stays_one() -> None:
    key = [PEM, "MIIE", "abc=", PEM.replace("BEGIN", "END")]
    text, lines = blanked("\n".join([" before", *(f"+{line}" for line in key), " after"]), keep=1)
    assert lines == [2, 3, 4, 5]
    assert [line[0] for line in text.split("\n")] == [" ", "+", "+", "+", "+", " "]
    assert "MIIE" not in text


@pytest.mark.parametrize(
    "line",
    [
        "token = os.environ['TOKEN']",
        "tokenizer = 'bert-base-uncased'",
        "columns = ['native-country', 'capital-gain']",
        "password: str",
        "see = 'https://example.org/some/very/long/path/to/a/page'",
        "KEY = 'age'",
        "secrets = load(path)",
    ],
)
def test_what_is_no_secret_stays(line: str) -> None:
    assert blanked(line) == (line, [])


def test_the_runtime_names_what_is_installed_by_version_or_commit(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "site" / "theirs-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    direct = {"url": "https://example.org/theirs.git", "vcs_info": {"vcs": "git", "commit_id": "a" * 40}}
    (info / "direct_url.json").write_text(json.dumps(direct))
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv(IMAGE, "registry.example/flows@sha256:1")
    recipe = Recipe(name="credit", train="a:b", target="y")
    write_runtime(recipe, tmp_path / "runtime")
    assert json.loads((tmp_path / "runtime" / "python.json").read_text())["image"] == "registry.example/flows@sha256:1"
    installed = (tmp_path / "runtime" / "installed.txt").read_text().splitlines()
    assert f"theirs @ git+https://example.org/theirs.git@{'a' * 40}" in installed
    assert any(line.startswith("scikit-learn==") for line in installed)
    assert str(tmp_path) not in "".join(installed)
