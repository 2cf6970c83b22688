"""World models by name.

A model's class is imported only when its name is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from lyra_core.entry_point import load_entry_point
from lyra_core.errors import RecipeError
from lyra_core.world_models.protocol import WorldModel

# Each name and where its class lives; a class is imported when its name is asked for.
MODELS = {
    "parallax": "lyra_core.world_models.parallax:ParallaxModel",
    "mini": "lyra_core.world_models.mini:load_mini_model",
    "lyra2": "lyra_core.world_models.lyra2:load_lyra2",
    "parallax-da3": "lyra_core.world_models.parallax_da3:load_parallax_da3",
    "cosmos3-nano": "lyra_core.cosmos.model:load_nano",
    "cosmos3-super": "lyra_core.cosmos.model:load_super",
    "cosmos3-super-i2v": "lyra_core.cosmos.model:load_super_i2v",
    "cosmos3-super-i2v-4step": "lyra_core.cosmos.model:load_super_i2v_4step",
}

Option = str | float | bool | Path | None | Mapping[str, object]


def load_model(name: str = "mini", *, device: str = "cpu", **options: Option) -> WorldModel:
    """A model ready to generate worlds.

    Args:
        name: one of `MODELS`, or "package.module:factory" for a model of your own; the embedded model if not given.
        device: where it computes, as torch names devices.
        **options: passed to the model's class.

    Raises:
        RecipeError: an unknown name, or a device the model cannot use.
    """
    home = MODELS.get(name, name)
    if ":" not in home:
        raise RecipeError(
            f"unknown model {name!r}; choose one of: {', '.join(sorted(MODELS))}, "
            f"or name your own as package.module:factory"
        )
    factory = cast("Callable[..., WorldModel]", load_entry_point(home, "model"))
    return factory(device=device, **options)
