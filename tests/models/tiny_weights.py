"""Writes a folder of tiny weights of random numbers that has the form of the released one, and converts it.

    python tests/models/tiny_weights.py FOLDER

The source files have the released names and formats (a distributed checkpoint, torch.save, safetensors); only widths
differ, and `lyra weights convert --config` says how. A chunk has 80 frames as released, so that plans and recipes
fit; tests of the model alone take SHORT chunks of 8.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path

import tokenizers
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from lyra_core.gaussians.depth_anything.config import (
    BackboneConfig,
    DepthAnythingConfig,
    HeadConfig,
    NestedConfig,
)
from lyra_core.gaussians.depth_anything.model import random_state
from lyra_core.video.dit.network import TINY, build_dit
from lyra_core.video.image import ImageConfig, build_image_encoder
from lyra_core.video.text import TextConfig, build_text_encoder
from lyra_core.video.vae.network import TINY_VAE, build_vae
from lyra_core.weights.convert import Labels, convert

WORDS = ["<pad>", "</s>", "<unk>", "a", "the", "room", "meadow", "path", "light", "stone"]
SHORT = "f1k1f4s2f1s1f4k4f2k2f1k1_g2"
DIT = replace(TINY, dim=24, ffn_dim=32, text_dim=16, image_dim=24, time_dim=16, squeeze_dim=3)
TEXT = TextConfig(vocabulary=len(WORDS), dim=16, attention_dim=16, ffn_dim=24, num_heads=2, num_layers=1)
IMAGE = ImageConfig(image_size_px=28, patch_px=14, dim=24, mlp_ratio=2, num_heads=2, num_layers=2)
VAE = replace(TINY_VAE, dim=4, num_res_blocks=1, multipliers=(1, 2, 2, 2))
DEPTH_HEAD = HeadConfig(features=8, out_channels=(4, 8, 8, 8))
ANY_VIEW = DepthAnythingConfig(
    backbone=BackboneConfig(dim=32, depth=6, num_heads=2, out_layers=(2, 3, 4, 5), alt_start=2, pos_grid=3),
    head=DEPTH_HEAD,
    camera_heads=4,
    gaussian_head=True,
)
METRIC = DepthAnythingConfig(
    backbone=BackboneConfig(dim=32, depth=4, num_heads=2, out_layers=(0, 1, 2, 3), alt_start=None, pos_grid=3),
    head=DEPTH_HEAD,
)
DEPTH = NestedConfig(any_view=ANY_VIEW, metric=METRIC)


def write_tiny_weights(folder: Path, layout: str = TINY.layout) -> Path:
    """The converted folder, ready for `weights=`; what it was converted from lies beside it."""
    raw, done = folder / "downloads", folder / "weights"
    raw.mkdir(parents=True)
    states = video_states()
    dcp.save({f"net.{k}": v for k, v in states["lyra2-dit"].items()}, checkpoint_id=str(raw / "dit"), no_dist=True)
    torch.save(states["lyra2-vae"], raw / "vae.pth")
    torch.save(states["lyra2-text"], raw / "text.pth")
    torch.save({f"visual.{k}": v for k, v in states["lyra2-image"].items()}, raw / "image.pth")
    embedding = torch.randn(1, 512, TEXT.dim, generator=torch.Generator().manual_seed(8))
    torch.save({"t5_text_embeddings": embedding.bfloat16()}, raw / "negative.pt")
    nested = plausible_depth(random_state(DEPTH, torch.Generator().manual_seed(1)))
    torch.save({"model": {f"model.{k}": v for k, v in nested.items()}}, raw / "recon.pt")
    save_file(lora(states["lyra2-dit"]), raw / "lora.safetensors")
    _convert(raw / "dit", done, "lyra2-dit", "lyra2-dit", asdict(replace(DIT, layout=layout)))
    _convert(raw / "vae.pth", done, "lyra2-vae", "wan-vae", asdict(VAE))
    _convert(raw / "text.pth", done, "lyra2-text", "umt5", asdict(TEXT))
    _convert(raw / "image.pth", done, "lyra2-image", "clip", asdict(IMAGE))
    _convert(raw / "negative.pt", done, "lyra2-negative-prompt", "negative-prompt", {})
    _convert(raw / "recon.pt", done, "lyra2-recon", "da3", asdict(DEPTH))
    _convert(raw / "lora.safetensors", done, "lora-dmd", "lora", {})
    write_apache_depth(done)
    write_tokenizer(done / "umt5-tokenizer")
    return done


def video_states() -> dict[str, dict[str, torch.Tensor]]:
    """Random weights of the video networks, lively enough that every input matters."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        modules = {
            "lyra2-dit": build_dit(DIT),
            "lyra2-vae": build_vae(VAE),
            "lyra2-text": build_text_encoder(TEXT),
            "lyra2-image": build_image_encoder(IMAGE),
        }
        for parameter in modules["lyra2-dit"].parameters():
            parameter.data.normal_(std=0.2)
    return {name: {k: v.contiguous() for k, v in module.state_dict().items()} for name, module in modules.items()}


def lora(dit: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    found = {}
    for layer in ("blocks.0.self_attn.q", "blocks.1.ffn.0"):
        rows, columns = dit[f"{layer}.weight"].shape
        found[f"diffusion_model.{layer}.lora_A.weight"] = torch.randn(2, columns, generator=generator)
        found[f"diffusion_model.{layer}.lora_B.weight"] = torch.randn(rows, 2, generator=generator) * 0.1
    return found


def plausible_depth(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Cameras that look ahead, and not everything sky."""
    for name, tensor in state.items():
        if name.endswith("fc_fov.0.bias"):
            tensor.fill_(1.0)
        elif name.endswith("fc_qvec.bias"):
            tensor.copy_(torch.tensor([0.0, 0.0, 0.0, 4.0]))
        elif name.endswith("sky_output_conv2.2.bias"):
            tensor.fill_(0.25)
    return state


def write_apache_depth(done: Path) -> None:
    any_view = replace(ANY_VIEW, gaussian_head=False)
    for name, config in (("da3-base", any_view), ("da3metric-large", METRIC)):
        state = plausible_depth(random_state(config, torch.Generator().manual_seed(2)))
        source = done.parent / "downloads" / f"{name}.safetensors"
        save_file({f"model.{k}": v.contiguous() for k, v in state.items()}, source)
        _convert(source, done, name, "da3", asdict(config))


def write_tokenizer(folder: Path) -> None:
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def _convert(source: Path, done: Path, name: str, kind: str, config: dict[str, object]) -> None:
    done.mkdir(exist_ok=True)
    convert(source, done / name, kind, labels=Labels(name=name, config=config))


if __name__ == "__main__":
    print(write_tiny_weights(Path(sys.argv[1])))
