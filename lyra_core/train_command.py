"""`lyra train mini|vae|video|depth|views|pack|table|card|lyra2|check-data|export`: the commands of training."""

from __future__ import annotations

import argparse
import functools
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lyra_core.errors import LyraError
from lyra_core.evaluation.command import add_table
from lyra_core.finetuning.command import add_finetune
from lyra_core.mini.config import MINI_DIT
from lyra_core.mini.vae import TINY_MINI_VAE
from lyra_core.procedural.clip_maker import MixConfig
from lyra_core.procedural.workers import preparing
from lyra_core.procedural.world_clips import LONG_PATHS, WIDE_PATHS, PathPlan, sample_views, save_views
from lyra_core.training.adversarial import AdversarialConfig
from lyra_core.training.data_parallel import joined
from lyra_core.training.depth_command import add_depth
from lyra_core.training.distill import StudentConfig
from lyra_core.training.frame_critics import CriticsConfig
from lyra_core.training.gan import SharpenConfig, sharpen_vae
from lyra_core.training.loop import LoopConfig, LoopResult
from lyra_core.training.pack_command import add_pack
from lyra_core.training.pipeline.command import add_pipeline
from lyra_core.training.vae import VaeTrainingConfig, train_vae
from lyra_core.training.video import train_video
from lyra_core.training.video_config import MINI_FLOW, VideoTrainingConfig

FEATURE_WEIGHTS = "weights of the image network whose features critics see (default: of its package, extra train)"
TOY_LAYOUT = "f1k1f4s2f1s1f2k2f1k1_g2"
EXAMPLES = """examples:
  lyra train mini --out runs/mini --gpus 4                      all that follows, as steps over the machine's GPUs
  lyra train views --out .training/views.npz                    camera paths, once for many runs
  lyra train vae --minutes 7 --views .training/views.npz --out runs/vae
  lyra train pack --vae runs/vae/weights.safetensors --run runs/vae/summary.json
  torchrun --nproc-per-node 2 -m lyra_core.training video --minutes 7.3 \\
      --vae lyra_core/mini/weights/vae.safetensors --views .training/views.npz --out runs/video
  lyra train pack --video runs/video/weights.safetensors --run runs/video/summary.json
  lyra train pack --depth runs/depth/weights.safetensors --run runs/depth/summary.json
  lyra train video --toy --minutes 0.2 --device cpu --out runs/toy   a try without a GPU
  lyra train mini --toy --device cpu --out runs/toy             a try of all steps
  lyra train lyra2 --help                                       your own clips, Lyra 2 at full size
"""


def _common(parser: argparse.ArgumentParser) -> None:
    """What every training run asks."""
    parser.add_argument("--minutes", type=float, required=True, help="training time, start-up not counted")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, metrics and pictures")
    parser.add_argument("--photographs", type=Path, default=Path("examples"), help="folder of photographs")
    parser.add_argument("--resume", type=Path, help="full checkpoint to continue (full.pt)")
    parser.add_argument("--start-from", type=Path, help="weights to begin with: weights.safetensors or packed folder")
    parser.add_argument(
        "--pause-after", type=float, help="minutes of training after which this call stops, to be resumed"
    )
    parser.add_argument("--pause-at", type=float, help="time at which it does, in seconds since 1970")
    parser.add_argument("--evaluate-every", type=float, help="minutes between evaluations; 0: at the end only")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=640, help="procedural scenes to learn from")
    parser.add_argument("--views", type=Path, help="camera paths made by the command `views` (default: search now)")
    parser.add_argument("--workers", type=int, help="processes that make textures (default: most of the cores)")
    parser.add_argument("--no-compile", action="store_true", help="run the model uncompiled")
    parser.add_argument("--toy", action="store_true", help="small frames and model, to try the command on a CPU")


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lyra train",
        description="Train the mini model (its autoencoder, then its video network; runs are time-boxed), or fine-tune "
        "Lyra 2 on your own clips.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    vae = commands.add_parser("vae", help="train the small video autoencoder")
    _common(vae)
    vae.add_argument("--batch", type=int, default=96, help="clips of 9 frames a step")
    vae.add_argument("--sharpen", action="store_true", help="train the decoder of --start-from against a critic")
    vae.add_argument(
        "--gan-weight",
        type=float,
        default=0.5,
        help="the critic's share of the gradient, with --sharpen (default: 0.5)",
    )
    vae.add_argument(
        "--projected",
        type=float,
        default=0.0,
        help="share of a critic that sees with the features of an image network, with --sharpen (default: 0)",
    )
    vae.add_argument(
        "--perceptual", type=float, default=0.0, help="share of the distance of such features (default: 0)"
    )
    vae.add_argument("--feature-weights", type=Path, help=FEATURE_WEIGHTS)
    vae.add_argument("--gan-warmup", type=int, default=150, help="steps in which only the critic learns (default: 150)")
    vae.add_argument("--lr", type=float, help="largest learning rate (default: 1.5e-3; with --sharpen 3e-4)")
    vae.add_argument("--max-speed", type=int, help="path frames a clip may go on by (default: 8; with --sharpen 2)")
    video = commands.add_parser("video", help="train the mini video network on a frozen autoencoder")
    _common(video)
    video.add_argument("--vae", type=Path, help="weights of the autoencoder (weights.safetensors)")
    video.add_argument("--batch", type=int, default=32, help="chunks a step and GPU")
    video.add_argument("--no-augmentation", action="store_true", help="no self-augmented histories (an ablation)")
    video.add_argument("--lr", type=float, help="largest learning rate (default: 1e-3; of a student 2e-4)")
    video.add_argument("--student", action="store_true", help="a four-step student of --start-from, its teacher")
    video.add_argument(
        "--adversarial",
        action="store_true",
        help="a four-step student that begins as --start-from and learns from the truth and critics of frames",
    )
    video.add_argument("--feature-weights", type=Path, help=FEATURE_WEIGHTS)
    video.add_argument("--critics", type=Path, help="critics.safetensors of an earlier such run, to begin with")
    video.add_argument(
        "--history-level",
        type=float,
        default=0.5,
        help="highest noise level that self-augmented histories are made from, in one step (default: 0.5)",
    )
    views = commands.add_parser("views", help="search camera paths through procedural scenes, once for many runs")
    views.add_argument("--scenes", type=int, default=640, help="scenes to learn from")
    views.add_argument("--held-out", type=int, default=64, help="scenes to measure on")
    views.add_argument("--wide", action="store_true", help="more pans, turns and one-way paths")
    views.add_argument("--out", type=Path, required=True, help="file to write (.npz)")
    views.add_argument("--workers", type=int, help="processes (default: most of the cores)")
    add_depth(commands)
    add_pack(commands)
    add_table(commands)
    add_pipeline(commands)
    add_finetune(commands)
    return parser


