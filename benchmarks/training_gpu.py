"""Throughput of what trains the mini model: `python benchmarks/training_gpu.py --device cuda` (about two minutes).

Prints frames rendered a second, samples a second of the autoencoder and of candidate sizes of the video network, and
how long each takes to its first step on a machine with empty caches.
"""

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch

START = time.perf_counter()


def say(**row):
    row["at_s"] = round(time.perf_counter() - START, 1)
    print(json.dumps(row), flush=True)


def wait(device):
    if device != "cpu":
        torch.cuda.synchronize()


def rate(function, count, seconds, device):
    """Items a second of a function that makes `count` of them, and the seconds of its first call."""
    begin = time.perf_counter()
    function()
    wait(device)
    first = time.perf_counter() - begin
    function()
    wait(device)
    begin, calls = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds or calls < 2:
        function()
        calls += 1
        if calls % 4 == 0:
            wait(device)
    wait(device)
    return count * calls / (time.perf_counter() - begin), first


def prepare(options):
    from lyra_core.procedural.atlas import build_atlas
    from lyra_core.procedural.workers import preparing
    from lyra_core.procedural.world_clips import WorldLibrary

    begin = time.perf_counter()
    with preparing() as workers:
        say(what="worker processes asked for", s=round(time.perf_counter() - begin, 1))
        photographs = "examples" if Path("examples").is_dir() else None
        atlas = build_atlas("train", per_kind=options.textures, size=256, photographs=photographs, workers=workers)
        say(what="atlas", s=round(time.perf_counter() - begin, 1))
        worlds = WorldLibrary(range(options.scenes), "train", atlas.to(options.device), size=options.size)
    say(what="scenes and cameras", s=round(time.perf_counter() - begin, 1), scenes=options.scenes)
    return worlds


def measure_renderer(worlds, options):
    sizes = worlds.sizes
    for shelf in range(len(worlds.shelves)):
        worlds.sizes = torch.zeros_like(sizes).index_fill_(0, torch.tensor([shelf]), 1.0)
        for supersample in (2, 1):
            generator = torch.Generator().manual_seed(0)

            def draw(generator=generator, supersample=supersample):
                return worlds.clips(options.clips, 9, generator, supersample=supersample)

            frames, first = rate(draw, 9 * options.clips, options.seconds, options.device)
            row = {"flat": worlds.shelves[shelf].scenes.is_flat, "supersample": supersample}
            say(what="renderer", **row, frames_per_s=round(frames), first_s=round(first, 1))
    worlds.sizes = sizes


