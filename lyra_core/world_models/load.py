"""World models by name.

A model's class is imported only when its name is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from lyra_core.device import require_device
from lyra_core.entry_point import load_entry_point
from lyra_core.errors import RecipeError
from lyra_core.models import MODELS
from lyra_core.world_models.protocol import WorldModel

Option = str | float | bool | Path | None | Mapping[str, object]


def load_model(name: str = "mini", *, device: str = "cpu", **options: Option) -> WorldModel:
    """A model ready to generate worlds.

    Args:
        name: one of `lyra_core.models.MODELS`, or "package.module:factory" for a model of your own; the embedded model
            if not given.
        device: where it computes, as torch names devices.
        **options: passed to the model's class.

    Raises:
        RecipeError: an unknown name, or a device the model cannot use.
    """
    home = MODELS[name].home if name in MODELS else name
    if ":" not in home:
        raise RecipeError(
            f"unknown model {name!r}; choose one of: {', '.join(sorted(MODELS))}, "
            f"or name your own as package.module:factory"
        )
    if name in MODELS and MODELS[name].uses_device:
        require_device(device)
    factory = cast("Callable[..., WorldModel]", load_entry_point(home, "model"))
    return factory(device=device, **options)
