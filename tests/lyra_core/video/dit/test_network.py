import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lyra_core.errors import FrameError, RecipeError
from lyra_core.video.dit.attention import cudnn_first
from lyra_core.video.dit.block import time_sinusoid
from lyra_core.video.dit.context import ChunkInputs
from lyra_core.video.dit.network import (
    BOOKKEEPING_KEYS,
    LYRA2_14B,
    TINY,
    build_dit,
    expand_patch_embedding,
)
from lyra_core.video.dit.packing import camera_tokens, correspondence_tokens
from lyra_core.video.dit.rope import packed_angles

REPOSITORY_GOLDEN = Path(__file__).resolve().parents[3] / "golden"  # lists of names never vary

SMALL = replace(
    TINY,
    layout="f1k1f2s2f1s1f4k2f1k1_g2",
    ray_channels=24,
    correspondence_channels=20,
    squeeze_dim=6,
    dim=24,
    image_dim=10,
)


def random_model(config, seed=0):
    model = build_dit(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, parameter.shape[-1] ** -0.5, generator=generator)
    return model


def random_inputs(config, batch=1, height=5, width=7, seed=1):
    g = torch.Generator().manual_seed(seed)
    layout = config.history_layout

    def draw(channels, slots):
        return torch.randn(batch, channels, slots, height, width, generator=g)

    inputs = ChunkInputs(
        history=draw(config.latent_channels, layout.num_history),
        condition=draw(config.condition_channels, layout.num_slots),
        rays=draw(config.ray_channels, layout.num_slots),
        correspondence=draw(config.correspondence_channels, layout.num_slots).tanh(),
        text=None if config.text_dim is None else torch.randn(batch, 9, config.text_dim, generator=g),
        image=None if config.image_dim is None else torch.randn(batch, 5, config.image_dim, generator=g),
    )
    return inputs, draw(config.latent_channels, layout.num_generated)


# ---------------------------------------------------------------- golden vectors


@torch.no_grad()
@pytest.mark.parametrize("store", ["squeezed", "full"])
def test_golden_a_output(golden_dit, tiny_dit, assert_close, store):
    inputs, latents, timestep, layout = golden_dit.case_a()
    context = tiny_dit.prepare_context(inputs, layout=layout, store=store)
    assert_close(tiny_dit(latents, timestep, context), golden_dit.io["A.out"])
    assert_close(tiny_dit(latents, torch.tensor([0]), context), golden_dit.io["A.out_t0"])
    assert_close(tiny_dit(latents, torch.tensor([625.0]), context), golden_dit.io["A.out_t625.0"])


@torch.no_grad()
def test_golden_a_reference_path(golden_dit, tiny_dit, assert_close):
    inputs, latents, timestep, layout = golden_dit.case_a()
    assert_close(tiny_dit.forward_reference(latents, timestep, inputs, layout), golden_dit.io["A.out"])


@torch.no_grad()
def test_golden_a_other_caption_shares_the_rest(golden_dit, tiny_dit, assert_close, seeded):
    inputs, latents, timestep, layout = golden_dit.case_a()
    context = tiny_dit.prepare_context(inputs, layout=layout)
    other = context.with_text(tiny_dit.prepare_text(seeded(900, inputs.text.shape)))
    assert other.position_features is context.position_features
    assert_close(tiny_dit(latents, timestep, other), golden_dit.io["A.out_ctx_seed900"])


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_golden_a_intermediates(golden_dit, assert_close, dtype):
    model, io = golden_dit.model(dtype), golden_dit.io
    seen = {}
    model.blocks[0].register_forward_pre_hook(lambda _, args: seen.update(x_tokens=args[0]))
    for index, block in enumerate(model.blocks):
        block.register_forward_hook(lambda _, __, output, index=index: seen.update({f"block{index}": output}))
    inputs, latents, timestep, layout = golden_dit.case_a()
    seen["out"] = model(latents, timestep, model.prepare_context(inputs, layout=layout))
    prefix, tolerance = ("A.bf16.", 1e-2) if dtype == torch.bfloat16 else ("A.", 1e-5)
    names = [name for name in seen if prefix + name in io]
    assert {"block0", "out"} <= set(names)
    for name in names:
        assert_close(seen[name], io[prefix + name], tolerance)


@torch.no_grad()
def test_golden_a_time(golden_dit, tiny_dit, assert_close):
    io, timestep = golden_dit.io, golden_dit.io["A.in.timestep"][0]
    e, e0 = tiny_dit.embed_time(timestep)
    assert_close(time_sinusoid(timestep, golden_dit.config.time_dim), io["A.time_sinusoid"])
    assert_close(e, io["A.time_emb"])
    assert_close(e0.flatten(1), io["A.time_proj"])


