"""The part of the table that judges super-resolution: videos of held-out scenes against the truth at full size.

A scene's first frame is rendered at full size; reduced four times it is what the model generates from. The enlarged
video is compared with the rendered frames over the pixels whose surface the first frame shows. Of sample photographs
nothing is known beyond the photograph: frames are compared with crops of it around the same surface.

Legend: b scenes, t frames, h w pixels of low resolution, H W = 4h 4w.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.evaluation.bench import SEEDS, SIZE, STRIDE, Bench, some_drawn, sparse
from lyra_core.evaluation.estimated_depth import EstimatedDepth, camera_path, with_seed_depth
from lyra_core.evaluation.measures import masked_psnr_db, seen_by_seed, sharpness_ratio
from lyra_core.evaluation.sheets import Strip, write_sheet
from lyra_core.evaluation.video_parts import RETURNING, Measured, photo_seed
from lyra_core.image_features import ImageFeatures, perceptual_distance
from lyra_core.mini.backward_warp import BackwardWarp, SamplePoints, backward_warp, pyramid, sample, sample_points
from lyra_core.mini.enlarge import Enlarger, reduced_image
from lyra_core.mini.files import load_super_resolution
from lyra_core.mini.super_resolution import FACTOR, enlarged, enlarged_mask, reduced
from lyra_core.procedural.atlas import build_atlas
from lyra_core.procedural.clip_maker import ClipMaker, MixConfig
from lyra_core.procedural.clips import Clips
from lyra_core.procedural.world_clips import DrawnClips
from lyra_core.procedural.worlds import render_color
from lyra_core.values import VideoClip
from lyra_core.video.world_state import to_bytes, to_unit_range
from lyra_core.world_models.generative import reduced_seed
from lyra_core.world_models.mini import load_mini_model

LAST = 80
NEIGHBOURS = (72, 76, 79)
"""Frames whose detail is compared with that of the next."""
KNOWN = sorted({*range(0, LAST + 1, STRIDE), *NEIGHBOURS})
DRAWN = sorted({0, LAST, *NEIGHBOURS, *(frame + 1 for frame in NEIGHBOURS)})
TEXELS = 512
"""Texels along a side of a texture: as many as a full-size frame can show."""
CROP_PX = 96
"""Side of the crops whose features are compared, pixels of full size."""
CROP_STRIDE = 16
"""Low-resolution pixels from one crop's centre to the next."""
PATH = "dolly-in"
SHOWN_SCENES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class _Enlarged:
    """Some frames of a scene at full size, in [-1, 1], by frame number. [1 3 H W] each"""

    truth: dict[int, Tensor]
    bicubic: dict[int, Tensor]
    transfer: dict[int, Tensor]
    network: dict[int, Tensor]


def enlarging(bench: Bench, scenes: int) -> None:
    """Frame 80 at full size: above bicubic enlargement and the untrained transfer, detail, flicker; the photographs."""
    enlargers = _enlargers(bench)
    atlas = build_atlas("heldout", per_kind=4, size=TEXELS, photographs=SEEDS, workers=bench.workers)
    library = bench.library(RETURNING, scenes, atlas.to(bench.device))
    maker = ClipMaker(library, None, MixConfig(), num_frames=LAST + 1, dtype=bench.dtype)
    measured = Measured()
    strips: list[Strip] = []
    for shelf in library.every():
        for at in torch.arange(len(shelf.captions), device=bench.device).split(1):
            drawn = _first_chunk(some_drawn(shelf, at))
            truth = full_size(drawn, DRAWN)
            clips = _beginning_with(sparse(maker, drawn, [0, LAST], KNOWN), truth[0])
            for depth in ("true", "estimated"):
                scene = _enlarge(bench, enlargers, clips, truth, is_estimated=depth == "estimated")
                _measure(measured, depth, clips, scene)
                if depth == "true" and len(strips) < SHOWN_SCENES:
                    shown = [scene.truth[0], *(made[LAST] for made in (scene.bicubic, scene.transfer, scene.network))]
                    strips.append(Strip(label="", pictures=[_shown(x) for x in (*shown, scene.truth[LAST])]))
    _note(bench, measured)
    columns = ["seed", "bicubic", "transfer", "network", "truth"]
    write_sheet("Frame 80 at 512x896, true depth", columns, strips, bench.out / "enlarged.jpg")
    _photographs(bench, enlargers)


def _enlargers(bench: Bench) -> dict[str, Enlarger]:
    network = load_super_resolution(bench.folder, bench.device).eval()
    return {"network": Enlarger(network, name="network"), "transfer": Enlarger(None, name="transfer")}


def _first_chunk(drawn: DrawnClips) -> DrawnClips:
    frames = slice(0, LAST + 1)
    return replace(drawn, cam_to_world=drawn.cam_to_world[:, frames], intrinsics=drawn.intrinsics[:, frames])


