"""The whole job of a chunk under a memory limit, on one CUDA device with random weights of full size.

    PYTHONPATH=. python benchmarks/lyra2_small_gpu.py --limit 46 --speed fast
    PYTHONPATH=. python benchmarks/lyra2_small_gpu.py --limit 23 --speed fast --streamed
    PYTHONPATH=. python benchmarks/lyra2_small_gpu.py --limit 23 --speed exact --streamed

Text encoder, image tower and depth network wait in host memory and come when they are used; with --streamed the blocks
of the video network do as well, one after another. The allocator refuses whatever goes beyond the limit, less a margin
for the CUDA context. Prints seconds and peak memory of every stage. Needs no prefect, ray or av. Writes
benchmarks/results/lyra2_small_gpu-<limit>-<speed>-<card>-<date>.json, or into the folder that --out names.
--tiny runs it with small networks, on the CPU where there is no GPU.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.results import RESULTS, write_result
from lyra_core.config.rollout import REFERENCE_CONDITIONING, REFERENCE_MEMORY
from lyra_core.gaussians.depth_anything.budget import Budget, budget_for_memory
from lyra_core.gaussians.depth_anything.camera import normalise_cameras
from lyra_core.gaussians.depth_anything.config import NESTED_GIANT_LARGE
from lyra_core.gaussians.depth_anything.model import InferenceOptions, build_model, random_state
from lyra_core.gaussians.depth_anything.preprocess import network_size
from lyra_core.hosted_weights import HostedWeights
from lyra_core.video.conditioning import ChunkRequest, Conditioner
from lyra_core.video.dit.network import LYRA2_14B, TINY, build_dit
from lyra_core.video.dit.speed import PROFILES, apply_speed, stream_blocks
from lyra_core.video.image import CLIP_VIT_H14, build_image_encoder, encode_images
from lyra_core.video.memory import StoredView
from lyra_core.video.sampler import sample_distilled
from lyra_core.video.schedule import distilled_schedule
from lyra_core.video.text import UMT5_XXL, build_text_encoder
from lyra_core.video.vae.network import WAN21_VAE, build_vae
from lyra_core.video.world_state import WorldState

GIB = 2**30
CONTEXT_GIB = 0.8
"""What CUDA itself and the libraries' workspaces take beside the allocator."""
LONG, CHUNK = 81, 80
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
HALF = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32


def fill(module):
    """Random weights; norms at 1."""
    for name, parameter in module.named_parameters():
        is_norm = "norm" in name and name.endswith("weight")
        parameter.fill_(1.0) if is_norm else parameter.normal_(0.0, 0.02)
    return module.eval().requires_grad_(False)


def on_device(build):
    """A network without memory, given room and random weights on the device."""
    return fill(build().to_empty(device=DEVICE))


def peak_gib():
    return torch.cuda.max_memory_allocated() / GIB if DEVICE.type == "cuda" else 0.0


