"""`lyra train lyra2 | check-data | export`: fine-tuning of the released network on one's own clips."""

from __future__ import annotations

import argparse
import json
import logging
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lyra_core.config.rollout import REFERENCE
from lyra_core.errors import ConfigError
from lyra_core.finetuning.clip_check import check_folder
from lyra_core.finetuning.clip_export import export_procedural
from lyra_core.finetuning.clip_samples import ClipSamples, SampleConfig
from lyra_core.finetuning.dataset import OwnClips
from lyra_core.finetuning.fsdp import together
from lyra_core.finetuning.loop import FinetuneConfig, finetune
from lyra_core.finetuning.lora import LoraConfig
from lyra_core.finetuning.networks import TrainedPart, build_toy, load_trained
from lyra_core.finetuning.released_networks import ReleasedNetworks
from lyra_core.finetuning.trained_weights import save_trained
from lyra_core.procedural.chunks import ChunkConfig, ChunkMaker, ChunkRows
from lyra_core.training.flow import FlowConfig, flow_loss, one_step_prediction
from lyra_core.training.loop import step_generator
from lyra_core.video.attention import cudnn_first

ROLLOUT = replace(REFERENCE, latents_per_window=4)
"""The released conditions; the autoencoder works on four latents at a time, which gives the same numbers sooner."""
EXAMPLES = """examples:
  lyra train export data --scenes 8 --frames 161               procedural worlds in the layout, to try things
  lyra train check-data data
  lyra train lyra2 --data data --out runs/toy --steps 4 --toy   tiny random networks on a CPU, the same code
  torchrun --nproc-per-node 8 -m lyra_core.training lyra2 --data data --weights weights --out runs/own --steps 5000
  torchrun --nproc-per-node 2 -m lyra_core.training lyra2 --data data --weights weights --out runs/own --steps 2000 \\
      --lora 32 --lr 1e-4
  lyra run photo.jpg --recipe lyra2 --set weights=runs/own/weights
"""


def add_finetune(commands: Any) -> None:  # argparse's type of it is private
    """Declare the commands `lyra2`, `check-data` and `export`."""
    style = argparse.RawDescriptionHelpFormatter
    tune = commands.add_parser(
        "lyra2", help="fine-tune Lyra 2 on your own clips", epilog=EXAMPLES, formatter_class=style
    )
    tune.add_argument("--data", type=Path, required=True, help="folder of clips (docs/training.md)")
    tune.add_argument("--out", type=Path, required=True, help="folder for checkpoints, metrics and weights")
    tune.add_argument("--weights", type=Path, default=Path("weights"), help="folder of converted sets")
    tune.add_argument("--steps", type=int, required=True, help="steps of the whole run")
    tune.add_argument("--lora", type=int, metavar="RANK", help="train low-rank changes of this width only")
    tune.add_argument("--lora-alpha", type=float, help="their scale times the width (default: the width)")
    tune.add_argument("--lora-name", default="lora-own", help="name of their set (default: lora-own)")
    tune.add_argument(
        "--freeze",
        nargs="*",
        default=[],
        metavar="PATTERN",
        help="parameters that stay, e.g. 'blocks.*.ffn.*'",
    )
    tune.add_argument("--layers", type=int, help="keep only the first blocks, to try things")
    tune.add_argument("--lr", "--learning-rate", dest="learning_rate", type=float, default=3e-5)
    tune.add_argument("--batch", type=int, default=1, help="clips a step and process")
    tune.add_argument("--height", type=int, default=480)
    tune.add_argument("--width", type=int, default=832)
    tune.add_argument("--clip-frames", type=int, default=1000, help="frames used of a clip; shorter ones are mirrored")
    tune.add_argument("--zero-non-finite", action="store_true", help="take NaN and infinity in gradients for 0")
    tune.add_argument("--masters", choices=("float32", "bfloat16"), default="float32", help="dtype of trained weights")
    tune.add_argument("--checkpoint-every", type=int, default=500, metavar="STEPS")
    tune.add_argument("--resume", type=Path, help="checkpoint to continue (OUT/checkpoint)")
    tune.add_argument("--device", default="cuda")
    tune.add_argument("--seed", type=int, default=0)
    tune.add_argument("--toy", action="store_true", help="tiny random networks and frames, on a CPU, without weights")
    tune.set_defaults(run=run_finetune)
    check = commands.add_parser("check-data", help="look at a folder of clips before training on it")
    check.add_argument("data", type=Path)
    check.add_argument("--decode", action="store_true", help="decode every frame of video and depth too")
    check.set_defaults(run=run_check)
    export = commands.add_parser("export", help="write procedural worlds as a folder of clips, to try training with")
    export.add_argument("data", type=Path)
    export.add_argument("--scenes", type=int, default=4)
    export.add_argument("--frames", type=int, default=161)
    export.add_argument("--height", type=int, default=480)
    export.add_argument("--width", type=int, default=832)
    export.set_defaults(run=run_export)


