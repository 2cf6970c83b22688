"""On a GPU: gsplat against the CPU rasteriser on a reconstructed world at every tier, and one refinement.

The refined world is made as in earnest: a video with a generated one's faults (perturbed cameras, flickering exposure,
depth a little off) is reconstructed under the cameras it was asked for, then refined on the same frames. Held-out
frames are judged with their own pose and exposure fitted; because the world is synthetic, the clean frames at the
requested cameras judge it too.

Run from the repository's root: python benchmarks/reconstruct_gpu.py --out pictures [--tiny]
--tiny runs the same steps on a CPU (plain reference instead of gsplat), small enough to try the script.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from PIL import Image
from results import hardware

from lyra_core.gaussians.clip_source import MemoryClip
from lyra_core.gaussians.keyframes import KeyframeConfig
from lyra_core.gaussians.lifters import ClipDepthLifter
from lyra_core.gaussians.reconstruct import ReconstructionConfig, reconstruct
from lyra_core.gaussians.refine import RefineConfig, refine
from lyra_core.gaussians.render import render
from lyra_core.image_metrics import psnr_db
from lyra_core.procedural.perturbed import PerturbedClip, perturbed_clip
from lyra_core.values import Gaussians, VideoClip

TARGET_DB = 40.0


def save(picture: torch.Tensor, path: Path) -> None:
    Image.fromarray((picture.clamp(0, 1) * 255).round().byte().cpu().numpy()).save(path)


def filmed(tiny: bool, device: str) -> PerturbedClip:
    frames, height, width = (17, 18, 32) if tiny else (81, 480, 832)
    return perturbed_clip(11, "truck-left", frames, height, width, device=device)


def rebuilt(clip: VideoClip, tier: str | int, tiny: bool) -> tuple[Gaussians, dict]:
    """Reconstruction with what it took."""
    keyframes = KeyframeConfig(max_keyframes=3 if tiny else 24)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    config = ReconstructionConfig(tier=tier, keyframes=keyframes, sample_views=8)
    world = reconstruct(MemoryClip(clip), lifter=ClipDepthLifter(), config=config)
    report = world.report
    return world.gaussians, {
        "tier": tier,
        "seconds": round(report.seconds, 1),
        "num_gaussians": report.num_gaussians,
        "coverage": round(report.coverage, 5),
        "coarsenings": report.coarsenings,
        "pruned": {name: getattr(report, name) for name in ("faint", "needles", "floaters", "lone")},
    }


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


def clean_db(gaussians: Gaussians, truth: VideoClip, held: list[int], device: str) -> float:
    """Against frames without faults, from the cameras that were asked for."""
    engine = "gsplat" if device == "cuda" else "numba"
    drawn = render(gaussians.to(device), truth.cameras[held], engine=engine).color.cpu()
    return psnr_db(drawn, truth.frames[held].float() / 255)


def refined(gaussians: Gaussians, film: PerturbedClip, tiny: bool, device: str, out: Path) -> dict:
    losses: list[float] = []
    config = RefineConfig(steps=120 if tiny else 500)
    found = refine(gaussians.to(device), film.perturbed, config, on_step=lambda _, loss: losses.append(loss))
    again = refine(gaussians.to(device), film.perturbed, config)
    held = list(range(config.hold_out_every - 1, len(film.perturbed), config.hold_out_every))
    view = film.truth.cameras[[held[len(held) // 2]]]
    engine = "gsplat" if device == "cuda" else "numba"
    rows = [film.truth.frames[held[len(held) // 2]].float() / 255]
    rows += [render(x.to(device), view, engine=engine).color[0].cpu() for x in (gaussians, found.gaussians)]
    save(torch.cat(rows), out / "refined.png")
    before, after = (clean_db(x, film.truth, held, device) for x in (gaussians, found.gaussians))
    wrong = (film.perturbed.cameras.world_to_cam - film.world_to_cam)[:, :3, 3].norm(dim=1)
    left = (found.world_to_cam - film.world_to_cam)[:, :3, 3].norm(dim=1)
    return {
        "num_gaussians": len(gaussians),
        "steps": config.steps,
        "is_kept": found.is_kept,
        "held_out_before_db": round(found.psnr_before_db, 2),
        "held_out_after_db": round(found.psnr_after_db, 2),
        "clean_before_db": round(before, 2),
        "clean_after_db": round(after, 2),
        "mean_camera_error_before_m": round(float(wrong.mean()), 5),
        "mean_camera_error_after_m": round(float(left.mean()), 5),
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
    film = filmed(given.tiny, device)
    tiers = (200, 400, 800) if given.tiny else ("100k", "500k", "2m")
    found: dict = {"hardware": hardware(), "tiers": []}
    for tier in tiers:
        gaussians, row = rebuilt(film.truth, tier, given.tiny)
        row["engines"] = compare_engines(gaussians, film.truth, device, given.out)
        found["tiers"].append(row)
        print(json.dumps(row, indent=2), flush=True)
    gaussians, found["rebuilt_with_faults"] = rebuilt(film.perturbed, tiers[1], given.tiny)
    found["refine"] = refined(gaussians, film, given.tiny, device, given.out)
    print(json.dumps(found["refine"], indent=2), flush=True)
    (given.out / "reconstruct_gpu.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
