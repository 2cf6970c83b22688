"""A complete world model of tiny networks with random weights, for tests of the rollout, also in another process.

Chunks have 8 frames of 48x32. The scene the depth estimator knows is a tilted wall; its estimate may be off by a factor
that changes from window to window, as real estimators are.
"""

from __future__ import annotations

import hashlib
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from lyra_core.config.rollout import CORRECTED, REFERENCE
from lyra_core.depth import DepthEstimate
from lyra_core.mini.vae import TINY_MINI_VAE, build_mini_vae
from lyra_core.values import CameraPath, Seed
from lyra_core.video.dit.network import TINY, build_dit
from lyra_core.video.rollout import Rollout, RolloutModels
from lyra_core.video.vae.network import TINY_VAE, build_vae

HEIGHT, WIDTH, CHUNK = 32, 48, 8
LAYOUT = "f1k1f4s2f1s1f4k4f2k2f1k1_g2"
INTRINSICS = torch.tensor([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]], dtype=torch.float64)
REFERENCE_TINY = replace(REFERENCE, num_steps=2)
CORRECTED_TINY = replace(CORRECTED, num_steps=2, sampler="euler", guidance_scale=1.0)


class WallDepth:
    """Depth of the plane z = 4 + 0.3 x + 0.2 y, times a factor for each window."""

    def __init__(self, factors=(1.0,), block_at=None, marker=None):
        self.factors = factors
        self.calls = []
        self.block_at = block_at
        self.marker = marker

    def estimate(self, frames, cameras, reference_depth_m=None):
        if len(self.calls) == self.block_at:
            Path(self.marker).touch()
            time.sleep(600)
        factor = self.factors[len(self.calls) % len(self.factors)]
        self.calls.append((frames.shape[0], reference_depth_m))
        cameras = path(1) if cameras is None else cameras
        depth = torch.stack([wall(w2c, K) for w2c, K in zip(cameras.world_to_cam, cameras.intrinsics, strict=True)])
        sky = torch.zeros_like(depth, dtype=torch.bool)
        return DepthEstimate(depth_m=(depth * factor).float(), confidence=torch.ones_like(depth).float(), sky=sky)


def wall(w2c, K):
    y, x = torch.meshgrid(
        torch.arange(HEIGHT, dtype=torch.float64), torch.arange(WIDTH, dtype=torch.float64), indexing="ij"
    )
    rays = torch.stack([x, y, torch.ones_like(x)], -1) @ torch.linalg.inv(K).T
    rotation = w2c[:3, :3].T
    center, rays = -rotation @ w2c[:3, 3], rays @ rotation.T
    normal = torch.tensor([-0.3, -0.2, 1.0], dtype=torch.float64)
    return ((4.0 - center @ normal) / (rays @ normal)).clamp(min=0.0)


def path(num_frames, step=0.05):
    w2c = torch.eye(4, dtype=torch.float64).repeat(num_frames, 1, 1)
    w2c[:, 0, 3] = -step * torch.arange(num_frames)
    w2c[:, 2, 3] = -0.4 * step * torch.arange(num_frames)
    return CameraPath(
        world_to_cam=w2c,
        intrinsics=INTRINSICS.repeat(num_frames, 1, 1),
        image_height=HEIGHT,
        image_width=WIDTH,
    )


def seed():
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(1, 3, 4, 6, generator=generator)
    image = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear")[0]
    return Seed(image=(image * 255).to(torch.uint8).permute(1, 2, 0), intrinsics=INTRINSICS, sha256="0" * 64)


def text(captions):
    rows = []
    for caption in captions:
        digest = int.from_bytes(hashlib.sha256(caption.encode()).digest()[:4], "big")
        rows.append(torch.randn(6, TINY.text_dim, generator=torch.Generator().manual_seed(digest)))
    return torch.stack(rows)


def image(pixels):
    pooled = torch.nn.functional.adaptive_avg_pool2d(pixels, (2, 2)).flatten(2).transpose(1, 2)
    return pooled.repeat(1, 1, TINY.image_dim // 3 + 1)[..., : TINY.image_dim]


def networks():
    with torch.random.fork_rng():
        torch.manual_seed(11)
        dit, vae = build_dit(replace(TINY, layout=LAYOUT)), build_vae(TINY_VAE)
        for parameter in dit.parameters():
            parameter.data.normal_(std=0.2)  # a network as built starts with outputs of zero
        return dit.eval(), vae.eval()


def rollout(config=CORRECTED_TINY, depth=None):
    dit, vae = networks()
    models = RolloutModels(dit=dit, vae=vae, depth=depth or WallDepth(), text=text, image=image)
    return Rollout(models, config)


def mini_rollout():
    """The form of the mini model: small autoencoder, coarser rays and maps, no captions, no image tokens."""
    conditioning = replace(
        CORRECTED.conditioning,
        ray_downsample=4,
        correspondence=replace(CORRECTED.conditioning.correspondence, downsample=4),
    )
    config = replace(CORRECTED_TINY, conditioning=conditioning, encoded_prefix=2, latents_per_window=8)
    with torch.random.fork_rng():
        torch.manual_seed(12)
        small = replace(TINY, layout=LAYOUT, ray_channels=24, correspondence_channels=80, text_dim=None, image_dim=None)
        dit, vae = build_dit(small), build_mini_vae(TINY_MINI_VAE)
        for parameter in dit.parameters():
            parameter.data.normal_(std=0.2)
    return Rollout(RolloutModels(dit=dit.eval(), vae=vae.eval(), depth=WallDepth()), config)


def ids(num):
    return [f"{i:032x}" for i in range(1, num + 1)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, marker, chunks = sys.argv[1], sys.argv[2], int(sys.argv[3])
    # Depth is asked for the seed and after each chunk: the process hangs in the second chunk, after sampling it.
    blocking = WallDepth(block_at=2, marker=marker)
    rollout(depth=blocking).run(seed(), path(1 + CHUNK * chunks), ["a wall"], ids(chunks), folder)