def run_check(options: argparse.Namespace, log: logging.Logger) -> None:
    """Say what a folder holds.

    Raises:
        ConfigError: clips that cannot be used; all have been named.
    """
    found = check_folder(options.data, decode=options.decode)
    sizes = ", ".join(f"{count} of {width}x{height}" for (height, width), count in sorted(found.sizes.items()))
    log.info("%d of %d clips can be used: %s", found.num_good, found.num_clips, sizes or "none")
    log.info(
        "%d frames (%d to %d a clip), %d captions, %.2f GB",
        *(found.num_frames, found.shortest, found.longest, found.num_captions, found.total_bytes / 1e9),
    )
    for name, problem in found.problems:
        log.error("%s: %s", name, problem)
    if found.problems:
        raise ConfigError(
            f"{len(found.problems)} of {found.num_clips} clips of {options.data} cannot be used; mend them, or name "
            "the others in all_filter.lst"
        )


def run_export(options: argparse.Namespace, log: logging.Logger) -> None:
    """Write procedural worlds."""
    size = (options.height, options.width)
    count = export_procedural(options.data, range(options.scenes), options.frames, size)
    log.info("%d clips of %d frames in %s", count, options.frames, options.data)


def finetune_config(options: argparse.Namespace) -> FinetuneConfig:
    """Length and speed as asked."""
    return FinetuneConfig(
        steps=options.steps,
        learning_rate=options.learning_rate,
        non_finite="zero" if options.zero_non_finite else "raise",
        checkpoint_every=options.checkpoint_every,
        log_every=1 if options.toy else 10,
        warmup_steps=2 if options.toy else 100,
    )


def trained_part(options: argparse.Namespace) -> TrainedPart:
    """What is trained as asked."""
    lora = None if options.lora is None else LoraConfig(rank=options.lora, alpha=options.lora_alpha)
    return TrainedPart(
        lora=lora,
        freeze=tuple(options.freeze),
        layers=options.layers,
        masters=options.masters,
        seed=options.seed,
    )


def run_finetune(options: argparse.Namespace, log: logging.Logger) -> None:
    """Train, and leave weights that a recipe can use."""
    size, frames = (options.height, options.width), options.clip_frames
    if options.toy:
        options.device, size, frames = "cpu", (32, 48), min(frames, 25)
    clips, part = OwnClips(options.data, size), trained_part(options)
    with together(options.device) as (replicas, device):
        log.info("process %d of %d on %s, %d clips", replicas.rank, replicas.count, device, len(clips))
        if options.toy:
            trained = build_toy(part, device)
        else:
            trained = load_trained(options.weights, part, clips.captions(), options.out, device, replicas)
        layout = trained.networks.dit.config.history_layout
        chunks = ChunkConfig(memory_drop=0.1, depth_noise=0.0, context_latents=None)
        maker = ChunkMaker(trained.vae, layout, ROLLOUT, chunks)
        config = SampleConfig(clip_frames=frames, batch=options.batch, seed=options.seed)
        samples = ClipSamples(clips, maker, config, device, replicas)
        learner = Learner(samples, FlowConfig(), replicas.seed(options.seed))
        # backward passes compute blocks again: the choice of kernels must hold for them too
        with cudnn_first() if device.startswith("cuda") else nullcontext():
            result = finetune(
                trained.networks,
                learner,
                finetune_config(options),
                out_dir=options.out,
                resume_from=options.resume,
                report=log.info,
                replicas=replicas,
            )
        samples.close()
        home = save_trained(
            trained.networks.dit,
            options.out / "weights",
            trained.homes,
            lora_name=None if part.lora is None else options.lora_name,
            is_first=replicas.is_first,
        )
        if replicas.is_first:
            summary = {"steps": result.step, "seconds": round(result.elapsed_s, 1), "weights": str(home)}
            (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
            log.info("%s", summary)


class Learner:
    """Losses of steps: samples of one's own clips under the rectified-flow objective."""

    def __init__(self, samples: ClipSamples, flow: FlowConfig, seed: int) -> None:
        self.samples, self.flow, self.seed = samples, flow, seed

    def __call__(self, networks: ReleasedNetworks, step: int) -> dict[str, Tensor]:
        """Losses of a step by name."""
        rollout = self.samples.maker.rollout
        noise = step_generator(self.seed + 1, step, self.samples.device)

        def predict(rows: ChunkRows) -> Tensor:
            return one_step_prediction(networks, rows, self.flow, rollout, noise)

        rows = self.samples.rows(step, predict)
        return flow_loss(networks, rows, self.flow, rollout, noise)
