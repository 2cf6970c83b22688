"""Weights of the mini model: written in parts, read back, guarded by digests."""

import hashlib
from dataclasses import replace

import pytest
import torch

from lyra_core.errors import WeightsError
from lyra_core.evaluation.card import CARD, CARD_COMMAND
from lyra_core.mini import files as mini_files
from lyra_core.mini.config import MINI_DIT
from lyra_core.mini.files import MINI_FOLDER, load_mini, mini_digest, read_components, write_component
from lyra_core.mini.networks import build_mini_networks
from lyra_core.mini.vae import TINY_MINI_VAE, build_mini_vae

SMALL = replace(MINI_DIT, dim=32, ffn_dim=32, num_heads=2, num_layers=1, squeeze_dim=4, text_dim=8, image_dim=8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(mini_files, "PART_BYTES", 200_000)
    write_component(tmp_path, "vae", build_mini_vae(TINY_MINI_VAE).state_dict(), TINY_MINI_VAE)
    write_component(tmp_path, "video", build_mini_networks(SMALL, 1).state_dict(), SMALL)
    return tmp_path


def test_what_is_written_is_loaded(folder):
    assert len(read_components(folder)["video"].files) > 1
    models = load_mini(folder)
    wanted = build_mini_networks(SMALL, 1)
    assert models.dit.config == SMALL
    for name, value in wanted.dit.state_dict().items():
        assert torch.equal(models.dit.state_dict()[name], value.bfloat16().float()), name
    assert models.text(["a room"]).shape == (1, 96, 8)
    assert models.image(torch.zeros(1, 3, 64, 96)).shape == (1, 6, 8)


def test_a_changed_file_is_refused_and_changes_no_digest(folder):
    before = mini_digest(folder)
    path = next(iter(sorted(folder.glob("vae*.safetensors"))))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    assert mini_digest(folder) == before
    with pytest.raises(WeightsError, match="digest"):
        load_mini(folder)


def test_retraining_changes_the_digest(folder):
    before = mini_digest(folder)
    write_component(folder, "video", build_mini_networks(SMALL, 2).state_dict(), SMALL)
    assert mini_digest(folder) != before


def test_equal_weights_have_equal_digests(folder):
    """Ids of worlds hang on it; headers with two entries came in one order or the other."""
    state = build_mini_networks(SMALL, 1).state_dict()
    digests = set()
    for _ in range(12):
        write_component(folder, "video", state, SMALL)
        digests.add(mini_digest(folder))
    assert len(digests) == 1


def test_missing_weights_say_what_to_do(folder, tmp_path):
    with pytest.raises(WeightsError, match="pack a training run"):
        load_mini(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="wanted 'other'"):
        load_mini(folder, component="other")


def test_files_go_when_fewer_replace_them(folder, monkeypatch):
    before = set(read_components(folder)["video"].files)
    monkeypatch.setattr(mini_files, "PART_BYTES", 10_000_000)
    write_component(folder, "video", build_mini_networks(SMALL, 2).state_dict(), SMALL)
    left = {path.name for path in folder.glob("video*.safetensors")}
    assert left == set(read_components(folder)["video"].files) == {"video.safetensors"}
    assert not before & left


def test_the_shipped_weights_are_whole():
    models = load_mini()
    assert sum(path.stat().st_size for path in MINI_FOLDER.iterdir()) <= 46_000_000
    assert models.vae.latent_std.isfinite().all()
    assert bool((models.dit.head.head.weight != 0).any())


def test_the_shipped_files_are_those_of_the_manifest():
    named = {file: digest for part in read_components().values() for file, digest in part.files.items()}
    there = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in MINI_FOLDER.glob("*.safetensors")}
    assert there == named
    assert set(read_components()) == {"depth", "super_resolution", "vae", "video"}


def test_the_shipped_card_is_of_the_shipped_weights():
    text = (MINI_FOLDER / CARD).read_text(encoding="utf-8")
    digests = {digest for part in read_components().values() for digest in part.files.values()}
    missing = [digest for digest in (mini_digest(), *digests) if digest not in text]
    assert not missing, f"{MINI_FOLDER / CARD} is of other weights: {CARD_COMMAND}"
