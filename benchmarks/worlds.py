"""How many frames a second the procedural worlds render: `python benchmarks/worlds.py --device cuda`."""

import argparse
import time

import torch

from lyra_core.procedural.atlas import build_atlas
from lyra_core.procedural.world_clips import WorldLibrary


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scenes", type=int, default=64)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--supersample", type=int, nargs="+", default=[2, 1])
    options = parser.parse_args()
    is_cuda = options.device != "cpu"
    start = time.perf_counter()
    atlas = build_atlas("train", per_kind=4).to(options.device)
    worlds = WorldLibrary(range(options.scenes), "train", atlas, size=(128, 224))
    print(f"atlas, scenes and cameras: {time.perf_counter() - start:.1f} s")
    sizes = worlds.sizes
    for supersample in options.supersample:
        for shelf in range(len(worlds.shelves)):
            worlds.sizes = torch.zeros_like(sizes).index_fill_(0, torch.tensor([shelf]), 1.0)
            sort = "flat" if worlds.shelves[shelf].scenes.is_flat else "wavy"
            times = []
            for repeat in range(6 if is_cuda else 2):
                start = time.perf_counter()
                worlds.clips(options.clips, 9, torch.Generator().manual_seed(repeat), supersample=supersample)
                if is_cuda:
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - start)
            rate = options.clips * 9 / min(times[1:])
            print(
                f"{sort} ground, supersample {supersample}: first {times[0]:.1f} s, then {rate:,.0f} frames/s",
                flush=True,
            )
    if is_cuda:
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
