"""Seconds to write and read a .ply of Gaussians: python benchmarks/ply.py [millions]."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch

from lyra_core.formats.ply import read_ply, write_ply
from lyra_core.values import Gaussians


def main(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for degree in (0, 3):
        gaussians = Gaussians(
            means=torch.randn(count, 3, generator=generator),
            quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=generator)),
            scales=torch.rand(count, 3, generator=generator) * 0.1 + 1e-3,
            opacities=torch.rand(count, generator=generator),
            sh=torch.randn(count, (degree + 1) ** 2, 3, generator=generator),
        )
        with tempfile.TemporaryDirectory() as folder:
            write_s, read_s = [], []
            for i in range(5):
                # A fresh name each time: renaming onto a file makes ext4 flush it, 0.15 s here.
                path = Path(folder, f"{i}.ply")
                start = time.perf_counter()
                write_ply(gaussians, path)
                middle = time.perf_counter()
                read_ply(path)
                write_s.append(middle - start)
                read_s.append(time.perf_counter() - middle)
            print(
                f"degree {degree}, {count:,} Gaussians, {path.stat().st_size / 1e6:.0f} MB: "
                f"write {min(write_s):.3f} s, read {min(read_s):.3f} s (best of 5)"
            )


if __name__ == "__main__":
    main(int(float(sys.argv[1]) * 1e6) if len(sys.argv) > 1 else 1_000_000)
