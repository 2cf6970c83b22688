"""Objects named as "package.module:attribute": how a model, recipe, stage or file format of one's own is found."""

from __future__ import annotations

import importlib

from lyra_core.errors import RecipeError


def load_entry_point(name: str, kind: str) -> object:
    """The object that a name stands for; its module is imported.

    Args:
        name: "package.module:attribute", the module on the import path (setting `model_path`, LYRA_MODEL_PATH).
        kind: what is wanted, for the error: "model", "stage", ...

    Raises:
        RecipeError: no such module, or nothing of that name in it.
    """
    module, separator, attribute = name.partition(":")
    if not separator:
        raise RecipeError(f"{kind}: wanted package.module:attribute, found {name!r}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise RecipeError(
            f"{kind} {name!r}: cannot import it ({error}); check its module and the model path (LYRA_MODEL_PATH)"
        ) from error
