"""The kernels and profiles on CUDA beside their plain forms; needs torch, triton, einops, jaxtyping and pytest only."""

import copy
from dataclasses import replace

import pytest
import torch

from lyra_core.video.dit.attention import RMSNorm, split_heads
from lyra_core.video.dit.block import modulate
from lyra_core.video.dit.context import ChunkInputs
from lyra_core.video.dit.narrow_attention import NarrowAttention, has_narrow_attention
from lyra_core.video.dit.network import TINY, build_dit
from lyra_core.video.dit.rope import Rotation, rotate
from lyra_core.video.dit.scaled_linear import ScaledLinear, has_scaled_products, narrow_rows
from lyra_core.video.dit.speed import PROFILES, apply_speed
from lyra_core.video.vae.layers import CausalCache
from lyra_core.video.vae.network import WAN21_VAE, build_vae

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

CONFIG = replace(
    TINY,
    dim=256,
    ffn_dim=640,
    num_layers=3,
    num_heads=2,
    text_dim=32,
    image_dim=32,
    layout="f1k1f4s2f1s1f4k4f2k2f1k1_g2",
)


def error(found, wanted):
    found, wanted = found.float(), wanted.float()
    assert torch.isfinite(found).all()
    return ((found - wanted).norm() / wanted.norm()).item()


def draw(*shape, dtype=torch.bfloat16):
    return torch.randn(*shape, device="cuda", dtype=dtype)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@torch.no_grad()
