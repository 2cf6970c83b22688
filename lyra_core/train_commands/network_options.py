"""Options of the trainings of the mini model's networks: vae, video, depth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lyra_core.train_commands.options import RunOptions

FEATURE_WEIGHTS = "Weights of the image network whose features critics see (default: of its package, extra train)."


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeTrainingOptions(RunOptions):
    """Train the small video autoencoder.

    Examples:

      lyra train vae --minutes 7 --views .training/views.npz --out runs/vae

      lyra train vae --minutes 2 --sharpen --start-from runs/vae/weights.safetensors --gan-weight 0.25
      --out runs/sharpen
    """

    batch: Annotated[int, typer.Option(help="Clips of 9 frames a step.")] = 96
    sharpen: Annotated[bool, typer.Option("--sharpen", help="Train the decoder of --start-from against a critic.")] = (
        False
    )
    gan_weight: Annotated[float, typer.Option(help="The critic's share of the gradient, with --sharpen.")] = 0.5
    gan_warmup: Annotated[int, typer.Option(help="Steps in which only the critic learns, with --sharpen.")] = 150
    projected: Annotated[
        float, typer.Option(help="Share of a critic that sees with features of an image network, with --sharpen.")
    ] = 0.0
    perceptual: Annotated[float, typer.Option(help="Share of the distance of such features, with --sharpen.")] = 0.0
    feature_weights: Annotated[Path | None, typer.Option(help=FEATURE_WEIGHTS)] = None
    lr: Annotated[float | None, typer.Option(help="Largest learning rate (default: 1.5e-3; with --sharpen 3e-4).")] = (
        None
    )
    max_speed: Annotated[
        int | None, typer.Option(help="Path frames that a clip may go on by (default: 8; with --sharpen 2).")
    ] = None
    no_compile: Annotated[bool, typer.Option("--no-compile", help="Run the model uncompiled.")] = False
    evaluate_every: Annotated[
        float | None, typer.Option(help="Minutes between evaluations; 0: at the end only (default: 1).")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoTrainingOptions(RunOptions):
    """Train the mini video network on a frozen autoencoder.

    Examples:

      lyra train video --minutes 7 --vae runs/vae/weights.safetensors --views .training/views.npz --out runs/video

      torchrun --nproc-per-node 2 -m lyra_core.training video --minutes 7.3 --vae lyra_core/mini/weights/vae.safetensors
      --views .training/views.npz --out runs/video

      lyra train video --debug --minutes 0.2 --device cpu --out runs/debug
    """

    vae: Annotated[Path | None, typer.Option(help="Weights of the autoencoder (weights.safetensors).")] = None
    batch: Annotated[int, typer.Option(help="Chunks a step and GPU.")] = 32
    no_augmentation: Annotated[
        bool, typer.Option("--no-augmentation", help="No self-augmented histories (an ablation).")
    ] = False
    lr: Annotated[float | None, typer.Option(help="Largest learning rate (default: 1e-3; of a student 2e-4).")] = None
    student: Annotated[
        bool, typer.Option("--student", help="Train a four-step student of --start-from, its teacher.")
    ] = False
    adversarial: Annotated[
        bool,
        typer.Option(
            "--adversarial",
            help="Train a four-step student that begins as --start-from, by the truth and critics of frames.",
        ),
    ] = False
    feature_weights: Annotated[Path | None, typer.Option(help=FEATURE_WEIGHTS)] = None
    critics: Annotated[
        Path | None, typer.Option(help="critics.safetensors of an earlier adversarial run, to begin with.")
    ] = None
    history_level: Annotated[
        float, typer.Option(help="Highest noise level that self-augmented histories are made from, in one step.")
    ] = 0.5
    no_compile: Annotated[bool, typer.Option("--no-compile", help="Run the network uncompiled.")] = False
    evaluate_every: Annotated[
        float | None, typer.Option(help="Minutes between evaluations; 0: at the end only (default: 3).")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthTrainingOptions(RunOptions):
    """Train the small depth and Gaussian network.

    Example:

      lyra train depth --minutes 22 --views .training/depth_views.npz --splats-from -1 --out runs/depth
    """

    scenes: Annotated[int, typer.Option(help="Procedural scenes to learn from.")] = 1280
    batch: Annotated[int, typer.Option(help="Windows of 6 frames a step.")] = 32
    lr: Annotated[float, typer.Option(help="Largest learning rate.")] = 6e-4
    splats_from: Annotated[int, typer.Option(help="First step whose Gaussians are rendered; -1: never.")] = 1200
    window_every: Annotated[
        int | None,
        typer.Option(
            help="Learn from windows in one step of so many, else from single images (default: single images in one "
            "step of three)."
        ),
    ] = None
    within: Annotated[float | None, typer.Option(help="Minutes in which all must be done, start-up included.")] = None
    no_cuda_graph: Annotated[
        bool,
        typer.Option("--no-cuda-graph", help="Launch steps kernel by kernel instead of replaying CUDA graphs."),
    ] = False
