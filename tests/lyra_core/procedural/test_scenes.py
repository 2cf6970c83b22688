"""Scenes depend on seed and split alone, differ between them, and fit a batch."""

from dataclasses import fields

import pytest
import torch

from lyra_core.errors import ConfigError
from lyra_core.procedural.atlas import stream_seed
from lyra_core.procedural.scene_batch import CAPACITY, SceneBatch
from lyra_core.procedural.scenes import COMPOSERS, sample_scene


def numbers(scene):
    parts = (scene.boxes, scene.ellipsoids, scene.frusta, scene.surfaces, scene.ground, scene.light)
    return [getattr(part, f.name) for part in parts for f in fields(part)]


def test_same_seed_same_scene_bit_for_bit():
    for seed in range(4):
        first, second = sample_scene(seed), sample_scene(seed)
        assert first.caption == second.caption
        assert all(torch.equal(a, b) for a, b in zip(numbers(first), numbers(second), strict=True))


def test_splits_never_share_a_stream():
    train = {stream_seed(seed, "train") for seed in range(1000)}
    held_out = {stream_seed(seed, "heldout") for seed in range(1000)}
    assert len(train | held_out) == 2000
    a, b = (sample_scene(5, split, kind="room") for split in ("train", "heldout"))
    assert not torch.equal(a.light.exposure, b.light.exposure)


@pytest.mark.parametrize(("seed", "split"), [(-1, "train"), (0, "test")])
def test_wrong_streams_are_refused(seed, split):
    with pytest.raises(ConfigError):
        sample_scene(seed, split)


@pytest.mark.parametrize("kind", COMPOSERS)
def test_scenes_fit_the_slots_and_say_what_they_are(kind):
    captions = set()
    for seed in range(25):
        scene = sample_scene(seed, kind=kind)
        counts = [part.center.shape[0] for part in (scene.boxes, scene.ellipsoids, scene.frusta)]
        assert all(count <= slots for count, slots in zip(counts, CAPACITY, strict=True)), (seed, counts)
        assert scene.surfaces.kind.shape[0] == sum(counts) + 1
        assert all(torch.isfinite(value.float()).all() for value in numbers(scene))
        captions.add(scene.caption)
    assert len(captions) > 5


def test_batch_refuses_too_few_slots(atlas):
    with pytest.raises(ConfigError, match="slots"):
        SceneBatch.of([sample_scene(0, kind="street")], atlas, capacity=(2, 2, 2))
