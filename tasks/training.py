"""Training a model and registering what came of it."""

from __future__ import annotations

import logging

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from pydantic import Field

from prefect_mlops.blocks import Digest, Label, ModelRegistry, Recipe, Release, Store
from prefect_mlops.blocks._canonical import Value
from prefect_mlops.blocks.errors import is_transient
from prefect_mlops.blocks.graph import keep_graph
from prefect_mlops.tasks import _learning, _runtime
from prefect_mlops.tasks._limits import shortages
from prefect_mlops.tasks._scratch import scratch_folder
from prefect_mlops.tasks._showing import show_release


class Candidate(Value):
    """A trained model that nobody released yet: everything it came from, by digest."""

    service: Label = Field(description="The service that it is for.")
    data: Digest = Field(description="Snapshot of the training data.")
    code: Digest = Field(description="Snapshot of the training code.")
    runtime: Digest = Field(description="Snapshot of the software environment.")
    model: Digest = Field(description="Snapshot of the model's files.")
    tests: Digest = Field(description="Document of the figures on the hold-out and the tests' verdicts.")
    probes: Digest = Field(description="Document of golden probes.")
    components: tuple[Digest, ...] = Field(default=(), description="Snapshots of what is served around the model.")
    metrics: dict[str, float] = Field(description="Figures on the hold-out.")
    rows: int = Field(description="Rows of the training data, hold-out included.")

    def release(self) -> Release:
        """The release document that names all of it."""
        return Release(**self.model_dump(include=set(Release.model_fields)))


@task(
    name="train-model",
    task_run_name="train {recipe.name}",
    persist_result=False,
    cache_policy=NO_CACHE,
)
def train_model(store: Store, recipe: Recipe, data: str) -> Candidate:
    """Train what `recipe` says on a snapshot, measure it on rows that it never saw, and keep its bytes.

    Which rows are held out is decided by their content and the recipe's seed. Golden probes are taken from
    them: rows with the answers that the model gives here, which it must give again wherever it is served.

    It computes on as many CPUs as `recipe.resources` says; what the machine does not have of them is logged.

    Args:
        store: Holds the data, and gets the model, the code and the description of the runtime.
        recipe: What to train.
        data: Id of the snapshot of the training data: one CSV or Parquet file, with the target column.

    Returns:
        The candidate, everything in it by digest.

    Raises:
        Invalid: If the data or the training function are not what the recipe says. Nothing is recorded.
        ObjectMissing, ObjectDamaged: If the snapshot is not whole.
    """
    function = recipe.training_function()
    for shortage in shortages(recipe.resources):
        _warn(shortage)
    with scratch_folder() as scratch:
        _runtime.write_code(recipe, scratch / "code")  # as it is now: training may take long enough to edit it
        _runtime.write_runtime(recipe, scratch / "runtime")
        frame = _learning.read(store, recipe, data, scratch / "data")
        learned = _learning.learn(function, recipe, frame)
        _learning.write_model(learned, recipe, scratch / "model")
        kept = {part: store.add(scratch / part).id for part in ("code", "runtime", "model")}
        return Candidate(
            service=recipe.name,
            data=data,
            **kept,
            components=() if recipe.graph.is_plain else (keep_graph(store, recipe.graph, scratch / "graph"),),
            tests=store.put(_learning.tests_document(learned)),
            probes=store.put(_learning.probes_document(learned)),
            metrics=learned.metrics,
            rows=len(frame),
        )


def _warn(sentence: str) -> None:
    try:
        get_run_logger().warning(sentence)
    except MissingContextError:  # called outside of a run
        logging.getLogger("prefect_mlops").warning(sentence)


@task(
    name="register-model",
    task_run_name="register {candidate.service}",
    persist_result=False,
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=1,
    retry_condition_fn=is_transient,
)
def register_model(store: Store, registry: ModelRegistry, candidate: Candidate) -> str:
    """Make a release of a candidate: keep its document in the store, and show it in the registry.

    Whatever the registry shows follows from the store: `prefect-mlops registry` shows it again from nothing.

    Args:
        store: Gets the release document.
        registry: Shows the model, its parameters, figures, plots, code and digests to people.
        candidate: What came of a training.

    Returns:
        The digest of the release document; the same for the same candidate.

    Raises:
        ObjectMissing, ObjectDamaged: If something that it names is not whole.
    """
    release = store.put_release(candidate.release())
    show_release(store, registry, release)
    return release
