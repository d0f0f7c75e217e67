"""Journals: one writer has a number, whatever is lost on the way."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from prefect_mlops.blocks._canonical import digest
from prefect_mlops.blocks.errors import Invalid, StoreUnreachable
from prefect_mlops.blocks.store import Store
from tests.blocks.store.doubles import Fault, Killed, Shelf, flaky_store, random_faults, scripted
from tests.blocks.store.servers import ANSWER_503, DROP_ANSWER, DROP_REQUEST, LATER, PASS, Proxy, proxied

LOG = "log/local"
ENTRY = "/log/local/0000"
Connect = Callable[[], Store]


def test_a_number_is_written_once(store: Store, connect: Connect) -> None:
    journal = store.journal(LOG)
    assert journal.read(0) is None
    assert journal.append(0, b"mine")
    assert journal.append(0, b"mine")
    assert not connect().journal(LOG).append(0, b"other")
    assert connect().journal(LOG).read(0) == b"mine"


@pytest.mark.parametrize("many", [0, 1, 2, 65, 200])
def test_entries_are_walked_from_anywhere(store: Store, connect: Connect, many: int) -> None:
    journal = store.journal(LOG)
    for number in range(many):
        assert journal.append(number, b"%d" % number)
    walked = connect().journal(LOG)
    assert list(walked.entries()) == [(number, b"%d" % number) for number in range(many)]
    assert list(walked.entries(many)) == []
    assert list(walked.entries(max(0, many - 1))) == [(number, b"%d" % number) for number in range(many)][-1:]
    assert walked.numbers() == list(range(many))


def test_a_gap_ends_the_walk_and_shows_in_the_numbers(store: Store) -> None:
    journal = store.journal(LOG)
    for number in (0, 1, 3, 70):
        journal.append(number, b"x")
    assert [number for number, _ in journal.entries()] == [0, 1]
    assert journal.numbers() == [0, 1, 3, 70]


@pytest.mark.parametrize(
    "name", ["", "log", "/log/x", "log/", "log/../x", "objects/x", "tmp/x", "Log/x", "log//x", "log/x\n"]
)
def test_names_of_journals(name: str) -> None:
    with pytest.raises(Invalid, match="the name of a journal"):
        Store(url="/nowhere").journal(name)


@pytest.mark.parametrize("number", [-1, 10**12])
def test_numbers_have_twelve_digits(number: int) -> None:
    with pytest.raises(Invalid, match="at most 12 digits"):
        Store(url="/nowhere").journal(LOG).read(number)


def test_racing_writers_have_one_winner_each(connect: Connect) -> None:
    """Eight writers, each with its own connection, want the same twenty numbers."""
    writers, numbers = 8, range(20)
    barrier = Barrier(writers)

    def write(writer: int) -> list[bool]:
        journal = connect().journal(LOG)
        barrier.wait(30)
        return [journal.append(number, b"writer %d" % writer) for number in numbers]

    with ThreadPoolExecutor(writers) as pool:
        won = list(pool.map(write, range(writers)))
    kept = dict(connect().journal(LOG).entries())
    for number in numbers:
        (winner,) = [writer for writer in range(writers) if won[writer][number]]
        assert kept[number] == b"writer %d" % winner


@pytest.fixture
def proxy(s3: str, keys: None) -> Generator[Proxy]:
    with proxied(s3) as running:
        yield running


def _first(times: int, action: str) -> Callable[[str, str], str]:
    """Do `action` to the first few puts of entries, then behave."""
    left = iter(range(times))
    return lambda method, path: action if method == "PUT" and ENTRY in path and next(left, None) is not None else PASS


@pytest.mark.parametrize("action", [DROP_ANSWER, DROP_REQUEST, ANSWER_503])
@pytest.mark.parametrize("times", [1, 2, 7])
def test_lost_answers_neither_repeat_nor_vanish(proxy: Proxy, bucket_url: str, action: str, times: int) -> None:
    proxy.decide = _first(times, action)
    journal = Store(url=bucket_url, endpoint=proxy.url).journal(LOG)
    assert journal.append(0, b"mine")
    assert journal.append(1, b"next")
    assert sum(seen == action for _, _, seen in proxy.seen) == times
    direct = Store(url=bucket_url, endpoint=proxy.upstream).journal(LOG)
    assert list(direct.entries()) == [(0, b"mine"), (1, b"next")]


@pytest.mark.parametrize("action", [DROP_ANSWER, ANSWER_503])
def test_a_lost_answer_is_not_mistaken_for_the_others(proxy: Proxy, bucket_url: str, action: str) -> None:
    """The number is taken, and the answer that says so is lost: it is still not ours."""
    direct = Store(url=bucket_url, endpoint=proxy.upstream).journal(LOG)
    assert direct.append(0, b"theirs")
    proxy.decide = _first(2, action)
    assert not Store(url=bucket_url, endpoint=proxy.url).journal(LOG).append(0, b"mine")
    assert direct.read(0) == b"theirs"


@pytest.mark.parametrize("lands_first", [True, False])
def test_a_stalled_put_that_arrives_late_overwrites_nothing(proxy: Proxy, bucket_url: str, lands_first: bool) -> None:
    puts = iter([LATER])
    proxy.decide = lambda method, path: next(puts, DROP_REQUEST) if method == "PUT" and ENTRY in path else PASS
    with pytest.raises(StoreUnreachable, match=r"PUT log/local/000000000000"):
        Store(url=bucket_url, endpoint=proxy.url).journal(LOG).append(0, b"stalled")
    other = Store(url=bucket_url, endpoint=proxy.upstream).journal(LOG)
    status = proxy.land() if lands_first else None
    assert other.append(0, b"other") is not lands_first
    if not lands_first:
        status = proxy.land()
    assert status == (200 if lands_first else 412)
    assert list(other.entries()) == [(0, b"stalled" if lands_first else b"other")]


def test_objects_survive_lost_answers_too(proxy: Proxy, bucket_url: str) -> None:
    left = iter(range(3))
    proxy.decide = lambda method, path: (
        DROP_ANSWER if method == "PUT" and "/objects/" in path and next(left, None) is not None else PASS
    )
    store = Store(url=bucket_url, endpoint=proxy.url)
    assert store.get(store.put(b"a")) == b"a"
    assert list(store.digests()) == [digest(b"a")]


@pytest.mark.parametrize("fault", [Fault.LOSE_ANSWER, Fault.LOSE_REQUEST, Fault.STALL])
def test_appends_through_single_faults(fault: Fault) -> None:
    shelf = Shelf()
    journal = flaky_store(shelf, scripted({0: fault, 2: fault})).journal(LOG)
    assert journal.append(0, b"a")
    assert journal.append(1, b"b")
    while shelf.late:
        assert not shelf.land()
    assert list(journal.entries()) == [(0, b"a"), (1, b"b")]


def test_random_histories_of_two_writers() -> None:
    """Whoever is told True is in the journal, whoever is told False is not, and nothing is there twice."""
    for seed in range(2_000):
        rng, shelf = random.Random(seed), Shelf()
        told: dict[bytes, bool] = {}
        writers = [flaky_store(shelf, random_faults(rng, 0.3), rng).journal(LOG) for _ in range(2)]
        for step in range(6):
            writer = rng.randrange(2)
            data = b"%d of writer %d" % (step, writer)
            try:
                told[data] = writers[writer].append(sum(1 for _ in flaky_store(shelf).journal(LOG).entries()), data)
            except StoreUnreachable:
                pass
            except Killed:
                writers[writer] = flaky_store(shelf, random_faults(rng, 0.3), rng).journal(LOG)
            while shelf.late and rng.random() < 0.3:
                shelf.land(rng.randrange(10))
        kept = [data for _, data in flaky_store(shelf).journal(LOG).entries()]
        assert len(set(kept)) == len(kept), seed
        assert all((data in kept) is mine for data, mine in told.items()), seed
