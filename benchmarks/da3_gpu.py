"""Time and memory of Depth Anything 3 (giant size, random weights) with Gaussians, on one GPU.

    python benchmarks/da3_gpu.py --views 128 --height 476 --width 826 --out da3.json

Measures the backbone, the dense head, the Gaussian head and the adapter separately, warm, and the
whole pass with known cameras; peak memory is that of the allocator, weights included. Needs torch,
numpy, einops and jaxtyping only.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lyra_core.gaussians.depth_anything.backbone import VisionTransformer, apply_block
from lyra_core.gaussians.depth_anything.budget import (
    bytes_per_token,
    device_budget,
    tokens_per_view,
)
from lyra_core.gaussians.depth_anything.config import PATCH, PRESETS, NestedConfig
from lyra_core.gaussians.depth_anything.model import (
    InferenceOptions,
    build_model,
    random_state,
    store_half,
)

GIB = 2**30
Result = TypeVar("Result")


def main() -> None:
    args = parse()
    device = torch.device(args.device)
    config = PRESETS[args.preset]
    started = time.perf_counter()
    state = random_state(config, torch.Generator(device).manual_seed(0), device)
    for name, tensor in state.items():
        if name.endswith("fc_fov.0.bias"):
            tensor.fill_(1.0)
        if name.endswith("gamma"):
            tensor.fill_(0.1)
    model = build_model(config, state)
    synchronise(device)
    report = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor(),
        "torch": torch.__version__,
        "preset": args.preset,
        "views": args.views,
        "height": args.height,
        "width": args.width,
        "gaussian_stride": args.stride,
        "views_per_slice": args.slice,
        "parameters": sum(p.numel() for p in model.parameters()),
        "build_s": round(time.perf_counter() - started, 3),
        "weights_gib": allocated(device),
    }
    main_config = config.any_view if isinstance(config, NestedConfig) else config
    tokens = args.views * tokens_per_view(args.height, args.width)
    report["tokens"] = tokens
    report["planned_activations_gib"] = round(tokens * bytes_per_token(main_config.backbone) / GIB, 2)
    report["planned_views"] = device_budget(device, args.height, args.width, config).views
    with torch.no_grad():
        if args.compare:
            report["precision"] = compare(model, args, device)
            keep(report, args.out)
        report["stages"] = stages(model, args, device)
    print(json.dumps(report, indent=2))
    keep(report, args.out)


def keep(report: dict, path: Path | None) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n")


def views_of(args: argparse.Namespace, device: torch.device, count: int) -> tuple[torch.Tensor, ...]:
    """Noise for images, a camera that moves sideways, and its intrinsics."""
    generator = torch.Generator(device).manual_seed(1)
    images = torch.randn(count, 3, args.height, args.width, generator=generator, device=device)
    w2c = torch.eye(4, device=device).repeat(count, 1, 1)
    w2c[:, 0, 3] = -torch.linspace(0, 2, count, device=device)
    focal, cx, cy = 0.9 * args.width, args.width / 2, args.height / 2
    k = torch.tensor([[focal, 0, cx], [0, focal, cy], [0, 0, 1.0]], device=device)
    return images, w2c, k.repeat(count, 1, 1)


def compare(model: torch.nn.Module, args: argparse.Namespace, device: torch.device) -> dict[str, dict]:
    """The same views in float32, the backbone in bfloat16, its weights stored so, and with compiled blocks."""
    given = views_of(args, device, args.compare)
    stride = args.stride if has_gaussian_head(model) else None
    wanted = None
    found: dict[str, dict] = {}
    names = ("float32", "bfloat16", "stored", "compiled") if device.type == "cuda" else ("float32", "compiled")
    before = None
    for name in names:
        if name == "stored":
            store_half(model)
        if name == "compiled":
            for part in model.modules():
                if isinstance(part, VisionTransformer):
                    part.apply_block = torch.compile(apply_block, dynamic=False)
        options = InferenceOptions(gaussian_stride=stride, views_per_slice=args.slice, autocast=name != "float32")
        result = measure(found, name, lambda: model(*given, options), device, args.repeats)  # noqa: B023
        wanted = wanted or result
        errors = {}
        for field in ("depth", "confidence", "world_to_cam", "intrinsics"):
            one, two = getattr(result, field), getattr(wanted, field)
            if one is not None and two is not None:
                deviation = (one.double() - two.double()).abs() / two.double().abs().clamp(min=1e-6)
                errors[field] = {
                    "median": float(deviation.flatten()[::7].median()),
                    "relative_norm": float((one - two).double().norm() / two.double().norm()),
                }
        if result.gaussian_maps is not None:
            raw, true = result.gaussian_maps.raw.double(), wanted.gaussian_maps.raw.double()
            errors["gaussian_maps"] = {"relative_norm": float((raw - true).norm() / true.norm())}
        found[name]["errors"] = errors
        if name == "bfloat16":
            before = result
        if before is not None and name != "bfloat16":
            found[name]["equals_bfloat16"] = bool(torch.equal(result.depth, before.depth))
        print(name, json.dumps(found[name]), flush=True)
        keep({"compare_views": args.compare, "precision": found}, args.out)
    return found


def has_gaussian_head(model: torch.nn.Module) -> bool:
    return getattr(model, "da3", model).gs_head is not None


def print_kernels(run: Callable[[], object], device: torch.device) -> None:
    """Where the device's time goes."""
    if device.type != "cuda":
        return
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        run()
        synchronise(device)
    for event in sorted(profiler.key_averages(), key=lambda e: -e.self_device_time_total)[:16]:
        print(f"    {event.self_device_time_total / 1e3:9.1f} ms {event.count:5d} {event.key[:100]}", flush=True)


