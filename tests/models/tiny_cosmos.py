"""Writes a folder of tiny weights of random numbers in the form of Cosmos 3 as it is published, and converts it.

    python tests/models/tiny_cosmos.py FOLDER [NAME]

Widths are small, everything else (configuration files, tensor names, layout) is as in nvidia/Cosmos3-Nano. The depth
networks of the same tiny size lie beside it, so that the folder serves `--set weights=`.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import tokenizers
import torch
from diffusers import AutoencoderKLWan, Cosmos3OmniTransformer, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from transformers import PreTrainedTokenizerFast

from lyra_core.weights.convert import convert_set

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
LEVELS = (1.0, 0.9375, 0.8333, 0.625)


def write_published(folder: Path, *, has_actions: bool = True, is_distilled: bool = False) -> Path:
    """The folder as a publisher ships it."""
    tokenizer = make_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(21)
        transformer, vae = make_transformer(len(tokenizer), has_actions), make_vae()
    transformer.save_pretrained(folder / "transformer")
    vae.save_pretrained(folder / "vae")
    tokenizer.save_pretrained(folder / "text_tokenizer")
    if is_distilled:
        scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0, stochastic_sampling=True)
    else:
        scheduler = UniPCMultistepScheduler(
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            use_karras_sigmas=True,
            sigma_max=200.0,
            sigma_min=0.147,
            flow_shift=1.0,
        )
    scheduler.save_pretrained(folder / "scheduler")
    name = "Cosmos3DistilledModularPipeline" if is_distilled else "Cosmos3OmniModularPipeline"
    index: dict[str, object] = {"_class_name": name}
    if is_distilled:
        index |= {"is_distilled": True, "distilled_sigmas": list(LEVELS)}
    (folder / "modular_model_index.json").write_text(json.dumps(index))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "Cosmos3OmniPipeline"}))
    (folder / "LICENSE.md").write_text("OpenMDW-1.1\n")
    return folder


def make_transformer(vocabulary: int, has_actions: bool) -> Cosmos3OmniTransformer:
    """34,912 parameters, lively enough that every input matters."""
    transformer = Cosmos3OmniTransformer(
        head_dim=8,
        hidden_size=16,
        intermediate_size=24,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_hidden_layers=2,
        latent_channel=8,
        latent_patch_size=2,
        patch_latent_dim=32,
        rope_axes_dim=[2, 1, 1],
        vocab_size=vocabulary,
        action_gen=has_actions,
        action_dim=12,
        num_embodiment_domains=32,
    )
    return transformer.eval()


def make_vae() -> AutoencoderKLWan:
    """The residual form, 16 pixels and 4 frames a latent."""
    vae = AutoencoderKLWan(
        base_dim=4,
        decoder_base_dim=4,
        z_dim=8,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_temporal=4,
        scale_factor_spatial=16,
        latents_mean=[0.0] * 8,
        latents_std=[1.0] * 8,
    )
    return vae.eval()


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and the marks of a conversation."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def write_weights(folder: Path, name: str = "cosmos3-nano", **options: bool) -> Path:
    """A folder of converted sets, ready for `weights=`: the video model, and depth networks without restrictions."""
    done = folder / "weights"
    done.mkdir(parents=True, exist_ok=True)
    convert_set(write_published(folder / "downloads" / name, **options), done / name, name)
    if not (done / "da3-base").exists():
        (folder / "downloads").mkdir(exist_ok=True)
        _tiny_weights().write_apache_depth(done)
    return done


def _tiny_weights():
    spec = importlib.util.spec_from_file_location("tiny_weights", Path(__file__).with_name("tiny_weights.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    print(write_weights(Path(sys.argv[1]), *sys.argv[2:3]))
