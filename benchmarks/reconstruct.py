"""Judges reconstruction on procedural scenes with exact depth: held-out views, chunks against one pass, output sizes.

Run from the repository's root: python benchmarks/reconstruct.py --out pictures [--clips folder of stored clips]
Clips that the folder does not hold are rendered first, which takes most of the time.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from PIL import Image
from reconstruct_memory import corridor
from results import write_result

from lyra_core.gaussians.clip_source import MemoryClip, StoredClip, write_stored_clip
from lyra_core.gaussians.duplicates import project_points
from lyra_core.gaussians.keyframes import KeyframeConfig
from lyra_core.gaussians.lifters import ClipDepthLifter
from lyra_core.gaussians.reconstruct import Reconstruction, ReconstructionConfig, reconstruct
from lyra_core.gaussians.render import render
from lyra_core.geometry.camera import unproject
from lyra_core.image_metrics import psnr_db
from lyra_core.values import VideoClip

SCENES = {
    "room_walk": ("room", 11, "walk", 49, 96, 160),
    "street_dolly-in": ("street", 12, "dolly-in", 49, 96, 160),
    "tabletop_orbit-right": ("tabletop", 13, "orbit-right", 33, 72, 120),
    "terrain_truck-left": ("terrain", 14, "truck-left", 33, 72, 120),
    "corridor_481": None,  # an analytic walk, long enough for many chunks
}
HOLD_OUT_EVERY, HELD = 8, 4
SAME_DEPTH = 0.02


def load(name: str, folder: Path) -> VideoClip:
    if name == "corridor_481":
        return corridor(481)
    kind, seed, path, frames, height, width = SCENES[name]
    file = folder / f"clip_{name}.safetensors"
    if not file.exists():
        from lyra_core.procedural.worlds import SceneLook, scene_clip

        write_stored_clip(scene_clip(seed, path, frames, height, width, SceneLook(kind=kind)), file)
    return StoredClip(file).window(torch.arange(frames))


def seen_by_sources(clip: VideoClip, held: int, sources: list[int]) -> torch.Tensor:
    """Pixels of a held-out frame whose surface some source frame shows as well."""
    depth = clip.depth_m[held]
    points = unproject(depth, clip.cameras.world_to_cam[held], clip.cameras.intrinsics[held]).reshape(-1, 3).float()
    seen = torch.zeros(depth.numel(), dtype=torch.bool) if clip.sky is None else clip.sky[held].flatten().clone()
    height, width = depth.shape
    for i in sources:
        u, v, z = project_points(points, clip.cameras.world_to_cam[i], clip.cameras.intrinsics[i])
        inside = (z > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        there = clip.depth_m[i][v.long().clamp(0, height - 1), u.long().clamp(0, width - 1)]
        seen |= inside & ((z - there).abs() < SAME_DEPTH * there)
    return seen.reshape(height, width)


def rebuild(clip: VideoClip, frames: list[int], **options: object) -> Reconstruction:
    return reconstruct(
        MemoryClip(clip).window(torch.tensor(frames)), lifter=ClipDepthLifter(), config=ReconstructionConfig(**options)
    )


def judge(clip: VideoClip, found: Reconstruction, held: list[int], sources: list[int]) -> tuple[dict, torch.Tensor]:
    drawn = render(found.gaussians, clip.cameras[held]).color
    wanted = clip.frames[held].float() / 255
    masks = torch.stack([seen_by_sources(clip, i, sources) for i in held])
    row = {
        "psnr_db_seen": round(psnr_db(drawn[masks], wanted[masks]), 2),
        "psnr_db_all": round(psnr_db(drawn, wanted), 2),
        "seen_share": round(float(masks.float().mean()), 4),
        "num_gaussians": len(found.gaussians),
        "num_keyframes": found.report.num_keyframes,
        "num_chunks": found.report.num_chunks,
        "coverage": round(found.report.coverage, 4),
        "seconds": round(found.report.seconds, 1),
    }
    picture = torch.cat(
        [torch.cat([w, d, 3 * (w - d).abs()], 1) for w, d in zip(wanted, drawn, strict=True)][:: max(1, len(held) // 4)]
    )
    return row, picture.clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=Path, default=None)
    parser.add_argument("--scenes", nargs="*", default=list(SCENES))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    every = KeyframeConfig(max_shift=0.0, min_shared=1.0)
    variants = {
        "default": {},
        "single_pass": {"chunk_frames": 1024, "keyframes": every},
        "chunks_of_16": {"chunk_frames": 16, "keyframes": every},
        "6000_gaussians": {"tier": 6000},
    }
    rows = {}
    for name in given.scenes:
        clip = load(name, given.clips or given.out)
        held = list(range(HELD, len(clip), HOLD_OUT_EVERY))
        sources = [i for i in range(len(clip)) if i not in held]
        rows[name] = {}
        for variant, options in variants.items():
            started = time.process_time()
            row, picture = judge(clip, rebuild(clip, sources, **options), held, sources)
            rows[name][variant] = row | {"cpu_seconds": round(time.process_time() - started, 1)}
            print(name, variant, rows[name][variant], flush=True)
            Image.fromarray((picture * 255).byte().numpy()).save(given.out / f"{name}-{variant}.png")
    print("wrote", write_result("reconstruct", {"what": "held-out views, exact depth and cameras", "scenes": rows}))


if __name__ == "__main__":
    main()
