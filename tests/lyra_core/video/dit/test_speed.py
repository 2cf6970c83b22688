"""Every speed profile beside the plain network: equal where nothing is given up, near where something is."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch

from lyra_core.errors import LyraWarning, RecipeError
from lyra_core.video.dit.context import ChunkInputs
from lyra_core.video.dit.narrow_attention import NarrowAttention
from lyra_core.video.dit.network import TINY, build_dit, step
from lyra_core.video.dit.scaled_linear import ScaledLinear, multiply_reference, narrow_rows
from lyra_core.video.dit.speed import PROFILES, CompiledStep, SpeedProfile, apply_speed, real_speed

CONFIG = replace(
    TINY, dim=64, ffn_dim=128, num_layers=4, text_dim=32, image_dim=32, layout="f1k1f4s2f1s1f4k4f2k2f1k1_g2"
)
ROWS, COLUMNS = 8, 12


@pytest.fixture(scope="module")
def network():
    draw = torch.Generator().manual_seed(0)
    model = build_dit(CONFIG, generator=draw).requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:  # the head and the gates start at zero, which would hide every error
            parameter.normal_(0.0, 0.08, generator=draw)
    return model


@pytest.fixture(scope="module")
def chunk(network):
    draw = torch.Generator().manual_seed(1)
    layout = CONFIG.history_layout

    def random(channels, slots):
        return torch.randn(1, channels, slots, ROWS, COLUMNS, generator=draw)

    inputs = ChunkInputs(
        history=random(CONFIG.latent_channels, layout.num_history),
        condition=random(CONFIG.condition_channels, layout.num_slots),
        rays=random(CONFIG.ray_channels, layout.num_slots),
        correspondence=random(CONFIG.correspondence_channels, layout.num_slots).tanh(),
        text=torch.randn(1, 7, 32, generator=draw),
        image=torch.randn(1, 5, 32, generator=draw),
    )
    return network.prepare_context(inputs), random(CONFIG.latent_channels, layout.num_generated)


def velocity(network, chunk):
    context, latents = chunk
    return network(latents, torch.tensor([700.0]), context)


def error(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


def test_exact_changes_no_bit_on_a_cpu(network, chunk):
    quick = copy.deepcopy(network)
    applied = apply_speed(quick, PROFILES["exact"])
    assert applied == SpeedProfile(is_compiled=False)
    assert real_speed(quick) == "plain"
    assert real_speed(network) is None, "no profile was asked for"
    assert torch.equal(velocity(quick, chunk), velocity(network, chunk))


def test_the_last_block_may_leave_out_what_nothing_reads(network, chunk):
    quick = copy.deepcopy(network)
    quick.drops_history = True
    widths = []
    quick.blocks[-1].ffn.register_forward_hook(lambda _, inputs, __: widths.append(inputs[0].shape[1]))
    assert error(velocity(quick, chunk), velocity(network, chunk)) < 1e-6
    assert widths == [2 * (ROWS // 2) * (COLUMNS // 2)]


@pytest.mark.parametrize("name", ["fast", "fastest"])
def test_eight_bits_stay_near_the_plain_network(network, chunk, name):
    narrow = copy.deepcopy(network)
    applied = apply_speed(narrow, PROFILES[name], is_emulated=True)
    assert applied.has_narrow_products
    assert applied.has_narrow_attention == (name == "fastest")
    assert real_speed(narrow) == f"{name}, not compiled"
    found = error(velocity(narrow, chunk), velocity(network, chunk))
    assert 1e-4 < found < 0.05, "0 would mean that nothing was narrowed"


def test_fastest_keeps_the_attention_of_first_and_last_block(network):
    narrow = copy.deepcopy(network)
    apply_speed(narrow, PROFILES["fastest"], is_emulated=True)
    assert [block.self_attn.narrow is not None for block in narrow.blocks] == [False, True, True, False]


@pytest.mark.parametrize("name", ["fast", "fastest"])
def test_a_machine_without_eight_bits_says_so_and_computes_plainly(network, chunk, name):
    plain = copy.deepcopy(network)
    with pytest.warns(LyraWarning, match="found cpu: left as they are"):
        applied = apply_speed(plain, PROFILES[name])
    assert not applied.has_narrow_products
    assert not applied.has_narrow_attention
    assert torch.equal(velocity(plain, chunk), velocity(network, chunk))


def test_scaled_linear_multiplies_what_rows_hold():
    draw = torch.Generator().manual_seed(2)
    layer = torch.nn.Linear(64, 32).requires_grad_(False)
    x = torch.randn(3, 5, 64, generator=draw)
    x[0, 0] *= 1e4  # a loud token costs the others nothing
    found, wanted = ScaledLinear(layer, is_emulated=True)(x), layer(x)
    assert found.shape == wanted.shape
    assert error(found[0, 0], wanted[0, 0]) < 0.05
    assert error(found[1:], wanted[1:]) < 0.05


def test_rows_come_back_within_half_a_step_of_the_format():
    x = torch.randn(6, 100, generator=torch.Generator().manual_seed(3))
    x[5] = 0
    values, scale = narrow_rows(x)
    assert values.dtype == torch.float8_e4m3fn
    # e4m3 has three bits behind the leading one: neighbours are 1/8 apart, and small numbers a fixed step
    assert ((values.float() * scale - x).abs() <= x.abs() / 16 + scale * 2**-10).all()


def test_reference_product_is_the_product_of_the_scaled_matrices():
    draw = torch.Generator().manual_seed(4)
    a, b = torch.randn(4, 32, generator=draw), torch.randn(16, 32, generator=draw)
    (av, a_scale), (bv, b_scale) = narrow_rows(a), narrow_rows(b)
    bias = torch.randn(16, generator=draw)
    found = multiply_reference(av, a_scale, bv, b_scale.T, bias, torch.float32)
    wanted = (av.double() * a_scale) @ (bv.double() * b_scale).T + bias
    assert torch.allclose(found.double(), wanted, rtol=1e-5)


def test_channels_that_no_matrix_unit_takes_are_refused():
    with pytest.raises(RecipeError, match="multiples of 16, found 60 to 32"):
        ScaledLinear(torch.nn.Linear(60, 32))


def test_narrow_attention_bears_keys_and_values_far_from_zero():
    draw = torch.Generator().manual_seed(5)
    query, key, value = torch.randn(3, 1, 40, 2, 16, generator=draw)
    key = key + 20 * torch.randn(1, 1, 2, 16, generator=draw)  # one direction common to all tokens, as networks have
    value = 0.1 * value + 5
    layer = NarrowAttention(torch.ones(32), torch.ones(32), is_emulated=True)
    wanted = torch.nn.functional.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (query, key, value)))
    deviation = wanted.transpose(1, 2) - value.mean(1, keepdim=True)
    found = layer(query, key, value) - value.mean(1, keepdim=True)
    assert error(found, deviation) < 0.08


@pytest.mark.parametrize("error", [torch._dynamo.exc.Unsupported, torch._dynamo.exc.FailOnRecompileLimitHit])
def test_a_step_that_does_not_compile_says_so_and_computes(network, chunk, monkeypatch, error):
    def refuse(*arguments):
        raise error("no such compiler")

    monkeypatch.setattr(torch, "compile", lambda function, **_: refuse)
    plain = copy.deepcopy(network)
    plain.step = CompiledStep()
    with pytest.warns(LyraWarning, match="no such compiler"):
        found = velocity(plain, chunk)
    assert torch.equal(found, velocity(network, chunk))
    assert plain.step._step is step
    plain.speed = "fast"
    assert real_speed(plain) == "fast, not compiled"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        velocity(plain, chunk)  # says it once
