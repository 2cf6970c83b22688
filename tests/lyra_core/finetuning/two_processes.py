"""What test_fsdp runs in two processes: `two_processes.py rows ROWS OUT` or `two_processes.py files CLIPS OUT`."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from lyra_core.config.rollout import REFERENCE
from lyra_core.finetuning.clip_samples import ClipSamples, SampleConfig
from lyra_core.finetuning.dataset import OwnClips
from lyra_core.finetuning.fsdp import gathered, together
from lyra_core.finetuning.learner import Learner
from lyra_core.finetuning.loop import FinetuneConfig, finetune
from lyra_core.finetuning.lora import LoraConfig
from lyra_core.finetuning.networks import TrainedPart, build_debug
from lyra_core.finetuning.trained_weights import save_trained
from lyra_core.procedural.chunks import ChunkConfig, ChunkMaker, ChunkRows
from lyra_core.training.data_parallel import ALONE
from lyra_core.training.flow import FlowConfig, flow_loss
from lyra_core.training.loop import step_generator
from lyra_core.training.run import TrainingRun

ROLLOUT = replace(REFERENCE, encoded_prefix=2, latents_per_window=8)
CONFIG = FinetuneConfig(steps=3, learning_rate=1e-2, warmup_steps=0, log_every=1, clip_norm=0.5, checkpoint_every=2)
PARTS = {"whole": TrainedPart(), "lora": TrainedPart(lora=LoraConfig(rank=3))}


def same_rows(rows):
    """Losses of a step on the same samples and noise in every process."""

    def loss_of(networks, step):
        return flow_loss(networks, rows, FlowConfig(), ROLLOUT, step_generator(0, step))

    return loss_of


def maker_of(trained):
    chunks = ChunkConfig(memory_drop=0.1, depth_noise=0.0, context_latents=None)
    return ChunkMaker(trained.vae, trained.networks.dit.config.history_layout, ROLLOUT, chunks)


def run(kind, rows, out, replicas=ALONE, config=CONFIG, resume_from=None):
    """Train on the same rows; losses and the final values by name."""
    trained = build_debug(PARTS[kind], "cpu")
    training = TrainingRun(out_dir=out, replicas=replicas, resume_from=resume_from)
    result = finetune(trained.networks, same_rows(rows), config, training)
    return [row["loss"] for row in result.metrics], {n: t.clone() for n, t in gathered(trained.networks)}


def on_rows(rows, out):
    """All processes on the same samples."""
    rows = ChunkRows(**torch.load(rows, weights_only=True))
    with together("cpu") as (replicas, _):
        for kind in PARTS:
            losses, values = run(kind, rows, out / kind, replicas, replace(CONFIG, steps=2))
            if replicas.is_first:
                (out / f"{kind}.json").write_text(json.dumps(losses))
                torch.save(values, out / f"{kind}.pt")


def on_files(clips, out):
    """Each process on its own samples of a folder."""
    with together("cpu") as (replicas, device):
        trained = build_debug(TrainedPart(), device)
        config = SampleConfig(clip_frames=17)
        samples = ClipSamples(OwnClips(clips, (32, 48)), maker_of(trained), config, device, replicas)
        learner = Learner(samples, FlowConfig(), replicas.seed(0))
        finetune(trained.networks, learner, replace(CONFIG, steps=2), TrainingRun(out_dir=out, replicas=replicas))
        samples.close()
        save_trained(trained.networks.dit, out / "weights", {}, is_first=replicas.is_first)


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"rows": on_rows, "files": on_files}[sys.argv[1]](*(Path(argument) for argument in sys.argv[2:]))