def _make_views(options: argparse.Namespace) -> int:
    plan = WIDE_PATHS if options.wide else LONG_PATHS
    with preparing(options.workers) as workers:
        counts = {"train": options.scenes, "heldout": options.held_out}
        found = {split: sample_views(range(count), split, plan, (128, 224), workers) for split, count in counts.items()}
    save_views(options.out, found)
    return 0


def _loop(options: argparse.Namespace, evaluate_every_s: float, **changes: object) -> LoopConfig:
    """Length and speed, in small for a toy; seconds between evaluations where the options do not say."""
    if options.toy:
        evaluate_every_s = 0
    if options.evaluate_every is not None:
        evaluate_every_s = 60 * options.evaluate_every
    loop = LoopConfig(
        max_seconds=60 * options.minutes,
        pause_after_s=None if options.pause_after is None else 60 * options.pause_after,
        pause_at=options.pause_at,
        evaluate_every_s=evaluate_every_s,
        checkpoint_every_s=0 if options.toy else 120,
        warmup_steps=20 if options.toy else 100,
        log_every=5 if options.toy else 20,  # the clock is read there
    )
    return replace(loop, **changes)  # type: ignore[arg-type]


def vae_config(options: argparse.Namespace) -> VaeTrainingConfig:
    """The autoencoder's run as asked."""
    config = VaeTrainingConfig(
        loop=_loop(options, 60.0, precision="float32" if options.toy else "autocast"),
        seed=options.seed,
        batch=options.batch,
        photographs=options.photographs,
        num_scenes=options.scenes,
        views=options.views,
        is_compiled=not options.no_compile,
    )
    if options.sharpen:
        # at the speeds of the video network's chunks
        config = replace(config, loop=replace(config.loop, learning_rate=3e-4, betas=(0.5, 0.99)), max_speed=2)
    if options.lr is not None:
        config = replace(config, loop=replace(config.loop, learning_rate=options.lr))
    if options.max_speed is not None:
        config = replace(config, max_speed=options.max_speed)
    if not options.toy:
        return config
    sizes: dict[str, Any] = {"height": 32, "width": 56, "batch": 4, "num_scenes": 4, "num_held_out": 3}
    pool: dict[str, Any] = {"pool_clips": 12, "fresh_clips": 2, "refreshes": 1, "supersample": 1}
    textures: dict[str, Any] = {"textures_per_kind": 2, "texture_size": 64}
    return replace(config, model=TINY_MINI_VAE, is_compiled=False, **sizes, **pool, **textures)


