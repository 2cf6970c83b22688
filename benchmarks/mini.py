"""What the mini model reaches on held-out procedural scenes and the sample photographs, with pictures.

    python benchmarks/mini.py --device cuda --out pictures          # 32 scenes
    python benchmarks/mini.py --device cpu --scenes 4 --out pictures

Scenes are followed with their true depth and cameras, batched; photographs by the depth that parallax estimates of the
photograph; the time is that of `lyra_core.video.rollout` itself. Masks and frames are named in each row; decibels are
means over scenes of 128x224 frames.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import replace
from pathlib import Path

import torch
from results import write_result

from lyra_core.geometry.seed_cameras import cameras_for_seed
from lyra_core.parallax.depth import ParallaxDepth
from lyra_core.training.atlas import build_atlas
from lyra_core.training.chunk_pool import ClipMaker, MixConfig, photo_library
from lyra_core.training.chunks import ChunkConfig, ChunkMaker, Clips
from lyra_core.training.generate import generate
from lyra_core.training.loop import LoopConfig
from lyra_core.training.measures import (
    blur_filled,
    detail,
    masked_psnr_db,
    mean_of,
    seen_by_seed,
    sharpness_ratio,
)
from lyra_core.training.photographs import HELD_OUT_PHOTOGRAPHS
from lyra_core.training.vae import ClipSource, VaeTrainingConfig, held_out_clips, reconstruct
from lyra_core.training.workers import preparing
from lyra_core.training.world_clips import (
    PathPlan,
    Views,
    WorldLibrary,
    load_views,
    psnr_db,
    sample_views,
    save_views,
)
from lyra_core.values import Seed
from lyra_core.video.depth_cache import SKY_DEPTH_M
from lyra_core.video.mini_encoders import caption_bytes
from lyra_core.video.mini_networks import MiniNetworks
from lyra_core.video.rollout import Rollout, RolloutModels
from lyra_core.weights.mini_files import MINI_FOLDER, load_mini, read_components

SIZE = (128, 224)
RETURNING = PathPlan(num_frames=161, names=("out-and-back", "wander-and-return"), takes=1, max_stride=1)
ONE_WAY = PathPlan(
    num_frames=481, names=("wander", "truck-right", "dolly-in", "orbit-left", "pan-right"), takes=1, max_stride=1
)
SEEDS = Path(__file__).resolve().parent.parent / "examples" / "seeds"


class Bench:
    """Networks and clips on a device, and the measures taken of them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device, self.out, self.scenes = torch.device(options.device), options.out, options.scenes
        self.dtype = torch.bfloat16
        self.models = load_mini(options.weights, self.device, self.dtype)
        self.networks = self._networks(options.weights, "video")
        self.folder = options.weights
        self.maker = ChunkMaker(
            self.models.vae,
            self.networks.dit.config.history_layout,
            self.models.config,
            ChunkConfig(num_chunks=1, memory_drop=0.0, depth_noise=0.0),
        )
        self.atlas, self.views = None, options.views
        self.rows: dict[str, float | int] = {}

    def _networks(self, folder: Path, component: str) -> MiniNetworks:
        models = load_mini(folder, self.device, self.dtype, component=component)
        networks = MiniNetworks(models.dit.config)
        networks.dit, networks.text, networks.image = models.dit, models.text, models.image
        return networks.to(self.device).eval()

    def note(self, **rows: float) -> None:
        """Keep and print numbers."""
        rounded = {name: round(value, 3) for name, value in rows.items()}
        self.rows |= rounded
        print(json.dumps(rounded), flush=True)

    def clips(self, plan: PathPlan, workers: object) -> list[Clips]:
        """Clips of the held-out scenes, a few at a time."""
        if self.atlas is None:
            self.atlas = build_atlas("heldout", per_kind=4, photographs=SEEDS, workers=workers).to(self.device)
        views = self._views(plan, workers)[: self.scenes]
        library = WorldLibrary(range(10_000), "heldout", self.atlas, size=SIZE, plan=plan, views=views)
        maker = ClipMaker(
            library,
            photo_library(SEEDS, "heldout", self.device),
            MixConfig(),
            num_frames=plan.num_frames,
            dtype=torch.bfloat16 if self.device.type == "cuda" else torch.float32,
        )
        parts = []
        for drawn in library.every():
            for at in torch.arange(len(drawn.captions), device=self.device).split(8):
                part = replace(
                    drawn,
                    scenes=drawn.scenes[at],
                    cam_to_world=drawn.cam_to_world[at],
                    intrinsics=drawn.intrinsics[at],
                    captions=tuple(drawn.captions[i] for i in at.tolist()),
                )
                parts.append(maker.rendered(part))
        return parts

    def _views(self, plan: PathPlan, workers: object) -> list[Views]:
        """Camera paths of a plan, kept in a file: the search takes longer than the measures."""
        if self.views is None:
            return sample_views(range(self.scenes + 8), "heldout", plan, SIZE, workers)
        path = self.views / f"{plan.names[0]}-{plan.num_frames}.npz"
        if not path.is_file():
            save_views(path, {"heldout": sample_views(range(40), "heldout", plan, SIZE, workers)})
        return load_views(path, "heldout")

    def make(self, clips: Clips, *, steps: int = 4, memory: bool = True, networks: MiniNetworks | None = None):
        """Generated videos of clips, in [0, 1]."""
        config = replace(self.models.config, num_steps=steps)
        generator = torch.Generator().manual_seed(17)
        video = generate(networks or self.networks, self.maker, clips, config, generator, memory=memory)
        return (video.float() + 1) / 2


