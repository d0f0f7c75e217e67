"""Recipes: what a team brings for one model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from prefect_mlops.blocks._canonical import Label, Value
from prefect_mlops.blocks._functions import FunctionName, function_named
from prefect_mlops.blocks.graph import Graph
from prefect_mlops.blocks.model_tests import ModelTest, ModelTests, default_tests
from prefect_mlops.blocks.resources import StepResources


class Recipe(Value):
    """What a team brings for one model: pure data, so that a run's parameters record it in full."""

    name: Label = Field(title="Name", description="Name of the service, a DNS label of at most 30 characters.")
    train: FunctionName = Field(
        title="Training function",
        description="module:function that takes a DataFrame (with the target) and params, and returns a fitted model.",
    )
    target: str = Field(min_length=1, title="Target", description="Column that the model predicts.")
    params: dict[str, str | int | bool | list[str] | None] = Field(
        default={}, title="Parameters", description="Settings handed to the training function."
    )
    seed: int = Field(default=0, ge=0, lt=2**32, title="Seed", description="Seed of every random choice in training.")
    holdout_percent: int = Field(
        default=20, ge=1, le=90, title="Hold-out", description="Percent of the rows that training never sees."
    )
    missing: list[str] = Field(
        default=["", "?"], title="Missing", description="Texts in a CSV that stand for a missing value."
    )
    contested: list[str] = Field(
        default=[], title="Contested", description="Columns that an answer must not lean on; tested by default."
    )
    expectations: str = Field(
        default="",
        title="Expectations",
        description="File of a Great Expectations suite that the data must meet, or package:file; none if left empty.",
    )
    tests: ModelTests = Field(
        default_factory=tuple,
        title="Model tests",
        description="What a model must show before it may be released; the default tests if none is named.",
    )
    requirements: list[str] = Field(
        default=[],
        title="Requirements",
        description="Packages that the model needs, as pip names them; pinned to the installed versions if left empty.",
    )
    resources: StepResources = Field(
        default=StepResources(), title="Resources", description="What the training may take of its machine."
    )
    graph: Graph = Field(
        default=Graph(), title="Inference graph", description="What Seldon Core runs around the model; else leave it."
    )

    def training_function(self) -> Callable[[Any, dict[str, Any]], Any]:
        """The function that `train` names.

        Raises:
            Invalid: If there is no such module or function.
        """
        return function_named(self.train, "training function")

    def model_tests(self) -> tuple[ModelTest, ...]:
        """The tests that a model must pass: those that are named, or the default ones if none is."""
        return tuple(self.tests) or default_tests(self.contested)
