"""Textures: seams, mip levels, splits, and photographs that must never be learned from."""

import numpy as np
import pytest
import torch

from lyra_core.errors import ConfigError, SeedError
from lyra_core.procedural.atlas import build_atlas, sample
from lyra_core.procedural.photographs import HELD_OUT_PHOTOGRAPHS, load_photographs
from lyra_core.procedural.textures import KIND_INDEX, KINDS, make_texture

# books and posters are fitted to their shape, never repeated side by side
FITTED = {"books", "picture"}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in FITTED])
def test_textures_repeat_without_a_seam(kind):
    texture = make_texture(kind, 3, 64)
    for axis in (0, 1):
        inner = np.abs(np.diff(texture, axis=axis)).mean(axis=(1 - axis, 2))
        seam = np.abs(np.take(texture, 0, axis) - np.take(texture, -1, axis)).mean()
        assert seam <= max(inner.max() * 1.5, 0.02)


def test_textures_are_a_function_of_kind_seed_and_size():
    assert np.array_equal(make_texture("brick", 4, 32), make_texture("brick", 4, 32))
    assert not np.array_equal(make_texture("brick", 4, 32), make_texture("brick", 5, 32))


def test_sampling_at_texel_centres_returns_texels_and_far_samples_the_mean(atlas):
    index = torch.tensor(KIND_INDEX["brick"])
    texture = torch.from_numpy(make_texture("brick", 0, 32))
    at = (torch.arange(32) + 0.5) / 32
    v, u = torch.meshgrid(at, at, indexing="ij")
    uv = torch.stack([u, v], -1)
    which = index.expand(32, 32)
    near = sample(atlas, which, uv + 3.0, torch.full((32, 32), 1e-4))
    torch.testing.assert_close(near, texture, atol=1 / 255, rtol=0)
    far = sample(atlas, which, uv, torch.full((32, 32), 10.0))
    mean = texture.mean((0, 1)).expand_as(far)
    torch.testing.assert_close(far, mean, atol=0.02, rtol=0)


def test_sampling_is_continuous_over_levels(atlas):
    width = torch.logspace(-2, 0, 200)
    which = torch.full((200,), KIND_INDEX["tile"])
    colors = sample(atlas, which, torch.full((200, 2), 0.3), width)
    assert float(colors.diff(dim=0).abs().max()) < 0.05


def test_splits_have_other_textures():
    train, held_out = (build_atlas(split, per_kind=1, size=16) for split in ("train", "heldout"))
    assert (train.texels != held_out.texels).float().mean() > 0.9


def test_wrong_atlas_is_refused():
    with pytest.raises(ConfigError, match="power of two"):
        build_atlas("train", size=48)


@pytest.fixture
def photographs(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("alpine_path", *sorted(HELD_OUT_PHOTOGRAPHS)):
        Image.fromarray(rng.integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_held_out_photographs_are_never_trained_on(photographs):
    train = {photograph.name for photograph in load_photographs(photographs, "train")}
    held_out = {photograph.name for photograph in load_photographs(photographs, "heldout")}
    assert train == {"alpine_path"}
    assert held_out == HELD_OUT_PHOTOGRAPHS
    plain = build_atlas("train", per_kind=1, size=16)
    with_photographs = build_atlas("train", per_kind=1, size=16, photographs=photographs, crops_per_photograph=2)
    picture = KIND_INDEX["picture"]
    assert int(with_photographs.count[picture]) == int(plain.count[picture]) + 2


def test_unreadable_photographs_are_refused(tmp_path):
    with pytest.raises(SeedError):
        load_photographs(tmp_path / "missing", "train")
    (tmp_path / "broken.jpg").write_bytes(b"no jpeg")
    with pytest.raises(SeedError, match="broken"):
        load_photographs(tmp_path, "train")
