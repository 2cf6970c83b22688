import pytest

from lyra_core.errors import RecipeError
from lyra_core.gaussians.depth_anything.config import (
    BASE,
    GIANT,
    METRIC_LARGE,
    PRESETS,
    BackboneConfig,
    DepthAnythingConfig,
    HeadConfig,
    NestedConfig,
)


def test_only_the_giant_has_a_gaussian_head() -> None:
    with_head = {
        name for name, p in PRESETS.items() if (p.any_view if isinstance(p, NestedConfig) else p).gaussian_head
    }
    assert with_head == {"da3-giant", "da3nested-giant-large"}


def test_widths_that_do_not_fit_are_refused() -> None:
    backbone = {"dim": 32, "depth": 6, "num_heads": 2, "out_layers": (2, 3, 4, 5), "alt_start": 2}
    with pytest.raises(RecipeError, match="4 \\* num_heads"):
        BackboneConfig(**{**backbone, "dim": 36})
    with pytest.raises(RecipeError, match="below depth 5"):
        BackboneConfig(**{**backbone, "depth": 5})
    with pytest.raises(RecipeError, match="alt_start must lie"):
        BackboneConfig(**{**backbone, "alt_start": 3})
    with pytest.raises(RecipeError, match="divisible by 8"):
        HeadConfig(features=20)
    with pytest.raises(RecipeError, match="camera_heads must divide"):
        DepthAnythingConfig(backbone=BackboneConfig(**backbone), camera_heads=5)
    with pytest.raises(RecipeError, match="any-view network"):
        DepthAnythingConfig(backbone=METRIC_LARGE.backbone, gaussian_head=True)
    with pytest.raises(RecipeError, match="metric single-view one second"):
        NestedConfig(any_view=GIANT, metric=BASE)
