"""Training starts as Wan 2.1: shared layers equal, packed embeddings spread, additions without
effect."""

import pytest
import torch
from safetensors.torch import load_file

from lyra_core.errors import StateDictError
from lyra_core.video.dit.network import TINY, DiT, build_dit, expand_patch_embedding
from lyra_core.weights.wan_init import WanStart, spread_patch_embedding

POOLINGS = [segment.pooling for segment in TINY.history_layout.segments]


@pytest.fixture
def shapes():
    return {name: tuple(tensor.shape) for name, tensor in build_dit(TINY, device="meta").state_dict().items()}


@pytest.fixture
def wan(shapes):
    """What the published file holds: the layers both share, and the patch embedding as a 3D
    convolution."""
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(shape, generator=generator).bfloat16()
        for name, shape in shapes.items()
        if not any(part in name for part in ("clean_patch", "cam_encoder", "buffer_encoder"))
    }
    state["patch_embedding.weight"] = state["patch_embedding.weight"].unflatten(1, (-1, 1, 2, 2))
    return state


def test_spread_equals_the_reference_implementation(golden_dir):
    golden = load_file(golden_dir / "dit_tiny_cleaninit.safetensors")
    stored = [name for name in golden if name.startswith("clean")]
    assert len(stored) >= 5  # the widest one is left out of the golden file for its size
    for name in stored:
        pooling = POOLINGS[int(name.removeprefix("clean").removesuffix(".weight"))]
        found = spread_patch_embedding(golden["base.weight"].float(), pooling)
        assert torch.allclose(found, golden[name].float(), rtol=1e-5, atol=1e-7), name


def test_a_constant_patch_gives_the_same_token():
    base = torch.randn(5, 3 * 4, dtype=torch.float64)
    block = torch.randn(3, 1, 2, 2, dtype=torch.float64).mean((1, 2, 3), keepdim=True)
    wanted = base @ block.expand(3, 1, 2, 2).flatten()
    for pooling in POOLINGS:
        t, h, w = pooling
        found = spread_patch_embedding(base, pooling) @ block.expand(3, t, 2 * h, 2 * w).flatten()
        assert torch.allclose(found, wanted)


def test_initial_state_fits_and_agrees_with_the_network(wan, shapes):
    state = WanStart(wan, shapes, POOLINGS, 1)
    model = build_dit(TINY)
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=True)
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}
    assert all(torch.equal(state[name], wan[name]) for name in wan if name != "patch_embedding.weight")
    # reference path: the network's own expansion
    reference = DiT(TINY)
    reference.load_state_dict(model.state_dict())
    expand_patch_embedding(reference)
    for name, tensor in reference.state_dict().items():
        if name.startswith("clean_patch"):
            assert torch.allclose(model.state_dict()[name], tensor, rtol=1e-2, atol=1e-5), name


def test_additions_have_no_effect_but_can_learn(wan, shapes):
    state = WanStart(wan, shapes, POOLINGS, 1)
    for block in range(TINY.num_layers):
        first, last = (state[f"blocks.{block}.buffer_encoder.{i}.weight"] for i in (0, 1))
        assert not state[f"blocks.{block}.cam_encoder.weight"].any()
        assert not last.any()
        assert first.any()


def test_the_generator_decides(wan, shapes):
    one, two, three = (WanStart(wan, shapes, POOLINGS, seed) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in shapes)
    assert any(not torch.equal(one[name], three[name]) for name in one)


def test_a_wrong_checkpoint_is_refused(wan, shapes):
    del wan["blocks.0.self_attn.q.weight"]
    with pytest.raises(StateDictError, match=r"Wan 2.1(?s:.*)1 missing"):
        WanStart(wan, shapes, POOLINGS, 0)
    wan["blocks.0.self_attn.q.weight"] = torch.full((32, 32), torch.nan)
    with pytest.raises(StateDictError, match=r"NaN(?s:.*)blocks\.0\.self_attn\.q\.weight"):
        WanStart(wan, shapes, POOLINGS, 0)["blocks.0.self_attn.q.weight"]
    with pytest.raises(StateDictError, match="packed embeddings"):
        WanStart(wan, shapes, POOLINGS[1:], 0)
    wide = {name: shape for name, shape in shapes.items() if name != "head.modulation"}
    with pytest.raises(StateDictError, match="1 unexpected"):
        WanStart(wan, wide, POOLINGS, 0)
