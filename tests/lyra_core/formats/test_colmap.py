"""COLMAP's binary model, byte by byte."""

from __future__ import annotations

import struct

import pytest
import torch

from lyra_core.errors import CameraPathError
from lyra_core.formats.colmap import write_colmap_binary
from lyra_core.geometry.camera import intrinsics_from_hfov
from lyra_core.geometry.rotation import unit_quat_to_matrix
from lyra_core.values import CameraPath


def two_frames() -> CameraPath:
    """A camera at (1, 2, 3) that does not turn, and one at the origin turned by 90 degrees about x."""
    poses = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    poses[0, :3, 3] = torch.tensor([-1.0, -2.0, -3.0], dtype=torch.float64)
    poses[1, :3, :3] = unit_quat_to_matrix(torch.tensor([[0.5**0.5, 0.5**0.5, 0, 0]], dtype=torch.float64))[0]
    lens = intrinsics_from_hfov(60.0, 48, 64)
    return CameraPath(world_to_cam=poses, intrinsics=lens.repeat(2, 1, 1), image_height=48, image_width=64, name="two")


def test_cameras_and_images(tmp_path):
    path = two_frames()
    write_colmap_binary(path, tmp_path, ["a.jpg", "b.jpg"])
    k = path.intrinsics[0].tolist()
    wanted = struct.pack("<QIiQQ4d", 1, 1, 1, 64, 48, k[0][0], k[1][1], k[0][2], k[1][2])
    assert (tmp_path / "cameras.bin").read_bytes() == wanted
    images = (tmp_path / "images.bin").read_bytes()
    assert struct.unpack_from("<QI7dI6sQ", images) == (2, 1, 1, 0, 0, 0, -1, -2, -3, 1, b"a.jpg\0", 0)
    second = struct.unpack_from("<I7dI6sQ", images, struct.calcsize("<QI7dI6sQ"))
    assert second[1:5] == pytest.approx((0.5**0.5, 0.5**0.5, 0, 0))
    assert second[8:] == (1, b"b.jpg\0", 0)
    assert (tmp_path / "points3D.bin").read_bytes() == struct.pack("<Q", 0)


def test_image_names_must_match(tmp_path):
    with pytest.raises(CameraPathError, match="2 cameras need 2 image names, found 1"):
        write_colmap_binary(two_frames(), tmp_path, ["a.jpg"])
