"""COLMAP's binary model (COLMAP documentation, "Output Format"), which readers of text models with empty lines need."""

from __future__ import annotations

import struct
from pathlib import Path

from lyra_core.errors import CameraPathError
from lyra_core.formats.points import MAX_POINTS, surface_points
from lyra_core.geometry.rotation import matrix_to_quat
from lyra_core.replacing import replacing
from lyra_core.values import CameraPath, Gaussians

_PINHOLE = 1


def write_colmap_binary(
    path: CameraPath,
    folder: str | Path,
    image_names: list[str],
    gaussians: Gaussians | None = None,
    *,
    max_points: int = MAX_POINTS,
) -> None:
    """Write cameras.bin, images.bin and points3D.bin: the same model as write_colmap_text, in the same order.

    Args:
        path: world to camera in OpenCV axes, pixel centres at +0.5; frames that share intrinsics share a camera.
        folder: created where missing.
        image_names: of each frame.
        gaussians: the centres of those that key frames show become points without tracks, or none.
        max_points: at most so many points.

    Raises:
        CameraPathError: a number of image names that is not the number of frames.
    """
    if len(image_names) != len(path):
        raise CameraPathError(f"{len(path)} cameras need {len(path)} image names, found {len(image_names)}")
    lens_ids: dict[tuple[float, ...], int] = {}
    images = [struct.pack("<Q", len(path))]
    quats = matrix_to_quat(path.world_to_cam[:, :3, :3])
    for i, name in enumerate(image_names):
        k = path.intrinsics[i].tolist()
        camera = lens_ids.setdefault((k[0][0], k[1][1], k[0][2], k[1][2]), len(lens_ids) + 1)
        pose = [*quats[i].tolist(), *path.world_to_cam[i, :3, 3].tolist()]
        images.append(struct.pack("<I7dI", i + 1, *pose, camera) + name.encode() + b"\0" + struct.pack("<Q", 0))
    cameras = [struct.pack("<Q", len(lens_ids))]
    for lens, camera in lens_ids.items():
        cameras.append(struct.pack("<IiQQ4d", camera, _PINHOLE, path.image_width, path.image_height, *lens))
    points = []
    if gaussians is not None:
        means, colors = surface_points(gaussians, max_points)
        points = [
            struct.pack("<Q3d3BdQ", i + 1, *mean, *color, 0.0, 0)
            for i, (mean, color) in enumerate(zip(means.tolist(), colors.tolist(), strict=True))
        ]
    for file, blocks in (
        ("cameras", cameras),
        ("images", images),
        ("points3D", [struct.pack("<Q", len(points)), *points]),
    ):
        with replacing(Path(folder) / f"{file}.bin") as temporary:
            temporary.write_bytes(b"".join(blocks))
