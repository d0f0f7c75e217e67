"""Recipes: what a team brings for one model."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from prefect_mlops.blocks._canonical import Label, Value
from prefect_mlops.blocks.errors import Invalid

FunctionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w]*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]
"""A function by name, `module:function`, so that a run's parameters record it."""


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
    requirements: list[str] = Field(
        default=[],
        title="Requirements",
        description="Packages that the model needs, as pip names them; pinned to the installed versions if left empty.",
    )

    def training_function(self) -> Callable[[Any, dict[str, Any]], Any]:
        """The function that `train` names.

        Raises:
            Invalid: If there is no such module or function.
        """
        module, _, name = self.train.partition(":")
        if module == "__main__":
            raise Invalid("training function", "lives in a module that can be imported again", self.train, _MOVE_IT)
        try:
            function = getattr(importlib.import_module(module), name)
        except ImportError as error:
            raise Invalid("training function", f"can be imported ({error})", self.train, _INSTALL_IT) from error
        except AttributeError:
            raise Invalid(
                "training function", f"is a name in module {module}", self.train, "check its spelling"
            ) from None
        if not callable(function):
            raise Invalid("training function", "can be called", self.train, "name a function")
        return function


_MOVE_IT = "move it into a module of its own"
_INSTALL_IT = "install its package, or start from the folder that holds it"