def test_golden_a_tokens(golden_dit, assert_close):
    io, config = golden_dit.io, golden_dit.config
    inputs, _, _, layout = golden_dit.case_a()
    rows, columns = io["A.gen_grid"][1:].tolist()
    history, generated = layout.num_tokens(rows, columns)
    assert [history, history + generated] == io["A.gen_range"].tolist()
    angles = packed_angles(layout, rows, columns, config.head_dim)
    assert_close(angles, io["A.freqs"].flatten(1))
    assert_close(camera_tokens(inputs.rays, layout, config.patch), io["A.camera_tokens"])
    tokens, validity = correspondence_tokens(inputs.correspondence, layout, config.patch)
    assert tokens.shape[1] == history + generated
    if "A.buffer_tokens" in io:
        column = validity.expand(tokens.shape[0], -1, -1)
        assert_close(torch.cat((tokens, column), dim=2), io["A.buffer_tokens"])


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_golden_b_official_layout(golden_dit, assert_close, dtype):
    io, model = golden_dit.io, golden_dit.model(dtype)
    inputs, latents, timestep, layout = golden_dit.case_b()
    seen = []
    model.blocks[0].register_forward_hook(lambda _, __, output: seen.append(output))
    out = model(latents, timestep, model.prepare_context(inputs, layout=layout))
    if dtype == torch.bfloat16:
        assert_close(out, io["B.bf16.out"], 1e-2)
        return
    assert_close(out, io["B.out"])
    assert_close(seen[0], io["B.block0"])
    rows, columns = io["B.gen_grid"][1:].tolist()
    history, generated = layout.num_tokens(rows, columns)
    assert [history, history + generated] == io["B.gen_range"].tolist()
    angles = packed_angles(layout, rows, columns, golden_dit.config.head_dim)
    assert_close(angles, io["B.freqs"].flatten(1))


def test_golden_clean_embeddings_expand_the_base(golden_dir, golden_dit):
    golden = load_file(golden_dir / "dit_tiny_cleaninit.safetensors")
    model = golden_dit.model()
    model.patch_embedding.weight.copy_(golden.pop("base.weight"))
    expand_patch_embedding(model)
    assert golden
    for key, wanted in golden.items():
        embedding = model.clean_patch_embeddings[int(key.removeprefix("clean").split(".")[0])]
        assert torch.equal(embedding.weight, wanted)
        assert torch.equal(embedding.bias, model.patch_embedding.bias)


def test_golden_full_size_names_and_shapes():
    listed = json.loads((REPOSITORY_GOLDEN / "state_dict_14b.json").read_text())
    wanted = {}
    for key, shape in listed["keys"].items():
        layers = range(LYRA2_14B.num_layers) if "{0..39}" in key else [""]
        wanted.update({key.replace("{0..39}", str(layer)): tuple(shape) for layer in layers})
    assert len(wanted) == listed["n_tensors"] == 1439
    found = {key: tuple(value.shape) for key, value in build_dit(LYRA2_14B, device="meta").state_dict().items()}
    assert {key: shape for key, shape in wanted.items() if key not in BOOKKEEPING_KEYS} == found
    assert set(wanted) >= BOOKKEEPING_KEYS
    count = sum(torch.Size(shape).numel() for shape in found.values())
    assert count == listed["total_params"] == 17_029_871_424


# ---------------------------------------------------------------- own properties


@torch.no_grad()
@pytest.mark.parametrize("store", ["squeezed", "full"])
@pytest.mark.parametrize(
    "config",
    [SMALL, replace(SMALL, image_dim=None), replace(SMALL, image_dim=None, text_dim=None)],
    ids=["text-image", "text", "bare"],
)
def test_prepared_forward_equals_the_reference(config, store, assert_close):
    model = random_model(config)
    inputs, latents = random_inputs(config, batch=2)
    timestep = torch.tensor([3.0, 870.5])
    out = model(latents, timestep, model.prepare_context(inputs, store=store))
    assert out.shape == latents.shape
    assert_close(out, model.forward_reference(latents, timestep, inputs), 1e-6)


@pytest.mark.parametrize(
    "config",
    [SMALL, replace(SMALL, image_dim=None), replace(SMALL, image_dim=None, text_dim=None)],
    ids=["text-image", "text", "bare"],
)
def test_the_training_path_equals_the_reference_with_and_without_checkpoints(config, assert_close):
    model = random_model(config)
    inputs, latents = random_inputs(config, batch=2)
    timestep = torch.tensor([3.0, 870.5])
    wanted = model.forward_reference(latents, timestep, inputs)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(wanted.square().mean(), parameters)
    for model.gradient_checkpointing in (False, True):
        out = model.forward_training(latents, timestep, inputs)
        assert_close(out.detach(), wanted.detach(), 1e-6)
        for found, grad in zip(torch.autograd.grad(out.square().mean(), parameters), gradients, strict=True):
            assert_close(found, grad, 1e-4)


