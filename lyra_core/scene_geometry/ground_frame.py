"""The frame that simulators get: z up, the origin on the floor below the first camera, y forward, metres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lyra_core.scene_geometry.floor import CAMERA_UP, Floor

FORWARD = (0.0, 0.0, 1.0)  # of the first camera, in the world frame


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundFrame:
    """A similarity from the world frame (OpenCV, world units) to the ground frame (x right, y forward, z up).

    Attributes:
        rotation: rows are the ground's x, y and z in the world frame. [3 3] float64
        origin: of the ground frame, in the world frame, world units. [3] float64
        scale: ground lengths of one world unit: metres where these are known or likely.
    """

    rotation: Float[np.ndarray, "3 3"]
    origin: Float[np.ndarray, " 3"]
    scale: float

    @classmethod
    def on(cls, floor: Floor | None, scale: float) -> GroundFrame:
        """On a trusted floor; without one, at the first camera and upright as it is."""
        up = np.array(CAMERA_UP if floor is None else floor.up)
        forward = np.array(FORWARD) - (np.array(FORWARD) @ up) * up
        forward = forward / np.linalg.norm(forward)
        origin = np.zeros(3) if floor is None else -floor.camera_height * up
        return cls(rotation=np.stack([np.cross(forward, up), forward, up]), origin=origin, scale=scale)

    def to_ground(self, xyz: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """World points in the ground frame."""
        return self.scale * ((xyz - self.origin) @ self.rotation.T)

    def to_world(self, xyz: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Ground points in the world frame."""
        return xyz / self.scale @ self.rotation + self.origin

    def camera(self, world_to_cam: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4 4"]:
        """A camera of the world frame as a rigid camera of the ground frame, whose depths are `scale` times as long."""
        rotation = world_to_cam[:3, :3]
        camera = np.eye(4)
        camera[:3, :3] = rotation @ self.rotation.T
        camera[:3, 3] = self.scale * (rotation @ self.origin + world_to_cam[:3, 3])
        return camera

    @property
    def matrix(self) -> Float[np.ndarray, "4 4"]:
        """World to ground, homogeneous. [4 4] float64"""
        matrix = np.eye(4)
        matrix[:3, :3] = self.scale * self.rotation
        matrix[:3, 3] = -self.scale * self.rotation @ self.origin
        return matrix
