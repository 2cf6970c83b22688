"""The transformer of Depth Anything 3: DINOv2 blocks, first per view, then alternating between
views and all views.

Shape legend: v views, n tokens of a view (camera token first, then patches row by row), c channels,
d channels of an attention head. Parameter names are those of the released checkpoints.
Source: DINOv2 (arXiv 2304.07193) for the blocks; Depth Anything 3 (arXiv 2511.10647), section 3.1
for alternation, camera tokens and reference view; RoPE in two axes as in VGGT (arXiv 2503.11651).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lyra_core.errors import FrameError
from lyra_core.gaussians.depth_anything.config import PATCH, BackboneConfig

ROPE_BASE = 100.0
MIN_VIEWS_FOR_REFERENCE = 3
# DINOv2 interpolates positions by a scale factor with this offset (facebookresearch/dino issue 8);
# weights depend on it.
POSITION_OFFSET = 0.1

RopeTable = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What the heads read at one of the four levels.

    Attributes:
        patches: the tokens of all patches. [v n c]
        camera: the view's camera token, before the final norm. [v c]
    """

    patches: Float[Tensor, "v n c"]
    camera: Float[Tensor, "v c"]


class LayerScale(nn.Module):
    """A learned gain for each channel (CaiT, arXiv 2103.17239)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        """x times the gain."""
        return x * self.gamma


class FeedForward(nn.Module):
    """Two layers with GELU."""

    def __init__(self, dim: int, hidden: int, out_dim: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, out_dim or hidden)

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... o"]:
        """fc2(gelu(fc1(x)))."""
        return self.fc2(functional.gelu(self.fc1(x)))


class GatedFeedForward(nn.Module):
    """SwiGLU (arXiv 2002.05202) with the hidden width of DINOv2's giant: two thirds, rounded up to
    8.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = (int(4 * dim * 2 / 3) + 7) // 8 * 8
        self.w12 = nn.Linear(dim, 2 * hidden)
        self.w3 = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        """w3(silu(first half of w12 x) * second half)."""
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(functional.silu(gate) * value)


def rope_table(positions: Float[Tensor, "n 2"], head_dim: int) -> RopeTable:
    """Cosines and sines of the two-axis rotary embedding.

    Args:
        positions: row and column of each token. [n 2]
        head_dim: d; the first half of a head turns with the row, the second with the column.

    Returns:
        cosine and sine tables. 2 x [n d]
    """
    half = head_dim // 2
    exponents = torch.arange(0, half, 2, device=positions.device, dtype=torch.float32) / half
    angles = positions[:, :, None] / ROPE_BASE**exponents  # [n 2 d/4]
    angles = torch.cat([angles, angles], dim=-1).flatten(1)
    return angles.cos(), angles.sin()


def rotate(x: Float[Tensor, "v heads n d"], table: RopeTable) -> Float[Tensor, "v heads n d"]:
    """Apply the rotary embedding: within each axis' half the first quarter pairs with the
    second.
    """
    cos, sin = table
    a, b, c, d = x.chunk(4, dim=-1)
    return x * cos + torch.cat([-b, a, -d, c], dim=-1) * sin