@torch.no_grad()
def test_token_pieces_do_not_change_the_features(monkeypatch, assert_close):
    model = random_model(SMALL)
    inputs, latents = random_inputs(SMALL)
    whole = model(latents, torch.tensor([400]), model.prepare_context(inputs))
    monkeypatch.setattr("lyra_core.video.dit.network.TOKENS_AT_ONCE", 7)
    assert_close(model(latents, torch.tensor([400]), model.prepare_context(inputs)), whole, 1e-6)


@torch.no_grad()
def test_items_of_a_batch_are_independent(assert_close):
    model = random_model(SMALL)
    inputs, latents = random_inputs(SMALL, batch=2)
    timestep = torch.tensor([100, 900])
    both = model(latents, timestep, model.prepare_context(inputs))
    second = ChunkInputs(**{name: getattr(inputs, name)[1:] for name in ChunkInputs.__dataclass_fields__})
    alone = model(latents[1:], timestep[1:], model.prepare_context(second))
    assert_close(both[1:], alone, 1e-5)


@torch.no_grad()
def test_every_condition_changes_the_output():
    model = random_model(SMALL)
    inputs, latents = random_inputs(SMALL)
    before = model(latents, torch.tensor([400]), model.prepare_context(inputs))
    for name in ChunkInputs.__dataclass_fields__:
        other = replace(inputs, **{name: -getattr(inputs, name)})
        after = model(latents, torch.tensor([400]), model.prepare_context(other))
        assert not torch.allclose(before, after, rtol=1e-3), name


@torch.no_grad()
def test_correspondence_of_temporal_history_is_ignored():
    model = random_model(SMALL)
    inputs, latents = random_inputs(SMALL)
    other = inputs.correspondence.clone()
    other[:, :, list(SMALL.history_layout.temporal_slots)] = 7.0
    timestep = torch.tensor([400])
    before = model(latents, timestep, model.prepare_context(inputs))
    after = model(latents, timestep, model.prepare_context(replace(inputs, correspondence=other)))
    assert torch.equal(before, after)


def test_gradients_reach_every_parameter_and_checkpointing_keeps_them(assert_close):
    gradients = []
    for checkpointing in (False, True):
        model = random_model(SMALL)
        model.gradient_checkpointing = checkpointing
        inputs, latents = random_inputs(SMALL, batch=2)
        timestep = torch.tensor([100.0, 900.0])
        model(latents, timestep, model.prepare_context(inputs)).square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        assert gradient.abs().max() > 0, name
        assert_close(gradients[1][name], gradient, 1e-5)


def test_initialised_network_predicts_zero_and_can_learn():
    model = build_dit(SMALL, generator=torch.Generator().manual_seed(3))
    twin = build_dit(SMALL, generator=torch.Generator().manual_seed(3))
    pairs = zip(model.parameters(), twin.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    inputs, latents = random_inputs(SMALL)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        predicted = model(latents, torch.tensor([500.0]), model.prepare_context(inputs))
        loss = (predicted - latents).square().mean()
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[0] == pytest.approx(float(latents.square().mean()))
    assert losses[-1] < 0.7 * losses[0]


@torch.no_grad()
def test_attention_backends_can_be_ordered():
    model = random_model(SMALL)
    inputs, latents = random_inputs(SMALL)
    context = model.prepare_context(inputs)
    plain = model(latents, torch.tensor([400]), context)
    with cudnn_first():
        assert torch.allclose(model(latents, torch.tensor([400]), context), plain, atol=1e-5)


def test_wrong_inputs_are_named():
    model = random_model(SMALL)
    inputs, _ = random_inputs(SMALL)
    with pytest.raises(FrameError, match="history with 9 slots, found 8"):
        model.prepare_context(replace(inputs, history=inputs.history[:, :, 1:]))
    with pytest.raises(FrameError, match="text tokens: the network wants width 32, found none"):
        model.prepare_context(replace(inputs, text=None))
    layout = replace(SMALL, layout="f1k1f2s4f1s1f4k2f1k1_g2").history_layout
    with pytest.raises(RecipeError, match="packs its history"):
        model.prepare_context(inputs, layout=layout)


@pytest.mark.parametrize(
    "change",
    [{"num_heads": 5}, {"time_dim": 7}, {"text_dim": None}, {"layout": "f1x1_g2"}, {"dim": 8}],
)
def test_impossible_widths_are_refused(change):
    with pytest.raises(RecipeError):
        replace(SMALL, **change)
