"""On a GPU: gsplat against the CPU rasteriser on a reconstructed world, and one refinement of a disturbed one.

Run from the repository's root: python benchmarks/reconstruct_gpu.py --out pictures [--tiny]
--tiny runs the same steps on a CPU (plain reference instead of gsplat), small enough to try the script.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from results import hardware

from lyra_core.gaussians.clip_source import MemoryClip
from lyra_core.gaussians.keyframes import KeyframeConfig
from lyra_core.gaussians.lifters import ClipDepth
from lyra_core.gaussians.photometric import psnr_db
from lyra_core.gaussians.reconstruct import ReconstructionConfig, reconstruct
from lyra_core.gaussians.refine import LearningRates, RefineConfig, refine
from lyra_core.gaussians.render import render
from lyra_core.geometry.camera import rotation_about_axis
from lyra_core.values import Gaussians, VideoClip

TARGET_DB = 40.0
NOISE = 0.3  # of a splat's largest extent
POSE_NOISE_DEG, POSE_NOISE_M = 0.1, 0.01


def save(picture: torch.Tensor, path: Path) -> None:
    Image.fromarray((picture.clamp(0, 1) * 255).round().byte().cpu().numpy()).save(path)


def scene(tiny: bool, device: str) -> VideoClip:
    from lyra_core.training.scene_batch import SceneBatch
    from lyra_core.training.views import sample_path
    from lyra_core.training.worlds import default_atlas, render_scene, sample_scene

    frames, height, width = (9, 16, 24) if tiny else (81, 480, 832)
    world = sample_scene(11, "train", kind="room")
    path = sample_path(world, "truck-left", frames, height, width)
    batch = SceneBatch.of([world], default_atlas("train"))
    shown = render_scene(batch.to(device) if device != "cpu" else batch, [path], height, width)
    relative = replace(path, world_to_cam=path.world_to_cam @ path.cam_to_world[:1])
    return VideoClip(
        frames=(shown.rgb[0] * 255).round().clamp(0, 255).to(torch.uint8).cpu(),
        cameras=relative,
        depth_m=shown.depth_m[0].cpu(),
        sky=shown.sky[0].cpu(),
    )


def compare_engines(gaussians: Gaussians, clip: VideoClip, device: str, out: Path) -> dict:
    """The same Gaussians from the same cameras with both engines."""
    views = clip.cameras[[0, len(clip) // 2, len(clip) - 1]]
    fast_engine = "gsplat" if device == "cuda" else "reference"
    started = time.perf_counter()
    fast = render(gaussians.to(device), views, engine=fast_engine)
    first_s = time.perf_counter() - started
    started = time.perf_counter()
    fast = render(gaussians.to(device), views, engine=fast_engine)
    fast_s = time.perf_counter() - started
    started = time.perf_counter()
    slow = render(gaussians, views, engine="numba")
    slow_s = time.perf_counter() - started
    quality = psnr_db(fast.color.cpu(), slow.color)
    both = slow.alpha > 0.5
    depth = ((fast.depth_m.cpu() - slow.depth_m).abs() / slow.depth_m.clamp_min(1e-6))[both]
    save(
        torch.cat([fast.color[1].cpu(), slow.color[1], 20 * (fast.color[1].cpu() - slow.color[1]).abs()]),
        out / "engines.png",
    )
    return {
        "engine": fast_engine,
        "psnr_db": round(quality, 2),
        "meets_target": quality >= TARGET_DB,
        "median_depth_difference": float(depth.median()),
        "first_s": round(first_s, 3),
        "engine_s": round(fast_s, 4),
        "numba_s": round(slow_s, 3),
        "num_views": len(views),
    }


def disturbed(gaussians: Gaussians, clip: VideoClip) -> tuple[Gaussians, VideoClip]:
    """Centres moved by a share of their size, colours and frames' exposure changed, cameras shaken (frame 0 not)."""
    g = torch.Generator().manual_seed(0)
    sizes = gaussians.scales.amax(1, keepdim=True)
    moved = replace(
        gaussians,
        means=gaussians.means + NOISE * sizes * torch.randn(gaussians.means.shape, generator=g),
        sh=gaussians.sh + 0.15 * torch.randn(gaussians.sh.shape, generator=g),
    )
    w2c = clip.cameras.world_to_cam.clone()
    for i in range(1, len(clip)):
        angle = torch.deg2rad(torch.randn(1, generator=g).double()[0] * POSE_NOISE_DEG)
        w2c[i, :3, :3] = rotation_about_axis((0.2, 1.0, 0.1), angle) @ w2c[i, :3, :3]
        w2c[i, :3, 3] += torch.randn(3, generator=g).double() * POSE_NOISE_M
    gain = 1.0 + 0.04 * torch.randn(len(clip), 1, 1, 1, generator=g)
    gain[0] = 1.0
    frames = (clip.frames.float() * gain).round().clamp(0, 255).to(torch.uint8)
    return moved, replace(clip, frames=frames, cameras=replace(clip.cameras, world_to_cam=w2c))


def refined(gaussians: Gaussians, clip: VideoClip, tiny: bool, device: str, out: Path) -> dict:
    wrong, shaken = disturbed(gaussians, clip)
    losses: list[float] = []
    rates = LearningRates(means=1e-4, sh_base=1e-2) if tiny else LearningRates()
    config = RefineConfig(steps=30 if tiny else 500, rates=rates)
    found = refine(wrong.to(device), shaken, config, on_step=lambda _, loss: losses.append(loss))
    again = refine(wrong.to(device), shaken, config)
    middle = clip.cameras[[len(clip) // 2]]
    engine = "gsplat" if device == "cuda" else "numba"
    rows = [clip.frames[len(clip) // 2].float() / 255]
    rows += [render(x.to(device), middle, engine=engine).color[0].cpu() for x in (wrong, found.gaussians)]
    save(torch.cat(rows), out / "refined.png")
    return {
        "num_gaussians": len(gaussians),
        "steps": config.steps,
        "is_kept": found.is_kept,
        "held_out_before_db": round(found.psnr_before_db, 2),
        "held_out_after_db": round(found.psnr_after_db, 2),
        "coverage_before": round(found.coverage_before, 4),
        "coverage_after": round(found.coverage_after, 4),
        "second_run_difference_db": abs(again.psnr_after_db - found.psnr_after_db),
        "first_loss": losses[0],
        "last_loss": sum(losses[-10:]) / 10,
        "seconds": round(found.seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() and not given.tiny else "cpu"
    clip = scene(given.tiny, device)
    keyframes = KeyframeConfig(max_keyframes=2 if given.tiny else 24)
    config = ReconstructionConfig(tier=400 if given.tiny else 500_000, keyframes=keyframes, sample_views=8)
    started = time.perf_counter()
    world = reconstruct(MemoryClip(clip), lifter=ClipDepth(), config=config)
    found = {
        "hardware": hardware(),
        "reconstruct_s": round(time.perf_counter() - started, 1),
        "num_gaussians": len(world.gaussians),
        "coverage": world.report.coverage,
        "engines": compare_engines(world.gaussians, clip, device, given.out),
    }
    print(json.dumps(found, indent=2), flush=True)
    found["refine"] = refined(world.gaussians, clip, given.tiny, device, given.out)
    print(json.dumps(found["refine"], indent=2), flush=True)
    (given.out / "reconstruct_gpu.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
