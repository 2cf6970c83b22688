"""Plain values become settings, or a message that names the field."""

from dataclasses import asdict, dataclass
from typing import Literal

import pytest

from lyra_core.config.rollout import CORRECTED, REFERENCE
from lyra_core.configure import configured
from lyra_core.errors import RecipeError
from lyra_core.gaussians.depth_anything.config import PRESETS
from lyra_core.video.dit.network import LYRA2_14B, TINY
from lyra_core.video.vae.network import TINY_VAE, WAN21_VAE


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    size: tuple[int, ...] = (1, 2)
    pair: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    inner: Inner = Inner()
    mode: Literal["a", "b"] = "a"
    rate: float = 0.5
    count: int | None = 3
    is_on: bool = False
    tier: str | int = "x"


def test_changes_nest_and_the_rest_stays():
    changed = configured(Outer(), {"inner": {"size": [4, 5, 6]}, "rate": 2, "count": None, "tier": 7, "is_on": True})
    assert changed == Outer(inner=Inner(size=(4, 5, 6)), rate=2.0, count=None, tier=7, is_on=True)
    assert isinstance(changed.rate, float)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rat": 1}, "v.rat is unknown; fields of v: inner, mode, rate"),
        ({"inner": {"sise": [1]}}, "v.inner.sise is unknown; fields of v.inner: size"),
        ({"mode": "c"}, "v.mode should be 'a' or 'b', found 'c'"),
        ({"rate": "fast"}, "v.rate should be float, found 'fast'"),
        ({"rate": True}, "v.rate should be float, found True"),
        ({"count": 1.5}, "v.count should be int | None, found 1.5"),
        ({"inner": {"pair": [1.0]}}, "v.inner.pair should be tuple"),
        ({"inner": 3}, "v.inner should be Inner, found 3"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(RecipeError) as error:
        configured(Outer(), changes, "v.")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("base", "wanted"),
    [
        (LYRA2_14B, TINY),
        (WAN21_VAE, TINY_VAE),
        (REFERENCE, CORRECTED),
        (PRESETS["da3-giant"], PRESETS["da3metric-large"]),
    ],
    ids=["dit", "vae", "rollout", "depth"],
)
def test_any_preset_is_reached_from_another_through_json(base, wanted):
    import json

    assert configured(base, json.loads(json.dumps(asdict(wanted)))) == wanted
