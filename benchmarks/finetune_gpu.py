"""Steps of full-size fine-tuning on random weights: `torchrun --nproc-per-node 2 benchmarks/finetune_gpu.py`.

Prints for each case (depth, what is trained) the seconds of its steps, peak memory, loss and norm of the gradient;
cases that would begin after --seconds are left out. A case is LAYERS:whole, LAYERS:whole-bfloat16 or LAYERS:lora.
"""

import argparse
import gc
import itertools
import json
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from lyra_core.config.rollout import REFERENCE
from lyra_core.finetuning.fsdp import together
from lyra_core.finetuning.loop import FinetuneConfig, finetune
from lyra_core.finetuning.lora import LoraConfig
from lyra_core.finetuning.networks import DEBUG_DIT, TrainedPart, trained_networks
from lyra_core.procedural.chunks import ChunkRows
from lyra_core.training.flow import FlowConfig, flow_loss
from lyra_core.training.loop import step_generator
from lyra_core.training.run import TrainingRun
from lyra_core.video.dit.attention import cudnn_first
from lyra_core.video.dit.network import LYRA2_14B

START = time.perf_counter()


def say(replicas, **row):
    if replicas.is_first:
        print(json.dumps(row | {"at_s": round(time.perf_counter() - START, 1)}), flush=True)


def random_rows(config, rows, columns, device, seed):
    generator = torch.Generator(device).manual_seed(seed)
    layout = config.history_layout

    def draw(channels, slots, dtype=torch.bfloat16):
        return torch.randn(1, channels, slots, rows, columns, generator=generator, device=device).to(dtype)

    new = layout.num_generated
    return ChunkRows(
        history=draw(config.latent_channels, layout.num_history),
        generated=draw(config.condition_channels, new),
        rays=draw(config.ray_channels, layout.num_slots),
        maps=draw(config.correspondence_channels, new).clamp(-1, 1),
        target=draw(config.latent_channels, new),
        last=torch.zeros(1, 3, rows * 8, columns * 8, dtype=torch.uint8, device=device),
        captions=torch.ones(1, 16, dtype=torch.uint8, device=device),
        frames=torch.zeros(1, 3, 0, rows * 8, columns * 8, dtype=torch.uint8, device=device),
        group=torch.ones(1, dtype=torch.int64, device=device),
    )


@torch.no_grad()
def randomise(networks, device):
    """Values that keep activations finite, each process its own part; norms and LoRA stay as a run begins."""
    generator = torch.Generator(device).manual_seed(
        torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    )
    for name, parameter in networks.named_parameters():
        local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        if ".lora_" in name:
            continue
        if ".norm" in name or name.endswith(("proj.0.weight", "proj.4.weight")):
            local.fill_(1.0 if name.endswith("weight") else 0.0)
        else:
            local.normal_(std=0.02, generator=generator)


def measure(case, options, replicas, device):
    layers, _, kind = case.partition(":")
    is_cuda = device.startswith("cuda")
    config = replace(DEBUG_DIT if options.debug else LYRA2_14B, num_layers=int(layers))
    part = TrainedPart(
        lora=LoraConfig(rank=options.rank) if kind == "lora" else None,
        masters="bfloat16" if kind == "whole-bfloat16" else "float32",
    )
    words = torch.randn(1, 16 if options.debug else 512, config.text_dim, generator=torch.Generator().manual_seed(1))
    image = torch.randn(1, 257, config.image_dim, generator=torch.Generator().manual_seed(2))
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    networks = trained_networks(
        config, part, lambda captions: words.to(device), lambda frames: image.to(device), device
    )
    randomise(networks, device, replicas.rank)
    trained = sum(p.numel() for p in networks.parameters() if p.requires_grad)
    total = sum(p.numel() for p in networks.parameters())
    say(replicas, case=case, built=True, parameters=total, trained=trained)
    # each process its own samples, as in training
    rows = random_rows(config, *options.latent, device, replicas.rank)
    times = []

    def loss_of(module, step):
        times.append(time.perf_counter())
        return flow_loss(module, rows, FlowConfig(), REFERENCE, step_generator(replicas.rank, step, device))

    config = FinetuneConfig(steps=options.steps, log_every=1, warmup_steps=0, checkpoint_every=None)
    run = TrainingRun(out_dir=Path(options.out) / case.replace(":", "-"), device=device, replicas=replicas)
    with cudnn_first() if is_cuda else nullcontext():
        result = finetune(networks, loss_of, config, run)
    times.append(time.perf_counter())
    row = {"case": case, "processes": replicas.count, "torch": torch.__version__, "latent": list(options.latent)}
    row["seconds"] = [round(b - a, 2) for a, b in itertools.pairwise(times)]
    row["loss"] = [round(r["loss"], 4) for r in result.metrics]
    row["gradient_norm"] = [round(r["gradient_norm"], 4) for r in result.metrics]
    if is_cuda:
        row["device"] = torch.cuda.get_device_name()
        row["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
        row["reserved_gib"] = round(torch.cuda.max_memory_reserved() / 2**30, 1)
    say(replicas, **row)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["16:whole", "40:lora", "40:whole-bfloat16"])
    parser.add_argument("--latent", nargs=2, type=int, default=(60, 104), help="latent rows and columns")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=80, help="no case begins later")
    parser.add_argument("--out", default="/tmp/finetune_gpu")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--debug", action="store_true", help="tiny widths, to try the benchmark on a CPU")
    options = parser.parse_args()
    if options.debug:
        options.latent = (4, 6)
    with together(options.device) as (replicas, device):
        for case in options.cases:
            late = torch.tensor(float(time.perf_counter() - START > options.seconds), device=device)
            if torch.distributed.is_initialized():
                torch.distributed.all_reduce(late)
            if float(late):
                say(replicas, case=case, left_out=True)
                continue
            try:
                measure(case, options, replicas, device)
            except torch.cuda.OutOfMemoryError as error:
                # both processes hold equal parts: they run out together
                say(replicas, case=case, out_of_memory=str(error)[:200])
            gc.collect()
            if device.startswith("cuda"):
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