def full_size(drawn: DrawnClips, frames: list[int]) -> dict[int, Float[Tensor, "b 3 H W"]]:
    """Frames of clips rendered four times as large, in [-1, 1], by number."""
    intrinsics = drawn.intrinsics.clone()
    intrinsics[..., :2, :] *= FACTOR
    height, width = FACTOR * SIZE[0], FACTOR * SIZE[1]
    rendered = {}
    for frame in frames:
        at = slice(frame, frame + 1)
        rgb = render_color(drawn.scenes, drawn.cam_to_world[:, at], intrinsics[:, at], height, width)
        rendered[frame] = rgb[:, 0].permute(0, 3, 1, 2) * 2 - 1
    return rendered


def _beginning_with(clips: Clips, first: Float[Tensor, "b 3 H W"]) -> Clips:
    """Clips whose first frame is that of full size, reduced as the product reduces a photograph."""
    frames = clips.frames.clone()
    seeds = [to_unit_range(reduced_image(image, FACTOR)) for image in to_bytes(first).cpu()]
    frames[:, 0] = torch.stack(seeds).to(frames)
    return replace(clips, frames=frames)


def _enlarge(
    bench: Bench, enlargers: dict[str, Enlarger], clips: Clips, truth: dict[int, Tensor], *, is_estimated: bool
) -> _Enlarged:
    """Generate the video of one scene, and enlarge it in every way."""
    video = bench.make(clips, depth="estimated" if is_estimated else "true")
    seeds = with_seed_depth(clips, bench.estimator, bench.models.config.depth) if is_estimated else clips
    clip = video_clip(bench, seeds, video, is_estimated=is_estimated)
    photograph = to_bytes(truth[0])[0].cpu()
    made = {name: enlarger.enlarge(photograph, clip).frames for name, enlarger in enlargers.items()}
    numbers = [frame for frame in DRAWN if frame]
    lows = {n: to_unit_range(clip.frames[n])[None].to(bench.device) for n in numbers}
    return _Enlarged(
        truth=truth,
        bicubic={n: enlarged(low) for n, low in lows.items()},
        **{
            name: {n: to_unit_range(frames[n])[None].to(bench.device) for n in numbers} for name, frames in made.items()
        },
    )


def video_clip(bench: Bench, clips: Clips, video: Float[Tensor, "1 t 3 h w"], *, is_estimated: bool) -> VideoClip:
    """A generated video with the depth its memory had: that of the clips, or estimated from it once more."""
    depth = clips.depth_m
    if is_estimated:
        estimated = EstimatedDepth(clips, bench.estimator, bench.models.config)
        estimated.after_chunk(video * 2 - 1, LAST, LAST)
        depth = estimated.depth_m
    known = torch.zeros_like(depth)
    known[:, ::STRIDE] = depth[:, ::STRIDE]
    return VideoClip(
        frames=to_bytes(video[0] * 2 - 1).cpu(), cameras=camera_path(clips, 0), depth_m=known[0].float().cpu()
    )


def _measure(measured: Measured, depth: str, clips: Clips, scene: _Enlarged) -> None:
    seen = enlarged_mask(seen_by_seed(clips, [LAST])[:, 0])
    truth = scene.truth[LAST]
    for name in ("bicubic", "transfer", "network"):
        frames: dict[int, Tensor] = getattr(scene, name)
        measured.add(f"{depth} {name}", masked_psnr_db((frames[LAST] + 1) / 2, (truth + 1) / 2, seen))
        measured.add(f"{depth} {name} sharp", sharpness_ratio((frames[LAST] + 1) / 2, (truth + 1) / 2, seen))
    measured.add(f"{depth} network flicker", _flicker_ratio(clips, scene.network, scene.truth))


def _flicker_ratio(clips: Clips, frames: dict[int, Tensor], truth: dict[int, Tensor]) -> Float[Tensor, " b"]:
    """How much detail changes from a frame to the next along true motion, over how much the truth's does.

    Detail is what bicubic enlargement of the reduced frame has not; sampling changes some of the truth's, too.
    """
    amounts = []
    for images in (frames, truth):
        total = torch.zeros(len(clips), device=clips.depth_m.device)
        for frame in NEIGHBOURS:
            warp = _between(clips, frame, frame + 1)
            moved = sample(pyramid(_detail(images[frame])), sample_points(warp, FACTOR), SIZE)
            sure = enlarged_mask(warp.cover >= 1)
            change = (_detail(images[frame + 1]) - moved).abs().mean(1)
            total = total + (change * sure).flatten(1).sum(1) / sure.flatten(1).sum(1).clamp(min=1)
        amounts.append(total)
    return amounts[0] / amounts[1].clamp(min=1e-6)


def _between(clips: Clips, source: int, target: int) -> BackwardWarp:
    w2c, K = clips.world_to_cam, clips.intrinsics
    return backward_warp(clips.depth_m[:, source], w2c[:, source], K[:, source], w2c[:, target], K[:, target])


