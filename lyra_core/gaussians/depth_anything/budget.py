"""How many views fit into one pass, and what to do when they turn out not to.

A pass costs memory in proportion to its tokens (views times patches): the residual stream, one
block's activations and the four kept levels, plus the dense heads' full-resolution maps of a fixed
number of views.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from lyra_core.errors import OutOfMemoryError, RecipeError
from lyra_core.gaussians.depth_anything.config import (
    PATCH,
    BackboneConfig,
    DepthAnythingConfig,
    NestedConfig,
)
from lyra_core.gaussians.depth_anything.heads import VIEWS_PER_SLICE

MIN_VIEWS = 2
MAX_VIEWS = 128  # the Gaussian head was tuned for at most this many
# Share of the free memory a plan may fill: allocators fragment, and kernels want workspaces.
MEMORY_SHARE = 0.8
# Full-resolution maps of the dense heads alive at once, counted in maps of head.features channels.
HEAD_MAPS = 4

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Sizes of one pass.

    Attributes:
        views: most views that attend to each other.
        views_per_slice: views whose full-resolution maps exist at once.
    """

    views: int
    views_per_slice: int = VIEWS_PER_SLICE

    def __post_init__(self) -> None:
        if self.views < 1 or self.views_per_slice < 1:
            raise RecipeError(
                f"a budget needs at least one view, found views={self.views} and views_per_slice={self.views_per_slice}"
            )

    def smaller(self) -> Budget | None:
        """The next budget to try: first thinner slices, then half the views; None below two
        views.
        """
        if self.views_per_slice > 1:
            return Budget(views=self.views, views_per_slice=max(1, self.views_per_slice // 4))
        if self.views // 2 < MIN_VIEWS:
            return None
        return Budget(views=self.views // 2, views_per_slice=self.views_per_slice)


def tokens_per_view(height: int, width: int) -> int:
    """Patches of a view and its camera token."""
    return (height // PATCH) * (width // PATCH) + 1


def bytes_per_token(config: BackboneConfig) -> int:
    """Activations of one token while a block runs, with the four levels kept for the heads.

    fp32 residual stream, its single-view copy and a norm; in attention bf16 q, k, v, and q and k
    in fp32 through norm and rotation (the feed-forward needs less); four fp32 levels.
    """
    stream = 3 * 4 * config.dim
    attention = 2 * 3 * config.dim + 5 * 4 * config.dim
    return stream + attention + 4 * 4 * config.out_dim


def budget_for_memory(free_bytes: int, height: int, width: int, config: DepthAnythingConfig | NestedConfig) -> Budget:
    """The largest pass that should fit beside the loaded weights.

    Args:
        free_bytes: memory free on the device after the weights are there.
        height: rows of the network's input.
        width: columns of it.
        config: the architecture.

    Raises:
        OutOfMemoryError: not even two views fit.
    """
    main = config.any_view if isinstance(config, NestedConfig) else config
    per_view = tokens_per_view(height, width) * bytes_per_token(main.backbone)
    head_map = 4 * main.head.features * height * width
    for views_per_slice in (VIEWS_PER_SLICE, 2, 1):
        left = MEMORY_SHARE * free_bytes - HEAD_MAPS * head_map * views_per_slice
        if left >= MIN_VIEWS * per_view:
            views = min(MAX_VIEWS, int(left // per_view))
            return Budget(views=views, views_per_slice=views_per_slice)
    needed = (MIN_VIEWS * per_view + HEAD_MAPS * head_map) / MEMORY_SHARE
    raise OutOfMemoryError(
        f"two views of {width}x{height} need about {needed / 2**30:.1f} GiB free, found "
        f"{free_bytes / 2**30:.1f} GiB; use a smaller size or model"
    )


def device_budget(device: torch.device, height: int, width: int, config: DepthAnythingConfig | NestedConfig) -> Budget:
    """budget_for_memory on a CUDA device as it is now; elsewhere the largest budget."""
    if device.type != "cuda":
        return Budget(views=MAX_VIEWS)
    free, _ = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return budget_for_memory(free + reserved, height, width, config)


def run_within(
    budget: Budget,
    run: Callable[[Budget], Result],
    *,
    out_of_memory: Sequence[type[Exception]] = (torch.OutOfMemoryError,),
) -> Result:
    """Call `run` with ever smaller budgets until it fits.

    Args:
        budget: the first to try.
        run: does the work within a budget it is given.
        out_of_memory: exceptions that mean "did not fit".

    Raises:
        OutOfMemoryError: the smallest budget did not fit either.
    """
    tried: list[Budget] = []
    current: Budget | None = budget
    while current is not None:
        tried.append(current)
        try:
            return run(current)
        except tuple(out_of_memory):
            # Freed outside the handler: the exception's traceback still holds the failed pass's
            # tensors.
            current = current.smaller()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    raise OutOfMemoryError(
        f"depth estimation did not fit into memory with {tried[0].views} views nor with "
        f"{tried[-1].views}; use a smaller processing size, a larger Gaussian stride or a smaller "
        "model"
    )
