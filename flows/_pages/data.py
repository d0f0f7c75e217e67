"""The page of a validation: may something be learned from the data, what was expected, what was set aside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prefect_mlops.blocks import Store
from prefect_mlops.blocks._canonical import short
from prefect_mlops.flows._pages.markdown import LONGEST, plain, section, table
from prefect_mlops.tasks.validation import Check, Evidence

CELL = 36
"""Characters of a cell; one of the two user interfaces breaks no lines in a table, and cuts off what is too wide."""

_SEVERITIES = ("critical", "warning", "info")


def data_page(store: Store, evidence: str) -> str:
    """What a person wants to know of a validation: the verdict, then why, then each expectation, then where to look.

    Args:
        store: Holds the evidence.
        evidence: Its digest, as `Validated` and `DataRefused` name it.
    """
    found = Evidence.model_validate_json(store.get(evidence))
    parts = [
        f"# {plain(found.path, LONGEST)} is {_VERDICTS[found.verdict]}",
        summary(found),
        *section("What stops it", _sentences(found, "critical")),
        *section("What was set aside" if found.verdict == "accepted" else "And also", _sentences(found, "warning")),
        *section("What else was seen", _sentences(found, "info")),
        *section("What was expected", expectations(found)),
        *section("The rows set aside", where_to_look(store, found)),
        in_full(found, evidence),
    ]
    return "\n\n".join(parts)


_VERDICTS = {"accepted": "as expected", "refused": "refused"}


def summary(found: Evidence) -> str:
    """The counts in a sentence."""
    met = sum(check.outcome == "passed" for check in found.checks)
    counts = [
        f"{found.rows:,} rows of commit `{short(found.commit)}`",
        f"**{met} of {len(found.checks)}** expectations of {plain(found.suite_name, LONGEST)} met",
        f"**{found.bad_rows:,}** rows set aside{_share(found.bad_rows, found.rows)}",
    ]
    kept = f"{found.rows - found.bad_rows:,} rows go on" if found.verdict == "accepted" else "nothing goes on"
    return "; ".join([*counts, kept]) + "."


def expectations(found: Evidence) -> str:
    """Every expectation, those that are not met first, the gravest of them at the top."""
    ordered = sorted(
        found.checks, key=lambda check: (check.outcome == "passed", _SEVERITIES.index(check.severity), check.column)
    )
    header = ("column", "expected", "severity", "outcome", "bad rows", "where in the file")
    return table(header, (_row(check) for check in ordered))


def _row(check: Check) -> Iterator[str]:
    yield plain(check.column, CELL)
    yield plain(check.expected, CELL)
    yield check.severity
    yield check.outcome if check.outcome == "passed" else f"**{check.outcome}**"
    yield f"{check.bad:,}{_share(check.bad, check.looked_at)}" if check.bad else ""
    yield spark(check.spread)


def _share(part: int, whole: int | None) -> str:
    if not part or not whole:
        return ""
    percent = 100 * part / whole
    return f" ({percent:.1f} %)" if percent >= 0.1 else " (under 0.1 %)"


def spark(counts: Iterable[int]) -> str:
    """A bar for each part of the file; a part with a single bad row has one too."""
    heights = list(counts)
    most = max(heights, default=0)
    return "".join("▁▂▃▄▅▆▇█"[-(-7 * one // most)] if one else "▁" for one in heights)


def where_to_look(store: Store, found: Evidence) -> str:
    """How to get at the rows that were set aside."""
    if found.quarantine is None:
        return ""
    name = store.snapshot(found.quarantine).files[0].path
    return "\n".join(
        [
            "Each with its `_commit`, `_path`, `_row` (1 is the first after the header) and `_failed`:",
            "",
            "```python",
            f"Store(url={store.url!r}).checkout({found.quarantine!r}, 'quarantine')",
            f"pd.read_parquet({f'quarantine/{name}'!r})",
            "```",
        ]
    )


def in_full(found: Evidence, evidence: str) -> str:
    """The digests to the last digit, to be copied."""
    digests = {
        "commit": found.commit,
        "kept": found.kept,
        "quarantine": found.quarantine,
        "suite": found.suite,
        "evidence": evidence,
    }
    lines = [f"{name:10} {value}" for name, value in digests.items() if value]
    return "\n".join(["```text", *lines, f"{'measured by':10} {found.measured_by}", "```"])


def _sentences(found: Evidence, severity: str) -> str:
    """What is not met, each once: several expectations may trip over one missing column."""
    open_ = (check for check in found.checks if check.severity == severity and check.outcome != "passed")
    return "\n".join(dict.fromkeys(f"- {plain(check.sentence, 3 * LONGEST)}" for check in open_))