def check_renderer(worlds, options):
    """The GPU's frames beside the plain reference's, and a picture of some."""
    from PIL import Image

    from lyra_core.procedural.worlds import render_frames

    for shelf in worlds.shelves:
        some = torch.tensor([0], device=options.device)
        drawn = (shelf.scenes[some], shelf.cam_to_world[some, 0, :1], shelf.intrinsics[some, :1], *options.size)
        fused, plain = (render_frames(*drawn, casting=casting) for casting in ("auto", "plain"))
        error = (fused.rgb - plain.rgb).abs()
        depth = (fused.depth_m - plain.depth_m).abs() / plain.depth_m.clamp(min=1e-3)
        say(
            what="renderer against reference",
            mean=float(error.mean()),
            largest=float(error.max()),
            finite=bool(fused.rgb.isfinite().all()),
            depth_off_share=float((depth > 1e-3).float().mean()),
        )
    clips = worlds.clips(24, 1, torch.Generator().manual_seed(1))[:, 0]
    sheet = clips.unflatten(0, (6, 4)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    Image.fromarray((sheet * 255).byte().cpu().numpy()).save(options.out / "worlds.png")


def measure_vae(options):
    from lyra_core.training.loop_config import LoopConfig
    from lyra_core.training.vae import VaeTrainingConfig, _forward, initial_vae, latent_noise

    height, width = options.size
    config = VaeTrainingConfig(loop=LoopConfig(max_steps=1), batch=options.vae_batch, height=height, width=width)
    device = torch.device(options.device)
    model = initial_vae(config, device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=device.type == "cuda")
    video = torch.rand(config.batch, 3, 9, *options.size, device=device) * 2 - 1
    noise = latent_noise(config, config.batch, torch.Generator().manual_seed(0), device)
    forward = torch.compile(_forward, dynamic=False) if options.compile else _forward

    def step(forward):
        with torch.autocast(device.type, torch.bfloat16):
            loss, *_ = forward(model, video, noise, 1e-4)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    ways = {"eager": _forward, "compiled": forward} if options.compile else {"eager": _forward}
    for name, way in ways.items():
        clips, first = rate(lambda way=way: step(way), config.batch, options.seconds, options.device)
        say(what="vae step", way=name, clips_per_s=round(clips), frames_per_s=round(9 * clips), first_s=round(first, 1))


def measure_dit(options):
    """Whole training steps, by batch: a rate that grows with it says that the processor launches too slowly."""
    from lyra_core.mini.config import MINI
    from lyra_core.mini.networks import build_mini_networks
    from lyra_core.procedural.chunks import ChunkMaker
    from lyra_core.training.chunk_pool import ChunkPool, joined_rows
    from lyra_core.training.cuda_graph import CudaGraphStep
    from lyra_core.training.flow import FlowConfig, flow_batch, flow_losses
    from lyra_core.training.loop_config import LoopConfig
    from lyra_core.training.precision import Precision
    from lyra_core.training.video import clip_maker, frozen_vae
    from lyra_core.training.video_config import VideoTrainingConfig

    device = torch.device(options.device)
    loop = LoopConfig(max_steps=1, precision="copy" if device.type == "cuda" else "float32")
    config = VideoTrainingConfig(loop=loop, num_scenes=16, textures_per_kind=2, views=options.views)
    maker = ChunkMaker(frozen_vae(config, device), config.dit.history_layout, MINI, config.chunks)
    clips = clip_maker(config, "train", device, maker.num_frames)
    pool = ChunkPool(clips, maker, 64, config.clips_at_once)
    generator = torch.Generator().manual_seed(0)
    for what, part in (
        ("clips", lambda: clips.draw(config.clips_at_once, generator)),
        ("refill", lambda: pool.add(pool.make(None, generator))),
    ):
        each, first = rate(part, 1, options.seconds, options.device)
        say(what=what, clips=config.clips_at_once, s=round(1 / each, 3), first_s=round(first, 1))
    for batch in (32, 96):
        torch.compiler.reset()  # a second size would be compiled for any size
        rows = joined_rows([pool.draw(16, None, generator) for _ in range(batch // 16)])
        precision = Precision(build_mini_networks(config.dit, 0, device), loop.precision)
        there = torch.Generator(device).manual_seed(0)
        worker = precision.worker
        ways = {"launched": lambda drawn, worker=worker: flow_losses(worker, drawn)}
        if options.compile:
            worker.dit.compile_blocks()
            drawn = flow_batch(rows, config.dit.history_layout, FlowConfig(), MINI, there)
            ways["recorded"] = CudaGraphStep(partial(flow_losses, worker), list(worker.parameters()), drawn)
        for name, way in ways.items():

            def step(precision=precision, rows=rows, there=there, way=way):
                drawn = flow_batch(rows, config.dit.history_layout, FlowConfig(), MINI, there)
                precision.backward(precision.losses(lambda *_: way(drawn), 0))

            samples, first = rate(step, batch, options.seconds, options.device)
            say(what="video step", way=name, batch=batch, samples_per_s=round(samples, 1), first_s=round(first, 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scenes", type=int, default=48)
    parser.add_argument("--textures", type=int, default=16)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--vae-batch", type=int, default=96)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--size", type=int, nargs=2, default=(128, 224))
    parser.add_argument("--views", type=Path, help="camera paths made by `lyra train views`")
    parser.add_argument("--parts", nargs="+", default=["vae", "video"])
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for a picture of some worlds")
    options = parser.parse_args()
    options.compile, options.size = not options.eager, tuple(options.size)
    torch.backends.cudnn.benchmark = True
    if "vae" in options.parts:
        with ThreadPoolExecutor(1) as beside:
            worlds = beside.submit(prepare, options)
            measure_vae(options)
            found = worlds.result()
        check_renderer(found, options)
        measure_renderer(found, options)
    if "video" in options.parts:
        measure_dit(options)


if __name__ == "__main__":
    main()