class Attention(nn.Module):
    """Self-attention of each view alone, or of all views' tokens together."""

    def __init__(self, dim: int, num_heads: int, *, qk_norm: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = nn.LayerNorm(dim // num_heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(dim // num_heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "v n c"],
        rope: RopeTable | None = None,
        *,
        across_views: bool = False,
    ) -> Float[Tensor, "v n c"]:
        """Attend; across_views joins the tokens of all views into one sequence."""
        views = x.shape[0]
        q, k, v = rearrange(self.qkv(x), "v n (three h d) -> three v h n d", three=3, h=self.num_heads)
        q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        q, k = q.to(v.dtype), k.to(v.dtype)  # norms run in fp32 under autocast
        if across_views:
            q, k, v = (rearrange(t, "v h n d -> 1 h (v n) d") for t in (q, k, v))
        out = functional.scaled_dot_product_attention(q, k, v)
        out = (
            rearrange(out, "1 h (v n) d -> v n (h d)", v=views)
            if across_views
            else rearrange(out, "v h n d -> v n (h d)")
        )
        return self.proj(out)


class ViTBlock(nn.Module):
    """Pre-norm attention and feed-forward, each behind a LayerScale."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        qk_norm: bool = False,
        swiglu: bool = False,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, num_heads, qk_norm=qk_norm)
        self.ls1 = LayerScale(dim)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = GatedFeedForward(dim) if swiglu else FeedForward(dim, 4 * dim, dim)
        self.ls2 = LayerScale(dim)

    def forward(
        self,
        x: Float[Tensor, "v n c"],
        rope: RopeTable | None = None,
        *,
        across_views: bool = False,
    ) -> Float[Tensor, "v n c"]:
        """One residual block."""
        x = x + self.ls1(self.attn(self.norm1(x), rope, across_views=across_views))
        return x + self.ls2(self.mlp(self.norm2(x)))


def apply_block(
    block: ViTBlock, x: Float[Tensor, "v n c"], rope: RopeTable | None, across_views: bool
) -> Float[Tensor, "v n c"]:
    """One block of the transformer; what `VisionTransformer.apply_block` is unless it was compiled."""
    return block(x, rope, across_views=across_views)


class PatchEmbed(nn.Module):
    """Patches of 14 x 14 pixels to tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH, PATCH)

    def forward(self, images: Float[Tensor, "v 3 h w"]) -> Float[Tensor, "v n c"]:
        """Tokens, row by row."""
        return self.proj(images).flatten(2).mT


def select_reference_view(camera_tokens: Float[Tensor, "v c"]) -> int:
    """The view that is least extreme in similarity to the others, token norm and token variance.

    Each measure is scaled to 0..1 over the views; the chosen view has the smallest sum of distances
    to 0.5 ("saddle balanced", the default of the release).
    """
    tokens = camera_tokens.float()
    norms = tokens.norm(dim=-1)
    unit = tokens / norms[:, None]
    similarity = ((unit @ unit.mT).sum(-1) - 1.0) / (tokens.shape[0] - 1)
    score = torch.zeros_like(norms)
    for measure in (similarity, norms, unit.var(dim=-1)):
        scaled = (measure - measure.min()) / (measure.max() - measure.min() + 1e-8)
        score = score + (scaled - 0.5).abs()
    return int(score.argmin())


def reference_first(num_views: int, reference: int) -> list[int]:
    """The order of views that puts `reference` first and keeps the rest as it is."""
    return [reference, *(i for i in range(num_views) if i != reference)]


