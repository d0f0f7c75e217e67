"""What people look at: pages from a real log, and runs and pages found by the queries that a person makes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema

from prefect_mlops import flows
from prefect_mlops.blocks import Actor, Entry, Recipe, Release, ReleaseLog, Split, Store
from prefect_mlops.blocks.entry import Approval, Judged, Released
from prefect_mlops.blocks.log import Draft
from prefect_mlops.deployments.cli import _reading
from prefect_mlops.deployments.local.place import Place
from prefect_mlops.flows import _reporting, reconcile_serving, release_model, rollback_release
from prefect_mlops.flows._pages.lineage import Step, began, drawing
from prefect_mlops.flows._pages.release import history, release_page
from prefect_mlops.flows.creditco import TARGET, census
from prefect_mlops.tasks import shift_traffic
from tests.places import EASY, api
from tests.tasks.moving.doubles import Gateway, MemoryTarget, memory_place

SERVICE = "credit"


class House:
    """A real store and log, and a target that does what it is told."""

    def __init__(self, folder: Path) -> None:
        store = Store(url=str(folder / "store"))
        ReleaseLog(store, "local").begin({})
        self.environment = memory_place(store, MemoryTarget(Gateway()))
        self.log = self.environment.log(actor=Actor(name="Ana", assurance="claimed"))

    def release(self, accuracy: float, *, data: str = "rows", reason: str = "") -> tuple[str, int]:
        """Have a release that can be told by its data and its accuracy, and the number of its rollout."""
        store = self.environment.store_block
        part = store.put(b"the same in each")
        tests = store.put(json.dumps({"metrics": {"accuracy": accuracy}}).encode())
        parts: dict[str, Any] = dict.fromkeys(("code", "runtime", "model", "probes"), part)
        document = Release(service=SERVICE, data=store.put(data.encode()), tests=tests, **parts)
        release = store.put_release(document)
        number = len(self.log.state().service(SERVICE).numbers) + 1
        body = Released(release=release, number=number)
        entry = self.log.append(lambda _: Draft(body, (SERVICE,), begins=True, reason=reason))
        assert entry is not None
        return release, entry.seq

    def shift(self, split: Split, rollout: int | None = None, *, back: bool = False, reason: str = "") -> Entry:
        """Serve `split`, and return what was written down last."""
        kind = "rollback" if back else "advance"
        return shift_traffic.fn(
            self.environment, SERVICE, split, rollout=rollout, move_kind=kind, reason=reason, actor="Ana"
        )

    def live(self, accuracy: float, *, data: str = "rows", reason: str = "") -> tuple[str, int]:
        """Have a release that answers everything."""
        before = self.log.state().service(SERVICE).split.live
        release, rollout = self.release(accuracy, data=data, reason=reason)
        self.shift(Split.of(release, warm=[arm.release for arm in before]), rollout, reason=reason)
        return release, rollout

    def say(self, body: Judged | Approval, rollout: int, reason: str = "") -> None:
        """Write something down."""
        self.log.append(lambda _: Draft(body, (SERVICE,), rollout=rollout, reason=reason))

    def page(self, release: str, rollout: int | None, **options: Any) -> str:
        """The page of a release."""
        entries = [entry for entry in self.log.entries() if entry.rollout == rollout]
        return release_page(self.environment, self.log.state(), SERVICE, release, entries, **options)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def section(page: str, title: str) -> str:
    return page.partition(f"## {title}\n\n")[2].partition("\n\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a table in markdown, without its header."""
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.splitlines()[2:]
        if line.startswith("|")
    ]


def test_a_live_release_beside_the_one_that_it_replaced(house: House) -> None:
    house.live(0.75, reason="the first")
    release, rollout = house.live(0.875, data="more rows", reason="more data")
    page = house.page(release, rollout)
    assert page.startswith("# credit-v2 is live in local\n\n**credit-v2** answers 100 % since ")
    assert "credit-v1 is kept warm until " in page
    assert "By Ana (as typed in), without Prefect: *more data*" in page
    assert "To put credit-v1 back: `prefect-mlops rollback credit`," in page
    assert rows(section(page, "Figures on the hold-out")) == [["accuracy", "0.8750", "0.7500", "+0.1250"]]
    same = {part: told for part, _, told in rows(section(page, "What it is made of"))}
    assert (same["data"], same["code"], same["tests"]) == ("**different**", "same", "**different**")
    document = house.environment.store_block.release(release)
    assert f"data     {document.data}\n" in page
    assert f"release  {release}\n" in page


