"""A model that does what the seed's file name says: the real factory around it meets real faults.

poison*: segmentation fault    hang*: never returns    exit*: the process leaves
bad*: a permanent error        flaky*: an error the first time, a world the second
bug*: an exception nobody foresaw      anything else: a tiny world, at once
"""

from __future__ import annotations

import ctypes
import os
import random
import time
from dataclasses import replace
from pathlib import Path

import torch

from lyra_core.errors import ReconstructionError, StoreError
from lyra_core.native import Native
from lyra_core.provenance import Provenance
from lyra_core.values import CameraPath, Gaussians, Seed, VideoClip


class FaultModel:
    name = "fault"
    weights_digest = "1"
    native = Native(size=(64, 48))
    provenance = Provenance()

    def __init__(self, always: str = "") -> None:
        self.always = always

    def generate(self, image, camera_path, *, num_frames, seed, prompts=None, width, height, **_):
        stem = Path(image.uri).stem if isinstance(image, Seed) else "canary"
        self._misbehave(self.always or stem, image)
        pixels = image.image if isinstance(image, Seed) else image
        h, w = pixels.shape[:2]
        intrinsics = torch.tensor([[w, 0, w / 2], [0, w, h / 2], [0, 0, 1]], dtype=torch.float64)
        eye = torch.eye(4, dtype=torch.float64).repeat(num_frames, 1, 1)
        eye[:, 2, 3] = -torch.linspace(0, 0.5, num_frames)
        return VideoClip(
            frames=pixels[None].expand(num_frames, -1, -1, -1),
            cameras=CameraPath(
                world_to_cam=eye,
                intrinsics=intrinsics.repeat(num_frames, 1, 1),
                image_height=h,
                image_width=w,
                name="still",
            ),
        )

    def reconstruct(self, clip, **_):
        return Gaussians(
            means=torch.tensor([[0.0, 0.0, 2.0], [0.1, 0.0, 2.0]]),
            quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(2, 1),
            scales=torch.full((2, 3), 0.1),
            opacities=torch.full((2,), 0.9),
            sh=torch.zeros(2, 1, 3),
        )

    def _misbehave(self, stem: str, image) -> None:
        if stem.startswith("poison"):
            ctypes.string_at(0)
        elif stem.startswith("exit"):
            os._exit(7)
        elif stem.startswith("hang"):
            time.sleep(3600)
        elif stem.startswith("bad"):
            raise ReconstructionError("wanted a usable seed, found a bad one")
        elif stem.startswith("bug"):
            raise ZeroDivisionError("nobody foresaw this")
        elif stem.startswith("slow"):
            time.sleep(0.5)
        elif stem.startswith("flaky"):
            marker = Path(image.uri).with_suffix(".tried")
            if not marker.exists():
                marker.touch()
                raise StoreError("storage was away for a moment")


def load(device: str = "cpu", **options) -> FaultModel:
    return FaultModel(**options)


class NoisyModel(FaultModel):
    """Never makes the same world twice, and takes a while that differs."""

    def reconstruct(self, clip, **_):
        time.sleep(random.SystemRandom().uniform(0, 0.1))
        made = super().reconstruct(clip)
        noise = torch.frombuffer(bytearray(os.urandom(24)), dtype=torch.uint8).float().reshape(2, 12)[:, :3] / 2560
        return replace(made, means=made.means + noise)


def load_noisy(device: str = "cpu", **options) -> NoisyModel:
    return NoisyModel(**options)


def load_dying(device: str = "cpu", **options) -> FaultModel:
    return FaultModel(always="exit")


def load_broken(device: str = "cpu", **options) -> FaultModel:
    raise OSError("the weights are on a disk that is gone")


def load_hanging(device: str = "cpu", **options) -> FaultModel:
    time.sleep(600)
    raise OSError("nobody waited")
