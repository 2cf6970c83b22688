"""Writes clips in the layout that training reads (clip_folder): one's own, the factory's, or procedural worlds."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from lyra_core.errors import DepthError, FormatError
from lyra_core.finetuning.clip_folder import LIST_NAME
from lyra_core.formats.clip import write_mp4
from lyra_core.formats.exr import write_exr
from lyra_core.replacing import replacing
from lyra_core.values import VideoClip
from lyra_core.video.depth_cache import SKY_DEPTH_M

DepthFormat = Literal["exr", "npz"]


def export_clip(
    clip: VideoClip, folder: Path, name: str, captions: Mapping[int, str], *, depth_format: DepthFormat = "npz"
) -> None:
    """Add a clip to a folder of training data; its files are replaced, its name is added to the list.

    The sky gets the depth that rollouts give it. Depth is kept in half precision (1 mm at 1 m, 0.5 m at 1 km).

    Args:
        clip: with depth; its cameras may be in any world frame.
        folder: created where missing.
        name: of the clip, also of its files.
        captions: by the first frame they hold for.
        depth_format: of the archive: npz needs numpy alone, exr is what other tools write.

    Raises:
        DepthError: a clip without depth.
        FormatError: a name that is no file name, or no captions.
        FrameError: frames of an odd size.
    """
    if clip.depth_m is None:
        raise DepthError(f"training needs depth of every frame; clip {name!r} has none (estimate it first)")
    if not name or Path(name).name != name or name.startswith("."):
        raise FormatError(f"a clip needs a name that can be a file's, found {name!r}")
    if not captions or any(frame < 0 for frame in captions):
        raise FormatError(f"clip {name} needs captions by first frame, from 0, found {dict(captions)}")
    depth = clip.depth_m.float()
    if clip.sky is not None:
        depth = depth.masked_fill(clip.sky, SKY_DEPTH_M)
    frames = np.arange(len(clip))
    K = clip.cameras.intrinsics.numpy()
    lenses = np.stack([K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]], axis=1)
    write_mp4(clip.frames, folder / "rgb" / f"{name}.mp4", clip.fps)
    _save(folder / "pose" / f"{name}.npz", inds=frames, data=clip.cameras.cam_to_world.numpy())
    _save(folder / "intrinsics" / f"{name}.npz", inds=frames, data=lenses)
    _write_depth(depth.numpy().astype(np.float16), folder / "depth", name, depth_format)
    with replacing(folder / "captions" / f"{name}.json") as path:
        path.write_text(json.dumps({str(frame): text for frame, text in sorted(captions.items())}, indent=1), "utf-8")
    listed = folder / LIST_NAME
    names = listed.read_text("utf-8").split("\n") if listed.is_file() else []
    with replacing(listed) as path:
        path.write_text("\n".join([*(line for line in names if line and line != name), name]) + "\n", "utf-8")


def export_procedural(folder: Path, seeds: range, num_frames: int, size: tuple[int, int], path: str = "wander") -> int:
    """Clips of procedural worlds with exact depth, as data to try training with; returns how many were written.

    Args:
        folder: where.
        seeds: of the worlds; those without a clear place for a camera are left out.
        num_frames: of each clip.
        size: rows and columns, even.
        path: of the camera, one of lyra_core.procedural.views.PATHS.
    """
    from lyra_core.errors import CameraPathError
    from lyra_core.procedural.scenes import sample_scene
    from lyra_core.procedural.worlds import scene_clip

    count = 0
    for seed in seeds:
        try:
            clip = scene_clip(seed, path, num_frames, *size)
        except CameraPathError:
            continue  # a crowded scene: the next seed has another
        export_clip(clip, folder, f"procedural-{seed:05d}", {0: sample_scene(seed).caption})
        count += 1
    return count


def _save(path: Path, **arrays: np.ndarray) -> None:
    with replacing(path) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)


def _write_depth(depth: np.ndarray, folder: Path, name: str, form: DepthFormat) -> None:
    # one archive a clip, or the reader could not tell which is meant
    (folder / f"{name}.{'npz' if form == 'exr' else 'zip'}").unlink(missing_ok=True)
    if form == "npz":
        with replacing(folder / f"{name}.npz") as path:
            np.savez_compressed(path, allow_pickle=False, **{f"{i:05d}": frame for i, frame in enumerate(depth)})
        return
    with replacing(folder / f"{name}.zip") as path, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for index, frame in enumerate(depth):
            archive.writestr(f"{index:05d}.exr", write_exr(frame))