def test_who_answered_when_is_drawn_newest_first(house: House) -> None:
    first, _ = house.live(0.7, reason="the first")
    second, _ = house.release(0.8)
    canary = {
        "arms": [{"release": first, "role": "live", "percent": 90}, {"release": second, "role": "live", "percent": 10}]
    }
    house.shift(Split.model_validate(canary), reason="a tenth")
    house.shift(Split.of(second, warm=[first]), reason="all")
    house.shift(Split.of(second), reason="warm time is over")
    drawn = rows(history(house.log.state().service(SERVICE)).replace("\N{NO-BREAK SPACE}", " "))
    assert [row[1:] for row in drawn] == [
        ["", "█████ 100 %", "all"],
        ["████▌ 90 %", "▌ 10 %", "a tenth"],
        ["█████ 100 %", "", "the first"],
    ]


def test_who_answers_after_a_long_way_back_has_a_column_and_no_row_lacks_who_answered(house: House) -> None:
    first, _ = house.live(0.7, reason="first")
    for number in range(2, 6):
        house.live(0.7 + number / 100, reason=f"number {number}")
    house.shift(Split.of(first), back=True, reason="all the way back")
    drawn = rows(history(house.log.state().service(SERVICE)))
    assert [row[-1] for row in drawn] == ["all the way back", "number 5", "number 4"]
    assert [row.index("█████ 100\N{NO-BREAK SPACE}%") for row in drawn] == [1, 3, 2]


def test_the_way_back_in_another_environment_says_where_its_log_is(house: House) -> None:
    house.live(0.7)
    second, rollout = house.live(0.8)
    house.environment.name = "production"
    way = f"`prefect-mlops --store {house.environment.store_block.url} --environment production rollback credit`"
    assert f"To put credit-v1 back: {way}," in house.page(second, rollout)


def test_a_rollback_says_how_to_go_forward_again(house: House) -> None:
    first, _ = house.live(0.7)
    second, _ = house.live(0.8)
    entry = house.shift(Split.of(first, warm=[second]), back=True, reason="it leans on sex")
    page = house.page(first, entry.rollout, title="credit-v1 is live again in local")
    assert page.startswith("# credit-v1 is live again in local\n")
    assert "`prefect-mlops rollback credit --to credit-v2`" in page
    assert rows(section(page, "Figures on the hold-out")) == [["accuracy", "0.7000", "0.8000", "-0.1000"]]


def test_gates_and_people_are_shown_with_what_they_said(house: House) -> None:
    release, rollout = house.live(0.7)
    house.say(Judged(release=release, gate="golden probes", outcome="passed", detail="16 of 16"), rollout)
    house.say(Approval(release=release, decision="declined", shown=release), rollout, "not before Monday")
    assert rows(section(house.page(release, rollout), "Gates")) == [
        ["golden probes", "passed", "16 of 16"],
        ["approval", "declined", "by Ana: not before Monday"],
    ]


def test_what_a_person_decides_by_is_short(house: House) -> None:
    release, rollout = house.release(0.7)
    page = house.page(release, rollout, title="May credit-v1 go live in local?", brief=True)
    assert page.startswith("# May credit-v1 go live in local?\n\nNothing answers.")
    assert rows(section(page, "Figures on the hold-out")) == [["accuracy", "0.7000"]]
    assert "Who answered when" not in page
    assert "```" not in page


@pytest.mark.parametrize("reason", ["a | b\n| c |", "# no title", "*<b>bold</b>* `code` [x](javascript:y)"])
def test_a_reason_stays_text(house: House, reason: str) -> None:
    release, rollout = house.live(0.7, reason=reason)
    page = house.page(release, rollout)
    assert [line for line in page.splitlines() if line.startswith("# ")] == ["# credit-v1 is live in local"]
    assert not re.search(r"(?<!\\)<b>|(?<!\\)\[x", page)
    assert len(rows(section(page, "Who answered when"))) == 1


def test_the_newest_entry_on_a_page_is_an_anchor_for_verify(house: House) -> None:
    release, rollout = house.live(0.7)
    numbers = _reading._ENTRY_ROW.findall(house.page(release, rollout))
    assert max(map(int, numbers)) == house.log.state().next - 1


STRATEGIES = ["blue-green", "shadow"]


