"""lyra train lyra2: fine-tune the released network on custom clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer


@dataclass(frozen=True, slots=True, kw_only=True)
class Lyra2Options:
    """Fine-tune Lyra 2 on your own clips.

    Examples:

      lyra train lyra2 --data data --out runs/debug --steps 4 --debug

      torchrun --nproc-per-node 8 -m lyra_core.training lyra2 --data data --weights weights --out runs/own --steps 5000

      torchrun --nproc-per-node 2 -m lyra_core.training lyra2 --data data --weights weights --out runs/own --steps 2000
      --lora 32 --lr 1e-4

      lyra run photo.jpg --recipe lyra2 --set weights=runs/own/weights
    """

    data: Annotated[Path, typer.Option(help="Folder of clips (docs/training.md).")]
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, metrics and weights.")]
    steps: Annotated[int, typer.Option(help="Steps of the whole run.")]
    weights: Annotated[Path, typer.Option(help="Folder of converted sets.")] = Path("weights")
    lora: Annotated[int | None, typer.Option(metavar="RANK", help="Train low-rank changes of this width only.")] = None
    lora_alpha: Annotated[float | None, typer.Option(help="Their scale times the width (default: the width).")] = None
    lora_name: Annotated[str, typer.Option(help="Name of their set.")] = "lora-own"
    freeze: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Parameters that stay, e.g. 'blocks.*.ffn.*'; repeat it."),
    ] = None
    init_from_wan: Annotated[
        bool,
        typer.Option("--init-from-wan", help="Begin with Wan 2.1 (set wan-i2v-14b) instead."),
    ] = False
    layers: Annotated[int | None, typer.Option(help="Keep only the first blocks, to try things.")] = None
    lr: Annotated[float, typer.Option("--lr", "--learning-rate", help="Largest learning rate.")] = 3e-5
    batch: Annotated[int, typer.Option(help="Clips a step and process.")] = 1
    height: Annotated[int, typer.Option(help="Rows that clips are scaled to.")] = 480
    width: Annotated[int, typer.Option(help="Columns.")] = 832
    clip_frames: Annotated[int, typer.Option(help="Frames used of a clip; shorter ones are mirrored.")] = 1000
    zero_non_finite: Annotated[
        bool, typer.Option("--zero-non-finite", help="Take NaN and infinity in gradients for 0.")
    ] = False
    masters: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Dtype of trained weights.")] = "float32"
    checkpoint_every: Annotated[int, typer.Option(metavar="STEPS", help="Steps between checkpoints.")] = 500
    resume: Annotated[Path | None, typer.Option(help="Checkpoint to continue (OUT/checkpoint).")] = None
    pause_after: Annotated[
        float | None, typer.Option(help="Minutes of training after which this call stops, to be resumed.")
    ] = None
    device: Annotated[str, typer.Option(help="cuda, cuda:N or cpu.")] = "cuda"
    seed: Annotated[int, typer.Option(help="Of samples and of first low-rank changes.")] = 0
    debug: Annotated[
        bool, typer.Option("--debug", help="Tiny random networks and frames, on a CPU, without weights.")
    ] = False


def train(options: Lyra2Options) -> None:
    """Train, and leave weights that a recipe can use."""
    from lyra_core.finetuning.finetune_clips import ClipFinetuning, finetune_clips
    from lyra_core.finetuning.fsdp import together
    from lyra_core.finetuning.loop import FinetuneConfig
    from lyra_core.finetuning.lora import LoraConfig
    from lyra_core.finetuning.networks import TrainedPart
    from lyra_core.train_commands.process import log, tune_kernels
    from lyra_core.training.run import TrainingRun

    tune_kernels()
    config = ClipFinetuning(
        loop=FinetuneConfig(
            steps=options.steps,
            learning_rate=options.lr,
            non_finite="zero" if options.zero_non_finite else "raise",
            checkpoint_every=options.checkpoint_every,
            log_every=1 if options.debug else 10,
            warmup_steps=2 if options.debug else 100,
        ),
        part=TrainedPart(
            lora=None if options.lora is None else LoraConfig(rank=options.lora, alpha=options.lora_alpha),
            freeze=tuple(options.freeze or ()),
            layers=options.layers,
            masters=options.masters,
            seed=options.seed,
            starts_from_wan=options.init_from_wan,
        ),
        data=options.data,
        weights=None if options.debug else options.weights,
        lora_name=options.lora_name,
        size=(32, 48) if options.debug else (options.height, options.width),
        clip_frames=min(options.clip_frames, 25) if options.debug else options.clip_frames,
        batch=options.batch,
        seed=options.seed,
    )
    with together("cpu" if options.debug else options.device) as (replicas, device):
        run = TrainingRun(
            out_dir=options.out,
            resume_from=options.resume,
            device=device,
            replicas=replicas,
            report=log.info,
            pause_after_s=None if options.pause_after is None else 60 * options.pause_after,
        )
        finetune_clips(config, run)
