"""Fine-tunes the released network on a folder of clips, from files to weights that a recipe can use.

finetune_clips(ClipFinetuning(loop=FinetuneConfig(steps=2000), data=Path("data"), weights=Path("weights")), run)
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from lyra_core.config.rollout import REFERENCE
from lyra_core.finetuning.clip_samples import ClipSamples, SampleConfig
from lyra_core.finetuning.dataset import OwnClips
from lyra_core.finetuning.learner import Learner
from lyra_core.finetuning.loop import FinetuneConfig, FinetuneResult, finetune
from lyra_core.finetuning.networks import TrainedPart, build_debug, load_trained
from lyra_core.finetuning.trained_weights import save_trained
from lyra_core.procedural.chunks import ChunkConfig, ChunkMaker
from lyra_core.training.flow import FlowConfig
from lyra_core.training.run import TrainingRun
from lyra_core.video.dit.attention import cudnn_first

ROLLOUT = replace(REFERENCE, latents_per_window=4)
"""The released conditions; the autoencoder works on four latents at a time, which gives the same numbers sooner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFinetuning:
    """A fine-tuning on clips.

    Attributes:
        loop: how long and how fast.
        part: what of the network is trained.
        data: folder of clips (clip_folder).
        weights: folder of converted sets; None for tiny random networks.
        lora_name: of the set of a LoRA.
        size: rows and columns that clips are scaled to.
        clip_frames: frames used of a clip.
        batch: clips a step and process.
        seed: of samples.
    """

    loop: FinetuneConfig
    part: TrainedPart = field(default_factory=TrainedPart)
    data: Path
    weights: Path | None
    lora_name: str = "lora-own"
    size: tuple[int, int] = (480, 832)
    clip_frames: int = 1000
    batch: int = 1
    seed: int = 0


def finetune_clips(config: ClipFinetuning, run: TrainingRun) -> FinetuneResult:
    """Train, and leave weights, a manifest and summary.json.

    Args:
        config: what is trained on what, and how.
        run: folder, devices and processes, which are joined (fsdp.together).

    Raises:
        ConfigError: hyper-parameters that do not fit each other, or clips too short.
        FormatError: clips that cannot be read.
        TrainingError: a gradient is not finite.
        WeightsError: sets or a checkpoint that cannot be used.
    """
    replicas, device = run.replicas, str(run.device)
    clips = OwnClips(config.data, config.size)
    run.report(f"process {replicas.rank} of {replicas.count} on {device}, {len(clips)} clips")
    if config.weights is None:
        trained = build_debug(config.part, device)
    else:
        trained = load_trained(config.weights, config.part, clips.captions(), run.out_dir, device, replicas)
    chunks = ChunkConfig(memory_drop=0.1, depth_noise=0.0, context_latents=None)
    maker = ChunkMaker(trained.vae, trained.networks.dit.config.history_layout, ROLLOUT, chunks)
    drawn = SampleConfig(clip_frames=config.clip_frames, batch=config.batch, seed=config.seed)
    samples = ClipSamples(clips, maker, drawn, device, replicas)
    learner = Learner(samples, FlowConfig(), replicas.seed(config.seed))
    # backward passes compute blocks again: the choice of kernels must hold for them too
    with cudnn_first() if device.startswith("cuda") else nullcontext():
        result = finetune(trained.networks, learner, config.loop, run)
    samples.close()
    home = save_trained(
        trained.networks.dit,
        run.out_dir / "weights",
        trained.homes,
        lora_name=None if config.part.lora is None else config.lora_name,
        is_first=replicas.is_first,
    )
    if replicas.is_first:
        summary = {"steps": result.step, "seconds": round(result.elapsed_s, 1), "weights": str(home)}
        (run.out_dir / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        run.say(str(summary))
    return result