@pytest.mark.parametrize("flow", [getattr(flows, name) for name in flows.__all__])
def test_forms_speak_to_people(flow: Any) -> None:
    """Prefect would show the parameter's bare name, and what the docstring says to programmers."""
    inputs = parameter_schema(flow).model_dump()["properties"]
    for name, shown in inputs.items():
        assert shown["title"][0].isupper(), name
        assert shown["description"].endswith("."), name
    assert inputs.get("strategy", {}).get("enum", STRATEGIES) == STRATEGIES


def test_a_recipe_shows_what_it_takes_for_missing() -> None:
    assert Recipe.model_json_schema()["properties"]["missing"]["default"] == ["", "?"]


def test_nothing_shown_can_fail_what_was_done(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "prefect.prefect_mlops"), _reporting.showing("the page"):
        raise OSError("no answer")
    _reporting.tag_run(["release:credit-v1"])
    _reporting.publish("release-credit", "# page", "outside of a run")


def asked(place: Place, what: str, **filters: Any) -> list[dict[str, Any]]:
    return api(place, f"{what}/filter", **filters)


@pytest.mark.slow
def test_a_release_and_its_undoing_are_found_in_one_step(place: Place, tmp_path: Path) -> None:
    service = "shown"
    recipe = EASY.model_copy(update={"name": service})
    with place.settings(heartbeats=False):
        for number in (1, 2):
            path = tmp_path / f"november-{number}.csv"
            census(600, seed=number).to_csv(path, index=False)
            release_model(recipe, data=path, reason=f"model {number}", actor="Ana")
        rollback_release(service, reason="as before")
        reconcile_serving("local")
        census(600, seed=3).drop(columns=[TARGET]).to_csv(tmp_path / "broken.csv", index=False)
        failed = release_model(recipe, data=tmp_path / "broken.csv", return_state=True)

    [second] = asked(place, "flow_runs", flow_runs={"tags": {"all_": [f"release:{service}-v2"]}})
    assert second["name"].startswith(f"release-{service}-")
    assert second["tags"][:2] == [f"release:{service}-v2", f"service:{service}"]
    [undone] = asked(place, "flow_runs", flow_runs={"tags": {"all_": [f"service:{service}", "prefect-mlops:rollback"]}})
    assert undone["name"].startswith(f"rollback-{service}-")
    assert f"release:{service}-v1" in undone["tags"]

    pages = asked(place, "artifacts", artifacts={"key": {"any_": [f"release-{service}"]}}, sort="CREATED_DESC")
    assert [page["description"] for page in pages] == [
        f"{service}-v1 is live again in local",
        f"{service}-v2 is live in local",
        f"{service}-v1 is live in local",
    ]
    assert [page["flow_run_id"] for page in pages[:2]] == [undone["id"], second["id"]]
    assert all(len(page["data"]) < 10_000 for page in pages)

    logs = asked(place, "logs", logs={"flow_run_id": {"any_": [second["id"]]}})
    told = "\n".join(line["message"] for line in logs)
    assert f"{service}-v2, golden probes: passed (16 of 16 answers as recorded)" in told
    assert f"{service} now serves {service}-v2 live 100 %, {service}-v1 warm (log entry " in told
    assert failed.is_failed()
    assert "columns missing {income}" in str(failed.message)


def test_a_lineage_names_the_change_with_which_a_release_began_to_answer(house: House) -> None:
    first, _ = house.live(0.7, reason="the first")
    second, _ = house.release(0.8)
    house.shift(Split.of(first, warm=[second]), reason="beside it")
    known = house.log.state().service(SERVICE)
    assert began(known, first) == known.changes[0], "what stands beside it changes nothing of it"
    house.shift(Split.of(second, warm=[first]), reason="all")
    house.shift(Split.of(first, warm=[second]), back=True, reason="back")
    known = house.log.state().service(SERVICE)
    reasons = [change.asked.reason for release in (first, second) if (change := began(known, release))]
    assert reasons == ["back", "all"]
    assert began(known, "sha256:" + 64 * "0") is None


def test_no_text_of_somebody_elses_means_anything_in_a_drawing() -> None:
    hostile = 'x"]; click a href "javascript:alert(1)"\n```\n| <b>#34; a --> b'
    steps = [Step("source", hostile), Step("model", "good", "sha256:" + 64 * "0", after=("source", "nowhere"))]
    lines = list(drawing(steps))
    assert lines[0] == "graph TD"
    assert lines[2:] == ['  model["model<br>good<br>00000000"]', "  source --> model"]
    label = lines[1].removeprefix('  source["source<br>').removesuffix('"]')
    assert not set(label) & set('"[]()<>`\n|')
    assert "#34;" in label
