"""Time one forward of the full-size video network on a CUDA device, with random weights.

    PYTHONPATH=. python benchmarks/dit_gpu.py
    PYTHONPATH=. python benchmarks/dit_gpu.py --attention cudnn --compile --store full --vae

Prints seconds, achieved TFLOP/s and peak memory of one prepared forward at 480x832 (38,246 tokens,
bf16).
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from dataclasses import replace

import torch

from lyra_core.video.dit.attention import cudnn_first
from lyra_core.video.dit.context import ChunkInputs
from lyra_core.video.dit.network import LYRA2_14B, build_dit
from lyra_core.video.sampler import guided_velocity
from lyra_core.video.vae.network import WAN21_VAE, build_vae

TEXT_TOKENS, IMAGE_TOKENS = 512, 257


def forward_tflop(config, tokens, store):
    """Multiply-adds of a prepared forward, twice, in units of 1e12."""
    dim, context = config.dim, TEXT_TOKENS + IMAGE_TOKENS
    per_token = 4 * dim**2 + 2 * tokens * dim  # self-attention: projections, scores and values
    per_token += 2 * dim**2 + 2 * context * dim  # cross-attention: q, o, scores and values
    per_token += 2 * dim * config.ffn_dim
    if store == "squeezed":
        per_token += dim * (config.ray_channels * config.patch**2 + config.squeeze_dim)
    return 2 * config.num_layers * tokens * per_token / 1e12


def random_inputs(config, rows, columns, device):
    layout = config.history_layout
    options = {"device": device, "dtype": torch.bfloat16}

    def draw(channels, slots):
        return torch.randn(1, channels, slots, rows, columns, **options)

    inputs = ChunkInputs(
        history=draw(config.latent_channels, layout.num_history),
        condition=draw(config.condition_channels, layout.num_slots),
        rays=draw(config.ray_channels, layout.num_slots),
        correspondence=draw(config.correspondence_channels, layout.num_slots).tanh_(),
        text=torch.randn(1, TEXT_TOKENS, config.text_dim, **options),
        image=torch.randn(1, IMAGE_TOKENS, config.image_dim, **options),
    )
    return inputs, draw(config.latent_channels, layout.num_generated).float()


def timed(function, repeats):
    function()
    torch.cuda.synchronize()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def peak_gib():
    return torch.cuda.max_memory_allocated() / 2**30


@torch.no_grad()
def time_dit(arguments):
    config = replace(LYRA2_14B, num_layers=arguments.layers)
    rows, columns = arguments.height // 8, arguments.width // 8
    model = build_dit(config, device="cuda", dtype=torch.bfloat16).eval()
    for parameter in model.parameters():
        parameter.normal_(0.0, 0.02)
    inputs, latents = random_inputs(config, rows, columns, "cuda")
    history, generated = config.history_layout.num_tokens(rows // 2, columns // 2)
    tokens = history + generated
    if arguments.compile:
        model.compile_blocks()

    torch.cuda.reset_peak_memory_stats()
    prepare = timed(lambda: model.prepare_context(inputs, store=arguments.store), 1)
    print(f"prepare_context      {prepare:8.3f} s   peak {peak_gib():6.1f} GiB")
    context = model.prepare_context(inputs, store=arguments.store)
    negative = model.prepare_text(torch.zeros_like(inputs.text))
    del inputs
    timestep = torch.tensor([900], device="cuda")
    torch.cuda.reset_peak_memory_stats()
    forward = timed(lambda: model(latents, timestep, context), arguments.repeats)
    tflop = forward_tflop(config, tokens, arguments.store)
    print(
        f"forward              {forward:8.3f} s   {tokens} tokens, {tflop:.0f} TFLOP, "
        f"{tflop / forward:.0f} TFLOP/s   peak {peak_gib():6.1f} GiB"
    )
    velocity = guided_velocity(model, context, negative, 5.0)
    guided = timed(lambda: velocity(latents, timestep), 1)
    print(f"guided forward       {guided:8.3f} s")
    heads, dim = config.num_heads, config.head_dim
    q, k, v = torch.randn(3, 1, heads, tokens, dim, device="cuda", dtype=torch.bfloat16)
    attention = timed(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v), 5)
    rate = 4 * tokens**2 * config.dim / attention / 1e12
    print(
        f"attention            {attention:8.4f} s   one layer, {rate:.0f} TFLOP/s, "
        f"{attention * config.num_layers:.2f} s of a forward"
    )


@torch.no_grad()
def time_vae(arguments):
    vae = build_vae(WAN21_VAE, device="cuda", dtype=torch.bfloat16).eval()
    video = torch.rand(1, 3, 81, arguments.height, arguments.width, device="cuda", dtype=torch.bfloat16)
    latents = torch.randn(1, 16, 20, arguments.height // 8, arguments.width // 8, device="cuda", dtype=torch.bfloat16)
    for window in (1, 4):
        torch.cuda.reset_peak_memory_stats()
        encode = timed(lambda: vae.encode(video, latents_per_window=window), 2)  # noqa: B023
        decode = timed(lambda: vae.decode(latents, latents_per_window=window), 2)  # noqa: B023
        print(
            f"vae, {window} latents/window  encode 81 frames {encode:.3f} s, "
            f"decode 20 latents {decode:.3f} s   peak {peak_gib():.1f} GiB"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--layers", type=int, default=LYRA2_14B.num_layers)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--store", choices=["squeezed", "full"], default="squeezed")
    parser.add_argument("--attention", choices=["default", "cudnn"], default="default")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--vae", action="store_true")
    arguments = parser.parse_args()
    print(torch.__version__, torch.cuda.get_device_name(), vars(arguments))
    backend = cudnn_first() if arguments.attention == "cudnn" else contextlib.nullcontext()
    with backend:
        time_dit(arguments)
    if arguments.vae:
        torch.cuda.empty_cache()
        time_vae(arguments)


if __name__ == "__main__":
    main()