class VisionTransformer(nn.Module):
    """Images to four levels of features."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        if config.alt_start is not None:
            self.camera_token = nn.Parameter(torch.zeros(1, 2, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.pos_grid**2 + 1, dim))
        self.patch_embed = PatchEmbed(dim)
        self.blocks = nn.ModuleList(
            ViTBlock(dim, config.num_heads, qk_norm=self._alternates(i), swiglu=config.swiglu)
            for i in range(config.depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.apply_block: Callable[..., Tensor] = apply_block

    def _alternates(self, index: int) -> bool:
        return self.config.alt_start is not None and index >= self.config.alt_start

    def forward(
        self, images: Float[Tensor, "v 3 h w"], camera_tokens: Float[Tensor, "v c"] | None = None
    ) -> list[Features]:
        """Run the transformer.

        Args:
            images: normalised colour, sides multiples of 14. [v 3 h w]
            camera_tokens: one token for each view from known cameras; view 0 is then the reference.
                Without, the network picks its reference among three or more views. [v c]

        Returns:
            the four levels, finest block last, views in the order given.

        Raises:
            FrameError: sides that are no multiples of 14.
        """
        views, _, height, width = images.shape
        if height % PATCH or width % PATCH:
            raise FrameError(
                f"images must have sides that are multiples of {PATCH}, found {width}x{height}; resize them first"
            )
        rows, cols = height // PATCH, width // PATCH
        x = self.patch_embed(images).float()  # the residual stream stays in fp32 under autocast
        x = torch.cat([self.cls_token.expand(views, -1, -1), x], dim=1)
        x = x + self._positions(rows, cols)
        local_rope, shared_rope = self._rope_tables(rows, cols, x.device)
        single_view = x
        order: list[int] | None = None
        levels = []
        for i, block in enumerate(self.blocks):
            if i + 1 == self.config.alt_start and camera_tokens is None and views >= MIN_VIEWS_FOR_REFERENCE:
                order = reference_first(views, select_reference_view(x[:, 0]))
                x, single_view = x[order], single_view[order]
            if i == self.config.alt_start:
                x = torch.cat(
                    [self._camera_tokens(views, camera_tokens)[:, None], x[:, 1:]],
                    dim=1,
                )
            if self._alternates(i) and i % 2 == 1:
                # Patches of all views share one position: views are told apart by content and
                # camera token alone.
                x = self.apply_block(block, x, shared_rope, True)
            else:
                x = self.apply_block(block, x, local_rope if self._alternates(i) else None, False)
                single_view = x
            if i in self.config.out_layers:
                levels.append(self._level(single_view, x, order))
        return levels

    def _camera_tokens(self, views: int, given: Tensor | None) -> Tensor:
        if given is not None:
            return given
        return torch.cat([self.camera_token[0, :1], self.camera_token[0, 1:].expand(views - 1, -1)])

    def _level(self, single_view: Tensor, x: Tensor, order: list[int] | None) -> Features:
        if order is not None:
            back = torch.tensor(order, device=x.device).argsort()
            single_view, x = single_view[back], x[back]
        patches = self.norm(x[:, 1:])
        if self.config.alt_start is None:
            return Features(patches=patches, camera=x[:, 0])
        # Only the second half passes the final norm; the camera token skips it altogether.
        return Features(
            patches=torch.cat([single_view[:, 1:], patches], dim=-1),
            camera=torch.cat([single_view[:, 0], x[:, 0]], dim=-1),
        )

    def _positions(self, rows: int, cols: int) -> Tensor:
        side = self.config.pos_grid
        if (rows, cols) == (side, side):
            return self.pos_embed
        grid = rearrange(self.pos_embed[:, 1:].float(), "1 (r s) c -> 1 c r s", r=side)
        scale = ((rows + POSITION_OFFSET) / side, (cols + POSITION_OFFSET) / side)
        grid = functional.interpolate(grid, scale_factor=scale, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], rearrange(grid, "1 c r s -> 1 (r s) c")], dim=1)

    def _rope_tables(
        self, rows: int, cols: int, device: torch.device
    ) -> tuple[RopeTable, RopeTable] | tuple[None, None]:
        if self.config.alt_start is None:
            return None, None
        grid = torch.cartesian_prod(
            torch.arange(rows, device=device, dtype=torch.float32),
            torch.arange(cols, device=device, dtype=torch.float32),
        )
        own = functional.pad(grid + 1.0, (0, 0, 1, 0))  # the camera token sits at (0, 0)
        shared = functional.pad(torch.ones_like(grid), (0, 0, 1, 0))
        head_dim = self.config.dim // self.config.num_heads
        return rope_table(own, head_dim), rope_table(shared, head_dim)


class Backbone(nn.Module):
    """The transformer under the name it has in checkpoints."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.pretrained = VisionTransformer(config)

    def forward(
        self, images: Float[Tensor, "v 3 h w"], camera_tokens: Float[Tensor, "v c"] | None = None
    ) -> list[Features]:
        """See VisionTransformer."""
        return self.pretrained(images, camera_tokens)
