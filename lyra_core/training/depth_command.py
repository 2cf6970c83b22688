"""`python -m lyra_core.training depth`: options of the command that trains the small depth and Gaussian network."""

from __future__ import annotations

import argparse
import json
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from lyra_core.mini.depth import TINY_REFINED_DEPTH
from lyra_core.procedural.depth_windows import DEPTH_PATHS, WindowConfig
from lyra_core.procedural.workers import preparing
from lyra_core.procedural.world_clips import sample_views, save_views
from lyra_core.training.data_parallel import joined
from lyra_core.training.depth import DepthTrainingConfig, train_depth
from lyra_core.training.loop import LoopConfig


def add_depth(commands: Any) -> None:  # argparse's type of it is private
    """Declare the commands `depth` and `depth-views`."""
    depth = commands.add_parser("depth", help="train the small depth and Gaussian network")
    depth.add_argument("--minutes", type=float, required=True, help="training time, start-up not counted")
    depth.add_argument("--out", type=Path, required=True, help="folder for weights, metrics and pictures")
    depth.add_argument("--photographs", type=Path, default=Path("examples"), help="folder of photographs")
    depth.add_argument("--resume", type=Path, help="full checkpoint to continue (full.pt)")
    depth.add_argument("--start-from", type=Path, help="compact weights to begin with (weights.safetensors)")
    depth.add_argument(
        "--pause-after", type=float, help="minutes of training after which this call stops, to be resumed"
    )
    depth.add_argument("--pause-at", type=float, help="time at which it does, in seconds since 1970")
    depth.add_argument("--device", default="cuda")
    depth.add_argument("--seed", type=int, default=0)
    depth.add_argument("--batch", type=int, default=32, help="windows of 6 frames a step")
    depth.add_argument("--scenes", type=int, default=1280, help="procedural scenes to learn from")
    depth.add_argument("--workers", type=int, help="processes that prepare scenes (default: most of the cores)")
    depth.add_argument("--views", type=Path, help="camera paths made by `depth-views` (default: search now)")
    depth.add_argument("--lr", type=float, default=6e-4, help="learning rate at the top")
    depth.add_argument("--splats-from", type=int, default=1200, help="first step whose Gaussians are drawn; -1: never")
    depth.add_argument(
        "--window-every",
        type=int,
        help="learn from windows in one step of so many, from lone images in all others (default: lone images in one "
        "step of three)",
    )
    depth.add_argument("--within", type=float, help="minutes in which all must be done, start-up included")
    depth.add_argument(
        "--no-cuda-graph", action="store_true", help="launch steps kernel by kernel instead of replaying CUDA graphs"
    )
    depth.add_argument("--toy", action="store_true", help="small frames and model, to try the command on a CPU")
    depth.set_defaults(run=run_depth)
    views = commands.add_parser("depth-views", help="search the camera paths of `depth`, once for many runs")
    views.add_argument("--scenes", type=int, default=1280, help="scenes to learn from")
    views.add_argument("--held-out", type=int, default=44, help="scenes to measure on")
    views.add_argument("--out", type=Path, required=True, help="file to write (.npz)")
    views.add_argument("--workers", type=int, help="processes (default: most of the cores)")
    views.set_defaults(run=make_views)


def make_views(options: argparse.Namespace, log: logging.Logger) -> None:
    """Search camera paths through procedural scenes and keep them."""
    data = WindowConfig()
    plan = replace(DEPTH_PATHS, takes=data.takes)
    with preparing(options.workers) as workers:
        counts = {"train": options.scenes, "heldout": options.held_out}
        found = {
            split: sample_views(range(count), split, plan, (data.height, data.width), workers)
            for split, count in counts.items()
        }
    save_views(options.out, found)
    log.info("camera paths of %s scenes in %s", {split: len(some) for split, some in found.items()}, options.out)


def depth_config(options: argparse.Namespace) -> DepthTrainingConfig:
    """The run that the options ask for."""
    toy = options.toy
    loop = LoopConfig(
        max_seconds=60 * options.minutes,
        pause_after_s=None if options.pause_after is None else 60 * options.pause_after,
        pause_at=options.pause_at,
        learning_rate=options.lr,
        betas=(0.9, 0.98),
        precision="float32" if toy else "autocast",
        evaluate_every_s=0 if toy else 120,
        checkpoint_every_s=0 if toy else 70,
        warmup_steps=20 if toy else 200,
        log_every=5 if toy else 20,  # the clock is read there
        clip_norm=5.0,
    )
    splats_from = None if options.splats_from < 0 else options.splats_from
    if not toy:
        data = WindowConfig(num_scenes=options.scenes, photographs=options.photographs, views=options.views)
        return DepthTrainingConfig(
            loop=loop,
            data=data,
            seed=options.seed,
            batch=options.batch,
            splat_from_step=splats_from,
            is_recorded=not options.no_cuda_graph,
            window_every=options.window_every,
        )
    data = WindowConfig(
        height=32,
        width=56,
        num_scenes=4,
        num_held_out=3,
        textures_per_kind=2,
        texture_size=64,
        photographs=options.photographs,
        supersample=1,
        pool_windows=16,
        fresh_windows=2,
    )
    return DepthTrainingConfig(
        loop=loop,
        data=data,
        model=TINY_REFINED_DEPTH,
        seed=options.seed,
        batch=2,
        splat_windows=1,
        splat_from_step=splats_from,
        window_every=options.window_every,
    )


def run_depth(options: argparse.Namespace, log: logging.Logger) -> None:
    """Train, and write what came of it to summary.json."""
    config = depth_config(options)
    end_by = None if options.within is None else time.perf_counter() + 60 * options.within
    # workers first: they are forked, which must precede everything that starts threads
    with preparing(0 if options.toy else options.workers) as workers, joined(options.device) as (replicas, device):
        result = train_depth(
            config,
            out_dir=options.out,
            resume_from=options.resume,
            start_from=options.start_from,
            device=device,
            report=log.info,
            replicas=replicas,
            workers=workers,
            end_by=end_by,
        )
        if not replicas.is_first:
            return
    views = result.step * config.batch * config.shown * replicas.count
    last = {key: round(value, 4) for row in result.metrics[-2:] for key, value in row.items()}
    summary = {
        "steps": result.step,
        "seconds": round(result.elapsed_s, 1),
        "views": views,
        "scenes": config.data.num_scenes,
        "seed": config.seed,
        "gpus": replicas.count,
        "last": last,
    }
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    log.info("views per second %.0f; %s", views / max(result.elapsed_s, 1e-9), summary)
