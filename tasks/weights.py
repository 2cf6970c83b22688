"""The digests of a recipe's weights, read from their manifests: planning never opens a weight file."""

from __future__ import annotations

import socket
from pathlib import Path

from lyra_core.errors import WeightsError
from tasks.recipe import Recipe


def require_planned(recipe: Recipe, planned: tuple[str, ...] | None) -> tuple[str, ...]:
    """The digests of the weights on this machine, which must be those that the worlds' ids were made with.

    Raises:
        WeightsError: this machine has other weights, or none.
    """
    digests = weights_digests(recipe)
    if planned is not None and digests != planned:
        raise WeightsError(
            f"weights on {socket.gethostname()}: the batch was planned with {_short(planned)}, but "
            f"{recipe.weights or 'the installed package'} holds {_short(digests)}; give every machine the same weights "
            f"and the same version of the package, then run the same command again"
        )
    return digests


def _short(digests: tuple[str, ...]) -> str:
    return ", ".join(digest[:12] for digest in digests) or "none"


def video_digest(recipe: Recipe, digests: tuple[str, ...]) -> str | None:
    """Which of a recipe's `weights_digests` is the video network's; None where the video comes without weights.

    The embedded model's files have one digest together.
    """
    if not digests:
        return None
    from lyra_core.weights.bundle import PARTS

    roles = [part.role for part in PARTS.get(recipe.model, ())]
    if roles and "dit" not in roles:
        return None
    return digests[roles.index("dit")] if roles else digests[0]


def weights_digests(recipe: Recipe) -> tuple[str, ...]:
    """One digest per weight set the recipe loads, in a fixed order; a model without weights has none.

    Raises:
        WeightsError: the recipe names weights that are missing or were never converted.
    """
    if recipe.model == "mini":
        from lyra_core.mini.manifest import MINI_FOLDER, mini_digest

        return (mini_digest(MINI_FOLDER if recipe.weights is None else Path(recipe.weights)),)
    if recipe.weights is None:
        return ()
    from lyra_core.weights.bundle import PARTS, find_sets, lora_parts, set_digests
    from lyra_core.weights.manifest import manifest_digest

    if recipe.model not in PARTS:
        return (manifest_digest(recipe.weights),)
    loras = () if recipe.video is None else recipe.video.loras
    return set_digests(find_sets(recipe.weights, (*PARTS[recipe.model], *lora_parts(loras))))
