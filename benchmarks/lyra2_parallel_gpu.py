"""One chunk on several CUDA devices: a forward of the full-size video network, its tokens spread over all of them.

    PYTHONPATH=. python benchmarks/lyra2_parallel_gpu.py

Random weights at 480x832. For each speed profile: seconds on one device and on all, the difference of the outputs, the
gain, peak memory. Beside that, guidance: two passes, both branches in one batched pass, one branch a device. Needs no
prefect, ray or av. Writes benchmarks/results/lyra2_parallel_gpu-<card>-<date>.json, or into the folder that --out
names, after every profile. --tiny runs the same on CPU processes with a small network.
--alone 2 measures on one device what each of two would compute, with packing and unpacking but without the links: an
upper bound of the gain, and the bytes that the links must carry.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.results import RESULTS, write_result
from lyra_core.video.dit import exchange
from lyra_core.video.dit.context import ChunkInputs
from lyra_core.video.dit.network import LYRA2_14B, TINY, build_dit
from lyra_core.video.dit.speed import PROFILES, apply_speed
from lyra_core.video.sampler import Guidance, guided_velocity

TARGET_GAIN = 1.85


def is_cuda():
    return torch.cuda.is_available()


def synchronise():
    if is_cuda():
        torch.cuda.synchronize()
    dist.barrier()


def timed(function, repeats=3, warm_up=1):
    """Median seconds until all processes are done."""
    for _ in range(warm_up):
        function()
    synchronise()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        synchronise()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def relative(found, wanted):
    found, wanted = found.float(), wanted.float()
    return ((found - wanted).norm() / wanted.norm()).item()


def random_chunk(config, options, device, dtype):
    """Conditions of a chunk and its noisy latents, the same in every process."""
    layout, (rows, columns) = config.history_layout, (options.height // 8, options.width // 8)
    generator = torch.Generator(device).manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, device=device, dtype=dtype)

    def slots(channels, count):
        return draw(1, channels, count, rows, columns)

    inputs = ChunkInputs(
        history=slots(config.latent_channels, layout.num_history),
        condition=slots(config.condition_channels, layout.num_slots),
        rays=slots(config.ray_channels, layout.num_slots),
        correspondence=slots(config.correspondence_channels, layout.num_slots).tanh_(),
        text=draw(1, options.text_tokens, config.text_dim),
        image=draw(1, options.image_tokens, config.image_dim),
    )
    return inputs, slots(config.latent_channels, layout.num_generated).float()


class Member:
    """What one process does."""

    def __init__(self, rank, options):
        self.rank, self.options, self.found = rank, options, {"profiles": {}}
        device, dtype = ("cuda", torch.bfloat16) if is_cuda() else ("cpu", torch.float32)
        config = replace(TINY, dim=64, ffn_dim=128, num_heads=4) if options.tiny else LYRA2_14B
        self.config = replace(config, num_layers=options.layers)
        self.dit = build_dit(self.config, device=device, dtype=dtype).eval().requires_grad_(False)
        generator = torch.Generator(device).manual_seed(0)
        for name, parameter in self.dit.named_parameters():
            is_norm = "norm" in name and name.endswith("weight")
            parameter.fill_(1.0) if is_norm else parameter.normal_(0.0, 0.02, generator=generator)
        self.inputs, self.latents = random_chunk(self.config, options, device, dtype)
        self.timestep = torch.tensor([900], device=device)
        self.share = exchange.Share.of()

    def context(self, share):
        self.dit.share = share
        return self.dit.prepare_context(self.inputs)

    def forward(self, context):
        return self.dit(self.latents, self.timestep, context)

    def measure(self, name):
        found = {}
        torch._dynamo.reset()  # every profile has blocks of its own, and what was compiled for others counts
        found["applied"] = str(apply_speed(self.dit, PROFILES[name]))
        self.reset()
        context = self.context(None)
        wanted = self.forward(context)
        found["one_s"] = timed(lambda: self.forward(context), 2, 0)
        found["one_peak_gib"] = self.peak()
        self.keep(name, found)
        del context
        self.reset()
        context = self.context(self.share)
        for groups in self.options.groups:
            exchange.HEAD_GROUPS = groups
            velocity = self.forward(context)
            found[f"error_{groups}_groups"] = relative(velocity, wanted)
            found[f"all_{groups}_groups_s"] = timed(lambda: self.forward(context), 2, 0)
            self.keep(name, found)
        if self.options.alone:
            found["exchanged_gib_each_way"] = self.exchanged_bytes(context, name) / 2**30
        best = min(self.options.groups, key=lambda groups: found[f"all_{groups}_groups_s"])
        found |= {"groups": best, "all_s": found[f"all_{best}_groups_s"], "all_peak_gib": self.peak()}
        found["gain"] = found["one_s"] / found["all_s"]
        if self.options.kernels and name != "fast":
            self.print_kernels(lambda: self.forward(context))
        del context
        self.reset()
        self.keep(name, found)
        if self.rank == 0:
            print(name, {k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}, flush=True)

    def exchanged_bytes(self, context, name):
        """Bytes that one process sends to all others in a forward: queries, keys, values and results."""
        spread, config = context.rotation.spread, self.config
        own = spread.answering()[self.share.rank]
        width = config.dim * (1 if name == "fastest" else self.dit.dtype.itemsize)
        return 4 * config.num_layers * own * width * (self.share.size - 1) / self.share.size

    def measure_guidance(self):
        """Both branches after one another, in one pass, and one a device, by the last profile."""
        self.reset()
        torch._dynamo.reset()
        found, context = {}, self.context(None)
        negative = self.dit.prepare_text(torch.zeros_like(self.inputs.text))
        plain = guided_velocity(self.dit, context, negative, 5.0)
        wanted = plain(self.latents, self.timestep)
        self.keep("guidance", found)
        found["guided_two_passes_s"] = timed(lambda: plain(self.latents, self.timestep), 1, 0)
        try:
            batched = guided_velocity(self.dit, context, negative, Guidance(scale=5.0, is_batched=True))
            found["guided_batched_error"] = relative(batched(self.latents, self.timestep), wanted)
            found["guided_batched_s"] = timed(lambda: batched(self.latents, self.timestep), 2, 0)
            found["guided_batched_peak_gib"] = self.peak()
        except torch.OutOfMemoryError as error:  # in every process, which are alike
            found["guided_batched"] = str(error).splitlines()[0]
        branch = context.with_text(negative) if self.rank % 2 else context

        def by_branches():
            one = self.dit(self.latents, self.timestep, branch)
            both = torch.ops.lyra.gather_ranks(one, self.share.size, self.share.group)
            return both[1] + 5.0 * (both[0] - both[1]) if len(both) > 1 else one

        found["guided_by_branches_error"] = relative(by_branches(), wanted)
        found["guided_by_branches_s"] = timed(by_branches, 2, 0)
        self.keep("guidance", found)
        if self.rank == 0:
            print("guidance", found, flush=True)

    def keep(self, name, found):
        self.found["profiles"][name] = found
        if self.rank:
            return
        card = torch.cuda.get_device_name() if is_cuda() else "cpu"
        slug = re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")
        asked = {k: v for k, v in vars(self.options).items() if k not in ("out", "kernels")}
        kind = {"alone": self.options.alone} if self.options.alone else {}
        result = {"card": card, "devices": self.share.size, **kind, "options": asked, **self.found}
        write_result(f"lyra2_parallel_gpu{'-alone' if kind else ''}-{self.share.size}-{slug}", result, self.options.out)

    def print_kernels(self, function):
        if not is_cuda():
            return
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            function()
            synchronise()
        if self.rank == 0:
            for event in sorted(profiler.key_averages(), key=lambda e: -e.self_device_time_total)[:18]:
                print(
                    f"    {event.self_device_time_total / 1e3:9.1f} ms {event.count:5d} {event.key[:100]}", flush=True
                )

    @staticmethod
    def reset():
        if is_cuda():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    @staticmethod
    def peak():
        return torch.cuda.max_memory_allocated() / 2**30 if is_cuda() else 0.0

    def print_table(self):
        print(f"\n{'forward':10} {'1 device':>9} {self.share.size:>3} devices {'gain':>6} {'wanted':>7} {'error':>9}")
        for name, found in self.found["profiles"].items():
            if "gain" in found:
                error = found[f"error_{found['groups']}_groups"]
                numbers = f"{found['one_s']:9.3f} {found['all_s']:11.3f} {found['gain']:6.3f} {TARGET_GAIN:7.2f}"
                print(f"{name:10} {numbers} {error:9.2e}")


@torch.no_grad()
def work(rank, size, port, options):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    if options.alone:
        from torch.testing._internal.distributed.fake_pg import FakeStore

        dist.init_process_group("fake", rank=0, world_size=options.alone, store=FakeStore())
    elif is_cuda():
        torch.cuda.set_device(rank)
        dist.init_process_group("nccl", rank=rank, world_size=size, device_id=torch.device("cuda", rank))
    else:
        torch.set_num_threads(1)
        dist.init_process_group("gloo", rank=rank, world_size=size)
    member = Member(rank, options)
    if rank == 0:
        print("built", flush=True)
    for name in options.profiles.split(","):
        member.measure(name)
    if not options.alone:
        member.measure_guidance()
    if rank == 0:
        member.print_table()
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--layers", type=int, default=LYRA2_14B.num_layers)
    parser.add_argument("--devices", type=int, default=torch.cuda.device_count() or 2)
    parser.add_argument("--profiles", default=",".join(PROFILES))
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 2], help="parts of the heads to be tried")
    parser.add_argument("--text-tokens", type=int, default=512)
    parser.add_argument("--image-tokens", type=int, default=257)
    parser.add_argument(
        "--alone", type=int, default=0, help="time one of so many processes on one device, whose exchanges do nothing"
    )
    parser.add_argument("--kernels", action="store_true", help="print where the device's time goes")
    parser.add_argument("--tiny", action="store_true", help="a small network, on the CPU where there is no GPU")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.tiny:
        options.height, options.width, options.layers = 64, 96, 2
    if options.alone:
        work(0, 1, 0, options)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (options.devices, port, options), options.devices)


if __name__ == "__main__":
    main()
