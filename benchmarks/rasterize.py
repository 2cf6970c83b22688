"""Times the CPU rasteriser at 480x832 on random scenes and records the numbers with date and hardware.

Run from the repository's root: python benchmarks/rasterize.py
"""

from __future__ import annotations

import time

import numba
import torch
from results import write_result

from lyra_core.gaussians.rasterize import Rasterizer
from lyra_core.values import Gaussians

COUNTS = (100_000, 400_000, 1_000_000)
HEIGHT, WIDTH, FOCAL_PX = 480, 832, 800.0
REPEATS = 7


def random_scene(n: int) -> Gaussians:
    """A box of Gaussians whose total projected area is the same for every count."""
    g = torch.Generator().manual_seed(0)
    z = torch.rand(n, generator=g) * 8 + 2
    xy = (torch.rand(n, 2, generator=g) - 0.5) * z[:, None] * torch.tensor([1.1, 0.65])
    return Gaussians(
        means=torch.cat([xy, z[:, None]], 1),
        quats=torch.randn(n, 4, generator=g),
        scales=torch.rand(n, 3, generator=g) * 0.02 * (100_000 / n) ** 0.5 + 0.001,
        opacities=torch.rand(n, generator=g),
        sh=torch.randn(n, 1, 3, generator=g) * 0.5,
    )


def main() -> None:
    K = torch.tensor([[FOCAL_PX, 0, WIDTH / 2], [0, FOCAL_PX, HEIGHT / 2], [0, 0, 1]])
    rows = []
    for count in COUNTS:
        rasterizer = Rasterizer(random_scene(count))
        seconds = []
        for _ in range(REPEATS + 1):
            start = time.perf_counter()
            rasterizer.draw(torch.eye(4), K, HEIGHT, WIDTH)
            seconds.append(time.perf_counter() - start)
        timed = sorted(seconds[1:])
        row = {
            "num_splats": count,
            "first_s": seconds[0],
            "best_s": timed[0],
            "median_s": timed[REPEATS // 2],
        }
        rows.append({k: round(v, 4) for k, v in row.items()})
        print(rows[-1])
    found = {
        "what": f"one {WIDTH}x{HEIGHT} picture, colour + expected depth + alpha, degree 0",
        "threads": numba.get_num_threads(),
        "results": rows,
    }
    print("wrote", write_result("rasterize", found))


if __name__ == "__main__":
    main()
