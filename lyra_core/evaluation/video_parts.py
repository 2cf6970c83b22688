"""The parts of the table that judge videos: each measures some rows and leaves a picture of what they mean."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

from lyra_core.errors import ConfigError
from lyra_core.evaluation.autoencoding import reconstruct
from lyra_core.evaluation.bench import SEEDS, SIZE, STRIDE, Bench
from lyra_core.evaluation.depth_measure import abs_rel
from lyra_core.evaluation.estimated_depth import camera_path
from lyra_core.evaluation.frechet import frechet_distance, masked_rows
from lyra_core.evaluation.measures import (
    blur_filled,
    color_shift,
    masked_psnr_db,
    patch_distance,
    patches,
    seen_by_seed,
    sharpness_ratio,
    warped_seed,
)
from lyra_core.evaluation.sheets import Strip, write_sheet
from lyra_core.geometry.seed_cameras import cameras_for_seed
from lyra_core.image_metrics import psnr_each_db
from lyra_core.mini.encoders import caption_bytes
from lyra_core.mini.networks import MiniNetworks
from lyra_core.procedural.clip_maker import photo_library
from lyra_core.procedural.clips import Clips
from lyra_core.procedural.photo_clips import photo_clips
from lyra_core.procedural.photographs import HELD_OUT_PHOTOGRAPHS
from lyra_core.procedural.world_clips import LONG_PATHS, PathPlan
from lyra_core.values import Seed
from lyra_core.video.depth_cache import SKY_DEPTH_M, mask_depth
from lyra_core.video.world_state import to_bytes

RETURNING = PathPlan(num_frames=161, names=("out-and-back", "wander-and-return"), takes=1, max_stride=1)
ONE_WAY = PathPlan(
    num_frames=481, names=("wander", "truck-right", "dolly-in", "orbit-left", "pan-right"), takes=1, max_stride=1
)
SHOWN = [0, 40, 80, 120, 160]
LOOKED_AT = SHOWN[1:4]
"""Frames whose never-seen parts an image network compares: of one frame they would be too few for a covariance."""
LAST_CHUNK = list(range(408, 481, STRIDE))
SHOWN_DRIFT = [0, 80, 160, 240, 320, 400, 480]
CLIP = 9
"""Frames of the autoencoder's clips: a still and two groups of four."""
PRESETS = ("dolly-in", "pan-right", "truck-left")