class Job:
    """The networks and one chunk."""

    def __init__(self, options):
        self.options, self.found = options, {"stages": {}, "options": {}}
        self.size = (options.height, options.width)
        self.rows, self.columns = options.height // 8, options.width // 8
        self.cameras = self.make_cameras(LONG + CHUNK)

    # ------------------------------------------------------------ networks

    def build(self):
        self.stage("build_text", self.build_text)
        self.stage("build_image", self.build_image)
        self.stage("build_depth", self.build_depth)
        self.stage("build_autoencoder", self.build_autoencoder)
        self.stage("build_network", self.build_network)

    def build_text(self):
        config = replace(UMT5_XXL, vocabulary=100, dim=32, attention_dim=32, ffn_dim=64, num_heads=2, num_layers=2)
        config = config if self.options.tiny else UMT5_XXL
        self.text = on_device(lambda: build_text_encoder(config, device="meta", dtype=HALF))
        self.text_home = HostedWeights(self.text, DEVICE)

    def build_image(self):
        config = replace(CLIP_VIT_H14, num_layers=2) if self.options.tiny else CLIP_VIT_H14
        dtype = torch.float16 if DEVICE.type == "cuda" else torch.float32
        self.image = on_device(lambda: build_image_encoder(config, device="meta", dtype=dtype))
        self.image_home = HostedWeights(self.image, DEVICE)

    def build_depth(self):
        config = NESTED_GIANT_LARGE
        self.depth_config = config
        if self.options.tiny:
            self.depth = None
            return
        state = random_state(config, torch.Generator(DEVICE).manual_seed(0), DEVICE)
        for name, tensor in state.items():
            if name.endswith("fc_fov.0.bias"):
                tensor.fill_(1.0)
            if name.endswith("gamma"):
                tensor.fill_(0.1)
        self.depth = build_model(config, state).requires_grad_(False)
        self.depth_home = HostedWeights(self.depth, DEVICE)

    def build_autoencoder(self):
        self.vae = build_vae(WAN21_VAE, device=DEVICE, dtype=HALF).eval().requires_grad_(False)
        if DEVICE.type == "cuda":
            self.vae.put_channels_last()

    def build_network(self):
        options = self.options
        config = replace(TINY, text_dim=32, dim=64, ffn_dim=128) if options.tiny else LYRA2_14B
        self.dit = build_dit(replace(config, num_layers=options.layers), device="meta", dtype=HALF)
        for name, child in self.dit.named_children():
            if name != "blocks":
                fill(child.to_empty(device=DEVICE))
        for block in self.dit.blocks:
            fill(block.to_empty(device=DEVICE))
            if options.streamed or options.speed != "exact":
                block.to("cpu")
        self.found["applied"] = str(apply_speed(self.dit, PROFILES[options.speed]))
        if options.streamed:
            stream_blocks(self.dit)
            self.found["streamed_gib"] = self.dit.stream.num_bytes / GIB
        else:
            self.dit.blocks.to(DEVICE)

    # ------------------------------------------------------------ stages

    def run(self):
        tokens = self.options.text_tokens
        ids = torch.ones(1, tokens, dtype=torch.int64, device=DEVICE)

        def encode_caption():
            with self.text_home:
                return self.text(ids, ids.bool())

        def image_tokens():
            with self.image_home:
                return encode_images(self.image, torch.rand(1, 3, *self.size, device=DEVICE) * 2 - 1)

        text = self.stage("caption", encode_caption)
        photo = torch.randint(0, 256, (*self.size, 3), dtype=torch.uint8)
        layout = self.dit.config.history_layout
        world = self.stage(
            "start",
            lambda: WorldState(
                self.vae, photo, REFERENCE_MEMORY, DEVICE, num_prefix=layout.num_history, num_encoded=None, clamp=False,
                latents_per_window=self.options.window,
            ),
        )  # fmt: skip
        image = self.stage("image_tokens", image_tokens)
        if not self.options.tiny:
            image = self.stage("image_tokens_again", image_tokens)
        request = self.request(layout)
        still = torch.rand(3, *self.size, device=DEVICE) * 2 - 1

        def conditions():
            window = self.options.window
            conditioner = Conditioner(
                self.vae, layout, lambda _: still, REFERENCE_CONDITIONING, latents_per_window=window
            )
            return conditioner.build(request)

        inputs = self.stage("conditions_first", conditions)  # loads kernels
        if not self.options.tiny:
            inputs = self.stage("conditions_again", conditions)
        for turn in ("first", "again"):  # the first one compiles
            context = None
            context = self.stage(
                f"prepare_{turn}", lambda: self.dit.prepare_context(replace(inputs, text=text, image=image.to(HALF)))
            )
            sampled = self.stage(f"sample_4_{turn}", lambda: self.sample(context, layout))  # noqa: B023
        del context
        self.stage("decode_and_encode", lambda: world.append(sampled[0]))
        if not self.options.tiny:
            self.stage("decode_and_encode_again", lambda: world.append(sampled[0]))
        if self.depth is not None:
            self.stage("depth_of_10_frames", lambda: self.lift(10, None))
            self.stage("reconstruct", lambda: self.lift(None, 2))

    def sample(self, context, layout):
        draw = torch.Generator().manual_seed(7)
        shape = (1, 16, layout.num_generated, self.rows, self.columns)
        return sample_distilled(
            lambda latents, timestep: self.dit(latents, timestep, context),
            torch.randn(shape, generator=draw).to(DEVICE),
            distilled_schedule(),
            lambda _: torch.randn(shape, generator=draw),
        )

    def lift(self, count, stride):
        """One pass of the depth network over `count` views, or as many as fit beside its weights."""
        with self.depth_home:
            height, width = network_size(*self.size, max(self.size))
            budget = Budget(views=count or 2)
            if count is None:
                torch.cuda.empty_cache()
                free = self.options.limit * GIB - CONTEXT_GIB * GIB - torch.cuda.memory_allocated()
                budget = budget_for_memory(int(free), height, width, self.depth_config)
                self.found["views_of_one_pass"] = budget.views
            views = budget.views
            images = torch.randn(views, 3, height, width, device=DEVICE)
            w2c, _ = normalise_cameras(self.cameras[0][:views].double().cpu())
            K = torch.tensor([[0.9 * width, 0, width / 2], [0, 0.9 * width, height / 2], [0, 0, 1]], device=DEVICE)
            options = InferenceOptions(gaussian_stride=stride, views_per_slice=budget.views_per_slice)
            return self.depth(images, w2c.to(images), K.expand(views, 3, 3), options).depth.cpu()

    def make_cameras(self, count):
        at = torch.linspace(0.0, 0.5, count)
        world_to_cam = torch.eye(4).repeat(count, 1, 1)
        world_to_cam[:, 0, 0], world_to_cam[:, 0, 2] = at.cos(), -at.sin()
        world_to_cam[:, 2, 0], world_to_cam[:, 2, 2] = at.sin(), at.cos()
        world_to_cam[:, 0, 3], world_to_cam[:, 2, 3] = 1.2 * at, -1.6 * at
        height, width = self.size
        K = torch.tensor([[600.0, 0, width / 2], [0, 600, height / 2], [0, 0, 1]])
        return world_to_cam.to(DEVICE), K.repeat(count, 1, 1).to(DEVICE)

    def request(self, layout):
        world_to_cam, K = self.cameras
        depth = torch.linspace(2.0, 6.0, self.size[1], device=DEVICE).expand(*self.size).contiguous()
        views = tuple(
            StoredView(frame_id=i, depth_m=depth, world_to_cam=world_to_cam[i], intrinsics=K[i])
            for i in (0, 16, 32, 48, 64)
        )
        return ChunkRequest(
            world_to_cam=world_to_cam,
            intrinsics=K,
            first_frame=LONG,
            history=torch.randn(16, layout.num_history + LONG // 4, self.rows, self.columns, device=DEVICE),
            last_image=torch.rand(3, *self.size, device=DEVICE) * 2 - 1,
            last_depth_m=depth,
            retrieved=views,
        )

    # ------------------------------------------------------------ numbers

    def stage(self, name, function):
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        value = function()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        found = {"seconds": round(time.perf_counter() - begin, 3), "peak_gib": round(peak_gib(), 2)}
        self.found["stages"][name] = found
        print(f"{name:22} {found['seconds']:8.2f} s {found['peak_gib']:8.2f} GiB", flush=True)
        self.keep()
        return value

    def keep(self):
        stages, card = self.found["stages"], torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu"
        work = {name: found for name, found in stages.items() if not name.startswith("build")}
        self.found["peak_gib"] = max((found["peak_gib"] for found in work.values()), default=0.0)
        chunk = ("image_tokens_again", "conditions_again", "prepare_again", "sample_4_again", "decode_and_encode_again")
        if all(name in work for name in chunk):
            self.found["chunk_s"] = sum(work[name]["seconds"] for name in chunk)
        if DEVICE.type == "cuda":
            free, total = torch.cuda.mem_get_info()
            self.found["used_beside_the_allocator_gib"] = (total - free - torch.cuda.memory_reserved()) / GIB
            self.found["reserved_gib"] = torch.cuda.max_memory_reserved() / GIB
        self.found["options"] = {k: v for k, v in vars(self.options).items() if k != "out"}
        slug = re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")
        name = f"lyra2_small_gpu-{self.options.limit:g}-{self.options.speed}-{slug}"
        return write_result(name, {"card": card, **self.found}, self.options.out)


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=46, help="memory of the device, GiB")
    parser.add_argument("--speed", choices=sorted(PROFILES), default="fast")
    parser.add_argument("--streamed", action="store_true", help="blocks wait in host memory")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--layers", type=int, default=LYRA2_14B.num_layers)
    parser.add_argument("--window", type=int, default=2, help="latents the autoencoder takes at once")
    parser.add_argument("--text-tokens", type=int, default=512)
    parser.add_argument("--tiny", action="store_true", help="small networks")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.tiny:
        options.height, options.width, options.layers, options.text_tokens = 64, 96, 3, 7
    torch.manual_seed(0)
    if DEVICE.type == "cuda":
        total = torch.cuda.get_device_properties(DEVICE).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, (options.limit - CONTEXT_GIB) * GIB / total))
    job = Job(options)
    job.build()
    job.run()
    print({k: v for k, v in job.found.items() if not isinstance(v, dict)})
    print("written to", job.keep())


if __name__ == "__main__":
    main()
