"""How runs and releases look in the Prefect UI: forms, names, tags, log lines, artifacts.

Whatever is shown is a projection of the log, so nothing here may fail a flow: what could not be shown is only said.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger
from prefect.runtime import flow_run
from pydantic import Field

logger = get_logger("prefect_mlops")


def shown_as(title: str, description: str, **more: Any) -> Any:
    """How a flow's parameter looks in the form; goes into its `Annotated`.

    Prefect takes the title from the parameter's name and the description from the docstring, whatever a plain
    `Field` says; only what is merged into the schema last is left alone.

    Args:
        title: What stands above the input.
        description: The help text below the title, a full sentence.
        more: Anything else for the schema, such as `enum`.
    """
    return Field(json_schema_extra={"title": title, "description": description, **more})


def say(message: str) -> None:
    """Tell whoever watches the run, or the terminal where there is no run."""
    try:
        get_run_logger().info(message)
    except MissingContextError:
        logger.info(message)


@contextmanager
def showing(what: str) -> Generator[None]:
    """Do something for people to look at; where that fails, say so and go on, since the log has it already."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever a page, a tag or the registry runs into, what was done is done
        say(f"{what} could not be shown: {error}")


def run_name(verb: str, parameter: str) -> Callable[[], str]:
    """Names runs like `release-credit-amber-lynx`: what is done, to what, and the two words that Prefect drew.

    Args:
        verb: What the flow does.
        parameter: Name of the flow's parameter that says to what; of a recipe, its name is taken.
    """

    def name() -> str:
        subject = flow_run.parameters.get(parameter)
        prefix = f"{verb}-{getattr(subject, 'name', subject)}-"
        given = str(flow_run.name)
        return given if given.startswith(prefix) else prefix + given

    return name


def tag_run(tags: Iterable[str]) -> None:
    """Give the current run tags, so that it is found by what it did; the first ones are shown first."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    wanted = list(dict.fromkeys([*tags, *(context.flow_run.tags or ())]))
    with showing("the run's tags"), get_client(sync_client=True) as client:
        client.update_flow_run(context.flow_run.id, tags=wanted)


def tags(environment: str, service: str, kind: str, releases: Iterable[str] = ()) -> list[str]:
    """The tags by which runs are found: of one release, one service, one environment, one kind."""
    return [
        *(f"release:{release}" for release in releases),
        *([f"service:{service}"] * bool(service)),
        f"environment:{environment}",
        f"prefect-mlops:{kind}",
        "prefect-mlops",
    ]


def publish(key: str, page: str, description: str) -> None:
    """Leave a page in the UI, where there is a run to leave it in.

    Args:
        key: Key of the artifact: lower-case letters, digits and dashes.
        page: The page, in markdown.
        description: What the list of artifacts says of it.
    """
    if FlowRunContext.get() is None:
        return
    with showing(f"the page {key}"):
        create_markdown_artifact(page, key=key, description=description)
