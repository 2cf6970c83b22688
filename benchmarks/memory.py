"""Times retrieval from a memory of 1,000 stored frames of 480x832, and the forward warp of one frame to a chunk.

Run from the repository's root: python benchmarks/memory.py
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable

import numba
import torch
from results import write_result

from lyra_core.config.rollout import CORRECTED_MEMORY, REFERENCE_MEMORY, MemoryConfig, WarpConfig
from lyra_core.geometry.warp import WarpSource, forward_warp
from lyra_core.video.memory import SpatialMemory, query_offsets

NUM_FRAMES, HEIGHT, WIDTH, FOCAL_PX = 1000, 480, 832, 700.0
NUM_DEPTHS = 16
REPEATS = 5
INTRINSICS = torch.tensor([[FOCAL_PX, 0, WIDTH / 2], [0, FOCAL_PX, HEIGHT / 2], [0, 0, 1]])


def wandering_cameras(num: int) -> torch.Tensor:
    """A walk of 5 cm a frame that keeps turning, so that frames overlap again and again."""
    w2c = torch.eye(4).repeat(num, 1, 1)
    for i in range(num):
        angle = 0.6 * math.sin(0.02 * i)
        c, s = math.cos(angle), math.sin(angle)
        rotation = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        center = torch.tensor([3 * math.sin(0.011 * i), 0.1 * math.sin(0.05 * i), 3 * math.cos(0.013 * i)])
        w2c[i, :3, :3], w2c[i, :3, 3] = rotation.T, -rotation.T @ center
    return w2c


def wavy_depth(frame: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return 4 + torch.sin(0.01 * x + 0.1 * frame) * torch.cos(0.02 * y) + 0.002 * y


def filled(config: MemoryConfig, cameras: torch.Tensor) -> SpatialMemory:
    memory = SpatialMemory(HEIGHT, WIDTH, config)
    depths = [wavy_depth(i) for i in range(NUM_DEPTHS)]
    for i in range(NUM_FRAMES):
        memory.add([8 * i], depths[i % NUM_DEPTHS][None], cameras[i : i + 1], INTRINSICS[None])
    return memory


def timed(call: Callable[[], object]) -> dict[str, float]:
    seconds, processor = [], []
    for _ in range(REPEATS + 1):
        start, start_processor = time.perf_counter(), time.process_time()
        call()
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    rest = sorted(seconds[1:])
    return {
        "first_s": round(seconds[0], 4),
        "best_s": round(rest[0], 4),
        "median_s": round(rest[REPEATS // 2], 4),
        # All threads together: what a shared machine's load disturbs least.
        "processor_s": round(min(processor[1:]), 4),
    }


def time_retrieval(config: MemoryConfig) -> dict[str, float]:
    cameras = wandering_cameras(NUM_FRAMES + 80)
    memory = filled(config, cameras)
    at = [NUM_FRAMES + i for i in query_offsets(config.num_query_cameras)]
    return timed(lambda: memory.retrieve(cameras[at], INTRINSICS.expand(len(at), 3, 3)))


def time_warp(config: WarpConfig, render: list[int] | None) -> dict[str, float]:
    source = WarpSource(
        values=torch.rand(1, 1, 3, HEIGHT, WIDTH) * 2 - 1,
        depth_m=wavy_depth(0)[None, None],
        world_to_cam=torch.eye(4)[None, None],
        intrinsics=INTRINSICS[None, None],
    )
    cameras = torch.eye(4).repeat(80, 1, 1)
    cameras[:, 0, 3] = torch.linspace(0, 0.8, 80)
    return timed(lambda: forward_warp(source, cameras, INTRINSICS.expand(80, 3, 3), config, render=render))


def main() -> None:
    found = {
        "what": f"{NUM_FRAMES} stored frames of {WIDTH}x{HEIGHT}; warp of one of them to 80 cameras",
        "threads": numba.get_num_threads(),
        "results": {
            "retrieve, one query camera": time_retrieval(REFERENCE_MEMORY),
            "retrieve, four query cameras": time_retrieval(CORRECTED_MEMORY),
            "warp to 80 cameras": time_warp(WarpConfig(), None),
            "warp to the 20 cameras used": time_warp(WarpConfig(), list(range(3, 80, 4))),
        },
    }
    print(json.dumps(found, indent=2))
    print("wrote", write_result("memory", found))


if __name__ == "__main__":
    main()
