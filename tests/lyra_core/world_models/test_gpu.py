"""The whole tiny model on CUDA: in bfloat16 as released weights run, and close to the CPU's float32."""

import pytest
import torch

from lyra_core.gaussians.prune import is_finite

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
IDS = tuple(f"{i:032x}" for i in range(1, 4))


@pytest.fixture(scope="module")
def on_gpu(load):
    return load(device="cuda")


def test_networks_have_their_dtypes(on_gpu):
    models = on_gpu.parts.models
    assert {p.dtype for p in models.dit.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in models.vae.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in models.image.network.parameters()} == {torch.float16}
    assert {p.dtype for p in models.depth.model.parameters()} == {torch.float32}
    assert models.dit.patch_embedding.weight.is_cuda


@pytest.mark.parametrize("video", [{}, {"sampler": "distilled"}], ids=["unipc", "distilled"])
def test_a_world_is_close_to_the_processors(load, photo, video):
    """The first chunk only: bfloat16 differences feed back from chunk to chunk."""
    ask = {"num_frames": 9, "prompts": ["a meadow"], "chunk_ids": IDS[:1]}
    on_cpu = load(video).generate(photo, "dolly-in", **ask)
    on_gpu = load(video, device="cuda").generate(photo, "dolly-in", **ask)
    assert torch.allclose(on_gpu.cameras.world_to_cam, on_cpu.cameras.world_to_cam, atol=0.05)
    difference = (on_gpu.frames.float() - on_cpu.frames.float()).abs().mean()
    contrast = on_cpu.frames.float().std()
    assert difference < 0.25 * contrast


def test_a_killed_world_goes_on(on_gpu, photo, tmp_path):
    ask = {"prompts": ["a meadow"], "chunk_dir": tmp_path}
    short = on_gpu.generate(photo, "dolly-in", num_frames=17, chunk_ids=IDS[:2], **ask)
    sampled = []
    sample = on_gpu.rollout._sample
    on_gpu.rollout._sample = lambda *a: sampled.append(a[3]) or sample(*a)
    try:
        longer = on_gpu.generate(photo, "dolly-in", num_frames=25, chunk_ids=IDS, **ask)
    finally:
        on_gpu.rollout._sample = sample
    assert sampled == [2]
    assert (longer.frames[:17].float() - short.frames.float()).abs().max() <= 1


@pytest.mark.parametrize("lifter", ["head", "depth"])
def test_gaussians(load, photo, lifter):
    model = load(device="cuda", reconstruction={"lifter": lifter})
    clip = model.generate(photo, "dolly-in", num_frames=9, prompts=["a meadow"])
    gaussians = model.reconstruct(clip)
    assert is_finite(gaussians).all()
    assert not gaussians.means.is_cuda


def test_refinement_runs_and_tells_its_gain(load, photo):
    pytest.importorskip("gsplat")
    refine = {"steps": 8, "hold_out_every": 4, "min_gain_db": -100.0}
    model = load(device="cuda", reconstruction={"lifter": "depth", "is_refined": True, "refine": refine})
    clip = model.generate(photo, "dolly-in", num_frames=9, prompts=["a meadow"])
    reports = []
    model.reconstruct(clip, on_report=reports.append)
    assert reports[0].is_refined is not None
    assert reports[0].refine_gain_db is not None
