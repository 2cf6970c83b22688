"""A world as a Rerun recording (.rrd): splats, the moving camera, its pictures and depth, for the Rerun viewer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lyra_core.extras import require
from lyra_core.spherical_harmonics import SH_C0
from lyra_core.values import Gaussians, Part

JPEG_QUALITY = 90
IMAGE_PLANE = 0.2  # world units in front of the camera, where the viewer shows the picture


def write_recording(gaussians: Gaussians, samples: Iterable[Mapping[str, Any]], file: str | Path, name: str) -> None:
    """Write one world; axes and lengths are the world's own (x right, y down, z forward).

    Splats have their base colour alone; the dome is an entity of its own, so that it can be hidden.

    Args:
        gaussians: world frame.
        samples: of `lyra_core.dataset`, in the order of time: image [3 h w] uint8, intrinsics, cam_to_world, frame and
            maybe depth.
        file: .rrd
        name: of the recording, shown by the viewer.

    Raises:
        MissingExtraError: rerun-sdk is not installed.
    """
    require("rerun", "writing a Rerun recording")
    import rerun as rr

    recording = rr.RecordingStream("lyra-worlds", recording_id=name)
    recording.save(str(file))
    recording.log("world", rr.ViewCoordinates.RDF, static=True)
    parts = {
        "world/splats": gaussians.of_parts(Part.KEYFRAME, Part.BACKING),
        "world/dome": gaussians.of_parts(Part.DOME),
    }
    for entity, part in parts.items():
        if len(part):
            color = (0.5 + SH_C0 * part.sh[:, 0]).clamp(0, 1).cpu().numpy()
            rgba = np.concatenate([color, part.opacities[:, None].cpu().numpy()], 1)
            splats = rr.GaussianSplats3D(
                part.means.cpu().numpy(),
                scales=part.scales.cpu().numpy(),
                quaternions=part.quats[:, [1, 2, 3, 0]].cpu().numpy(),  # xyzw there
                colors=(rgba * 255).round().astype(np.uint8),
            )
            recording.log(entity, splats, static=True)
    for sample in samples:
        recording.set_time("frame", sequence=int(sample["frame"]))
        height, width = sample["image"].shape[1:]
        pose = sample["cam_to_world"].numpy()
        recording.log("world/camera", rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
        lens = rr.Pinhole(
            image_from_camera=sample["intrinsics"].numpy(),
            width=width,
            height=height,
            camera_xyz=rr.ViewCoordinates.RDF,
            image_plane_distance=IMAGE_PLANE,
        )
        recording.log("world/camera/picture", lens)
        picture = rr.Image(sample["image"].permute(1, 2, 0).numpy()).compress(JPEG_QUALITY)
        recording.log("world/camera/picture/color", picture)
        if "depth" in sample:
            recording.log("world/camera/picture/depth", rr.DepthImage(sample["depth"].numpy(), meter=1.0))
    recording.flush()
    recording.disconnect()
