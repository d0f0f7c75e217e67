"""Functions by name, so that pure data can say what to call."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import StringConstraints

from prefect_mlops.blocks.errors import Invalid

FunctionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w]*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]
"""A function by name, `module:function`, so that a run's parameters record it."""


def function_named(name: str, what: str) -> Callable[..., Any]:
    """The function that `name`, as `module:function`, stands for.

    Args:
        name: Its name.
        what: What it is to the caller, for the error, such as `training function`.

    Raises:
        Invalid: If there is no such module or function.
    """
    module, _, attribute = name.partition(":")
    if module == "__main__":
        raise Invalid(what, "lives in a module that can be imported again", name, _MOVE_IT)
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, ValueError) as error:
        raise Invalid(what, f"can be imported ({error})", name, _INSTALL_IT) from error
    except AttributeError:
        raise Invalid(what, f"is a name in module {module}", name, "check its spelling") from None
    if not callable(function):
        raise Invalid(what, "can be called", name, "name a function")
    return function


_MOVE_IT = "move it into a module of its own"
_INSTALL_IT = "install its package, or start from the folder that holds it"
