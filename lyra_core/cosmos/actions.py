"""A camera path as the actions of Cosmos 3, and back.

Between two frames the action is the second camera in the frame of the first: translation in metres, then the first and
the second column of the rotation, nine numbers (Cosmos 3, domain `camera_pose`; OpenCV axes, which are this project's).
There is no absolute pose and no focal length: the network takes the field of view from the picture.
"""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import CameraPathError, LyraWarning
from lyra_core.geometry.rotation import invert_rigid, nearest_rotation, rigid, rotation_angle_deg
from lyra_core.values import CameraPath

WIDTH = 9
SHOWN_STEP_M, SHOWN_STEP_DEG = 1.22, 2.0
"""The longest step of the published camera sample, and a generous bound of its turns."""


def path_to_actions(cameras: CameraPath, gain: float = 1.0) -> Float[Tensor, "k 9"]:
    """One action a frame step, float32.

    Args:
        cameras: k + 1 of them, metres.
        gain: multiplies translations; rotations are never scaled.
    """
    steps = cameras.world_to_cam[:-1] @ cameras.cam_to_world[1:]
    parts = (steps[:, :3, 3] * gain, steps[:, :3, 0], steps[:, :3, 1])
    return torch.cat(parts, 1).float()


def actions_to_poses(actions: Float[Tensor, "k 9"], gain: float = 1.0) -> Float[Tensor, "n 4 4"]:
    """World-to-camera transforms of k + 1 frames, the first one the identity.

    The inverse of path_to_actions: rotations that are none, as a network predicts them, become the nearest ones.

    Raises:
        CameraPathError: not nine numbers an action, or numbers that are not finite.
    """
    if actions.shape[1] != WIDTH or not bool(torch.isfinite(actions).all()):
        raise CameraPathError(f"camera actions are {WIDTH} finite numbers a step, found {tuple(actions.shape)}")
    first, second = actions[:, 3:6].double(), actions[:, 6:9].double()
    rotation = nearest_rotation(torch.stack([first, second, torch.linalg.cross(first, second)], 2))
    steps = rigid(rotation, actions[:, :3].double() / gain)
    poses = [torch.eye(4, dtype=torch.float64)]
    for step in steps:
        poses.append(poses[-1] @ step)
    return invert_rigid(torch.stack(poses))


def warn_of_long_steps(cameras: CameraPath, gain: float = 1.0) -> None:
    """A LyraWarning that names the first frame whose step exceeds what the model was shown."""
    steps = cameras.world_to_cam[:-1] @ cameras.cam_to_world[1:]
    metres = steps[:, :3, 3].norm(dim=1) * gain
    degrees = rotation_angle_deg(steps[:, :3, :3])
    beyond = ((metres > SHOWN_STEP_M) | (degrees > SHOWN_STEP_DEG)).nonzero()
    if len(beyond):
        at = int(beyond[0])
        warnings.warn(
            f"the camera moves {float(metres[at]):.2f} m and turns {float(degrees[at]):.2f} degrees to frame {at + 1}; "
            f"Cosmos 3 was shown steps of up to {SHOWN_STEP_M} m and {SHOWN_STEP_DEG:g} degrees: it may not follow. "
            "Spread the path over more frames",
            LyraWarning,
            stacklevel=2,
        )
