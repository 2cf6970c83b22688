"""Depth and Gaussian rows of benchmarks/mini.py, and one whole world timed in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from mini_bench import Bench
from mini_parts import RETURNING
from sheets import Strip, write_sheet

from lyra_core.gaussians.clip_source import MemoryClip
from lyra_core.gaussians.photometric import psnr_db
from lyra_core.gaussians.render import render
from lyra_core.generative.mini import mini_reconstructor
from lyra_core.training.depth_table import HELD_OUT_EVERY, as_dict, depth_table
from lyra_core.training.estimated_depth import camera_path
from lyra_core.values import VideoClip
from lyra_core.video.world_state import to_bytes

WORLD_SCRIPT = Path(__file__).with_name("mini_world.py")
WORLD_FRAMES = 81
TIER = {"tier": "100k"}
"""As the recipe has it."""
VIEWED = 44
"""A held-out frame near the middle of the video."""


def gaussians_of_generated(bench: Bench, scenes: int) -> None:
    """Gaussians of generated videos at frames left out of their making."""
    reconstructor = mini_reconstructor(bench.estimator, "table", TIER)
    values, strips = [], []
    for clips in bench.clips(RETURNING, [0], at_once=scenes, scenes=scenes):
        made = bench.make(clips, depth="estimated")[:, :WORLD_FRAMES]
        for index, video in enumerate(made):
            frames = to_bytes(video.cpu() * 2 - 1)
            clip = VideoClip(frames=frames, cameras=camera_path(clips, index)[:WORLD_FRAMES])
            held = list(range(HELD_OUT_EVERY // 2, len(clip), HELD_OUT_EVERY))
            kept = [i for i in range(len(clip)) if i not in held]
            source = MemoryClip(clip).window(torch.tensor(kept))
            bare = VideoClip(frames=source.frames, cameras=source.cameras)
            splats = reconstructor(bare)
            drawn = render(splats, clip.cameras[held]).color
            values.append(psnr_db(drawn, clip.frames[held].float() / 255))
            at = held.index(VIEWED)
            pair = [clip.frames[VIEWED].permute(2, 0, 1) / 255, drawn[at].permute(2, 0, 1)]
            strips.append(Strip(label=f"{values[-1]:.1f} dB", pictures=pair))
    bench.note("splats_own_db", torch.tensor(values))
    columns = ["generated", "its Gaussians"]
    title = f"Gaussians of generated videos, left-out frame {VIEWED}"
    write_sheet(title, columns, strips[:6], bench.out / "gaussians.jpg")


def depth_rows(bench: Bench, scenes: int) -> None:
    """What the depth table says: depth of rendered videos and images, Gaussians at left-out frames and novel views."""
    found = as_dict(depth_table(bench.estimator.model, num_scenes=scenes, atlas=bench.atlas))
    for key in ("absrel_cameras", "absrel_single", "absrel_single_aligned"):
        bench.note(key, float(found[key]), scenes=scenes)
    bench.note("splats_rendered_db", float(found["footprint_video_db"]), scenes=scenes)
    bench.note("splats_novel_db", float(found["head_novel_db"]), scenes=scenes)
    bench.note("splats_novel_gain_db", float(found["head_novel_db"] - found["parallax_novel_db"]), scenes=scenes)
    bench.detail(**{key: float(value) for key, value in found.items() if key != "num_scenes"})


def world(bench: Bench) -> None:
    """Seconds and memory of one world on two cores of this machine, in a fresh process."""
    command = [sys.executable, str(WORLD_SCRIPT), "--weights", str(bench.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"one world could not be timed here: {last}", flush=True)
        return
    found = json.loads(done.stdout.strip().splitlines()[-1])
    note = f"{found['cpu']}, {found['precision']}"
    bench.note("world_seconds", found["seconds"], note)
    bench.note("world_video_seconds", found["stages"]["video"], note)
    bench.note("world_splats_seconds", found["stages"]["gaussians"], note)
    bench.note("world_peak_rss_gib", found["peak_rss_gib"], note)
    bench.detail(**{f"world {name} seconds": value for name, value in found["stages"].items()})