class Measured:
    """Values of scenes by name, gathered over batches."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = defaultdict(list)

    def add(self, name: str, values: Tensor) -> None:
        """Keep values of some more scenes."""
        self._values[name].append(values.float().cpu())

    def __getitem__(self, name: str) -> Tensor:
        return torch.cat(self._values[name])


def autoencoder(bench: Bench) -> None:
    """Reconstruction of clips at the speed of chunks, of faster ones, and of photographs not trained on.

    Raises:
        ConfigError: no photographs kept out of training.
    """
    strips = []
    frames = list(range(40, 40 + CLIP))
    measured = Measured()
    for plan in (RETURNING, ONE_WAY) if bench.is_whole else (RETURNING,):
        for clips in bench.clips(plan, frames, at_once=16):
            truth = (clips.frames[:, frames].float() + 1) / 2
            reconstructions = reconstruct(bench.models.vae, truth.to(bench.dtype)).float()
            measured.add("worlds", psnr_each_db(reconstructions, truth))
            strips += _pair("procedural", truth[:1, -1], reconstructions[:1, -1])
    bench.note("vae_worlds_db", measured["worlds"], scenes=len(measured["worlds"]))
    if bench.is_whole:
        fast = bench.library(LONG_PATHS)
        draw = torch.Generator().manual_seed(7)
        truth = torch.cat([fast.clips(8, CLIP, draw) for _ in range(bench.scenes // 8)])
        bench.note(
            "vae_worlds_fast_db", psnr_each_db(reconstruct(bench.models.vae, truth.to(bench.dtype)).float(), truth)
        )
    library = photo_library(SEEDS, "heldout", bench.device)
    if library is None:
        raise ConfigError(f"the table measures on photographs kept out of training, found none in {SEEDS}")
    for key, speed in (("vae_photos_db", 1.0), ("vae_photos_still_db", 0.0)):
        draw = torch.Generator().manual_seed(7)
        truth = photo_clips(library, bench.scenes, CLIP, *SIZE, draw, speed=speed)
        reconstructions = reconstruct(bench.models.vae, truth.to(bench.dtype)).float()
        bench.note(key, psnr_each_db(reconstructions, truth), note="3 photographs")
        strips += _pair("photograph", truth[:1, -1], reconstructions[:1, -1])
    cells = [strip.pictures[0] for strip in strips]
    rows = [Strip(label="truth", pictures=cells[0::2]), Strip(label="through the\nautoencoder", pictures=cells[1::2])]
    columns = [strip.label for strip in strips[0::2]]
    write_sheet("Autoencoder: the last frame of held-out clips", columns, rows, bench.out / "vae.jpg")


def _pair(label: str, truth: Tensor, reconstruction: Tensor) -> list[Strip]:
    return [Strip(label=label, pictures=[truth[0]]), Strip(label=label, pictures=[reconstruction[0]])]


def returning(bench: Bench, teacher: str | None, many: int) -> None:
    """Paths that come back: what the seed saw and did not see, the return, memory off, many steps (0 for none)."""
    measured = Measured()
    strips: list[Strip] = []
    unseen: list[Strip] = []
    teaching = bench.video if teacher is None else bench.networks(teacher)
    known = list(range(0, 161, STRIDE))
    for clips in bench.clips(RETURNING, SHOWN, at_once=_at_once(bench), with_depth=known):
        truth = (clips.frames.float() + 1) / 2
        videos = {
            "true": bench.make(clips),
            "true, no memory": bench.make(clips, memory=False),
            "estimated": bench.make(clips, depth="estimated"),
            "estimated, no memory": bench.make(clips, depth="estimated", memory=False),
        }
        if many:
            videos["many"] = bench.make(clips, steps=many, networks=teaching)
        _measure_returning(bench, measured, clips, truth, videos)
        if len(strips) < 24:
            strips += _returning_strips(truth, videos)
            unseen += _unseen_strips(clips, truth, videos)
    _note_returning(bench, measured)
    if many:
        _note_many(bench, measured, "" if teacher else f"the same weights in {many} steps")
    columns = ["seed", "frame 40", "frame 80", "frame 120", "frame 160 = seed"]
    write_sheet("Out and back, held-out scenes", columns, strips, bench.out / "returning.jpg")
    columns = ["seed", "its warp", "blur-fill", "4 steps", f"{many} steps", "truth", "seen by the seed"]
    write_sheet("Frame 80: what the seed never saw", columns, unseen, bench.out / "unseen.jpg")


def _at_once(bench: Bench) -> int:
    return 16 if bench.device.type == "cuda" else 2


def _measure_returning(
    bench: Bench, measured: Measured, clips: Clips, truth: Tensor, videos: dict[str, Tensor]
) -> None:
    frames = SHOWN[1:]
    seen = seen_by_seed(clips, frames)
    guess = blur_filled(*(x[:, 0] for x in warped_seed(clips, [80])))
    ceiling = reconstruct(bench.models.vae, truth[:, 80:81].to(bench.dtype)).float()[:, 0]
    measured.add("ceiling", masked_psnr_db(ceiling, truth[:, 80], seen[:, 1]))
    measured.add("warp", masked_psnr_db(guess, truth[:, 80], seen[:, 1]))
    measured.add("blur", masked_psnr_db(guess, truth[:, 80], ~seen[:, 1]))
    measured.add("blur patches", _patch_distances(guess, truth[:, 80], ~seen[:, 1]))
    measured.add("warp sharp", sharpness_ratio(guess, truth[:, 80], seen[:, 1]))
    measured.add("ceiling sharp", sharpness_ratio(ceiling, truth[:, 80], seen[:, 1]))
    for i, frame in enumerate(LOOKED_AT):
        blurred = blur_filled(*(x[:, 0] for x in warped_seed(clips, [frame])))
        shown = {"truth": truth[:, frame], "blur": blurred}
        shown |= {name: videos[name][:, frame] for name in ("true", "many") if name in videos}
        _add_features(bench, measured, shown, ~seen[:, i])
    for name, video in videos.items():
        for i, frame in enumerate(frames):
            measured.add(f"{name} seen {frame}", masked_psnr_db(video[:, frame], truth[:, frame], seen[:, i]))
            measured.add(f"{name} new {frame}", masked_psnr_db(video[:, frame], truth[:, frame], ~seen[:, i]))
            measured.add(f"{name} sharp {frame}", sharpness_ratio(video[:, frame], truth[:, frame], ~seen[:, i]))
        measured.add(f"{name} seen sharp", sharpness_ratio(video[:, 80], truth[:, 80], seen[:, 1]))
        measured.add(f"{name} revisit", psnr_each_db(video[:, 160], truth[:, 0]))
        measured.add(f"{name} patches", _patch_distances(video[:, 80], truth[:, 80], ~seen[:, 1]))


def _add_features(bench: Bench, measured: Measured, shown: dict[str, Tensor], mask: Tensor) -> None:
    """Keep image features of masked positions, a row each."""
    if bench.features is None:
        return
    for name, images in shown.items():
        measured.add(f"{name} features", masked_rows(bench.features(images.float().clamp(0, 1))[-1], mask))


def _note_features(bench: Bench, measured: Measured, **rows: str) -> None:
    """Note Frechet distances to the truth, by key and name."""
    if bench.features is None:
        return
    truth = measured["truth features"]
    for key, name in rows.items():
        bench.note(key, frechet_distance(measured[f"{name} features"], truth), scenes=len(measured["warp"]))


def _patch_distances(generated: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    some = zip(generated, truth, mask, strict=True)
    return torch.tensor([patch_distance(patches(m, k), patches(t, k), draw) for m, t, k in some])


def _note_returning(bench: Bench, measured: Measured) -> None:
    for depth in ("true", "estimated"):
        for frame in (80, 160):
            bench.note(f"seen_{depth}_f{frame}_db", measured[f"{depth} seen {frame}"])
        bench.note(f"revisit_{depth}_db", measured[f"{depth} revisit"])
        gain = measured[f"{depth} revisit"] - measured[f"{depth}, no memory revisit"]
        bench.note(f"revisit_{depth}_gain_db", gain)
        bench.detail(**{f"{depth} seen f{f} db": float(measured[f"{depth} seen {f}"].nanmean()) for f in (40, 120)})
    bench.note("seen_sharpness", measured["true seen sharp"])
    bench.note("seen_sharpness_warp", measured["warp sharp"])
    bench.note("seen_sharpness_ceiling", measured["ceiling sharp"])
    _note_features(bench, measured, unseen_frechet="true", unseen_frechet_blur="blur")
    bench.note("seen_warp_f80_db", measured["warp"])
    bench.note("seen_ceiling_f80_db", measured["ceiling"])
    bench.note("unseen_f80_db", measured["true new 80"])
    bench.note("unseen_gain_db", measured["true new 80"] - measured["blur"])
    bench.note("unseen_sharpness", measured["true sharp 80"])
    bench.note("unseen_patches", measured["true patches"])
    bench.note("unseen_patches_blur", measured["blur patches"])
    low = measured["estimated seen 80"]
    bench.detail(estimated_seen_f80_p10_db=float(low[torch.isfinite(low)].quantile(0.1)))


def _note_many(bench: Bench, measured: Measured, note: str) -> None:
    bench.note("unseen_gain_many_db", measured["many new 80"] - measured["blur"], note)
    bench.note("unseen_sharpness_many", measured["many sharp 80"], note)
    bench.note("unseen_patches_many", measured["many patches"], note)
    _note_features(bench, measured, unseen_frechet_many="many")
    for frame in (80, 160):
        bench.note(f"student_f{frame}_db", measured[f"true seen {frame}"] - measured[f"many seen {frame}"], note)
    both = torch.isfinite(measured["true sharp 80"] + measured["many sharp 80"])
    ratio = measured["true sharp 80"][both].mean() / measured["many sharp 80"][both].mean()
    bench.note("student_sharpness", float(ratio), note, scenes=int(both.sum()))


def _returning_strips(truth: Tensor, videos: dict[str, Tensor]) -> list[Strip]:
    labels = {
        "true": "4 steps,\ntrue depth",
        "estimated": "4 steps,\nestimated depth",
        "estimated, no memory": "memory off,\nestimated depth",
        "many": "16 steps,\ntrue depth",
    }
    strips = []
    for index in range(min(2, len(truth))):
        strips += [Strip(label="", pictures=[]), Strip(label="truth", pictures=list(truth[index, SHOWN]))]
        shown = [(name, text) for name, text in labels.items() if name in videos]
        strips += [Strip(label=text, pictures=list(videos[name][index, SHOWN])) for name, text in shown]
    return strips


def _unseen_strips(clips: Clips, truth: Tensor, videos: dict[str, Tensor]) -> list[Strip]:
    seen = seen_by_seed(clips, [80])
    warped, landed = (x[:, 0] for x in warped_seed(clips, [80]))
    guess = blur_filled(warped, landed)
    strips = []
    for i in range(min(4, len(truth))):
        mask = seen[i, :1].float().expand(3, -1, -1)
        many = videos["many"][i, 80] if "many" in videos else None
        cells = [truth[i, 0], warped[i] * landed[i], guess[i], videos["true"][i, 80], many, truth[i, 80], mask]
        strips.append(Strip(label="", pictures=cells))
    return strips


def drift(bench: Bench, ablation: str | None, teacher: str | None, many: int, scenes: int | None) -> None:
    """Six chunks on paths that go on: what is lost in the last one, with and without self-augmented histories."""
    ours = bench.video if teacher is None else bench.networks(teacher)
    steps = bench.models.config.num_steps if teacher is None else many
    runs: dict[str, tuple[MiniNetworks, int]] = {"ours": (ours, steps)}
    if ablation is not None:
        runs["ablation"] = (bench.networks(ablation), steps)
    if teacher is not None:
        runs["student"] = (bench.video, bench.models.config.num_steps)
    measured = Measured()
    strips: list[Strip] = []
    frames = sorted({240, *SHOWN_DRIFT, *LAST_CHUNK})
    for clips in bench.clips(ONE_WAY, frames, at_once=_at_once(bench), scenes=scenes):
        truth = (clips.frames.float() + 1) / 2
        videos = {name: bench.make(clips, networks=n, steps=s, depth="estimated") for name, (n, s) in runs.items()}
        for name, video in videos.items():
            for frame in [80, 240, *LAST_CHUNK]:
                where = "last" if frame in LAST_CHUNK else str(frame)
                everywhere = torch.ones_like(video[:, 0, 0], dtype=torch.bool)
                measured.add(f"{name} color {where}", color_shift(video[:, frame], truth[:, frame]))
                lost = 1 - sharpness_ratio(video[:, frame], truth[:, frame], everywhere)
                measured.add(f"{name} lost {where}", lost)
        if len(strips) < 16:
            strips += _drift_strips(truth, videos)
    _note_drift(bench, measured, runs, scenes=len(measured["ours color 80"]))
    columns = [f"frame {frame}" if frame else "seed" for frame in SHOWN_DRIFT]
    write_sheet("Six chunks, estimated depth", columns, strips, bench.out / "drift.jpg")


def _note_drift(bench: Bench, measured: Measured, runs: dict[str, tuple[MiniNetworks, int]], scenes: int) -> None:
    note = f"{runs['ours'][1]} steps"
    color, lost = float(measured["ours color last"].mean()), float(measured["ours lost last"].mean())
    bench.note("drift_color", color, note, scenes)
    bench.note("drift_sharpness_loss", lost, note, scenes)
    for name in runs:
        bench.detail(**{f"{name} color f{f}": float(measured[f"{name} color {f}"].mean()) for f in (80, 240, "last")})
        bench.detail(**{f"{name} lost f{f}": float(measured[f"{name} lost {f}"].mean()) for f in (80, 240, "last")})
    if "ablation" in runs:
        other, gone = float(measured["ablation color last"].mean()), float(measured["ablation lost last"].mean())
        bench.note("drift_color_twin", other, note, scenes)
        bench.note("drift_sharpness_loss_twin", gone, note, scenes)
        bench.note("drift_color_reduction", 100 * (1 - color / max(other, 1e-6)), note, scenes)
        bench.note("drift_sharpness_reduction", 100 * (1 - lost / max(gone, 1e-6)), note, scenes)


def _drift_strips(truth: Tensor, videos: dict[str, Tensor]) -> list[Strip]:
    strips = [Strip(label="", pictures=[]), Strip(label="truth", pictures=list(truth[0, SHOWN_DRIFT]))]
    labels = {"ours": "self-augmented", "ablation": "ablation, without", "student": "student, 4 steps"}
    return strips + [Strip(label=labels[n], pictures=list(v[0, SHOWN_DRIFT])) for n, v in videos.items()]


def rollout_depth(bench: Bench) -> None:
    """Depth of the windows and seeds that a rollout asks for, nothing fitted."""
    measured = Measured()
    frames = list(range(0, 8 * STRIDE, STRIDE))
    for clips in bench.clips(RETURNING, frames, at_once=8):
        for index, pictures in enumerate(to_bytes(clips.frames[:, frames].flatten(0, 1).float()).cpu().split(8)):
            path, truth = camera_path(clips, index)[frames], clips.depth_m[index, frames].cpu()
            solid = truth < SKY_DEPTH_M
            posed = bench.estimator.estimate(pictures, path)
            alone = bench.estimator.estimate(pictures[:1], path[:1])
            measured.add("posed", torch.tensor([abs_rel(posed.depth_m, truth, solid)]))
            measured.add("alone", torch.tensor([abs_rel(alone.depth_m, truth[:1], solid[:1])]))
    bench.note("rollout_absrel_cameras", measured["posed"])
    bench.note("rollout_absrel_single", measured["alone"])


def photographs(bench: Bench) -> None:
    """A dolly, a pan and a slide over the sample photographs, by estimated depth, as a user sees them."""
    names = [p for p in sorted(SEEDS.glob("*.jpg")) if bench.is_whole or p.stem in HELD_OUT_PHOTOGRAPHS]
    seeds = [photo_seed(path) for path in names]
    for preset in PRESETS if bench.is_whole else PRESETS[:1]:
        strips = []
        for start in range(0, len(seeds), 5):
            clips = photo_clips_of(bench, seeds[start : start + 5], preset)
            video = bench.make(clips, depth="of seed")
            for path, one in zip(names[start:], video, strict=False):
                strips.append(Strip(label=path.stem.replace("_", "\n"), pictures=list(one[[0, 20, 40, 60, 80]])))
        columns = ["photograph", "frame 20", "frame 40", "frame 60", "frame 80"]
        write_sheet(f"Sample photographs, {preset}", columns, strips, bench.out / f"photographs-{preset}.jpg")


def photo_clips_of(bench: Bench, seeds: list[Seed], preset: str) -> Clips:
    """Photographs as first frames of clips of 81 cameras; only their own depth is known, as estimated."""
    cameras, depths = [], []
    for seed in seeds:
        estimate = bench.estimator.estimate(seed.image[None], None)
        depths.append(mask_depth(estimate, bench.models.config.depth)[0])
        cameras.append(
            cameras_for_seed(
                preset, num_frames=81, intrinsics=seed.intrinsics, depth_m=estimate.depth_m[0], sky=estimate.sky[0]
            )
        )
    frames = torch.stack([seed.image for seed in seeds]).permute(0, 3, 1, 2)[:, None].float() / 127.5 - 1
    depth = torch.zeros(len(seeds), 81, *SIZE)
    depth[:, 0] = torch.stack(depths)
    device = bench.device
    return Clips(
        frames=frames.expand(-1, 81, -1, -1, -1).to(device),
        depth_m=depth.to(device),
        world_to_cam=torch.stack([path.world_to_cam for path in cameras]).float().to(device),
        intrinsics=torch.stack([path.intrinsics for path in cameras]).float().to(device),
        captions=caption_bytes(["a place"] * len(seeds)).to(device),
    )


def photo_seed(path: Path, factor: int = 1) -> Seed:
    """A sample photograph at the working size, or a multiple of it; of upright ones the middle."""
    from PIL import Image

    from lyra_core.formats.image import open_image

    with Image.open(path) as photograph:
        rgb = photograph.convert("RGB")
    tall = min(rgb.height, round(rgb.width * SIZE[0] / SIZE[1]))
    top = (rgb.height - tall) // 2
    return open_image(rgb.crop((0, top, rgb.width, top + tall)), factor * SIZE[1], factor * SIZE[0])
