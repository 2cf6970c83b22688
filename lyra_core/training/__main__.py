"""`python -m lyra_core.training vae|depth`: one time-boxed training run, with its measures and pictures."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path

import torch

from lyra_core.gaussians.depth_anything.mini import TINY_MINI_DEPTH
from lyra_core.training.depth import DepthTrainingConfig, train_depth
from lyra_core.training.depth_windows import WindowConfig
from lyra_core.training.loop import LoopConfig
from lyra_core.training.replicas import Replicas, joined
from lyra_core.training.vae import VaeTrainingConfig, train_vae
from lyra_core.training.workers import MAX_WORKERS, SPARE_CORES
from lyra_core.video.mini_vae import MINI_VAE, TINY_MINI_VAE


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lyra_core.training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    vae = commands.add_parser("vae", help="train the small video autoencoder")
    vae.add_argument("--minutes", type=float, required=True, help="training time, start-up not counted")
    vae.add_argument("--out", type=Path, required=True, help="folder for weights, metrics and pictures")
    vae.add_argument("--photographs", type=Path, default=Path("examples/seeds"), help="folder of photographs")
    vae.add_argument("--resume", type=Path, help="full checkpoint to continue (full.pt)")
    vae.add_argument("--pause-after", type=float, help="minutes after which this call stops, to be resumed")
    vae.add_argument("--device", default="cuda")
    vae.add_argument("--seed", type=int, default=0)
    vae.add_argument("--batch", type=int, default=96, help="clips of 9 frames a step")
    vae.add_argument("--scenes", type=int, default=768, help="procedural scenes to learn from")
    vae.add_argument("--workers", type=int, help="processes that prepare scenes (default: most of the cores)")
    vae.add_argument("--no-compile", action="store_true", help="run the model uncompiled")
    vae.add_argument("--toy", action="store_true", help="small frames and model, to try the command on a CPU")
    depth = commands.add_parser("depth", help="train the small depth and Gaussian network")
    depth.add_argument("--minutes", type=float, required=True, help="training time, start-up not counted")
    depth.add_argument("--out", type=Path, required=True, help="folder for weights, metrics and pictures")
    depth.add_argument("--photographs", type=Path, default=Path("examples/seeds"), help="folder of photographs")
    depth.add_argument("--resume", type=Path, help="full.pt to go on with, or weights.safetensors to start from")
    depth.add_argument("--pause-after", type=float, help="minutes after which this call stops, to be resumed")
    depth.add_argument("--device", default="cuda")
    depth.add_argument("--seed", type=int, default=0)
    depth.add_argument("--batch", type=int, default=32, help="windows of 6 frames a step")
    depth.add_argument("--scenes", type=int, default=1024, help="procedural scenes to learn from")
    depth.add_argument("--workers", type=int, help="processes that prepare scenes (default: most of the cores)")
    depth.add_argument("--views", type=Path, help="camera paths made with `views --for depth`, to start at once")
    depth.add_argument("--rate", type=float, default=6e-4, help="learning rate at the top")
    depth.add_argument("--splats-from", type=int, default=1200, help="first step whose Gaussians are drawn; -1: never")
    depth.add_argument("--toy", action="store_true", help="small frames and model, to try the command on a CPU")
    return parser


def _depth_config(options: argparse.Namespace) -> DepthTrainingConfig:
    toy = options.toy
    loop = LoopConfig(
        max_seconds=60 * options.minutes,
        pause_after_s=None if options.pause_after is None else 60 * options.pause_after,
        learning_rate=options.rate,
        betas=(0.9, 0.98),
        precision="float32" if toy else "autocast",
        evaluate_every_s=0 if toy else 90,
        checkpoint_every_s=0 if toy else 110,
        warmup_steps=20 if toy else 200,
    )
    splats_from = None if options.splats_from < 0 else options.splats_from
    if toy:
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
            workers=0,
        )
        return DepthTrainingConfig(
            loop=loop,
            data=data,
            model=TINY_MINI_DEPTH,
            seed=options.seed,
            batch=2,
            splat_windows=1,
            splat_from_step=splats_from,
        )
    data = WindowConfig(
        num_scenes=options.scenes, photographs=options.photographs, workers=options.workers, views=options.views
    )
    return DepthTrainingConfig(
        loop=loop, data=data, seed=options.seed, batch=options.batch, splat_from_step=splats_from
    )


def _train_depth(options: argparse.Namespace, log: logging.Logger, replicas: Replicas, device: str) -> None:
    config = _depth_config(options)
    result = train_depth(
        config,
        out_dir=options.out,
        resume_from=options.resume,
        device=device,
        report=log.info,
        replicas=replicas,
    )
    if not replicas.is_first:
        return
    views = result.step * config.batch * config.shown * replicas.count
    last = {key: round(value, 4) for row in result.metrics[-2:] for key, value in row.items()}
    summary = {"steps": result.step, "seconds": round(result.elapsed_s, 1), "views": views, "last": last}
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    log.info("views per second %.0f; %s", views / max(result.elapsed_s, 1e-9), summary)


def _config(options: argparse.Namespace) -> VaeTrainingConfig:
    loop = LoopConfig(
        max_seconds=60 * options.minutes,
        pause_after_s=None if options.pause_after is None else 60 * options.pause_after,
        precision="float32" if options.toy else "autocast",
        evaluate_every_s=0 if options.toy else 60,
        checkpoint_every_s=0 if options.toy else 120,
        warmup_steps=20 if options.toy else 100,
    )
    if options.toy:
        return VaeTrainingConfig(
            loop=loop,
            model=TINY_MINI_VAE,
            seed=options.seed,
            height=32,
            width=56,
            batch=4,
            photographs=options.photographs,
            num_scenes=4,
            num_held_out=3,
            workers=0,
            textures_per_kind=2,
            texture_size=64,
            pool_clips=32,
            fresh_clips=2,
            refreshes=1,
            supersample=1,
        )
    return VaeTrainingConfig(
        loop=loop,
        model=MINI_VAE,
        seed=options.seed,
        batch=options.batch,
        photographs=options.photographs,
        num_scenes=options.scenes,
        workers=options.workers,
        is_compiled=not options.no_compile,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _arguments().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    log = logging.getLogger("lyra_core.training")
    torch.backends.cudnn.benchmark = True
    with joined(options.device) as (replicas, device):
        if options.workers is None:
            options.workers = min(MAX_WORKERS, (os.cpu_count() or 1) - SPARE_CORES) // replicas.count
        log.info("process %d of %d on %s", replicas.rank, replicas.count, device)
        if options.command == "depth":
            _train_depth(options, log, replicas, device)
            return 0
        config = _config(options)
        result = train_vae(
            config,
            out_dir=options.out,
            resume_from=options.resume,
            device=device,
            report=log.info,
            replicas=replicas,
        )
        if not replicas.is_first:
            return 0
    frames = result.step * config.batch * config.num_frames
    last = {key: round(value, 3) for row in result.metrics[-4:] for key, value in row.items()}
    summary = {"steps": result.step, "seconds": round(result.elapsed_s, 1), "frames": frames, "last": last}
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    log.info("clips per second %.1f; %s", frames / config.num_frames / max(result.elapsed_s, 1e-9), summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
