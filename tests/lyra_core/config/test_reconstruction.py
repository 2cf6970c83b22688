"""Options of the reconstruction: tiers by name, number or text."""

import pytest

from lyra_core.config.reconstruction import FusionOptions, ReconstructionOptions, tier_size
from lyra_core.errors import RecipeError


@pytest.mark.parametrize(("tier", "size"), [("100k", 100_000), ("2m", 2_000_000), (120_000, 120_000), ("1234", 1234)])
def test_a_tier_is_a_name_or_a_number(tier, size):
    assert tier_size(FusionOptions(tier=tier).tier) == size


@pytest.mark.parametrize("tier", ["large", 0, -5, "0", "", "9" * 40])
def test_other_tiers_are_refused(tier):
    with pytest.raises(RecipeError, match="a tier is one of 100k, 500k, 2m or a positive number"):
        ReconstructionOptions(tier=tier)
