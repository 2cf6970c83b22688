"""LoRA files of every key style change a model alike, and exactly as the formula says."""

import pytest
import torch

from lyra_core.errors import StateDictError
from lyra_core.weights.lora import merge_loras, read_lora

RANK = 2
LAYERS = {"blocks.0.q": (6, 6), "blocks.1.q": (6, 6), "blocks.1.ffn.0": (10, 6)}


@pytest.fixture
def factors():
    generator = torch.Generator().manual_seed(1)
    return {
        layer: (
            torch.randn(RANK, inputs, generator=generator),
            torch.randn(outputs, RANK, generator=generator),
        )
        for layer, (outputs, inputs) in LAYERS.items()
    }


@pytest.fixture
def shapes(toy):
    return {name: tuple(parameter.shape) for name, parameter in toy.named_parameters()}


STYLES = {
    "peft": ("{}", "lora_A.weight", "lora_B.weight"),
    "peft adapter": ("base_model.model.{}", "lora_A.default.weight", "lora_B.default.weight"),
    "diffusion_model A/B": ("diffusion_model.{}", "lora_A.weight", "lora_B.weight"),
    "diffusion_model down/up": ("diffusion_model.{}", "lora_down.weight", "lora_up.weight"),
    "net A/B": ("net.{}", "lora_A.weight", "lora_B.weight"),
    "net down/up": ("net.{}", "lora_down.weight", "lora_up.weight"),
    "plain down/up": ("{}", "lora_down.weight", "lora_up.weight"),
    "musubi": ("lora_unet_{}", "lora_down.weight", "lora_up.weight"),
}


def written(factors, style, alpha=None):
    pattern, down_name, up_name = STYLES[style]
    tensors = {}
    for layer, (down, up) in factors.items():
        stem = pattern.format(layer.replace(".", "_") if style == "musubi" else layer)
        tensors[f"{stem}.{down_name}"], tensors[f"{stem}.{up_name}"] = down, up
        if alpha is not None:
            tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    return tensors


@pytest.mark.parametrize("alpha", [None, 1.0, 8.0])
@pytest.mark.parametrize("style", STYLES)
def test_every_key_style_merges_alike(toy, shapes, factors, style, alpha):
    before = {name: parameter.detach().clone() for name, parameter in toy.named_parameters()}
    lora = read_lora(written(factors, style, alpha), shapes)
    assert merge_loras(toy, [(lora, 0.4)]) == len(LAYERS)
    scale = 1.0 if alpha is None else alpha / RANK
    for name, parameter in toy.named_parameters():
        layer = name.removesuffix(".weight")
        wanted = before[name]
        if layer in factors:
            down, up = factors[layer]
            wanted = (wanted.float() + 0.4 * scale * (up @ down)).to(wanted.dtype)
            assert not torch.equal(parameter, before[name])
        assert torch.equal(parameter, wanted), name


def test_merged_equals_wrapped(toy, shapes, factors):
    """Reference path: the adapter beside its layer, y = Wx + s B(Ax), in float64."""
    toy.double()
    lora = read_lora(written(factors, "peft", 4.0), shapes)
    layer, (down, up) = toy.blocks[1]["ffn"][0], factors["blocks.1.ffn.0"]
    x = torch.randn(5, 6, dtype=torch.float64)
    wrapped = layer(x) + 0.7 * 4.0 / RANK * (x @ down.double().T @ up.double().T)
    merge_loras(toy, [(lora, 0.7)])
    assert torch.allclose(layer(x), wrapped, atol=1e-5)  # merging is in float32


def test_several_files_are_rounded_once(toy, shapes, factors):
    one = read_lora(written(factors, "peft"), shapes, "one")
    two = read_lora(written({"blocks.0.q": factors["blocks.0.q"]}, "musubi"), shapes, "two")
    weight = toy.blocks[0]["q"].weight.detach().clone()
    merge_loras(toy, [(one, 0.4), (two, 1.0)])
    down, up = factors["blocks.0.q"]
    assert torch.equal(
        toy.blocks[0]["q"].weight,
        (weight.float() + 0.4 * (up @ down) + 1.0 * (up @ down)).bfloat16(),
    )


def test_convolutions_are_merged_flattened(toy, shapes):
    down, up = torch.randn(RANK, 2, 1, 2, 2), torch.randn(6, RANK, 1, 1, 1)
    weight = toy.patch.weight.detach().clone()
    lora = read_lora({"patch.lora_down.weight": down, "patch.lora_up.weight": up}, shapes)
    merge_loras(toy, [(lora, 1.0)])
    change = torch.einsum("or,rcthw->octhw", up[..., 0, 0, 0], down)
    assert torch.allclose(toy.patch.weight.float(), weight.float() + change, atol=2e-2)
    assert toy.patch.weight.shape == weight.shape