def stages(model: torch.nn.Module, args: argparse.Namespace, device: torch.device) -> dict[str, dict]:
    images, w2c, k = views_of(args, device, args.views)
    network = getattr(model, "da3", model)
    rows, cols = args.height // PATCH, args.width // PATCH
    found: dict[str, dict] = {}

    def backbone() -> list:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return network.backbone(images, network.cam_enc(w2c, k, args.height, args.width))

    has_gaussians = has_gaussian_head(model)
    features = measure(found, "backbone", backbone, device, args.repeats)
    if args.kernels:
        print_kernels(backbone, device)
    levels = [f.patches for f in features]
    dense = measure(
        found,
        "dense_head",
        lambda: network.head(levels, rows, cols, views_per_slice=args.slice),
        device,
        args.repeats,
    )
    if has_gaussians:
        measure(
            found,
            "gaussian_head",
            lambda: network.gs_head(levels, images, dense.depth, stride=args.stride, views_per_slice=args.slice),
            device,
            args.repeats,
        )
    del features, levels, dense
    options = InferenceOptions(gaussian_stride=args.stride if has_gaussians else None, views_per_slice=args.slice)
    prediction = measure(found, "whole_pass", lambda: model(images, w2c, k, options), device, args.repeats)
    if has_gaussians:
        gaussians = measure(found, "adapter", prediction.gaussians, device, args.repeats)
        found["adapter"]["gaussians"] = len(gaussians)
        found["adapter"]["finite"] = bool(torch.isfinite(gaussians.means).all())
    found["whole_pass"]["depth_finite"] = bool(torch.isfinite(prediction.depth).all())
    return found


def measure(found: dict[str, dict], name: str, run: Callable[[], Result], device: torch.device, repeats: int) -> Result:
    """The fastest of some warm runs, with the highest memory any of them held."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    result = run()
    synchronise(device)
    for _ in range(repeats):
        del result
        started = time.perf_counter()
        result = run()
        synchronise(device)
        seconds.append(time.perf_counter() - started)
    found[name] = {"seconds": round(min(seconds), 4), "all_seconds": [round(s, 4) for s in seconds]}
    if device.type == "cuda":
        found[name]["peak_gib"] = round(torch.cuda.max_memory_allocated(device) / GIB, 2)
    return result


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def allocated(device: torch.device) -> float:
    if device.type != "cuda":
        return 0.0
    return round(torch.cuda.memory_allocated(device) / GIB, 2)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="da3nested-giant-large", choices=sorted(PRESETS))
    parser.add_argument("--views", type=int, default=128)
    parser.add_argument("--height", type=int, default=476)
    parser.add_argument("--width", type=int, default=826)
    parser.add_argument("--stride", type=int, default=2, help="pixels of a side for one Gaussian")
    parser.add_argument("--slice", type=int, default=8, help="views whose full maps exist at once")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compare", type=int, default=0, help="views for a comparison of precisions; 0: none")
    parser.add_argument("--kernels", action="store_true", help="print where the device's time goes")
    parser.add_argument("--out", type=Path, help="where to write the numbers as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
