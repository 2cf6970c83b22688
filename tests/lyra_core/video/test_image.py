import pytest
import torch
from safetensors.torch import load_file

from lyra_core.errors import RecipeError
from lyra_core.video.image import (
    CLIP_VIT_H14,
    ImageConfig,
    build_image_encoder,
    encode_images,
    is_unused_key,
    preprocess_images,
)


@pytest.fixture(scope="module")
def golden(golden_dir):
    return load_file(golden_dir / "encoders_tiny.safetensors")


@pytest.fixture(scope="module")
def config(golden):
    patches = golden["clip.sd.patch_embedding.weight"]
    layers = {key.split(".")[3] for key in golden if key.startswith("clip.sd.transformer.")}
    return ImageConfig(
        image_size_px=golden["clip.preprocessed"].shape[-1],
        patch_px=patches.shape[-1],
        dim=patches.shape[0],
        mlp_ratio=golden["clip.sd.transformer.0.mlp.0.weight"].shape[0] // patches.shape[0],
        num_heads=2,  # not in any shape; given by the vectors' description
        num_layers=len(layers),
    )


def test_golden_preprocessing(golden, config, assert_close):
    found = preprocess_images(golden["clip.image"], config.image_size_px)
    assert_close(found, golden["clip.preprocessed"])


def test_golden_tokens(golden, config, assert_close):
    encoder = build_image_encoder(config)
    weights = {
        key.removeprefix("clip.sd."): value.float() for key, value in golden.items() if key.startswith("clip.sd.")
    }
    used = {key: v for key, v in weights.items() if not is_unused_key(f"visual.{key}", config)}
    encoder.load_state_dict(used)
    assert_close(encode_images(encoder, golden["clip.image"]), golden["clip.out_31"])
    low = build_image_encoder(config, dtype=torch.bfloat16)
    low.load_state_dict(used)
    assert_close(encode_images(low, golden["clip.image"]), golden["clip.out_31"], 2e-2)


def test_full_size_names():
    state = build_image_encoder(CLIP_VIT_H14, device="meta").state_dict()
    assert state["patch_embedding.weight"].shape == (1280, 3, 14, 14)
    assert state["pos_embedding"].shape == (1, 257, 1280)
    assert state["transformer.30.mlp.2.weight"].shape == (1280, 5120)
    assert not any(key.startswith("transformer.31.") for key in state)


def test_unused_parts_of_the_released_file():
    unused = ["log_scale", "textual.model.x", "visual.head", "visual.post_norm.weight"]
    assert all(is_unused_key(key, CLIP_VIT_H14) for key in unused)
    assert is_unused_key("visual.transformer.31.norm1.weight", CLIP_VIT_H14)
    assert not is_unused_key("visual.transformer.3.norm1.weight", CLIP_VIT_H14)
    assert not is_unused_key("something.else", CLIP_VIT_H14)


def test_impossible_widths_are_refused():
    with pytest.raises(RecipeError):
        ImageConfig(image_size_px=30, patch_px=14, dim=8, mlp_ratio=4, num_heads=2, num_layers=3)
