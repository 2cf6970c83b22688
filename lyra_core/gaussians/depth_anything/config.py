"""Architecture of Depth Anything 3 as plain values: the released sizes are presets, tiny ones are
written by tests.

Source: Depth Anything 3 (Lin et al., arXiv 2511.10647), section 3 and the configurations of its
public release.
"""

from __future__ import annotations

from dataclasses import dataclass

from lyra_core.errors import RecipeError

PATCH = 14
GAUSSIAN_CHANNELS = 38  # 37 raw channels and one opacity logit, spherical harmonics of degree 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneConfig:
    """A DINOv2-shaped transformer whose later blocks alternate between one view and all views.

    Attributes:
        dim: channels of a token.
        depth: number of blocks.
        num_heads: attention heads; dim / num_heads must be a multiple of 4 (rotary embedding in two
            axes).
        out_layers: the four blocks whose outputs feed the heads.
        alt_start: first block of the alternating part, which also starts rotary embedding and q/k
            norms; None for the single-view network.
        swiglu: gated feed-forward instead of the GELU one.
        pos_grid: side of the trained position grid, in patches.
    """

    dim: int
    depth: int
    num_heads: int
    out_layers: tuple[int, int, int, int]
    alt_start: int | None
    swiglu: bool = False
    pos_grid: int = 37

    def __post_init__(self) -> None:
        if self.dim % (4 * self.num_heads):
            raise RecipeError(
                f"a backbone needs dim divisible by 4 * num_heads, found dim {self.dim} and {self.num_heads} heads"
            )
        if max(self.out_layers) >= self.depth:
            raise RecipeError(f"out_layers must lie below depth {self.depth}, found {self.out_layers}")
        if self.alt_start is not None and not 0 < self.alt_start <= min(self.out_layers):
            raise RecipeError(
                f"alt_start must lie between 1 and the first output block {min(self.out_layers)}, "
                f"found {self.alt_start}"
            )

    @property
    def out_dim(self) -> int:
        """Channels handed to the heads: the single-view and the all-view state side by side."""
        return self.dim if self.alt_start is None else 2 * self.dim


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadConfig:
    """Widths of a dense prediction head.

    Attributes:
        features: channels of the fused pyramid, a multiple of 8.
        out_channels: channels of the four levels before fusion, multiples of 4.
    """

    features: int = 256
    out_channels: tuple[int, int, int, int] = (256, 512, 1024, 1024)

    def __post_init__(self) -> None:
        if self.features % 8 or any(c % 4 for c in self.out_channels):
            raise RecipeError(
                f"a head needs features divisible by 8 and out_channels divisible by 4, "
                f"found {self.features} and {self.out_channels}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthAnythingConfig:
    """One Depth Anything 3 network.

    Attributes:
        backbone: the transformer. With alt_start it is the any-view network (depth, confidence,
            rays, cameras); without, the metric single-view network (depth at a focal length of 300
            pixels, and sky).
        head: the dense head's widths.
        camera_heads: heads of the camera encoder's attention; dim must be divisible by it.
        gaussian_head: whether the Gaussian head exists (giant only).
    """

    backbone: BackboneConfig
    head: HeadConfig = HeadConfig()
    camera_heads: int = 16
    gaussian_head: bool = False

    def __post_init__(self) -> None:
        if self.any_view and self.backbone.dim % self.camera_heads:
            raise RecipeError(
                f"camera_heads must divide the backbone's dim {self.backbone.dim}, found {self.camera_heads}"
            )
        if self.gaussian_head and not self.any_view:
            raise RecipeError("a Gaussian head needs the any-view network; set backbone.alt_start")

    @property
    def any_view(self) -> bool:
        """True for the multi-view network, False for the metric single-view one."""
        return self.backbone.alt_start is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class NestedConfig:
    """The any-view network made metric by the single-view one."""

    any_view: DepthAnythingConfig
    metric: DepthAnythingConfig

    def __post_init__(self) -> None:
        if not self.any_view.any_view or self.metric.any_view:
            raise RecipeError("a nested model needs an any-view network first and a metric single-view one second")


SMALL = DepthAnythingConfig(
    backbone=BackboneConfig(dim=384, depth=12, num_heads=6, out_layers=(5, 7, 9, 11), alt_start=4),
    head=HeadConfig(features=64, out_channels=(48, 96, 192, 384)),
)
BASE = DepthAnythingConfig(
    backbone=BackboneConfig(dim=768, depth=12, num_heads=12, out_layers=(5, 7, 9, 11), alt_start=4),
    head=HeadConfig(features=128, out_channels=(96, 192, 384, 768)),
)
LARGE = DepthAnythingConfig(
    backbone=BackboneConfig(dim=1024, depth=24, num_heads=16, out_layers=(11, 15, 19, 23), alt_start=8)
)
GIANT = DepthAnythingConfig(
    backbone=BackboneConfig(dim=1536, depth=40, num_heads=24, out_layers=(19, 27, 33, 39), alt_start=13, swiglu=True),
    gaussian_head=True,
)
METRIC_LARGE = DepthAnythingConfig(
    backbone=BackboneConfig(dim=1024, depth=24, num_heads=16, out_layers=(4, 11, 17, 23), alt_start=None)
)
NESTED_GIANT_LARGE = NestedConfig(any_view=GIANT, metric=METRIC_LARGE)
# Both parts are Apache-2.0, unlike the giant: metric depth without a Gaussian head, for worlds that
# may be sold.
NESTED_BASE_LARGE = NestedConfig(any_view=BASE, metric=METRIC_LARGE)

PRESETS: dict[str, DepthAnythingConfig | NestedConfig] = {
    "da3-small": SMALL,
    "da3-base": BASE,
    "da3-large": LARGE,
    "da3-giant": GIANT,
    "da3metric-large": METRIC_LARGE,
    "da3nested-giant-large": NESTED_GIANT_LARGE,
    "da3nested-base-large": NESTED_BASE_LARGE,
}
