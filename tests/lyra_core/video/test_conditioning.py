"""Conditions of a chunk: golden numbers of the first two chunks, and what the corrected forms repair."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lyra_core.config.rollout import REFERENCE_CONDITIONING, ConditioningConfig, CorrespondenceConfig
from lyra_core.errors import FrameError
from lyra_core.video.conditioning import ChunkRequest, Conditioner
from lyra_core.video.dit.layout import HistoryLayout
from lyra_core.video.memory import SpatialMemory
from lyra_core.video.vae.network import VAE, VAEConfig

LAYOUT = HistoryLayout.parse("f1k1f4s2f1s1f16k4f2k2f1k1_g20")


def golden_vae(path):
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        weights = {key[3:]: file.get_tensor(key).float() for key in file.keys() if key.startswith("sd.")}  # noqa: SIM118
    cfg = json.loads(metadata["cfg"])
    config = VAEConfig(
        dim=cfg["dim"],
        latent_channels=cfg["z_dim"],
        multipliers=tuple(cfg["dim_mult"]),
        num_res_blocks=cfg["num_res_blocks"],
        temporal_downsample=tuple(cfg["temperal_downsample"]),
        latent_mean=tuple(json.loads(metadata["mean"])),
        latent_std=tuple(json.loads(metadata["std"])),
    )
    vae = VAE(config).eval()
    vae.load_state_dict(weights)
    return vae


@pytest.fixture(scope="module")
def golden(golden_dir):
    return load_file(golden_dir / "conditioning.safetensors")


@pytest.fixture(scope="module")
def cameras(golden_dir):
    memory = load_file(golden_dir / "memory.safetensors")
    return memory["w2c"], memory["K"].expand(memory["w2c"].shape[0], 3, 3)


@pytest.fixture(scope="module")
def vae(golden_dir):
    return golden_vae(golden_dir / "vae_tiny.safetensors")


def chunk(golden, cameras, golden_depth, vae, k, config=REFERENCE_CONDITIONING):
    """The golden's chunk k: 80 frames are known before chunk 1, every eighth of them is remembered."""
    w2c, K = cameras
    video = golden["video81"][0].float()
    height, width = video.shape[-2:]
    known = [0] if k == 0 else list(range(0, 81, 8))
    memory = SpatialMemory(height, width)
    memory.add(known, golden_depth(known, height, width), w2c[known], K[known])
    last = 80 * k
    shape = [1, vae.config.latent_channels, 25 + 20 * k, height // 8, width // 8]
    history = np.random.RandomState(21 + k).standard_normal(shape)
    request = ChunkRequest(
        world_to_cam=w2c[: last + 81],
        intrinsics=K[: last + 81],
        first_frame=last + 1,
        history=torch.from_numpy(history[0]).float(),
        last_image=video[:, last],
        last_depth_m=golden_depth([last], height, width)[0],
        retrieved=tuple(memory.view(i) for i in memory.retrieve(w2c[[last + 80]], K[:1])),
    )
    return Conditioner(vae, LAYOUT, lambda i: video[:, i], config), request


def close(found, wanted):
    return float((found.float() - wanted.float()).abs().max()) <= 1e-5 * float(wanted.float().abs().max())


def bf16_close(found, wanted):
    """Against a golden stored in bf16: half a unit in its last place, and 1e-5 of the largest value."""
    wanted = wanted.float()
    return bool(((found - wanted).abs() <= wanted.abs() * 2**-8 + 1e-5 * wanted.abs().max()).all())


@pytest.mark.parametrize("k", [0, 1])
def test_golden_chunk(golden, cameras, golden_depth, vae, k):
    conditioner, request = chunk(golden, cameras, golden_depth, vae, k)
    inputs = conditioner.build(request)
    slots, spatial = LAYOUT.num_history, list(LAYOUT.spatial_slots)
    name = f"c{k}."
    assert close(inputs.history[0], golden[name + "latents"][0, :, :slots])
    assert close(inputs.condition[0, 4:], golden[name + "cond_lat16"][0])
    assert inputs.condition[:, :4].sum() == golden[name + "mask_sum"]
    assert close(inputs.rays[0, :, 0], golden[name + "rays_frame0"][0])
    assert close(inputs.rays[0, :, -1], golden[name + "rays_gen_last"][0])
    assert bf16_close(inputs.rays[0, :, spatial], golden[name + "rays_spatial"][0])
    maps = inputs.correspondence[0]
    assert [1, *maps.shape] == golden[name + "buffer_shape"].tolist()
    assert close(maps[:, spatial, 1, 1], golden[name + "buffer_hist_s"][0, ..., 0, 0])
    assert bf16_close(maps[:768, [slots, slots + 7, slots + 14]], golden[name + "buffer_gen_first3slots"][0])
    assert close(maps[:, slots + 19], golden[name + "buffer_gen_full_t19"][0])
    temporal = list(LAYOUT.temporal_slots)
    assert maps[:, temporal].abs().max() == golden[name + "buffer_k_absmax"]


def test_golden_temporal_indices(golden):
    for key in (key for key in golden if key.startswith("temporal_indices.")):
        assert LAYOUT.temporal_indices(int(key.split(".")[1])) == golden[key].tolist()


class TestCorrected:
    @pytest.fixture
    def two_views(self, vae):
        """A wall seen by the seed and, from far to the right, by a remembered frame; the chunk walks to it."""
        K = torch.tensor([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])
        w2c = torch.eye(4).repeat(9, 1, 1)
        w2c[1:, 0, 3] = -torch.linspace(0.3, 2.4, 8)
        memory = SpatialMemory(32, 48)
        right = torch.eye(4)
        right[0, 3] = -2.4
        wall = torch.full((2, 32, 48), 4.0)
        memory.add([0, -1], wall, torch.stack([w2c[0], right]), K.expand(2, 3, 3), torch.zeros(2, 32, 48, 3).byte())
        images = {0: torch.full((3, 32, 48), 0.25), -1: torch.full((3, 32, 48), 0.75)}
        request = ChunkRequest(
            world_to_cam=w2c,
            intrinsics=K.expand(9, 3, 3),
            first_frame=1,
            history=torch.zeros(16, 13, 4, 6),
            last_image=images[0],
            last_depth_m=wall[0],
            retrieved=(memory.view(0), memory.view(-1)),
        )
        layout = HistoryLayout.parse("f1k1f4s2f1s1f4k4f2k2f1k1_g2")
        return lambda **choices: (Conditioner(vae, layout, images.__getitem__, ConditioningConfig(**choices)), request)

    def test_union_warp_fills_holes_from_the_memory(self, two_views):
        conditioner, request = two_views()
        alone, landed = conditioner.warp_last_frame(request)
        conditioner, request = two_views(union_warp=True)
        union, covered = conditioner.warp_last_frame(request)
        assert landed[-1].float().mean() < 0.6
        assert covered[-1].float().mean() > 0.95
        assert torch.equal(union.transpose(0, 1)[:, landed], alone.transpose(0, 1)[:, landed])
        filled = union.transpose(0, 1)[:, covered & ~landed]
        assert torch.allclose(filled, torch.tensor(0.75), atol=1e-4)

    def test_mask_channels_tell_coverage(self, two_views):
        conditioner, request = two_views(mask_channels="coverage")
        _, landed = conditioner.warp_last_frame(request)
        mask = conditioner.build(request).condition[0, :4]
        assert (mask[:, :13] == 1).all()
        fraction = torch.nn.functional.avg_pool2d(landed.float(), 8)
        for slot in range(2):
            for frame in range(4):
                assert torch.allclose(mask[frame, 13 + slot], fraction[4 * slot + frame])
        ones, request = two_views()
        assert (ones.build(request).condition[0, :4] == 1).all()

    def test_geometry_at_a_quarter_of_the_resolution(self, two_views):
        small = CorrespondenceConfig(downsample=4, depth_range="used")
        conditioner, request = two_views(ray_downsample=4, correspondence=small)
        inputs = conditioner.build(request)
        assert inputs.rays.shape == (1, 24, 15, 4, 6)
        assert inputs.correspondence.shape == (1, 80, 15, 4, 6)

    def test_retrieved_frames_are_encoded_once(self, two_views):
        conditioner, request = two_views()
        conditioner.build(request)
        first = conditioner.encode_alone(-1)
        conditioner.build(request)
        assert conditioner.encode_alone(-1) is first

    def test_cameras_are_there_for_the_whole_chunk(self, two_views):
        conditioner, request = two_views()
        with pytest.raises(FrameError, match="needs cameras for 9 frames, found 5"):
            conditioner.build(
                replace(request, world_to_cam=request.world_to_cam[:5], intrinsics=request.intrinsics[:5])
            )
