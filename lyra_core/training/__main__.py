"""`python -m lyra_core.training vae|depth`: one time-boxed training run, with its measures and pictures."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

import torch

from lyra_core.training.depth_command import add_depth
from lyra_core.training.loop import LoopConfig
from lyra_core.training.replicas import joined
from lyra_core.training.vae import VaeTrainingConfig, train_vae
from lyra_core.training.workers import preparing
from lyra_core.training.world_clips import LONG_PATHS, sample_views, save_views
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
    vae.add_argument("--workers", type=int, help="processes that make textures (default: most of the cores)")
    vae.add_argument("--views", type=Path, help="camera paths made by the command `views` (default: search now)")
    vae.add_argument("--start-from", type=Path, help="compact weights to begin with (weights.safetensors)")
    vae.add_argument("--no-compile", action="store_true", help="run the model uncompiled")
    vae.add_argument("--toy", action="store_true", help="small frames and model, to try the command on a CPU")
    views = commands.add_parser("views", help="search camera paths through procedural scenes, once for many runs")
    views.add_argument("--scenes", type=int, default=896, help="scenes to learn from")
    views.add_argument("--held-out", type=int, default=64, help="scenes to measure on")
    views.add_argument("--out", type=Path, required=True, help="file to write (.npz)")
    views.add_argument("--workers", type=int, help="processes (default: most of the cores)")
    add_depth(commands)
    return parser


def _make_views(options: argparse.Namespace) -> int:
    with preparing(options.workers) as workers:
        counts = {"train": options.scenes, "heldout": options.held_out}
        found = {
            split: sample_views(range(count), split, LONG_PATHS, (128, 224), workers) for split, count in counts.items()
        }
    save_views(options.out, found)
    return 0


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
        views=options.views,
        is_compiled=not options.no_compile,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _arguments().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    log = logging.getLogger("lyra_core.training")
    if options.command == "views":
        return _make_views(options)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.benchmark_limit = 2
    if "run" in options:
        options.run(options, log)
        return 0
    config = _config(options)
    # workers first: they are forked, which must precede everything that starts threads
    with preparing(0 if options.toy else options.workers) as workers, joined(options.device) as (replicas, device):
        log.info("process %d of %d on %s", replicas.rank, replicas.count, device)
        result = train_vae(
            config,
            out_dir=options.out,
            resume_from=options.resume,
            device=device,
            report=log.info,
            replicas=replicas,
            workers=workers,
            start_from=options.start_from,
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
