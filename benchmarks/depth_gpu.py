"""Where a training step of mini's depth network spends its time: `python benchmarks/depth_gpu.py --device cuda`.

Prints milliseconds of a step with known cameras and of one with single images, launched kernel by kernel and recorded,
the most expensive kernels, and what drawing, unpacking and varying a batch cost.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from lyra_core.mini.depth import MINI_DEPTH, TINY_REFINED_DEPTH
from lyra_core.procedural.depth_windows import WindowConfig, WindowPool, WindowSource, vary_colors
from lyra_core.training.cuda_graph import CudaGraphStep
from lyra_core.training.depth import DepthBatch, batch_losses, build_mini_depth
from lyra_core.training.loop import step_generator


def say(**row: object) -> None:
    print(json.dumps(row), flush=True)


def milliseconds(function: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Mean of some calls after one that warms up."""
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(repeats):
        function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return round(1000 * (time.perf_counter() - begin) / repeats, 2)


def random_batch(count: int, views: int, height: int, width: int, device: torch.device) -> DepthBatch:
    """Noise with cameras side by side."""
    draw = step_generator(0, 0)
    poses = torch.eye(4).repeat(count, views, 1, 1)
    poses[..., 0, 3] = -0.1 * torch.arange(views)
    K = torch.tensor([[0.9 * width, 0.0, width / 2], [0.0, 0.9 * width, height / 2], [0.0, 0.0, 1.0]])
    return DepthBatch(
        images=torch.rand(count, views, 3, height, width, generator=draw).to(device),
        depth_m=(1.0 + 3.0 * torch.rand(count, views, height, width, generator=draw)).to(device),
        intrinsics=K.expand(count, views, 3, 3).to(device).contiguous(),
        poses=poses.to(device),
        unit_m=torch.full((count,), 2.0, device=device),
    )


def measure_model(given: argparse.Namespace, device: torch.device) -> None:
    """Steps, kernel by kernel and recorded."""
    size = (32, 56) if given.debug else (128, 224)
    model = build_mini_depth(TINY_REFINED_DEPTH if given.debug else MINI_DEPTH, 0).to(device)
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    parameters = list(model.parameters())
    for is_single in (False, True):
        views = 1 if is_single else 4
        batch = random_batch(given.batch * 4 // views, views, *size, device)
        what = "single" if is_single else "known cameras"

        def plain(is_single: bool = is_single, batch: DepthBatch = batch) -> None:
            with torch.autocast(device.type, torch.bfloat16):
                batch_losses(model, is_single, batch)["loss"].backward()  # type: ignore[no-untyped-call]
            model.zero_grad(set_to_none=True)

        say(what=what, way="launched", ms=milliseconds(plain, given.repeats, device))
        if device.type != "cuda":
            continue
        with torch.autocast(device.type, torch.bfloat16):
            recorded = CudaGraphStep(partial(batch_losses, model, is_single), parameters, batch)
        say(what=what, way="recorded", ms=milliseconds(partial(recorded, batch), given.repeats, device))
        say(what="memory", gib=round(torch.cuda.max_memory_allocated() / 2**30, 1))
        if given.kernels:
            profile(plain)


def measure_data(given: argparse.Namespace, device: torch.device) -> None:
    """Drawing, unpacking and varying."""
    size = {"height": 32, "width": 56, "supersample": 1, "fresh_windows": 2} if given.debug else {}
    data = WindowConfig(
        num_scenes=16, num_held_out=1, textures_per_kind=1, pool_windows=200, views=given.views, takes=1, **size
    )
    source = WindowSource(data, "train", device)
    generator = step_generator(0, 0)
    pool = WindowPool(source, 4, generator)
    pool.batch = given.batch
    windows = pool.draw(generator)
    parts = {
        f"drawing {data.fresh_windows} windows": lambda: source.draw(data.fresh_windows, generator),
        f"a batch of {given.batch} windows": lambda: pool.draw(generator),
        "varying colours": lambda: vary_colors(windows.rgb, generator),
    }
    for what, part in parts.items():
        say(what=what, ms=milliseconds(part, given.repeats, device))


def profile(function: Callable[[], object]) -> None:
    """The dearest kernels of one step."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    with record(activities=[ProfilerActivity.CUDA]) as found:
        function()
        torch.cuda.synchronize()
    print(found.key_averages().table(sort_by="cuda_time_total", row_limit=20, max_name_column_width=90), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--views", type=Path, help="camera paths made by `depth-views`")
    parser.add_argument("--kernels", action="store_true", help="the dearest kernels too")
    parser.add_argument("--debug", action="store_true", help="small frames and model, to try the command on a CPU")
    given = parser.parse_args()
    torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = True, 2
    measure_model(given, torch.device(given.device))
    measure_data(given, torch.device(given.device))


if __name__ == "__main__":
    main()
