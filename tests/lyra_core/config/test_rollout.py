"""Configurations of a rollout: a user's options and what a network fixes, and the text of both in ids."""

import hashlib
from dataclasses import asdict, fields

import pytest

from lyra_core.config.rollout import (
    CORRECTED,
    REFERENCE,
    CorrespondenceConfig,
    MemoryConfig,
    WarpConfig,
    identity_text,
    with_options,
)
from lyra_core.config.video import CORRECTED_VIDEO, MINI_VIDEO, REFERENCE_VIDEO, RolloutOptions
from lyra_core.errors import RecipeError
from lyra_core.mini.config import MINI

OF_THE_NETWORK = {
    "conditioning.ray_downsample",
    "conditioning.correspondence.num_blocks",
    "conditioning.correspondence.latent_stride",
    "conditioning.correspondence.downsample",
    "conditioning.warp.num_targets_at_once",
    "conditioning.correspondence.warp.num_targets_at_once",
    "memory.downsample",
    "memory.num_retrieved",
}


def flat(values, prefix=""):
    found = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


@pytest.mark.parametrize(
    ("options", "config"), [(REFERENCE_VIDEO, REFERENCE), (CORRECTED_VIDEO, CORRECTED), (MINI_VIDEO, MINI)]
)
def test_a_configuration_is_its_options_and_what_the_network_fixes(options, config):
    names = {field.name for field in fields(RolloutOptions)}
    chosen = flat({name: value for name, value in asdict(options).items() if name in names})
    complete = flat(asdict(config))
    assert {name: complete[name] for name in chosen} == chosen
    assert set(complete) - set(chosen) == OF_THE_NETWORK


def test_options_leave_what_the_network_fixes():
    assert MINI.conditioning.correspondence.downsample == MINI.conditioning.ray_downsample == 4
    assert with_options(MINI, REFERENCE_VIDEO).conditioning.correspondence == CorrespondenceConfig(downsample=4)
    assert with_options(REFERENCE, REFERENCE_VIDEO) == REFERENCE


# At commit 89b88d7. These texts are in the ids of worlds that Python calls made, and in the lists of stored chunks.
TEXTS = [
    (REFERENCE, "fb730de8dc3ebea2"),
    (CORRECTED, "b571a2bdef508786"),
    (MINI, "57d457d163171753"),
]


@pytest.mark.parametrize(("config", "digest"), TEXTS, ids=["reference", "corrected", "mini"])
def test_texts_in_ids_stay(config, digest):
    assert hashlib.sha256(identity_text(config).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MemoryConfig(num_retrieved=0), "num_retrieved must be at least 1, found 0"),
        (lambda: WarpConfig(group_size=0), "group_size must be at least 1, found 0"),
        (lambda: CorrespondenceConfig(downsample=3), "must divide latent_stride=8, found 3"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(RecipeError, match=message):
        make()
