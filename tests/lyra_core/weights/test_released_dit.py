"""The whole way of the video transformer at tiny size: checkpoint as released, converted, loaded,
LoRA merged."""

import pytest
import torch

from lyra_core.errors import StateDictError
from lyra_core.video.dit.network import BOOKKEEPING_KEYS, TINY, DiT, build_dit
from lyra_core.weights.adapter import load_into, open_weights
from lyra_core.weights.convert import convert
from lyra_core.weights.lora import merge_loras, read_lora


@pytest.fixture
def dit():
    return build_dit(TINY, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def meta_dit():
    with torch.device("meta"):
        return DiT(TINY)


def shapes_of(module):
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.fixture
def checkpoint(tmp_path, dit, save_distributed):
    """Counters beside the parameters, under the prefix that save_distributed adds."""
    counters = {name: torch.tensor(3) for name in BOOKKEEPING_KEYS}
    return save_distributed({**dit.state_dict(), **counters}, tmp_path / "model" / "model").parent


def test_released_checkpoint_to_network(tmp_path, checkpoint, dit, meta_dit, require_same):
    manifest = convert(checkpoint, tmp_path / "set", "lyra2-dit", expected=shapes_of(meta_dit))
    assert {key.removeprefix("net.") for key in manifest.ignored} >= BOOKKEEPING_KEYS
    load_into(meta_dit, open_weights(tmp_path / "set"))
    require_same(meta_dit.state_dict(), dit.state_dict())
    load_into(dit, open_weights(checkpoint, "lyra2-dit"))  # without conversion, too


def test_a_checkpoint_of_another_size_is_refused(checkpoint, meta_dit):
    wide = dict(shapes_of(meta_dit), **{"head.head.weight": (64, 33)})
    with pytest.raises(StateDictError, match=r"head\.head\.weight should be \[64 33\], is \[64 32\]"):
        convert(checkpoint, checkpoint.parent / "set", "lyra2-dit", expected=wide)


TARGETS = [
    *(f"blocks.1.self_attn.{part}" for part in "qkvo"),
    *(f"blocks.1.cross_attn.{part}" for part in ("q", "k", "v", "o", "k_img", "v_img")),
    *(f"blocks.1.{part}" for part in ("ffn.0", "ffn.2", "cam_encoder")),
    *(f"blocks.1.buffer_encoder.{i}" for i in (0, 1)),
    *(f"{part}_embedding.{i}" for part in ("time", "text") for i in (0, 2)),
    *(f"clean_patch_embeddings.{i}" for i in range(6)),
    *("time_projection.1", "head.head", "patch_embedding", "img_emb.proj.1", "img_emb.proj.3"),
]


@pytest.mark.parametrize("musubi", [False, True])
def test_every_layer_that_published_lora_files_may_change_is_found(dit, musubi):
    shapes, tensors = shapes_of(dit), {}
    for layer in TARGETS:
        stem = f"lora_unet_{layer.replace('.', '_')}" if musubi else f"diffusion_model.{layer}"
        outputs, inputs = shapes[f"{layer}.weight"]
        tensors[f"{stem}.lora_down.weight"] = torch.ones(1, inputs)
        tensors[f"{stem}.lora_up.weight"] = torch.ones(outputs, 1)
    before = {name: tensor.clone() for name, tensor in dit.state_dict().items()}
    assert merge_loras(dit, [(read_lora(tensors, shapes), 1.0)]) == len(TARGETS)
    for name, tensor in dit.state_dict().items():
        changed = name.removesuffix(".weight") in TARGETS
        assert torch.equal(tensor, (before[name].float() + 1).bfloat16() if changed else before[name])