@pytest.mark.parametrize(("heads", "dim"), [(40, 128), (3, 32)])
def test_turn_is_norm_and_rotation(heads, dim):
    import lyra_core.video.dit.block_kernels  # noqa: F401

    norm = RMSNorm(heads * dim, 1e-6).to("cuda", torch.bfloat16)
    norm.weight.uniform_(0.5, 1.5)
    x, rotation = draw(2, 301, heads * dim), Rotation.from_angles(draw(301, dim // 2, dtype=torch.float32))
    found = torch.ops.lyra.turn(x, norm.weight, rotation.cos, rotation.sin, heads, norm.eps)
    assert error(found, rotate(split_heads(norm(x), heads), rotation)) < 1e-3


def rows_error(values, scale, wanted):
    """Of rows in 8 bits to the plain form's, in units of what rounding to 8 bits costs."""
    plain, plain_scale = narrow_rows(wanted)
    assert values.dtype == torch.float8_e4m3fn
    assert error(scale, plain_scale) < 5e-3
    rounding = error(plain.float() * plain_scale, wanted)
    return error(values.float() * scale, wanted) / rounding


@torch.no_grad()
@pytest.mark.parametrize("width", [5120, 192])
def test_norm_rows_are_residual_norm_modulation_and_rows(width):
    import lyra_core.video.dit.block_kernels  # noqa: F401

    norm_rows = torch.ops.lyra.norm_rows
    bare = torch.nn.LayerNorm(width, 1e-6, elementwise_affine=False)
    affine = torch.nn.LayerNorm(width, 1e-6, device="cuda", dtype=torch.bfloat16)
    affine.weight.uniform_(0.5, 1.5)
    affine.bias.normal_()
    x, residual, steer = draw(3, 2, 101, width)
    shift, scale, gate = draw(3, 2, 1, width, dtype=torch.float32)
    kept, *rows = norm_rows(x, None, None, None, None, shift, scale, steer, 1e-6)
    wanted = modulate(bare(x), shift, scale)
    assert kept.numel() == 0
    assert rows_error(*rows[:2], wanted) < 1.1
    assert rows_error(*rows[2:], wanted + steer) < 1.1
    kept, *rows = norm_rows(x, residual, gate, affine.weight, affine.bias, None, None, None, 1e-6)
    assert error(kept, x + residual * gate.bfloat16()) < 3e-3
    assert rows_error(*rows[:2], affine(kept)) < 1.1
    kept, *rows = norm_rows(x, residual, None, None, None, shift, scale, None, 1e-6)
    assert torch.equal(kept, x + residual)
    assert rows_error(*rows[:2], modulate(bare(kept), shift, scale)) < 1.1


@torch.no_grad()
def test_narrow_is_the_rows_of_what_a_unit_and_a_mean_bring_back():
    import lyra_core.video.dit.block_kernels  # noqa: F401

    x, unit, mean = draw(2, 101, 5120), draw(2, 1, 5120, dtype=torch.float32), draw(2, 1, 5120, dtype=torch.float32)
    assert rows_error(*torch.ops.lyra.narrow(x, None, None), x) < 1.1
    eight = x.to(torch.float8_e4m3fn)
    assert rows_error(*torch.ops.lyra.narrow(eight, unit, mean), eight.float() * unit + mean) < 1.1


@torch.no_grad()
def test_gelu_rows_are_the_rows_of_gelu():
    import lyra_core.video.dit.block_kernels  # noqa: F401

    x = draw(2, 77, 13824) * 3
    assert rows_error(*torch.ops.lyra.gelu_rows(x), torch.nn.functional.gelu(x, approximate="tanh")) < 1.1


@torch.no_grad()
def test_linear_gelu_is_linear_and_gelu():
    import lyra_core.video.dit.block_kernels  # noqa: F401

    layer, x = torch.nn.Linear(256, 384, device="cuda", dtype=torch.bfloat16), draw(2, 100, 256)
    wanted = torch.nn.functional.gelu(layer(x).float(), approximate="tanh")
    assert error(torch.ops.lyra.linear_gelu(x, layer.weight, layer.bias), wanted) < 5e-3


@torch.no_grad()
@pytest.mark.skipif(not (torch.cuda.is_available() and has_scaled_products("cuda")), reason="no fp8 products")
@pytest.mark.parametrize("has_gelu", [False, True])
def test_scaled_products_are_those_of_the_plain_form(has_gelu):
    import lyra_core.video.dit.block_kernels  # noqa: F401

    layer = torch.nn.Linear(256, 384, device="cuda", dtype=torch.bfloat16)
    x = draw(2, 100, 256)
    found = ScaledLinear(layer, has_gelu=has_gelu)(x)
    assert error(found, ScaledLinear(layer, has_gelu=has_gelu, is_emulated=True)(x)) < 5e-3


@torch.no_grad()
@pytest.mark.skipif(
    not (torch.cuda.is_available() and has_narrow_attention("cuda")), reason="no fp8 attention on this machine"
)
def test_narrow_attention_is_near_its_plain_form_and_the_truth():
    query, key, value = draw(3, 1, 3001, 4, 128)
    key, value = key + 3 * draw(1, 1, 4, 128), value + draw(1, 1, 4, 128)
    narrow = NarrowAttention(torch.ones(512), torch.ones(512)).cuda()
    plain = NarrowAttention(torch.ones(512), torch.ones(512), is_emulated=True).cuda()
    mean = value.float().mean(1, keepdim=True)
    truth = torch.nn.functional.scaled_dot_product_attention(
        *(t.float().transpose(1, 2) for t in (query, key, value))
    ).transpose(1, 2)
    (found, unit, _), (emulated, _, _) = (layer.attend(query, key, value) for layer in (narrow, plain))
    # what differs from the mean of all values is small where attention is spread evenly, as it is here
    assert error(found.float() * unit, truth - mean) < 0.1
    assert error(found.float() * unit, emulated.float() * unit) < 0.08
    whole = narrow(query, key, value)
    assert error(whole, truth) < 5e-3


@torch.no_grad()
@pytest.mark.parametrize(("name", "bound"), [("exact", 0.02), ("fast", 0.06), ("fastest", 0.08)])
def test_profiles_stay_near_the_plain_network(name, bound):
    plain = build_dit(CONFIG, device="cuda", dtype=torch.bfloat16).requires_grad_(False)
    for key, parameter in plain.named_parameters():
        parameter.fill_(1.0) if "norm" in key and key.endswith("weight") else parameter.normal_(0.0, 0.05)
    quick = copy.deepcopy(plain)
    wanted_profile = PROFILES[name]
    if wanted_profile.has_narrow_attention and not has_narrow_attention("cuda"):
        pytest.skip("no fp8 attention on this machine")
    if wanted_profile.has_narrow_products and not has_scaled_products("cuda"):
        pytest.skip("no fp8 products on this machine")
    assert apply_speed(quick, wanted_profile) == wanted_profile
    layout = CONFIG.history_layout
    inputs = ChunkInputs(
        history=draw(1, CONFIG.latent_channels, layout.num_history, 12, 20),
        condition=draw(1, CONFIG.condition_channels, layout.num_slots, 12, 20),
        rays=draw(1, CONFIG.ray_channels, layout.num_slots, 12, 20),
        correspondence=draw(1, CONFIG.correspondence_channels, layout.num_slots, 12, 20).tanh(),
        text=draw(1, 9, 32),
        image=draw(1, 5, 32),
    )
    latents, timestep = draw(1, CONFIG.latent_channels, 2, 12, 20), torch.tensor([700], device="cuda")
    wanted = plain(latents, timestep, plain.prepare_context(inputs))
    assert error(quick(latents, timestep, quick.prepare_context(inputs)), wanted) < bound
    assert quick.step.is_compiled


@torch.no_grad()
@pytest.mark.parametrize("window", [1, 3])
def test_channels_last_autoencoder_gives_the_same_video(window):
    vae = build_vae(WAN21_VAE, device="cuda").requires_grad_(False)
    video, latents = draw(1, 3, 13, 32, 48, dtype=torch.float32).tanh(), draw(1, 16, 5, 4, 6, dtype=torch.float32)
    caches = [CausalCache() for _ in range(2)]
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        encoded, decoded = vae.encode(video), vae.decode(latents, caches[0])
        vae.put_channels_last()
        assert error(vae.encode(video, latents_per_window=window), encoded) < 1e-4
        assert error(vae.decode(latents, caches[1], latents_per_window=window), decoded) < 1e-4
    kept = [cache.entries(0, 1000) for cache in caches]
    assert all(error(b, a) < 1e-3 for a, b in zip(*kept, strict=True) if a.numel())


@torch.no_grad()
def test_a_still_picture_gives_the_same_latents_on_cuda():
    vae = build_vae(WAN21_VAE, device="cuda", dtype=torch.bfloat16).requires_grad_(False)
    vae.put_channels_last()
    image = draw(1, 3, 32, 48).tanh()
    plain, quick = CausalCache(), CausalCache()
    wanted = vae.encode(image[:, :, None].expand(-1, -1, 97, -1, -1), plain)
    assert torch.equal(vae.encode_still(image, 25, quick), wanted)
    plain, quick = CausalCache(), CausalCache()
    vae.decode(wanted, plain)
    vae.remember(wanted, quick)
    assert all(torch.equal(a, b) for a, b in zip(plain.entries(0, 1000), quick.entries(0, 1000), strict=True))
