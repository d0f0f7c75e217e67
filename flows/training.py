"""Training as a run of its own: what `release_model` and `train_candidate` start where they lack the resources."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import State, flow
from prefect.states import Completed, Failed

from prefect_mlops.blocks import Digest, Environment, Recipe
from prefect_mlops.blocks.errors import MlopsError
from prefect_mlops.flows._reporting import run_name, shown_as, tag_run, tags
from prefect_mlops.tasks import train_model


@flow(name="train-snapshot", flow_run_name=run_name("train", "recipe"), persist_result=False)
def train_snapshot(
    recipe: Annotated[Recipe, shown_as("Model recipe", "What to train.")],
    snapshot: Annotated[Digest, shown_as("Snapshot", "Id of the snapshot of the training data.")],
    environment: Annotated[
        str, shown_as("Environment", "Name of the Environment block whose store holds the data.")
    ] = "local",
) -> State[Any]:
    """Train on a snapshot, and keep what came of it in the store; nothing is tested, registered or released.

    Another run waits for it, and hears of it in its state alone, since two pods share no folder for results.

    Args:
        recipe: What to train.
        snapshot: Id of the snapshot of the training data.
        environment: Name of the Environment block whose store holds the data.

    Returns:
        Completed, with the digest of the candidate's document as its message; or Failed, named like the error.
    """
    store = Environment.find(environment).store_block
    tag_run(tags(environment, recipe.name, "train"))
    try:
        candidate = train_model(store, recipe, snapshot)
        return Completed(message=store.put(candidate.model_dump_json().encode()))
    except MlopsError as error:
        return Failed(name=type(error).__name__, message=str(error))
