"""Cameras in and out of Depth Anything 3: known cameras become tokens, camera tokens become
cameras.

A camera is nine numbers: centre (3), camera-to-world quaternion xyzw (4), vertical and horizontal
field of view (2). Shape legend: v views, c channels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lyra_core.gaussians.depth_anything.backbone import FeedForward, ViTBlock
from lyra_core.geometry.rotation import invert_rigid, matrix_to_quat_xyzw, quat_xyzw_to_matrix

ENCODING = 9
TRUNK_DEPTH = 4
MIN_TAN = 1e-6
# Least unit, in the caller's lengths, that camera centres are normalised by.
MIN_MEDIAN_DISTANCE = 0.1


def normalise_cameras(world_to_cam: Float[Tensor, "v 4 4"]) -> tuple[Float[Tensor, "v 4 4"], float]:
    """Cameras in the frame of the first, in units of the median distance of the centres from it.

    Args:
        world_to_cam: rigid transforms. [v 4 4]

    Returns:
        the same cameras as the network wants them, and the length of one unit in the caller's.
    """
    relative = world_to_cam @ invert_rigid(world_to_cam[:1], None)
    unit = max(float(invert_rigid(relative, None)[:, :3, 3].norm(dim=-1).median()), MIN_MEDIAN_DISTANCE)
    relative = relative.clone()
    relative[:, :3, 3] /= unit
    return relative, unit


def encode_cameras(
    world_to_cam: Float[Tensor, "v 4 4"],
    intrinsics: Float[Tensor, "v 3 3"],
    height: int,
    width: int,
) -> Float[Tensor, "v 9"]:
    """Centre, orientation and fields of view; the principal point is not represented."""
    cam_to_world = invert_rigid(world_to_cam, None)
    fov_h = 2.0 * torch.atan(height / 2.0 / intrinsics[:, 1, 1])
    fov_w = 2.0 * torch.atan(width / 2.0 / intrinsics[:, 0, 0])
    quat = matrix_to_quat_xyzw(cam_to_world[:, :3, :3])
    return torch.cat([cam_to_world[:, :3, 3], quat, fov_h[:, None], fov_w[:, None]], dim=-1)


def decode_cameras(
    encoding: Float[Tensor, "v 9"], height: int, width: int
) -> tuple[Float[Tensor, "v 4 4"], Float[Tensor, "v 3 3"]]:
    """world_to_cam and intrinsics in pixels, principal point at the image centre."""
    rotation = quat_xyzw_to_matrix(encoding[:, 3:7]).mT
    world_to_cam = torch.eye(4, device=encoding.device).repeat(encoding.shape[0], 1, 1)
    world_to_cam[:, :3, :3] = rotation
    world_to_cam[:, :3, 3] = -(rotation @ encoding[:, :3, None])[..., 0]
    intrinsics = torch.zeros(encoding.shape[0], 3, 3, device=encoding.device)
    intrinsics[:, 0, 0] = width / 2.0 / (encoding[:, 8] / 2.0).tan().clamp_min(MIN_TAN)
    intrinsics[:, 1, 1] = height / 2.0 / (encoding[:, 7] / 2.0).tan().clamp_min(MIN_TAN)
    intrinsics[:, 0, 2] = width / 2.0
    intrinsics[:, 1, 2] = height / 2.0
    intrinsics[:, 2, 2] = 1.0
    return world_to_cam, intrinsics


class CameraEncoder(nn.Module):
    """Known cameras to one token each; the tokens attend to each other. Runs in fp32."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.pose_branch = FeedForward(ENCODING, dim // 2, dim)
        self.token_norm = nn.LayerNorm(dim)
        self.trunk = nn.ModuleList(ViTBlock(dim, num_heads, eps=1e-5) for _ in range(TRUNK_DEPTH))
        self.trunk_norm = nn.LayerNorm(dim)

    def forward(
        self,
        world_to_cam: Float[Tensor, "v 4 4"],
        intrinsics: Float[Tensor, "v 3 3"],
        height: int,
        width: int,
    ) -> Float[Tensor, "v c"]:
        """Tokens of normalised cameras (see normalise_cameras)."""
        encoding = encode_cameras(world_to_cam.float(), intrinsics.float(), height, width)
        x = self.token_norm(self.pose_branch(encoding))[None]
        for block in self.trunk:
            x = block(x)
        return self.trunk_norm(x)[0]


class CameraDecoder(nn.Module):
    """Camera tokens to the nine numbers. Runs in fp32."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU())
        self.fc_t = nn.Linear(dim, 3)
        self.fc_qvec = nn.Linear(dim, 4)
        self.fc_fov = nn.Sequential(nn.Linear(dim, 2))

    def forward(self, tokens: Float[Tensor, "v c"]) -> Float[Tensor, "v 9"]:
        """Encodings as in encode_cameras; the quaternion is not normalised."""
        x = self.backbone(tokens.float())
        return torch.cat([self.fc_t(x), self.fc_qvec(x), functional.relu(self.fc_fov(x))], dim=-1)
