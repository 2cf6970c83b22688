"""Where a training step of mini's depth network spends its time: `python benchmarks/depth_gpu.py --device cuda`.

Prints milliseconds of drawing fresh windows, of unpacking a batch, of a lone step and of a step with known cameras, by
direct sweeps and by sweeps that look up correlations of all pairs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

from lyra_core.gaussians.depth_anything import mini
from lyra_core.gaussians.depth_anything.mini import MINI_DEPTH, TINY_REFINED_DEPTH
from lyra_core.gaussians.depth_anything.plane_sweep import PlaneSweep
from lyra_core.training.depth import DepthTask, DepthTrainingConfig, build_mini_depth
from lyra_core.training.depth_windows import WindowConfig, WindowPool, WindowSource, vary_colors
from lyra_core.training.loop import LoopConfig, step_generator


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


class DirectSweep(PlaneSweep):
    """A sweep that never correlates all pairs, though it learns on a GPU."""

    def __init__(self, *given: object) -> None:
        super().__init__(*given, all_pairs=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--views", type=Path, help="camera paths made by `depth-views`")
    parser.add_argument("--toy", action="store_true", help="small frames and model, to try the command on a CPU")
    given = parser.parse_args()
    device = torch.device(given.device)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = True, 2
    size = {"height": 32, "width": 56, "supersample": 1, "fresh_windows": 2} if given.toy else {}
    data = WindowConfig(
        num_scenes=16, num_held_out=1, textures_per_kind=2, pool_windows=200, views=given.views, takes=1, **size
    )
    source = WindowSource(data, "train", device)
    generator = step_generator(0, 0)
    pool = WindowPool(source, given.batch, generator)
    parts = {
        f"drawing {data.fresh_windows} windows": lambda: source.draw(data.fresh_windows, generator),
        f"a batch of {given.batch} windows": lambda: pool.draw(generator),
    }
    windows = pool.draw(generator)
    parts["varying colours"] = lambda: vary_colors(windows.rgb, generator)
    for what, part in parts.items():
        say(what=what, ms=milliseconds(part, given.repeats, device))
    pool.draw = lambda _: windows  # type: ignore[method-assign]
    model = build_mini_depth(TINY_REFINED_DEPTH if given.toy else MINI_DEPTH, 0).to(device)
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    config = DepthTrainingConfig(loop=LoopConfig(max_steps=1), data=data, batch=given.batch, splat_windows=1)
    task = DepthTask(config, pool, None, 0)

    def step(number: int, *, backwards: bool = True) -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = task(model, number)["loss"]
        if backwards:
            loss.backward()

    for way, sweep in (("all pairs", PlaneSweep), ("direct", DirectSweep)):
        mini.PlaneSweep = sweep  # type: ignore[misc]
        for what, number in (("known cameras", 0), ("lone", 2)):
            for backwards in (False, True):
                ms = milliseconds(lambda n=number, b=backwards: step(n, backwards=b), given.repeats, device)
                say(what=what, way=way, backwards=backwards, ms=ms)
    if device.type == "cuda":
        say(what="memory", gib=round(torch.cuda.max_memory_allocated() / 2**30, 1))
        profile(lambda: step(0))


def profile(function: Callable[[], object]) -> None:
    """The dearest kernels of one step."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    with record(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
        function()
        torch.cuda.synchronize()
    print(found.key_averages().table(sort_by="cuda_time_total", row_limit=25, max_name_column_width=60), flush=True)


if __name__ == "__main__":
    main()
