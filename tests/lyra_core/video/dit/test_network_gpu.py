"""The tiny network on CUDA; needs torch, numpy, einops, jaxtyping, safetensors and pytest only."""

import pytest
import torch

from lyra_core.video.dit.attention import cudnn_first
from lyra_core.video.dit.context import ChunkInputs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def on_cuda(inputs):
    names = ChunkInputs.__dataclass_fields__
    return ChunkInputs(**{name: getattr(inputs, name).cuda() for name in names})


@torch.no_grad()
@pytest.mark.parametrize("store", ["squeezed", "full"])
@pytest.mark.parametrize("case", ["a", "b"])
def test_golden_bf16_on_cuda(golden_dit, assert_close, case, store):
    model = golden_dit.model(torch.bfloat16, device="cuda")
    inputs, latents, timestep, layout = getattr(golden_dit, f"case_{case}")()
    context = model.prepare_context(on_cuda(inputs), layout=layout, store=store)
    found = model(latents.cuda(), timestep.cuda(), context)
    assert_close(found, golden_dit.io[f"{case.upper()}.bf16.out"], 1e-2)


@torch.no_grad()
@pytest.mark.parametrize("case", ["a", "b"])
def test_golden_fp32_on_cuda(golden_dit, assert_close, case):
    model = golden_dit.model(device="cuda")
    inputs, latents, timestep, layout = getattr(golden_dit, f"case_{case}")()
    context = model.prepare_context(on_cuda(inputs), layout=layout)
    found = model(latents.cuda(), timestep.cuda(), context)
    # TensorFloat-32 is off for matrix products unless somebody switched it on.
    assert_close(found, golden_dit.io[f"{case.upper()}.out"], 2e-5)


@torch.no_grad()
def test_compiled_and_reordered_attention_agree(golden_dit, assert_close):
    model = golden_dit.model(torch.bfloat16, device="cuda")
    inputs, latents, timestep, layout = golden_dit.case_a()
    context = model.prepare_context(on_cuda(inputs), layout=layout)
    model.compile_blocks()
    with cudnn_first():
        found = model(latents.cuda(), timestep.cuda(), context)
    assert_close(found, golden_dit.io["A.out"], 2e-2)