def autoencoder(bench: Bench, workers: object) -> None:
    """Reconstruction of moving clips: held-out procedural scenes, photographs not trained on."""
    config = VaeTrainingConfig(loop=LoopConfig(max_steps=1), photographs=SEEDS, num_held_out=bench.scenes)
    source = ClipSource(config, "heldout", bench.device, workers)
    for name, clips in held_out_clips(source, bench.scenes).items():
        bench.note(**{f"vae_{name}_db": float(psnr_db(reconstruct(bench.models.vae, clips), clips).mean())})


def returning(bench: Bench, workers: object) -> None:
    """Paths that come back: co-visible decibels, revisit with and without memory, unseen pixels, steps."""
    found: dict[str, list[torch.Tensor]] = {}

    def add(name: str, values: torch.Tensor) -> None:
        found.setdefault(name, []).append(values.cpu())

    strips = []
    for clips in bench.clips(RETURNING, workers):
        truth = (clips.frames.float() + 1) / 2
        frames = [40, 80, 120, 160]
        seen, warped = seen_by_seed(clips, frames)
        few, forgetful, many = bench.make(clips), bench.make(clips, memory=False), bench.make(clips, steps=16)
        for i, frame in enumerate(frames):
            for name, video in (("4 steps", few), ("16 steps", many), ("no memory", forgetful)):
                add(f"seen f{frame}, {name}", masked_psnr_db(video[:, frame], truth[:, frame], seen[:, i]))
                add(f"new f{frame}, {name}", masked_psnr_db(video[:, frame], truth[:, frame], ~seen[:, i]))
                add(f"sharpness new f{frame}, {name}", sharpness_ratio(video[:, frame], truth[:, frame], ~seen[:, i]))
            landed = (warped[:, i] > 0).any(1)
            guess = blur_filled(warped[:, i], landed)
            add(f"new f{frame}, blur-filled warp", masked_psnr_db(guess, truth[:, frame], ~seen[:, i]))
            add(f"whole f{frame}, 4 steps", psnr_db(few[:, frame], truth[:, frame]))
            add(f"whole f{frame}, 16 steps", psnr_db(many[:, frame], truth[:, frame]))
        add("revisit f160", psnr_db(few[:, 160], truth[:, 0]))
        add("revisit f160, no memory", psnr_db(forgetful[:, 160], truth[:, 0]))
        for index in range(min(2, len(truth))):
            strips += [torch.cat(list(v[index, [0, 40, 80, 120, 160]]), 2) for v in (truth, few, many, forgetful)]
    bench.note(**{name: mean_of(torch.cat(values)) for name, values in found.items()})
    picture(strips, bench.out / "scenes.png")


def drift(bench: Bench, workers: object, twin: str | None) -> None:
    """Six chunks without revisits: colour shift and sharpness against the truth, with and without self-augmentation."""
    components = {"": bench.networks}
    if twin is not None:
        components = {"": bench.networks, ", twin": bench._networks(bench.folder, twin)}
    strips = []
    for clips in bench.clips(ONE_WAY, workers):
        truth = (clips.frames.float() + 1) / 2
        for name, networks in components.items():
            made = bench.make(clips, networks=networks)
            for frame in (80, 240, 480):
                everywhere = torch.ones_like(made[:, 0, 0], dtype=torch.bool)
                color = (made[:, frame].mean((2, 3)) - truth[:, frame].mean((2, 3))).abs().mean(1)
                sharp = detail(made[:, frame], everywhere) / detail(truth[:, frame], everywhere).clamp(min=1e-4)
                for label, values in (("colour error", color), ("sharpness", sharp)):
                    bench.rows.setdefault(f"{label} f{frame}{name}", [])
                    bench.rows[f"{label} f{frame}{name}"] += values.tolist()
            strips += [torch.cat(list(v[0, [0, 80, 160, 240, 320, 400, 480]]), 2) for v in (truth, made)]
    lists = {k: v for k, v in bench.rows.items() if isinstance(v, list)}
    bench.note(**{name: sum(values) / len(values) for name, values in lists.items()})
    picture(strips[:16], bench.out / "drift.png")


