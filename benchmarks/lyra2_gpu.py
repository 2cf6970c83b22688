"""Every stage of a full-size chunk on one CUDA device, with random weights: each speed profile checked and timed.

    PYTHONPATH=. python benchmarks/lyra2_gpu.py
    PYTHONPATH=. python benchmarks/lyra2_gpu.py --profiles exact,fast --kernels

Builds the video network (17.03 B parameters) and the autoencoder at 480x832, makes a chunk as the rollout makes it (one
set of conditions, four network calls of the distilled sampler, decoding and encoding anew), and prints medians beside
the targets and the floor that the products alone would take. Depth network and the encoders of text and image are left
out: their outputs are drawn. Needs no prefect, ray or av. Writes benchmarks/results/lyra2_gpu-<card>-<date>.json, or
into the folder that --out names.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.results import RESULTS, write_result
from lyra_core.config.rollout import CORRECTED_CONDITIONING, REFERENCE_CONDITIONING, REFERENCE_MEMORY
from lyra_core.video.conditioning import ChunkRequest, Conditioner
from lyra_core.video.dit.narrow_attention import attend_narrow, has_narrow_attention
from lyra_core.video.dit.network import LYRA2_14B, build_dit
from lyra_core.video.dit.speed import PROFILES, apply_speed
from lyra_core.video.memory import StoredView
from lyra_core.video.sampler import guided_velocity, sample_distilled
from lyra_core.video.schedule import distilled_schedule
from lyra_core.video.vae.network import WAN21_VAE, build_vae
from lyra_core.video.world_state import WorldState

TEXT_TOKENS, IMAGE_TOKENS = 512, 257
TARGETS = {  # seconds, one H100 or H200
    "forward": {"exact": 3.5, "fast": 3.0, "fastest": 2.5},
    "chunk": {"exact": 16.0, "fast": 13.5, "fastest": 11.5},
    "guided_35": {"exact": 250.0, "fastest": 185.0},
    "decode_and_encode": 1.4,
    "conditions": 0.3,
    "start": 0.5,
}
LONG = 81


def timed(function, repeats=3, warm_up=1):
    """Median seconds of a call, the device idle before and after."""
    for _ in range(warm_up):
        function()
    torch.cuda.synchronize()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def relative(found, wanted):
    found, wanted = found.float(), wanted.float()
    return ((found - wanted).norm() / wanted.norm()).item()


def peak_gib():
    return torch.cuda.max_memory_allocated() / 2**30


def cameras(count, height, width):
    """A path that turns and moves, as worlds have."""
    at = torch.linspace(0.0, 0.5, count)
    world_to_cam = torch.eye(4).repeat(count, 1, 1)
    world_to_cam[:, 0, 0], world_to_cam[:, 0, 2] = at.cos(), -at.sin()
    world_to_cam[:, 2, 0], world_to_cam[:, 2, 2] = at.sin(), at.cos()
    world_to_cam[:, 0, 3], world_to_cam[:, 2, 3] = 1.2 * at, -1.6 * at
    K = torch.tensor([[600.0, 0, width / 2], [0, 600, height / 2], [0, 0, 1]])
    return world_to_cam.cuda(), K.repeat(count, 1, 1).cuda()


def wavy_depth(height, width):
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return (3 + x + 0.5 * y + 0.3 * torch.sin(9 * x) * torch.cos(7 * y)).cuda()


class Bench:
    """The networks, one world and its next chunk."""

    def __init__(self, options):
        torch.manual_seed(0)
        self.options, self.found = options, {"profiles": {}, "stages": {}}
        self.size = (options.height, options.width)
        self.rows, self.columns = options.height // 8, options.width // 8
        self.dit = build_dit(replace(LYRA2_14B, num_layers=options.layers), device="cuda", dtype=torch.bfloat16)
        self.dit.eval().requires_grad_(False)
        for name, parameter in self.dit.named_parameters():
            is_norm = "norm" in name and name.endswith("weight")
            parameter.fill_(1.0) if is_norm else parameter.normal_(0.0, 0.02)
        self.vae = build_vae(WAN21_VAE, device="cuda", dtype=torch.bfloat16).eval().requires_grad_(False)
        self.layout = self.dit.config.history_layout
        self.image = torch.randint(0, 256, (*self.size, 3), dtype=torch.uint8)
        self.text = torch.randn(1, TEXT_TOKENS, self.dit.config.text_dim, device="cuda", dtype=torch.bfloat16)
        self.tokens = torch.randn(1, IMAGE_TOKENS, self.dit.config.image_dim, device="cuda", dtype=torch.bfloat16)

    # ------------------------------------------------------------ stages

    def world(self):
        return WorldState(
            self.vae,
            self.image,
            REFERENCE_MEMORY,
            torch.device("cuda"),
            num_prefix=self.layout.num_history,
            num_encoded=None,
            clamp=False,
            latents_per_window=self.options.window,
        )

    def request(self, first=LONG):
        world_to_cam, K = cameras(first + 80, *self.size)
        depth = wavy_depth(*self.size)
        views = tuple(
            StoredView(frame_id=i, depth_m=depth, world_to_cam=world_to_cam[i], intrinsics=K[i])
            for i in (0, 16, 32, 48, 64)
        )
        return ChunkRequest(
            world_to_cam=world_to_cam,
            intrinsics=K,
            first_frame=first,
            history=torch.randn(16, self.layout.num_history + first // 4, self.rows, self.columns, device="cuda"),
            last_image=torch.rand(3, *self.size, device="cuda") * 2 - 1,
            last_depth_m=depth,
            retrieved=views,
        )

    def conditions(self, request, config):
        image = torch.rand(3, *self.size, device="cuda") * 2 - 1
        # a fresh conditioner: none of the retrieved frames was encoded in an earlier chunk
        return Conditioner(
            self.vae, self.layout, lambda _: image, config, latents_per_window=self.options.window
        ).build(request)

    def context(self, inputs):
        return self.dit.prepare_context(replace(inputs, text=self.text, image=self.tokens))

    def sample(self, context):
        draw = torch.Generator().manual_seed(7)
        shape = (1, 16, self.layout.num_generated, self.rows, self.columns)
        return sample_distilled(
            lambda latents, timestep: self.dit(latents, timestep, context),
            torch.randn(shape, generator=draw).cuda(),
            distilled_schedule(),
            lambda _: torch.randn(shape, generator=draw),
        )

    # ------------------------------------------------------------ measurements

    def check_autoencoder(self):
        """Both memory layouts against float32 on a short video, and the time of a chunk in each."""
        vae, window = self.vae, self.options.window
        video = torch.rand(1, 3, 81, *self.size, device="cuda", dtype=torch.bfloat16) * 2 - 1
        latents = torch.randn(1, 16, 20, self.rows, self.columns, device="cuda", dtype=torch.bfloat16)
        wide = build_vae(WAN21_VAE, device="cuda").requires_grad_(False)
        wide.load_state_dict(vae.state_dict())
        true = wide.encode(video[:, :, :5].float()), wide.decode(latents[:, :, :2].float())
        del wide
        for name in ("plain", "channels_last"):
            if name == "channels_last":
                vae.put_channels_last()
            found = {
                "encode_error_to_float32": relative(vae.encode(video[:, :, :5]), true[0]),
                "decode_error_to_float32": relative(vae.decode(latents[:, :, :2]), true[1]),
            }
            torch.cuda.reset_peak_memory_stats()
            found["encode_81_s"] = timed(lambda: vae.encode(video, latents_per_window=window), 2)
            found["decode_20_s"] = timed(lambda: vae.decode(latents, latents_per_window=window), 2)
            found["peak_gib"] = peak_gib()
            if self.options.kernels and name == "channels_last":
                self.print_kernels(lambda: vae.encode(video, latents_per_window=window))
                self.print_kernels(lambda: vae.decode(latents, latents_per_window=window))
            self.found["stages"][f"autoencoder_{name}"] = found
            print(name, {k: round(v, 4) for k, v in found.items()}, flush=True)
            torch.cuda.empty_cache()

    def time_stages(self):
        stages, request = self.found["stages"], self.request()
        stages["start_s"] = timed(self.world, 2)
        for name, config in (("conditions", REFERENCE_CONDITIONING), ("corrected_conditions", CORRECTED_CONDITIONING)):
            stages[f"{name}_s"] = timed(lambda: self.conditions(request, config), 3)  # noqa: B023
        stages["condition_parts"] = self.time_condition_parts(request)
        print(
            {k: round(v, 3) for k, v in stages.items() if isinstance(v, float)}, stages["condition_parts"], flush=True
        )
        if self.options.kernels:
            self.print_kernels(lambda: self.conditions(request, REFERENCE_CONDITIONING))

    def time_condition_parts(self, request):
        """What a chunk's conditions consist of, each alone."""
        still = torch.rand(3, *self.size, device="cuda") * 2 - 1
        window = self.options.window
        conditioner = Conditioner(
            self.vae, self.layout, lambda _: still, REFERENCE_CONDITIONING, latents_per_window=window
        )
        warped, _ = conditioner.warp_last_frame(request)

        def encode_retrieved():
            fresh = Conditioner(
                self.vae, self.layout, lambda _: still, REFERENCE_CONDITIONING, latents_per_window=window
            )
            return fresh._history(request)

        parts = {
            "warp_last_frame": lambda: conditioner.warp_last_frame(request),
            "encode_warped": lambda: conditioner._encode_warped(warped),
            "encode_retrieved": encode_retrieved,
            "rays": lambda: conditioner._rays(request),
            "correspondence": lambda: conditioner._correspondence(request),
        }
        return {f"{name}_s": round(timed(part, 3), 4) for name, part in parts.items()}

    def ceilings(self):
        """Rates of the products alone on this card, and what a forward of nothing else would take."""
        dim, heads = self.dit.config.dim, self.dit.config.num_heads
        history, generated = self.layout.num_tokens(self.rows // 2, self.columns // 2)
        tokens = history + generated
        q, k, v = torch.randn(3, 1, tokens, heads, dim // heads, device="cuda", dtype=torch.bfloat16)
        wide = timed(
            lambda: torch.nn.functional.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v))), 3
        )
        found = {"tokens": tokens, "attention_bf16_s": wide}
        if has_narrow_attention("cuda"):
            one = torch.ones(1, 1, 1, 1, device="cuda")
            narrow = [(t * 8).to(torch.float8_e4m3fn) for t in (q, k, v)]
            found["attention_fp8_s"] = timed(lambda: attend_narrow(*narrow, one, one), 3)
        a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        found["gemm_bf16_tflop_s"] = 2 * 8192**3 / timed(lambda: a @ b, 10) / 1e12
        layers = self.options.layers
        flop = 2 * tokens * layers * (6 * dim**2 + 2 * dim * self.dit.config.ffn_dim)
        found["products_tflop"] = flop / 1e12
        found["floor_exact_s"] = layers * wide + flop / found["gemm_bf16_tflop_s"] / 1e12
        fast = flop / (2 * found["gemm_bf16_tflop_s"]) / 1e12
        found["floor_fast_s"] = layers * wide + fast
        found["floor_fastest_s"] = layers * found.get("attention_fp8_s", wide) + fast
        self.found["ceilings"] = found
        print({k: round(v, 4) for k, v in found.items()}, flush=True)

    def run_profiles(self, names):
        request = self.request()
        inputs = self.conditions(request, REFERENCE_CONDITIONING)
        context = self.context(inputs)
        latents = torch.randn(1, 16, self.layout.num_generated, self.rows, self.columns, device="cuda")
        timestep = torch.tensor([900], device="cuda")
        wanted = None
        for name in ["plain", *names]:
            applied = None if name == "plain" else apply_speed(self.dit, PROFILES[name])
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            found = {"applied": str(applied)}
            context = None  # the last profile's is not kept while the next is made
            context = self.context(inputs)
            begin = time.perf_counter()
            velocity = self.dit(latents, timestep, context)
            torch.cuda.synchronize()
            found["first_forward_s"] = time.perf_counter() - begin
            found["forward_s"] = timed(lambda: self.dit(latents, timestep, context), 3, 0)  # noqa: B023
            sampled = self.sample(context)
            if wanted is None:
                wanted = (velocity, sampled)
            found["output_error"] = relative(velocity, wanted[0])
            found["latents_error"] = relative(sampled, wanted[1])
            if name != "plain":
                found |= self.whole_chunk(request)
                if self.options.kernels:
                    self.print_kernels(lambda: self.dit(latents, timestep, context))  # noqa: B023
            self.found["profiles"][name] = found
            print(name, {k: round(v, 4) for k, v in found.items() if isinstance(v, float)}, applied, flush=True)
        negative = self.dit.prepare_text(torch.zeros_like(self.text))
        guided = guided_velocity(self.dit, context, negative, 5.0)
        self.found["stages"]["guided_forward_last_profile_s"] = timed(lambda: guided(latents, timestep), 1, 0)

    def whole_chunk(self, request):
        """A chunk from its cameras to its frames and its history, in one go and stage by stage."""
        world = self.world()
        parts = {}

        def step(name, function):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            value = function()
            torch.cuda.synchronize()
            parts[f"{name}_s"] = time.perf_counter() - begin
            return value

        inputs = step("conditions", lambda: self.conditions(request, REFERENCE_CONDITIONING))
        context = step("prepare", lambda: self.context(inputs))
        sampled = step("sample_4", lambda: self.sample(context))
        step("decode_and_encode", lambda: world.append(sampled[0]))
        parts["chunk_s"] = sum(parts.values())
        parts["peak_gib"] = peak_gib()
        return parts

    def print_kernels(self, function):
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            function()
            torch.cuda.synchronize()
        events = sorted(profiler.key_averages(), key=lambda e: -e.self_device_time_total)
        for event in events[:16]:
            print(f"    {event.self_device_time_total / 1e3:9.1f} ms {event.count:5d} {event.key[:100]}", flush=True)

    # ------------------------------------------------------------ what is printed and kept

    def rows_of_table(self):
        profiles, floors = self.found["profiles"], self.found["ceilings"]
        for name, found in profiles.items():
            floor = floors.get(f"floor_{name}_s")
            yield f"forward, {name}", found["forward_s"], TARGETS["forward"].get(name), floor
            if name == "plain":
                continue
            yield f"chunk of 80 frames, {name}", found["chunk_s"], TARGETS["chunk"].get(name), floor and 4 * floor
            rest = found["chunk_s"] - found["sample_4_s"]
            guided = 70 * found["forward_s"] + rest
            yield f"35 guided steps, {name} (70 forwards)", guided, TARGETS["guided_35"].get(name), None
        last = list(profiles.values())[-1]
        yield "decode and encode of a chunk", last.get("decode_and_encode_s"), TARGETS["decode_and_encode"], None
        stages = self.found["stages"]
        yield "conditions of a chunk", stages["conditions_s"], TARGETS["conditions"], None
        yield "start of a world", stages["start_s"], TARGETS["start"], None

    def print_table(self):
        print(f"\n{torch.cuda.get_device_name()}, torch {torch.__version__}, {self.size[1]}x{self.size[0]}")
        print(f"{'what':44} {'seconds':>9} {'target':>9} {'floor':>9}")
        for what, seconds, target, floor in self.rows_of_table():
            if seconds is not None:
                shown = [f"{x:9.2f}" if x else " " * 9 for x in (target, floor)]
                print(f"{what:44} {seconds:9.2f} {' '.join(shown)}")
        for name, found in self.found["profiles"].items():
            print(
                f"{name:8} error of the output {found['output_error']:.4f}, "
                f"of the latents {found['latents_error']:.4f}, peak {found.get('peak_gib', 0):.1f} GiB"
            )


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--layers", type=int, default=LYRA2_14B.num_layers)
    parser.add_argument("--window", type=int, default=5, help="latents the autoencoder takes at once")
    parser.add_argument("--profiles", default=",".join(PROFILES))
    parser.add_argument("--kernels", action="store_true", help="print where the device's time goes")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    bench = Bench(options)
    bench.ceilings()
    bench.check_autoencoder()
    bench.time_stages()
    if options.profiles:
        bench.run_profiles(options.profiles.split(","))
        bench.print_table()
    card = re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")
    asked = {name: value for name, value in vars(options).items() if name not in ("out", "kernels")}
    path = write_result(f"lyra2_gpu-{card}", {"options": asked, **bench.found}, options.out)
    print("written to", path)


if __name__ == "__main__":
    main()
