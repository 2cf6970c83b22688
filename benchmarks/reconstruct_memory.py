"""Peak memory of reconstructing a short and a long video at one output size, each in a process of its own.

Run from the repository's root: python benchmarks/reconstruct_memory.py [--frames 161 961]
--large reconstructs one video of 480x832 instead and writes held-out frames, truth above, into --out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from results import write_result

from lyra_core.gaussians.clip_source import StoredClip, write_stored_clip
from lyra_core.gaussians.keyframes import KeyframeConfig
from lyra_core.gaussians.lifters import ClipDepthLifter
from lyra_core.gaussians.reconstruct import ReconstructionConfig, reconstruct
from lyra_core.gaussians.render import render
from lyra_core.image_metrics import psnr_db
from lyra_core.values import CameraPath, VideoClip

HEIGHT, WIDTH, FOCAL_PX = 36, 64, 50.0
STEP_M = 0.02


def corridor(num_frames: int, height: int = HEIGHT, width: int = WIDTH) -> VideoClip:
    """A walk along an endless corridor: the farther, the more there is to keep."""
    focal = FOCAL_PX * width / WIDTH
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    x, y = (u - width / 2) / focal, (v - height / 2) / focal
    depth = 1.0 / torch.maximum(x.abs(), 1.6 * y.abs())
    fog = depth > 12.0
    w2c = torch.eye(4, dtype=torch.float64).repeat(num_frames, 1, 1)
    w2c[:, 2, 3] = -STEP_M * torch.arange(num_frames)
    along = depth + STEP_M * torch.arange(num_frames)[:, None, None]
    shade = [0.5 + 0.3 * torch.sin(k * along + x * depth) * torch.exp(-0.2 * depth) for k in (1.0, 1.7, 2.3)]
    shade = [torch.where(fog, 0.5, channel) for channel in shade]
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)
    cameras = CameraPath(
        world_to_cam=w2c, intrinsics=K.repeat(num_frames, 1, 1), image_height=height, image_width=width
    )
    frames = (torch.stack(shade, -1) * 255).to(torch.uint8)
    shape = (num_frames, height, width)
    return VideoClip(
        frames=frames,
        cameras=cameras,
        depth_m=torch.where(fog, 0.0, depth).expand(shape).contiguous(),
        sky=fog.expand(shape).contiguous(),
    )


def peak_mib() -> float:
    """Most memory this process has had resident; unlike ru_maxrss it does not start at its parent's."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)


def measure(path: Path) -> dict:
    """Reconstruct in this process; its peak before and after, and what came out."""
    before = peak_mib()
    config = ReconstructionConfig(
        tier=4000, chunk_frames=16, keyframes=KeyframeConfig(max_shift=0.004), sample_views=8, judge_views=16
    )
    report = reconstruct(StoredClip(path), lifter=ClipDepthLifter(), config=config).report
    return {
        "num_frames": report.num_frames,
        "num_keyframes": report.num_keyframes,
        "num_chunks": report.num_chunks,
        "num_gaussians": report.num_gaussians,
        "baseline_mib": before,
        "peak_mib": peak_mib(),
        "seconds": round(report.seconds, 1),
    }


def compare(frames: tuple[int, ...]) -> list[dict]:
    """One row a length, each measured in a fresh process."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in frames:
            path = Path(folder) / f"{count}.safetensors"
            write_stored_clip(corridor(count), path)
            done = subprocess.run(
                [sys.executable, __file__, "--measure", str(path)], check=True, capture_output=True, text=True
            )
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
    return rows


def measure_large(path: Path, out: Path) -> dict:
    """Reconstruct a video of full size in this process from every frame but every eighth."""
    source, before = StoredClip(path), peak_mib()
    count = len(source.cameras)
    held = list(range(4, count, 8))
    kept = torch.tensor([i for i in range(count) if i not in held])

    class Kept:
        cameras = source.cameras[kept]

        def window(self, frames: torch.Tensor) -> VideoClip:
            return source.window(kept[frames])

    made = reconstruct(Kept(), lifter=ClipDepthLifter(), config=ReconstructionConfig(tier="500k"))
    after = peak_mib()
    truth = source.window(torch.tensor(held)).frames.float() / 255
    drawn = render(made.gaussians, source.cameras[held]).color
    out.mkdir(parents=True, exist_ok=True)
    sheet = (torch.cat([truth[len(held) // 2], drawn[len(held) // 2]]) * 255).round().byte().numpy()
    Image.fromarray(sheet).save(out / "large.png")
    report = made.report
    return {
        "size": f"{source.cameras.image_width}x{source.cameras.image_height}",
        "num_frames": report.num_frames,
        "num_keyframes": report.num_keyframes,
        "num_gaussians": report.num_gaussians,
        "coverage": round(report.coverage, 5),
        "held_out_psnr_db": round(psnr_db(drawn, truth), 2),
        "baseline_mib": before,
        "peak_mib": after,
        "seconds": round(report.seconds, 1),
        "cpu_seconds": round(time.process_time(), 1),
    }


def large(out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.safetensors"
        write_stored_clip(corridor(81, 480, 832), path)
        done = subprocess.run(
            [sys.executable, __file__, "--measure-large", str(path), "--out", str(out)],
            check=True,
            capture_output=True,
            text=True,
        )
    row = json.loads(done.stdout.splitlines()[-1])
    print(row)
    print("wrote", write_result("reconstruct-large", {"what": "480x832, exact depth, 500k", "results": row}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, nargs="*", default=[161, 961])
    parser.add_argument("--measure", type=Path)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--measure-large", type=Path)
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    given = parser.parse_args()
    if given.large:
        large(given.out)
        return
    if given.measure_large:
        print(json.dumps(measure_large(given.measure_large, given.out)))
        return
    if given.measure:
        print(json.dumps(measure(given.measure)))
        return
    rows = compare(tuple(given.frames))
    growth = rows[-1]["peak_mib"] / rows[0]["peak_mib"] - 1
    found = {"what": f"peak memory at {WIDTH}x{HEIGHT}, 4000 Gaussians", "growth": round(growth, 4), "results": rows}
    print("wrote", write_result("reconstruct-memory", found))


if __name__ == "__main__":
    main()
