"""Time a camera window of Cosmos 3 on a CUDA device: Nano's widths, random weights that are made on the device.

    PYTHONPATH=. python benchmarks/cosmos_gpu.py --layers 6 12     # a mid-size network, extrapolated to 36 layers
    PYTHONPATH=. python benchmarks/cosmos_gpu.py --layers 36       # as deep as Nano: 30 GB of random weights

One window of 61 frames at 480x832 (6,240 vision and 60 action tokens) with one network call a step. Prints and stores
seconds a step, peak memory, what the autoencoder takes, and the kernels of one step that took longest. What is
extrapolated is marked so.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import time
from dataclasses import replace
from pathlib import Path

import torch
from results import write_result

from lyra_core.config.cosmos import CAMERA
from lyra_core.cosmos.actions import path_to_actions
from lyra_core.cosmos.checkpoint import Checkpoint
from lyra_core.cosmos.components import Components, build_scheduler
from lyra_core.cosmos.pipeline import FrameWindow, build_sampler
from lyra_core.values import CameraPath

NANO_LAYERS = 36
WIDTHS = {
    "head_dim": 128, "hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 151936, "action_gen": True, "action_dim": 64, "num_embodiment_domains": 32,
}  # fmt: skip
TINY = Path(__file__).resolve().parents[1] / "tests" / "models" / "tiny_cosmos.py"


def tiny_module():
    spec = importlib.util.spec_from_file_location("tiny_cosmos", TINY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_networks(layers, device):
    """Transformer and autoencoder in bfloat16, the embedding of time in float32."""
    from diffusers import AutoencoderKLWan, Cosmos3OmniTransformer

    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            transformer = Cosmos3OmniTransformer(num_hidden_layers=layers, **WIDTHS).eval()
            vae = AutoencoderKLWan(
                base_dim=160, decoder_base_dim=256, z_dim=48, dim_mult=[1, 2, 4, 4], num_res_blocks=2,
                temperal_downsample=[False, True, True], is_residual=True, in_channels=12, out_channels=12,
                patch_size=2, scale_factor_temporal=4, scale_factor_spatial=16,
                latents_mean=[0.0] * 48, latents_std=[1.0] * 48,
            ).eval()  # fmt: skip
    finally:
        torch.set_default_dtype(torch.float32)
    transformer.time_embedder.float()
    for parameter in (*transformer.parameters(), *vae.parameters()):
        parameter.requires_grad_(False).normal_(0.0, 0.02)
    return transformer, vae


def truck(frames, height, width):
    """Two centimetres to the right a frame."""
    poses = torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1)
    poses[:, 0, 3] = -0.02 * torch.arange(frames)
    lens = torch.tensor([[700.0, 0, width / 2], [0, 700, height / 2], [0, 0, 1]], dtype=torch.float64)
    return CameraPath(world_to_cam=poses, intrinsics=lens.repeat(frames, 1, 1), image_height=height, image_width=width)


def synchronised():
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(call):
    start = synchronised()
    call()
    return synchronised() - start


def longest_kernels(call, count=12):
    """Names and milliseconds of the kernels that took longest."""
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CPU, activity.CUDA]) as profile:
        call()
        synchronised()
    kernels = [event for event in profile.key_averages() if event.device_type == torch.autograd.DeviceType.CUDA]
    kernels.sort(key=lambda event: -event.self_device_time_total)
    return [
        {"kernel": event.key[:160], "calls": event.count, "ms": event.self_device_time_total / 1000}
        for event in kernels[:count]
    ]


def measure(layers, arguments, folder):
    tiny = tiny_module()
    transformer, vae = random_networks(layers, arguments.device)
    checkpoint = Checkpoint(folder=folder, has_actions=True, levels=(), transformer_parameters=0, vae_parameters=0)
    cameras = truck(arguments.frames, arguments.height, arguments.width)
    image = torch.randint(0, 255, (1, arguments.height, arguments.width, 3), dtype=torch.uint8)

    def run(steps):
        options = replace(CAMERA, num_steps=steps, chunk_frames=arguments.frames - 1)
        components = Components(
            transformer=transformer, vae=vae, text_tokenizer=tokenizer, scheduler=build_scheduler(checkpoint, options)
        )
        window = FrameWindow(
            known=image, num_frames=arguments.frames, caption="a room", seed=1, actions=path_to_actions(cameras)
        )
        build_sampler(components, checkpoint, options)(window)

    tokenizer = tiny.make_tokenizer()
    run(1)  # kernels are chosen and compiled
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    few, more = seconds(lambda: run(2)), seconds(lambda: run(2 + arguments.steps))
    step = (more - few) / arguments.steps
    found = {
        "layers": layers,
        "parameters": sum(parameter.numel() for parameter in transformer.parameters()),
        "s_per_step": step,
        "s_outside_steps": few - 2 * step,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None,
        "kernels_of_one_step": longest_kernels(lambda: run(1)) if torch.cuda.is_available() else [],
    }
    print({name: value for name, value in found.items() if name != "kernels_of_one_step"}, flush=True)
    for kernel in found["kernels_of_one_step"]:
        print(f"  {kernel['ms']:9.1f} ms {kernel['calls']:6d} {kernel['kernel']}", flush=True)
    return found


def measured(run, steps):
    """A window of Nano's depth and widths from its measured step: random weights, all steps alike."""
    return {
        "note": f"{NANO_LAYERS} layers measured; the window is its steps times the time of one, and the rest",
        "s_per_step": run["s_per_step"],
        "s_per_window": run["s_outside_steps"] + steps * run["s_per_step"],
        "steps": steps,
        "peak_gib": run["peak_gib"],
    }


def extrapolated(found, steps):
    """A window of Nano from two depths: seconds and memory are taken to be linear in the number of layers."""
    first, last = found[0], found[-1]
    per_layer = (last["s_per_step"] - first["s_per_step"]) / (last["layers"] - first["layers"])
    step = first["s_per_step"] + per_layer * (NANO_LAYERS - first["layers"])
    memory = None
    if first["peak_gib"] is not None:
        per_layer = (last["peak_gib"] - first["peak_gib"]) / (last["layers"] - first["layers"])
        memory = first["peak_gib"] + per_layer * (NANO_LAYERS - first["layers"])
    return {
        "note": f"EXTRAPOLATED linearly to {NANO_LAYERS} layers, not measured",
        "s_per_step": step,
        "s_per_window": last["s_outside_steps"] + steps * step,
        "steps": steps,
        "peak_gib": memory,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=[6, 12])
    parser.add_argument("--frames", type=int, default=61)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--steps", type=int, default=4, help="timed steps")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=None, help="folder of the result; benchmarks/results if not given")
    arguments = parser.parse_args()
    folder = Path("build/cosmos_gpu")
    tiny_module().write_published(folder)  # for its schedule alone
    found = []
    for layers in arguments.layers:
        found.append(measure(layers, arguments, folder))
        gc.collect()  # the pipeline holds its networks in a cycle; the next peak would count them
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    result = {"frames": arguments.frames, "size": [arguments.width, arguments.height], "runs": found}
    if NANO_LAYERS in arguments.layers:
        result["nano"] = measured(found[arguments.layers.index(NANO_LAYERS)], CAMERA.num_steps)
    elif len(found) > 1:
        result["nano"] = extrapolated(found, CAMERA.num_steps)
    print(result.get("nano", ""))
    options = {} if arguments.out is None else {"folder": arguments.out}
    print(write_result("cosmos_gpu", result, **options))


if __name__ == "__main__":
    main()
