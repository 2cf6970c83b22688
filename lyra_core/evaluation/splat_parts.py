"""Depth and Gaussian rows of the table, whole worlds judged, and one timed in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from itertools import islice

import torch

from lyra_core.evaluation.bench import SIZE, Bench
from lyra_core.evaluation.depth_table import HELD_OUT_EVERY, as_dict, depth_table, held_out_clips
from lyra_core.evaluation.estimated_depth import camera_path
from lyra_core.evaluation.measures import mean_of
from lyra_core.evaluation.novel_views import TrueViews, judged_frames, parallax_splats, true_views, world_splats
from lyra_core.evaluation.sheets import Strip, write_sheet
from lyra_core.evaluation.video_parts import RETURNING
from lyra_core.factory import factory_root
from lyra_core.gaussians.clip_source import MemoryClip
from lyra_core.gaussians.render import render
from lyra_core.image_metrics import psnr_db
from lyra_core.values import VideoClip
from lyra_core.video.world_state import to_bytes
from lyra_core.world_models.mini import load_mini_model, mini_reconstructor

TIMED = "flows.time_world"
"""The factory lies above this library, so that it is run as its users run it: as a program of its own."""
WORLD_FRAMES = 81
TIER = {"tier": "100k"}
"""As the recipe has it."""
VIEWED = 44
"""A held-out frame near the middle of the video."""
NOVEL_STRIPS = 6
NOVEL_VIEW = 2
"""The view on the sheet: far enough along the path to show what is behind things."""


def gaussians_of_generated(bench: Bench, scenes: int) -> None:
    """Gaussians of generated videos at frames left out of their making."""
    reconstructor = mini_reconstructor(bench.estimator, "table", TIER)
    values, strips = [], []
    for clips in bench.clips(RETURNING, [0], at_once=scenes, scenes=scenes):
        videos = bench.make(clips, depth="estimated")[:, :WORLD_FRAMES]
        for index, video in enumerate(videos):
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
    """What the depth table says: depth of all scenes' videos and images, Gaussians of some at frames left out.

    Details keep what the first image alone gives at novel views, by the head, in layers and by the baseline.
    """
    table = depth_table(bench.estimator.model, num_scenes=bench.scenes, num_splat_scenes=scenes, atlas=bench.atlas)
    values = as_dict(table)
    for key in ("absrel_cameras", "absrel_single", "absrel_single_aligned"):
        bench.note(key, float(values[key]), scenes=table.num_scenes)
    bench.note("splats_rendered_db", float(values["footprint_video_db"]), scenes=table.num_splat_scenes)
    alone = {key: float(values[f"{key}_novel_db"]) for key in ("head", "layered", "parallax")}
    bench.detail(head_video_db=float(values["head_video_db"]))
    bench.detail(**{f"single image, {key}, novel views db": value for key, value in alone.items()})


def novel(bench: Bench, scenes: int) -> None:
    """Whole generated worlds at true novel views, beside the baseline's worlds of the same pictures."""
    model = load_mini_model(device=str(bench.device), weights=bench.folder, reconstruction=TIER)
    num_frames = 1 + model.rollout.chunk_frames
    ours: list[float] = []
    theirs: list[float] = []
    strips: list[Strip] = []
    clips = held_out_clips(
        num_frames, height=SIZE[0], width=SIZE[1], atlas=bench.atlas, drawn=judged_frames(num_frames)
    )
    begin = time.perf_counter()
    for index, clip in enumerate(islice(clips, scenes)):
        generated, base = (true_views(splats, clip) for splats in (world_splats(model, clip), parallax_splats(clip)))
        ours.append(generated.db)
        theirs.append(base.db)
        now = time.perf_counter()
        took, begin = now - begin, now
        bench.say(f"scene {index + 1} of {scenes}: {generated.db:.2f} dB, parallax {base.db:.2f} dB, {took:.1f} s")
        if len(strips) < NOVEL_STRIPS:
            strips.append(_novel_strip(clip, generated, base))
    world_db, baseline = torch.tensor(ours), torch.tensor(theirs)
    bench.note("splats_novel_gain_db", world_db - baseline)
    bench.note("splats_novel_db", world_db)
    bench.detail(**{"parallax at the same novel views db": mean_of(baseline)})
    bench.detail(**{f"novel scene {i} gain db": float(gain) for i, gain in enumerate(world_db - baseline)})
    shown = f"truth, frame {judged_frames(num_frames)[1 + NOVEL_VIEW]}"
    columns = ["seed", shown, "mini's world", "parallax", "pixels that count"]
    write_sheet("Generated worlds at true views of held-out scenes", columns, strips, bench.out / "novel.jpg")


def _novel_strip(clip: VideoClip, generated: TrueViews, base: TrueViews) -> Strip:
    """One scene: what was given, what is there, what two models made of it, and the pixels that count."""
    seed, truth = (clip.frames[frame].permute(2, 0, 1) / 255 for frame in (0, generated.frames[NOVEL_VIEW]))
    drawn = [views.drawn[NOVEL_VIEW].permute(2, 0, 1) for views in (generated, base)]
    seen = generated.seen[NOVEL_VIEW].float().expand(3, -1, -1)
    label = f"{clip.cameras.name}\n{generated.db:.1f} dB\nparallax {base.db:.1f}"
    return Strip(label=label, pictures=[seed, truth, *drawn, seen])


def world(bench: Bench) -> None:
    """Seconds and memory of one world on two cores of this machine, in a fresh process."""
    command = [sys.executable, "-m", TIMED, "--weights", str(bench.folder.resolve())]
    places = [str(factory_root()), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in places if place)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        bench.say(f"one world could not be timed here: {last}")
        return
    timing = json.loads(done.stdout.strip().splitlines()[-1])
    note = f"{timing['cpu']}, {timing['precision']}"
    bench.note("world_seconds", timing["seconds"], note)
    bench.note("world_video_seconds", timing["stages"]["video"], note)
    bench.note("world_splats_seconds", timing["stages"]["gaussians"], note)
    bench.note("world_peak_rss_gib", timing["peak_rss_gib"], note)
    bench.detail(**{f"world {name} seconds": value for name, value in timing["stages"].items()})