def _detail(images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 3 H W"]:
    return images - enlarged(reduced(images))


def _shown(images: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "3 H W"]:
    return ((images[0] + 1) / 2).cpu()


def _note(bench: Bench, measured: Measured) -> None:
    for depth, suffix in (("true", ""), ("estimated", "_estimated")):
        network = measured[f"{depth} network"]
        bench.note(f"enlarged_gain{suffix}_db", network - measured[f"{depth} bicubic"])
        bench.note(f"enlarged_transfer_gain{suffix}_db", network - measured[f"{depth} transfer"])
        bench.note(f"enlarged_sharpness{suffix}", measured[f"{depth} network sharp"])
        bench.note(f"enlarged_flicker{suffix}", measured[f"{depth} network flicker"])
    bench.note("enlarged_db", measured["true network"])
    bench.note("enlarged_sharpness_bicubic", measured["true bicubic sharp"])
    bench.detail(transfer_sharpness=float(measured["true transfer sharp"].nanmean()))


def _photographs(bench: Bench, enlargers: dict[str, Enlarger]) -> None:
    """Frame 80 of the sample photographs: features of crops against those of the photograph's own crops."""
    if bench.features is None:
        return
    model = load_mini_model(device=str(bench.device), weights=bench.folder)
    ratios, strips = [], []
    for path in sorted(SEEDS.glob("*.jpg")):
        seed = photo_seed(path, FACTOR)
        clip = model.generate(reduced_seed(seed, FACTOR), PATH, num_frames=LAST + 1)
        made = {name: enlarger.enlarge(seed.image, clip).frames[LAST] for name, enlarger in enlargers.items()}
        images = {name: to_unit_range(image)[None].to(bench.device) for name, image in made.items()}
        images["bicubic"] = enlarged(to_unit_range(clip.frames[LAST])[None].to(bench.device))
        photograph = to_unit_range(seed.image)[None].to(bench.device)
        distances = crop_distances(bench.features, photograph, images, _to_last(clip, bench.device))
        bench.detail(**{f"{path.stem} features {name}": float(values) for name, values in distances.items()})
        ratios.append(distances["network"] / distances["bicubic"])
        shown = [photograph, *(images[name] for name in ("bicubic", "transfer", "network"))]
        strips.append(Strip(label=path.stem.replace("_", "\n"), pictures=[_shown(x) for x in shown]))
    bench.note("enlarged_photo_features", torch.stack(ratios).cpu())
    columns = ["photograph", "bicubic", "transfer", "network"]
    write_sheet(f"Frame 80 at 512x896, {PATH}", columns, strips, bench.out / "enlarged-photographs.jpg")


def _to_last(clip: VideoClip, device: torch.device) -> BackwardWarp:
    """From the photograph to the last frame, by the photograph's estimated depth."""
    assert clip.depth_m is not None  # noqa: S101 - the model estimates it
    w2c, K = clip.cameras.world_to_cam.to(device), clip.cameras.intrinsics.to(device)
    first, last = slice(0, 1), slice(LAST, LAST + 1)
    return backward_warp(clip.depth_m[first].to(device), w2c[first], K[first], w2c[last], K[last])


def crop_distances(
    features: ImageFeatures, photograph: Tensor, images: dict[str, Tensor], warp: BackwardWarp
) -> dict[str, Float[Tensor, ""]]:
    """Mean feature distance of an image's crops from the photograph's crops around the same surfaces.

    A crop of the photograph is not warped: it is moved and scaled as the middle of the image's crop is, so that it is a
    true piece of a photograph.

    Args:
        features: of the network that measures.
        photograph: [1 3 H W] in [-1, 1]
        images: the same view made in several ways, likewise.
        warp: from the photograph to the images, one.
    """
    half = CROP_PX / FACTOR / 2
    there = sample_points(warp, 1)
    height, width = SIZE
    steps = (torch.arange(CROP_PX, device=photograph.device) + 0.5) / FACTOR - half
    offsets = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)
    rows = torch.arange(int(half), height - int(half) + 1, CROP_STRIDE)
    columns = torch.arange(int(half), width - int(half) + 1, CROP_STRIDE)
    distances: dict[str, list[Tensor]] = {name: [] for name in images}
    levels = {name: pyramid(image) for name, image in images.items()}
    photograph_levels = pyramid(photograph)
    for row, column in torch.cartesian_prod(rows, columns).tolist():
        ratio, at = there.ratio[0, row, column], there.at[0, row, column]
        reach = half * float(ratio)
        is_inside = bool(((at >= reach) & (at <= at.new_tensor([width - reach, height - reach]))).all())
        if not is_inside or float(warp.cover[0, row, column]) < 1:
            continue
        # pixel (row, column) has its centre half a pixel further
        original = _crop(photograph_levels, at, offsets * ratio, ratio)
        middle = at.new_tensor([column + 0.5, row + 0.5])
        maps = features((original + 1) / 2)
        for name, image_levels in levels.items():
            crop = _crop(image_levels, middle, offsets, ratio.new_ones(()))
            distances[name].append(perceptual_distance(features((crop + 1) / 2), maps)[0])
    return {name: torch.stack(values).mean() for name, values in distances.items()}


def _crop(levels: list[Tensor], middle: Tensor, offsets: Tensor, ratio: Tensor) -> Float[Tensor, "1 3 s s"]:
    """A square of CROP_PX pixels; coordinates in low-resolution pixels."""
    where = SamplePoints(at=(middle + offsets)[None], ratio=ratio.expand(1, CROP_PX, CROP_PX))
    return sample(levels, where, SIZE).clamp(-1, 1)