def photographs(bench: Bench) -> None:
    """A dolly, a pan and a slide over every sample photograph, by the depth estimated of the photograph alone."""
    strips, names = [], sorted(SEEDS.glob("*.jpg"))
    seeds = [photo_seed(path) for path in names]
    for preset in ("dolly-in", "pan-right", "truck-left"):
        for some in (seeds[i : i + 5] for i in range(0, len(seeds), 5)):
            video = bench.make(photo_clips_of(some, preset, bench.device))
            strips += [torch.cat(list(one[[0, 20, 40, 60, 80]]), 2) for one in video]
    picture(strips, bench.out / "photographs.png")


def photo_clips_of(seeds: list[Seed], preset: str, device: torch.device) -> Clips:
    """Photographs as first frames of clips of 81 cameras; only their own depth is known."""
    cameras, depths = [], []
    for seed in seeds:
        estimate = ParallaxDepth().estimate(seed.image[None], None)
        depth = torch.where(estimate.sky[0], SKY_DEPTH_M, estimate.depth_m[0])
        depths.append(depth)
        cameras.append(
            cameras_for_seed(
                preset, num_frames=81, intrinsics=seed.intrinsics, depth_m=estimate.depth_m[0], sky=estimate.sky[0]
            )
        )
    frames = torch.stack([seed.image for seed in seeds]).permute(0, 3, 1, 2)[:, None].float() / 127.5 - 1
    depth = torch.zeros(len(seeds), 81, *SIZE)
    depth[:, 0] = torch.stack(depths)
    return Clips(
        frames=frames.expand(-1, 81, -1, -1, -1).to(device),
        depth_m=depth.to(device),
        world_to_cam=torch.stack([path.world_to_cam for path in cameras]).float().to(device),
        intrinsics=torch.stack([path.intrinsics for path in cameras]).float().to(device),
        captions=caption_bytes(["a photograph"] * len(seeds)).to(device),
    )


def timing(bench: Bench) -> None:
    """Seconds of an 81-frame video by the rollout itself, the parallax depth of its frames included."""
    models = bench.models
    rollout = Rollout(
        RolloutModels(dit=models.dit, vae=models.vae, depth=ParallaxDepth(), text=models.text, image=models.image),
        models.config,
    )
    seed = photo_seed(SEEDS / "coffee_table.jpg")
    estimate = ParallaxDepth().estimate(seed.image[None], None)
    cameras = cameras_for_seed(
        "dolly-in", num_frames=81, intrinsics=seed.intrinsics, depth_m=estimate.depth_m[0], sky=estimate.sky[0]
    )
    for number in range(2):
        begin = time.perf_counter()
        rollout.run(seed, cameras, ["a photograph"], ["0" * 32], seed_depth_m=estimate.depth_m[0])
        bench.note(**{f"seconds of 81 frames, run {number + 1}": time.perf_counter() - begin})


def photo_seed(path: Path) -> Seed:
    """A sample photograph at the working size; of upright ones the middle."""
    from PIL import Image

    from lyra_core.formats.image import open_image

    with Image.open(path) as photograph:
        rgb = photograph.convert("RGB")
    tall = min(rgb.height, round(rgb.width * SIZE[0] / SIZE[1]))
    top = (rgb.height - tall) // 2
    return open_image(rgb.crop((0, top, rgb.width, top + tall)), SIZE[1], SIZE[0])


def picture(strips: list[torch.Tensor], path: Path) -> None:
    """Strips of frames one below the other."""
    from PIL import Image

    width = min(strip.shape[2] for strip in strips)
    sheet = torch.cat([strip[..., :width] for strip in strips], 1).clamp(0, 1)
    Image.fromarray((sheet * 255).byte().permute(1, 2, 0).cpu().numpy()).save(path)


def main() -> None:
    """Every row, in order of what matters most, so that a run cut short has said it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scenes", type=int, default=32)
    parser.add_argument("--weights", type=Path, default=MINI_FOLDER)
    parser.add_argument("--views", type=Path, help="folder that keeps the camera paths between runs")
    parser.add_argument("--twin", help="component trained without self-augmented histories")
    parser.add_argument("--out", type=Path, required=True, help="folder for pictures")
    parser.add_argument("--parts", nargs="+", default=["vae", "returning", "photographs", "timing", "drift"])
    parser.add_argument("--result", type=Path, help="folder for the numbers (default: benchmarks/results)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with preparing() as workers, torch.no_grad():
        bench = Bench(options)
        parts = {
            "vae": lambda: autoencoder(bench, workers),
            "returning": lambda: returning(bench, workers),
            "photographs": lambda: photographs(bench),
            "timing": lambda: timing(bench),
            "drift": lambda: drift(bench, workers, options.twin),
        }
        for name in options.parts:
            begin = time.perf_counter()
            parts[name]()
            print(f"{name}: {time.perf_counter() - begin:.1f} s", flush=True)
    found = {
        "scenes": options.scenes,
        "resolution": "128x224",
        "held_out_photographs": sorted(HELD_OUT_PHOTOGRAPHS),
        "weights": bench.models.digest,
        "components": sorted(read_components(options.weights)),
        "peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "rows": bench.rows,
    }
    path = write_result("mini", found) if options.result is None else write_result("mini", found, options.result)
    print(path)


if __name__ == "__main__":
    main()
