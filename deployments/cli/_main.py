"""The commands, and what surrounds each: settings before Prefect is imported, one answer on stdout, one exit code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from prefect_mlops.deployments.cli import _exits
from prefect_mlops.deployments.cli._output import Answer, say, show, show_json
from prefect_mlops.deployments.local._home import Home

if TYPE_CHECKING:
    from prefect_mlops.deployments.cli._where import Where
    from prefect_mlops.deployments.local.place import Place

app = typer.Typer(
    add_completion=False, invoke_without_command=False, rich_markup_mode=None, pretty_exceptions_enable=False
)

_ELSEWHERE = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # else a registry that is not to be reached keeps a person for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",  # or Prefect would start a server where none is named
}

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@dataclass
class Options:
    """What was said before the command."""

    home: Home
    store: str | None
    environment: str
    debug: bool


@app.callback()
def options(
    context: typer.Context,
    home: Annotated[
        Path | None, typer.Option(help="Folder of the local place; else PREFECT_MLOPS_HOME, else ~/.prefect-mlops.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Store of an environment that is not of the local place: s3://bucket/prefix or a folder; "
            "else PREFECT_MLOPS_STORE.",
        ),
    ] = None,
    environment: Annotated[
        str | None, typer.Option(help="Name of the environment; else PREFECT_MLOPS_ENVIRONMENT, else local.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
) -> None:
    """Releases of models: what is live, why, and back again; on this machine, or with --store anywhere.

    With --store the environment is read from its log there. AWS's own variables say how to get to a bucket
    (AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and so on), KUBECONFIG to a cluster, and your own settings of
    Prefect to the server in which rollback and reconcile are flow runs, where one answers.

    Exit codes: 0 fine; 1 the answer is no; 2 the command is wrong; 3 something needed is not there;
    4 somebody else is at it; 70 a fault of this program; 130 interrupted.
    """
    if store == "" or (home and store):
        rule = "is empty" if store == "" else "--home names the local place, and this a store elsewhere: give one"
        raise typer.BadParameter(rule, param_hint="--store")
    try:
        place = Home.chosen(home)
    except RuntimeError as error:
        raise typer.BadParameter(f"{home}: {error}", param_hint="--home") from error
    store = store or (None if home else os.environ.get("PREFECT_MLOPS_STORE") or None)
    if environment is None:
        environment = os.environ.get("PREFECT_MLOPS_ENVIRONMENT") or "local"
    context.obj = Options(place, store, environment, debug)
    if store:
        os.environ.update({name: value for name, value in _ELSEWHERE.items() if name not in os.environ})
    else:
        place.isolate()


@app.command()
def up(context: typer.Context, json: Json = False) -> None:
    """Start the local place, set up what is missing, and serve again what was served."""

    def begin(place: Place) -> Answer:
        place.up(repair=True)
        from prefect_mlops.deployments.cli._acting import served_again

        return served_again(place)

    _locally(context, begin, as_json=json)


@app.command()
def demo(
    context: typer.Context,
    data: Annotated[
        Path | None, typer.Option(help="A census file (CSV with a header line); else data is made.")
    ] = None,
    json: Json = False,
) -> None:
    """Tell the CreditCo story: a release, a bad batch, a biased model, a rollback, a shadow, one answer explained."""
    # Prefect's own running commentary is on its pages, and so are the runs that the story has stopped.
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"

    def tell(place: Place) -> Answer:
        from prefect_mlops.deployments.demo import tell_story

        document, page = tell_story(place, data)
        return Answer(document, page, 0 if document["ok"] else _exits.NO)

    _locally(context, tell, as_json=json)


@app.command()
def status(context: typer.Context, json: Json = False) -> None:
    """What is asked for, what is really served, and whether they agree (else exit 1)."""

    def look(where: Where) -> Answer:
        from prefect_mlops.deployments.cli._status import status_of

        return status_of(where, context.obj.environment)

    _run(context, look, as_json=json)


@app.command()
def releases(context: typer.Context, json: Json = False) -> None:
    """Every release, with what it is made of."""

    def read(where: Where) -> Answer:
        from prefect_mlops.deployments.cli._reading import releases_of

        return releases_of(where, context.obj.environment)

    _run(context, read, as_json=json)


@app.command()
def trace(
    context: typer.Context,
    request_id: Annotated[str, typer.Argument(help="The answer's header x-request-id, or the caller's own id.")],
    json: Json = False,
) -> None:
    """Which release, run, code and data led to one answer."""

    def read(where: Where) -> Answer:
        from prefect_mlops.deployments.cli._reading import trace_of

        return trace_of(where, context.obj.environment, request_id)

    _run(context, read, as_json=json)


@app.command()
def verify(context: typer.Context, json: Json = False) -> None:
    """Check every byte of the store and its log; exit 1 if anything is wrong."""

    def check(where: Where) -> Answer:
        from prefect_mlops.deployments.cli._reading import verification_of

        return verification_of(where, context.obj.environment)

    _run(context, check, as_json=json)


@app.command()
def rollback(
    context: typer.Context,
    service: Annotated[str, typer.Argument(help="Name of the service, such as credit.")],
    to: Annotated[
        str, typer.Option(help="previous, a release such as credit-v1, or a run by id or name.")
    ] = "previous",
    reason: Annotated[str, typer.Option(help="Why; kept in the log.")] = "",
    actor: Annotated[str, typer.Option(help="Who wants this; else the operating system's user.")] = "",
    json: Json = False,
) -> None:
    """Serve again what answered before, after checking every byte of it."""

    def act(where: Where) -> Answer:
        from prefect_mlops.deployments.cli._acting import Rollback

        return Rollback(where, context.obj.environment, service, to, reason, actor).carried_out()

    _run(context, act, as_json=json)


@app.command()
def reconcile(
    context: typer.Context,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Also take over from runs that may still be alive.")
    ] = False,
    json: Json = False,
) -> None:
    """Finish what dead runs left open, and serve what the log says. Safe at any time."""

    def act(where: Where) -> Answer:
        from prefect_mlops.deployments.cli._acting import reconciled

        return reconciled(where, context.obj.environment, at_once=at_once)

    _run(context, act, as_json=json)


@app.command()
def registry(context: typer.Context, json: Json = False) -> None:
    """Show every release in the registry, from store and log alone; fills one that was lost. Safe at any time."""

    def fill(where: Where) -> Answer:
        from prefect_mlops.deployments.cli._acting import registry_filled

        return registry_filled(where, context.obj.environment)

    _run(context, fill, as_json=json)


@app.command()
def stop(context: typer.Context, json: Json = False) -> None:
    """Stop every program of the local place; everything that was recorded stays."""

    def end(place: Place) -> Answer:
        place.down()
        return Answer({"home": str(place.home), "stopped": True}, f"nothing of {place.home} runs any more")

    _locally(context, end, as_json=json)


def _locally(context: typer.Context, command: Callable[[Place], Answer], *, as_json: bool) -> NoReturn:
    """Carry out what only the local place knows, in which nothing need be yet."""
    options: Options = context.obj
    if options.store:
        rule = f"`{context.info_name}` is for the local place, not for a store elsewhere"
        raise typer.BadParameter(f"{rule}: leave it out, and PREFECT_MLOPS_STORE", param_hint="--store")

    def act() -> Answer:
        from prefect_mlops.deployments.local.place import Place

        return command(Place(options.home.path))

    _leave_with(context, act, as_json=as_json)


def _run(context: typer.Context, command: Callable[[Where], Answer], *, as_json: bool) -> NoReturn:
    """Carry out a command of the local place, or of an environment elsewhere."""
    options: Options = context.obj

    def act() -> Answer:
        if not options.store and not options.home.is_begun:
            raise _exits.NoHome(str(options.home.path))
        from prefect_mlops.deployments.cli._where import Elsewhere, Here
        from prefect_mlops.deployments.local.place import Place

        return command(Elsewhere.at(options.store) if options.store else Here(Place(options.home.path)))

    _leave_with(context, act, as_json=as_json)


def _leave_with(context: typer.Context, command: Callable[[], Answer], *, as_json: bool) -> NoReturn:
    """Carry out a command and leave with its exit code; what it prints by the way goes to stderr."""
    options: Options = context.obj
    try:
        with contextlib.redirect_stdout(sys.stderr):
            answer = command()
        show_json(answer.document) if as_json else show(answer.page)
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_unread()
    except KeyboardInterrupt:
        _tell("Interrupted", "interrupted; `prefect-mlops status` says what is served", as_json=as_json)
        raise typer.Exit(_exits.INTERRUPTED) from None
    except Exception as error:  # noqa: BLE001 - the last place where an error can become a sentence
        _fail(error, as_json=as_json, debug=options.debug)
    raise typer.Exit(answer.code)


def _fail(error: Exception, *, as_json: bool, debug: bool) -> NoReturn:
    verdict = _exits.judge(error)
    if debug:
        import traceback

        traceback.print_exception(error)
    _tell(verdict.kind, verdict.sentence, as_json=as_json)
    raise typer.Exit(verdict.code)


def _tell(kind: str, sentence: str, *, as_json: bool) -> None:
    if as_json:
        show_json({"error": {"type": kind, "message": sentence}})
    else:
        say(f"prefect-mlops: {sentence}")


def _leave_unread() -> NoReturn:
    """Nobody reads: leave without Python's own complaint about it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(_exits.NOT_READ)


def main() -> NoReturn:
    """Entry point of `prefect-mlops`."""
    as_json = "--json" in sys.argv[1:]
    try:
        code = app(standalone_mode=False)
    except Exception as error:
        sentence = getattr(error, "format_message", None)  # what every wrong command line has, in any version of Click
        if sentence is None:
            raise
        code = _exits.USAGE
        _tell("Usage", f"{sentence().rstrip('.')}; see `prefect-mlops --help`", as_json=as_json)
    sys.exit(code if isinstance(code, int) else 0)
