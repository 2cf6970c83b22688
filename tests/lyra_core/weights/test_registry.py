"""The registry is complete and says what may be done with each set."""

import pytest

from lyra_core.errors import LicenseError, WeightsError
from lyra_core.weights.describe import BUILDERS
from lyra_core.weights.keys import RULES
from lyra_core.weights.registry import LICENSES, WEIGHT_SETS, require_accepted, weight_set


def test_every_set_names_a_known_license_and_kind():
    for name, item in WEIGHT_SETS.items():
        assert item.name == name
        assert item.license in LICENSES
        assert item.kind in RULES or item.kind in ("tokenizer", "component folder")
        assert item.repo_id or item.by_hand
        assert (not item.repo_id) or item.files


def test_every_described_model_is_a_known_set():
    assert set(BUILDERS) <= set(WEIGHT_SETS)


def test_restricted_licenses_say_what_they_forbid():
    assert all(terms.forbids for terms in LICENSES.values() if terms.restricted)
    assert all(not terms.forbids for terms in LICENSES.values() if not terms.restricted)


@pytest.mark.parametrize(
    ("name", "restricted"),
    [
        ("lyra2-dit", True), ("lyra2-recon", True), ("lora-dmd", True), ("da3-giant", True),
        ("da3nested-giant-large", True), ("da3-large", True), ("da3-base", False), ("da3-small",
        False),
        ("da3metric-large", False), ("wan-vae", False), ("mini", False),
    ],
)  # fmt: skip
def test_restrictions_follow_the_model_cards(name, restricted):
    assert LICENSES[weight_set(name).license].restricted is restricted


def test_restricted_weights_need_their_flag():
    with pytest.raises(LicenseError, match="--accept-license nvidia-internal-research") as caught:
        require_accepted(["apache-2.0", "nvidia-internal-research", "cc-by-nc-4.0"], [])
    assert "--accept-license cc-by-nc-4.0" in str(caught.value)
    assert "no production use" in str(caught.value)
    with pytest.raises(LicenseError) as caught:
        require_accepted(["nvidia-internal-research", "cc-by-nc-4.0"], ["cc-by-nc-4.0"])
    assert "cc-by-nc" not in str(caught.value)


def test_accepted_and_permissive_weights_pass():
    require_accepted(["nvidia-internal-research", "apache-2.0"], ["nvidia-internal-research"])
    require_accepted(["apache-2.0"], [])


def test_unknown_names_list_the_known_ones():
    with pytest.raises(LicenseError, match="known are nvidia-internal-research"):
        require_accepted([], ["mit"])
    with pytest.raises(WeightsError, match="known are lyra2-dit"):
        weight_set("lyra3")
