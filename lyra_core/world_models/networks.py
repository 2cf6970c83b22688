"""Builds each network from the folder of a converted set: sizes from its manifest, tensors from its files.

A set of the registry has the sizes of its preset; a set of one's own says in its manifest how it differs
(`lyra weights convert --config`). Weights are bfloat16 on CUDA and float32 on the CPU; the image tower is float16 on
CUDA, as it was released. What the video network computes in float32 it computes so in either case.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lyra_core.configure import configured
from lyra_core.errors import RecipeError, WeightsError
from lyra_core.gaussians.depth_anything.config import (
    NESTED_BASE_LARGE,
    NESTED_GIANT_LARGE,
    DepthAnythingConfig,
    NestedConfig,
)
from lyra_core.gaussians.depth_anything.model import NestedDepthAnything3, build_model, store_half
from lyra_core.video.dit.network import DiT, build_dit
from lyra_core.video.dit.scaled_linear import has_scaled_products
from lyra_core.video.dit.speed import narrow_layers
from lyra_core.video.image import CLIP_VIT_H14, ImageEncoder, build_image_encoder, encode_images
from lyra_core.video.text import UMT5_XXL, TextEncoder, Tokenizer, build_text_encoder, encode_captions, load_tokenizer
from lyra_core.video.vae.network import VAE, WAN21_VAE, build_vae
from lyra_core.weights.adapter import DtypePolicy, Weights, load_into, open_weights
from lyra_core.weights.bundle import narrowed_from
from lyra_core.weights.lora import merge_loras, read_lora
from lyra_core.weights.manifest import read_manifest
from lyra_core.weights.narrow import dit_config


def half_on_cuda(device: torch.device | str) -> torch.dtype:
    """The dtype of large networks: bfloat16 on CUDA, float32 elsewhere."""
    return torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32


def load_dit(
    home: Path, device: torch.device | str, loras: Sequence[tuple[Path, float]] = (), *, blocks_on_host: bool = False
) -> DiT:
    """The video network, LoRA files merged into its weights.

    Args:
        home: a converted set of kind lyra2-dit, or the 8-bit one made from it (lyra_core.weights.narrow).
        device: where it goes; 8-bit layers are emulated, slowly, where it cannot multiply them.
        loras: converted sets of kind lora with their strengths; added in float32, rounded once.
        blocks_on_host: leave the blocks in host memory, from where lyra_core.video.dit.speed places them.

    Raises:
        StateDictError: keys or shapes that do not fit, or a LoRA that matches nothing.
    """
    dtype = half_on_cuda(device)
    model = build_dit(dit_config(_config(home)), device="meta", dtype=dtype)
    if narrowed_from(home) is not None:
        narrow_layers(model, is_emulated=not has_scaled_products(device))
    load_into(
        model,
        open_weights(home),
        dtype=DtypePolicy(dtype=dtype, float32=("*.weight_scale",)),
        device="cpu" if blocks_on_host else device,
        origin=str(home),
    )
    model.eval().requires_grad_(False)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    merge_loras(model, [(read_lora(open_weights(path, "lora"), shapes, path.name), w) for path, w in loras])
    for name, child in model.named_children():
        if blocks_on_host and name != "blocks":
            child.to(device)
    return model


def load_vae(home: Path, device: torch.device | str) -> VAE:
    """The autoencoder; StateDictError where keys or shapes do not fit."""
    model = build_vae(configured(WAN21_VAE, _config(home), "config."), device="meta")
    _fill(model, home, half_on_cuda(device), device)
    return model


@dataclass(slots=True)
class CaptionEncoder:
    """Captions to embeddings; each caption is encoded once."""

    network: TextEncoder
    tokenizer: Tokenizer
    home: AbstractContextManager[None] = field(default_factory=nullcontext)  # brings weights that wait on the host
    _known: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, captions: Sequence[str]) -> Float[Tensor, "n s d"]:
        """Embeddings, zero at padding. [n 512 4096]"""
        new = [caption for caption in dict.fromkeys(captions) if caption not in self._known]
        if new:
            with self.home:
                for caption in new:
                    self._known[caption] = encode_captions(self.network, self.tokenizer, [caption])[0]
        return torch.stack([self._known[caption] for caption in captions])

    def forget(self) -> None:
        """Drop the embeddings kept so far: 4 MB each at full size."""
        self._known.clear()


def load_caption_encoder(home: Path, tokenizer: Path, device: torch.device | str) -> CaptionEncoder:
    """The text encoder and its tokenizer.

    Raises:
        StateDictError: keys or shapes that do not fit.
        WeightsError: no tokenizer.
    """
    model = build_text_encoder(configured(UMT5_XXL, _config(home), "config."), device="meta")
    _fill(model, home, half_on_cuda(device), device)
    return CaptionEncoder(model, load_tokenizer(tokenizer))


@dataclass(frozen=True, slots=True)
class FrameEncoder:
    """The last frame of a video to the tokens the video network reads."""

    network: ImageEncoder
    home: AbstractContextManager[None] = field(default_factory=nullcontext)  # as of CaptionEncoder

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n d"]:
        """Tokens of images in [-1, 1]."""
        with self.home:
            return encode_images(self.network, images.to(self.network.cls_embedding.device))


def load_frame_encoder(home: Path, device: torch.device | str) -> FrameEncoder:
    """The image tower; StateDictError where keys or shapes do not fit."""
    model = build_image_encoder(configured(CLIP_VIT_H14, _config(home), "config."), device="meta")
    is_cuda = torch.device(device).type == "cuda"
    _fill(model, home, torch.float16 if is_cuda else torch.float32, device)
    return FrameEncoder(model)


def load_negative_prompt(home: Path, text_dim: int | None) -> Float[Tensor, "1 s d"]:
    """The released embedding of the negative prompt.

    Raises:
        WeightsError: not one embedding of the network's text width.
    """
    tensors = list(open_weights(home).values())
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if len(tensors) != 1 or tensors[0].ndim not in (2, 3) or tensors[0].shape[-1] != text_dim:
        raise WeightsError(f"{home} should hold one embedding [1 s {text_dim}] of the negative prompt, found {shapes}")
    return tensors[0].reshape(1, *tensors[0].shape[-2:])


def load_nested_depth(home: Path, device: torch.device | str) -> NestedDepthAnything3:
    """Depth Anything 3, the any-view network with its Gaussian head nested with the metric one.

    float32; on CUDA what its backbone multiplies in bfloat16 anyhow is kept so.
    """
    config = configured(NESTED_GIANT_LARGE, _config(home), "config.")
    return _depth(config, dict(open_weights(home)), device)


def load_apache_depth(depth: Path, metric: Path, device: torch.device | str) -> NestedDepthAnything3:
    """Depth Anything 3 base nested with the metric network from two sets, both Apache-2.0, float32."""
    config = NestedConfig(
        any_view=_one_depth(NESTED_BASE_LARGE.any_view, depth),
        metric=_one_depth(NESTED_BASE_LARGE.metric, metric),
    )
    state = {f"da3.{name}": tensor for name, tensor in open_weights(depth).items()}
    state |= {f"da3_metric.{name}": tensor for name, tensor in open_weights(metric).items()}
    return _depth(config, state, device)


def parse_lora(lora: str, default_strength: float = 0.4) -> tuple[str, float]:
    """`set` or `set:strength`, as recipes write it.

    Raises:
        RecipeError: a strength that is no number.
    """
    name, _, strength = lora.partition(":")
    try:
        return name, float(strength) if strength else default_strength
    except ValueError as error:
        raise RecipeError(f"a LoRA is written set:strength, as lora-dmd:1.0, found {lora!r}") from error


def _one_depth(preset: DepthAnythingConfig, home: Path) -> DepthAnythingConfig:
    return configured(preset, _config(home), "config.")


def _depth(config: NestedConfig, state: dict[str, Tensor], device: torch.device | str) -> NestedDepthAnything3:
    model = build_model(config, state)
    if not isinstance(model, NestedDepthAnything3):
        raise WeightsError("the depth network should nest an any-view and a metric network, found one network")
    model = model.to(device, torch.float32).requires_grad_(False)
    if torch.device(device).type == "cuda":
        store_half(model)
    return model


def _config(home: Path) -> dict[str, object]:
    return dict(read_manifest(home).config)


def _fill(model: nn.Module, home: Path, dtype: torch.dtype, device: torch.device | str) -> None:
    weights: Weights = open_weights(home)
    load_into(model, weights, dtype=DtypePolicy(dtype=dtype), device=device, origin=str(home))
    model.eval().requires_grad_(False)