def video_config(options: argparse.Namespace) -> VideoTrainingConfig:
    """The video network's run as asked."""
    loop = _loop(
        options,
        180.0,
        precision="float32" if options.toy else "copy",
        learning_rate=options.lr or (2e-4 if options.student or options.adversarial else 1e-3),
        final_rate=0.05,
        betas=(0.9, 0.95),
        weight_decay=0.02,
    )
    mix = MixConfig(i2v=0.25, plain=0.75, augmented=0.0) if options.no_augmentation else MixConfig()
    config = VideoTrainingConfig(
        loop=loop,
        vae_weights=options.vae,
        mix=mix,
        seed=options.seed,
        batch=options.batch,
        photographs=options.photographs,
        views=options.views,
        num_scenes=options.scenes,
        is_compiled=not options.no_compile,
        student=StudentConfig() if options.student else None,
        flow=replace(MINI_FLOW, largest_history_level=options.history_level),
    )
    if options.student or options.adversarial:
        config = replace(config, loop=replace(loop, betas=(0.9, 0.99)), augment_from=0)
    if options.adversarial:
        adversarial = AdversarialConfig(
            feature_weights=options.feature_weights,
            critic_weights=options.critics,
            latents=1 if options.toy else 2,
            critic_first=4 if options.toy else 100,
        )
        # gradients of critics have norms of 3 to 40, and would make the student's vanish under the usual limit
        config = replace(config, loop=replace(config.loop, clip_norm=20.0))
        # first chunks have the largest holes
        mix = MixConfig(i2v=1 / 3, plain=1 / 3, augmented=1 / 3)
        chunks = replace(config.chunks, kept_latents=adversarial.latents)
        config = replace(config, adversarial=adversarial, mix=mix, chunks=chunks)
    if not options.toy:
        return config
    widths: dict[str, Any] = {"dim": 48, "ffn_dim": 96, "num_heads": 2, "num_layers": 2, "squeeze_dim": 8}
    dit = replace(MINI_DIT, layout=TOY_LAYOUT, text_dim=16, image_dim=16, time_dim=32, **widths)
    sizes: dict[str, Any] = {"height": 32, "width": 64, "batch": 4, "num_scenes": 4, "num_held_out": 2}
    pool: dict[str, Any] = {"pool_rows": 40, "first_rows": 4, "clips_at_once": 1, "augment_from": 4, "supersample": 1}
    textures: dict[str, Any] = {"textures_per_kind": 1, "texture_size": 32}
    paths = PathPlan(num_frames=17, names=("wander", "wander-and-return"), takes=1, max_stride=1)
    small = replace(config, vae=TINY_MINI_VAE, dit=dit, plan=paths, chunks=replace(config.chunks, num_chunks=2))
    return replace(small, is_compiled=False, **sizes, **pool, **textures)


def _train(options: argparse.Namespace, log: logging.Logger) -> int:
    # workers first: they are forked, which must precede everything that starts threads
    with preparing(0 if options.toy else options.workers) as workers, joined(options.device) as (replicas, device):
        log.info("process %d of %d on %s", replicas.rank, replicas.count, device)
        config = vae_config(options) if options.command == "vae" else video_config(options)
        run: Callable[..., LoopResult]
        if isinstance(config, VideoTrainingConfig):
            run = functools.partial(train_video, config)
        elif options.sharpen:
            critics = CriticsConfig(
                adversarial=options.gan_weight,
                matching=0.2 * options.gan_weight,
                projected=options.projected,
                perceptual=options.perceptual,
            )
            sharpen = SharpenConfig(
                critics=critics, critic_first=options.gan_warmup, feature_weights=options.feature_weights
            )
            run = functools.partial(sharpen_vae, config, sharpen)
        else:
            run = functools.partial(train_vae, config)
        result = run(
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
    samples = result.step * config.batch * replicas.count
    last = {key: round(value, 3) for row in result.metrics[-4:] for key, value in row.items()}
    cost = {"steps": result.step, "seconds": round(result.elapsed_s, 1), "gpus": replicas.count, "samples": samples}
    summary = {**cost, "seed": options.seed, "scenes": options.scenes, "last": last}
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    log.info("samples per second %.1f; %s", samples / max(result.elapsed_s, 1e-9), summary)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _arguments().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if options.command == "views":
        return _make_views(options)
    # not for what is measured: its kernels are those that users get
    torch.backends.cudnn.benchmark = options.command != "table"
    torch.backends.cudnn.benchmark_limit = 2
    log = logging.getLogger("lyra_core.training")
    if "run" in options:
        return options.run(options, log) or 0
    return _train(options, log)


def run() -> int:
    """Run the command of this process's arguments; an error of this library is one line of its log."""
    try:
        return main()
    except LyraError as error:
        logging.getLogger("lyra_core.training").error("%s", error)
        return 1