def test_bias_changes(toy, shapes, factors):
    """Changes that are nearly constant in magnitude, and whole-weight changes, have no effect by
    convention."""
    change = torch.linspace(-1, 1, 6)
    bias = toy.blocks[0]["q"].bias.detach().clone()
    tensors = written({"blocks.0.q": factors["blocks.0.q"]}, "net A/B")
    tensors["net.blocks.0.q.diff_b"] = change
    tensors["net.blocks.1.q.diff_b"] = torch.full((6,), 0.5)
    tensors["net.norm.diff"] = torch.ones(6)
    lora = read_lora(tensors, shapes)
    assert set(lora.ignored) == {"net.blocks.1.q.diff_b", "net.norm.diff"}
    merge_loras(toy, [(lora, 0.5)])
    assert torch.equal(toy.blocks[0]["q"].bias, (bias.float() + 0.5 * change).bfloat16())


def test_bias_changes_of_norms(toy, shapes):
    bias = toy.norm.bias.detach().clone()
    lora = read_lora({"lora_unet_norm.diff_b": torch.linspace(0, 1, 6)}, shapes)
    merge_loras(toy, [(lora, 2.0)])
    assert torch.equal(toy.norm.bias, bias + 2.0 * torch.linspace(0, 1, 6))
    refused(
        {"norm.lora_A.weight": torch.ones(2, 6), "norm.lora_B.weight": torch.ones(6, 2)},
        shapes,
        "norm",
    )


def test_a_strength_of_zero_changes_nothing(toy, shapes, factors, require_same):
    before = {name: tensor.clone() for name, tensor in toy.state_dict().items()}
    merge_loras(toy, [(read_lora(written(factors, "peft"), shapes), 0.0)])
    require_same(toy.state_dict(), before)


def refused(tensors, shapes, *messages):
    with pytest.raises(StateDictError) as caught:
        read_lora(tensors, shapes, "bad.safetensors")
    for message in ("bad.safetensors", *messages):
        assert message in str(caught.value)


def test_a_lora_that_matches_nothing_is_refused(shapes, factors):
    foreign = {f"transformer.{layer}": pair for layer, pair in factors.items()}
    refused(
        written(foreign, "peft"),
        shapes,
        "3 layers in the file, 0 of them in the model",
        "transformer.blocks.{0..1}.q",
    )


def test_a_lora_that_matches_partly_is_refused(shapes, factors):
    factors["blocks.7.q"] = factors["blocks.0.q"]
    refused(
        written(factors, "musubi"),
        shapes,
        "4 layers in the file, 3 of them",
        "lora_unet_blocks_7_q.lora_up.weight",
    )


def test_a_file_without_lora_keys_is_refused(shapes):
    refused({"blocks.0.q.weight": torch.ones(6, 6)}, shapes, "no LoRA keys", "blocks.0.q.weight")
    refused({}, shapes, "0 layers in the file")


def test_half_a_pair_is_refused(shapes, factors):
    tensors = written(factors, "peft")
    del tensors["blocks.0.q.lora_B.weight"]
    refused(tensors, shapes, "without their other half", "blocks.0.q.lora_A.weight")


@pytest.mark.parametrize(
    ("down", "up"),
    [((RANK, 5), (6, RANK)), ((RANK, 6), (7, RANK)), ((RANK, 6), (6, 3))],
    ids=["in", "out", "rank"],
)
def test_wrong_shapes_are_refused(shapes, down, up):
    tensors = {
        "blocks.0.q.lora_A.weight": torch.ones(down),
        "blocks.0.q.lora_B.weight": torch.ones(up),
    }
    refused(tensors, shapes, "1 of wrong shape", "blocks.0.q", str(list(down)))


def test_wrong_bias_shape_is_refused(shapes):
    refused({"blocks.0.q.diff_b": torch.linspace(0, 1, 5)}, shapes, "bias change [5]")


def test_merging_into_another_model_is_refused(toy, shapes, factors):
    lora = read_lora(written(factors, "peft"), shapes)
    with pytest.raises(StateDictError, match=r"blocks\.{0\.\.1}\.q"):
        merge_loras(torch.nn.Linear(6, 6), [(lora, 1.0)])
