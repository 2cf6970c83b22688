"""The values that cross every boundary of the library: seed, camera path, clip, Gaussians.

Legend: t frames, n points or Gaussians, h w pixels, k spherical-harmonics coefficients.
Conventions (docs/conventions.md): OpenCV cameras (x right, y down, z forward), metres, quaternions wxyz,
pixel centres at +0.5, linear scales and opacities, sRGB colour.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from lyra_core.errors import CameraPathError, FrameError, GaussiansError
from lyra_core.geometry.camera_list import RIGIDITY_TOLERANCE
from lyra_core.geometry.rotation import invert_rigid


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraPath:
    """A pinhole camera for each frame, all of one image size.

    Attributes:
        world_to_cam: rigid transforms, world to OpenCV camera, metres. [t 4 4] float64
        intrinsics: pixels of an image of image_height x image_width, pixel centres at +0.5. [t 3 3] float64
        image_height: rows of the image the intrinsics belong to.
        image_width: columns of it.
        name: the preset's name or the file's stem.

    Raises:
        CameraPathError: non-finite or non-rigid transforms, a principal point outside the image, unequal lengths.
    """

    world_to_cam: Float[Tensor, "t 4 4"]
    intrinsics: Float[Tensor, "t 3 3"]
    image_height: int
    image_width: int
    name: str = "custom"

    def __post_init__(self) -> None:
        w2c = self.world_to_cam.detach().to("cpu", torch.float64)
        intrinsics = self.intrinsics.detach().to("cpu", torch.float64)
        object.__setattr__(self, "world_to_cam", w2c)
        object.__setattr__(self, "intrinsics", intrinsics)
        if w2c.ndim != 3 or w2c.shape[1:] != (4, 4) or w2c.shape[0] < 1:
            raise CameraPathError(f"a camera path needs world_to_cam [t 4 4], found {tuple(w2c.shape)}")
        if intrinsics.shape != (w2c.shape[0], 3, 3):
            raise CameraPathError(
                f"a camera path of {w2c.shape[0]} frames needs intrinsics [{w2c.shape[0]} 3 3], "
                f"found {tuple(intrinsics.shape)}"
            )
        self._require_rigid(w2c)
        self._require_inside(intrinsics)

    @staticmethod
    def _require_rigid(w2c: Tensor) -> None:
        if not torch.isfinite(w2c).all():
            bad = (~torch.isfinite(w2c).flatten(1).all(1)).nonzero().flatten().tolist()
            raise CameraPathError(f"camera poses must be finite; frames {bad[:8]} hold NaN or infinity")
        rotation = w2c[:, :3, :3]
        error = (rotation @ rotation.mT - torch.eye(3, dtype=w2c.dtype)).abs().amax((1, 2))
        last_row = (w2c[:, 3] - w2c.new_tensor([0.0, 0.0, 0.0, 1.0])).abs().amax(1)
        wrong = (error > RIGIDITY_TOLERANCE) | (last_row > RIGIDITY_TOLERANCE) | (torch.linalg.det(rotation) < 0)
        if wrong.any():
            first = int(wrong.nonzero()[0])
            raise CameraPathError(
                f"camera poses must be rigid (orthonormal rotation of determinant +1, last row 0 0 0 1); "
                f"frame {first} deviates by {float(error[first]):.2g}"
            )

    def _require_inside(self, intrinsics: Tensor) -> None:
        fx, fy, cx, cy = (
            intrinsics[:, 0, 0],
            intrinsics[:, 1, 1],
            intrinsics[:, 0, 2],
            intrinsics[:, 1, 2],
        )
        good = (fx > 0) & (fy > 0) & (cx >= 0) & (cx <= self.image_width) & (cy >= 0) & (cy <= self.image_height)
        if not bool((good & torch.isfinite(intrinsics).flatten(1).all(1)).all()):
            first = int((~good).nonzero()[0]) if (~good).any() else 0
            raise CameraPathError(
                f"intrinsics need positive focal lengths and a principal point inside the "
                f"{self.image_width}x{self.image_height} image; frame {first} has fx={float(fx[first]):.4g} "
                f"fy={float(fy[first]):.4g} cx={float(cx[first]):.4g} cy={float(cy[first]):.4g}"
            )

    def __len__(self) -> int:
        return int(self.world_to_cam.shape[0])

    def __getitem__(self, frames: slice | list[int] | Tensor) -> CameraPath:
        """The cameras of some frames, as a path."""
        return replace(self, world_to_cam=self.world_to_cam[frames], intrinsics=self.intrinsics[frames])

    @property
    def cam_to_world(self) -> Float[Tensor, "t 4 4"]:
        """Rigid inverses of world_to_cam, exact transposes rather than a general inverse. [t 4 4]"""
        return invert_rigid(self.world_to_cam)

    @property
    def centers_m(self) -> Float[Tensor, "t 3"]:
        """Camera centres in the world frame, metres. [t 3]"""
        return self.cam_to_world[:, :3, 3]

    def resized(self, image_height: int, image_width: int) -> CameraPath:
        """The same cameras for another image size (axes scaled independently)."""
        scale = torch.tensor(
            [image_width / self.image_width, image_height / self.image_height, 1.0],
            dtype=torch.float64,
        )
        return replace(
            self,
            intrinsics=self.intrinsics * scale[None, :, None],
            image_height=image_height,
            image_width=image_width,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """One photograph, decoded, oriented, in sRGB, at the size a recipe works at.

    Attributes:
        image: sRGB. [h w 3] uint8
        intrinsics: pixels of this image. [3 3] float64
        sha256: digest of the file's bytes as found.
        uri: where the file was found.
        focal_source: "exif", "manifest", "default" (55 degrees horizontal) or "estimated" (by a depth network).
        original_size: width and height before cropping, after orientation.
        crop_box: left, top, right, bottom in pixels of the oriented original.
        notes: what decoding changed ("exif orientation 6", "cmyk to srgb", ...).
    """

    image: UInt8[Tensor, "h w 3"]
    intrinsics: Float[Tensor, "3 3"]
    sha256: str
    uri: str = ""
    focal_source: str = "default"
    original_size: tuple[int, int] = (0, 0)
    crop_box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoClip:
    """A generated video with the cameras it was asked for.

    Attributes:
        frames: sRGB. [t h w 3] uint8
        cameras: the requested cameras, one a frame, of the frames' size.
        fps: frames per second.
        depth_m: z-depth in metres, 0 where unknown. [t h w] float32, or None
        depth_confidence: 0 to 1. [t h w] float32, or None
        sky: True where nothing is near. [t h w] bool, or None
    """

    frames: UInt8[Tensor, "t h w 3"]
    cameras: CameraPath
    fps: float = 16.0
    depth_m: Float[Tensor, "t h w"] | None = None
    depth_confidence: Float[Tensor, "t h w"] | None = None
    sky: Bool[Tensor, "t h w"] | None = None

    def __post_init__(self) -> None:
        frames, height, width = self.frames.shape[:3]
        if len(self.cameras) != frames:
            raise FrameError(f"a clip needs one camera a frame: {frames} frames, {len(self.cameras)} cameras")
        if (self.cameras.image_height, self.cameras.image_width) != (height, width):
            raise FrameError(
                f"cameras are for {self.cameras.image_width}x{self.cameras.image_height} images, "
                f"frames are {width}x{height}; call cameras.resized({height}, {width})"
            )
        for name in ("depth_m", "depth_confidence", "sky"):
            layer = getattr(self, name)
            if layer is not None and layer.shape != self.frames.shape[:3]:
                raise FrameError(f"{name} must be {tuple(self.frames.shape[:3])}, found {tuple(layer.shape)}")

    def __len__(self) -> int:
        return int(self.frames.shape[0])


class Part(IntEnum):
    """What a Gaussian of a world is for; the numbers are those of the property `part` of a .ply.

    KEYFRAME: a surface that key frames of the video show. BACKING: the soft continuation behind and beside it, which
    no key frame shows. DOME: what has no known distance, on far spheres: the sky, also where key frames show it, and
    the surroundings in all other directions. Lengths of a world (bounds, points, floors) are those of KEYFRAME alone.
    """

    KEYFRAME = 0
    BACKING = 1
    DOME = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaussians:
    """3D Gaussians in the world frame, all quantities linear (log and logit exist only inside files).

    Attributes:
        means: centres, metres. [n 3] float32
        quats: rotations wxyz, camera-free: object to world. [n 4] float32
        scales: standard deviations along the rotated axes, metres. [n 3] float32
        opacities: 0 to 1. [n] float32
        sh: spherical-harmonics coefficients in the 3DGS sign convention; colour = 0.5 + sum(basis * sh).
            k = (degree + 1) squared. [n k 3] float32
        part: the `Part` of each, or None where nobody told: then all count as KEYFRAME. [n] uint8
    """

    means: Float[Tensor, "n 3"]
    quats: Float[Tensor, "n 4"]
    scales: Float[Tensor, "n 3"]
    opacities: Float[Tensor, " n"]
    sh: Float[Tensor, "n k 3"]
    part: UInt8[Tensor, " n"] | None = None

    def __post_init__(self) -> None:
        n = self.means.shape[0]
        fields = {
            "means": (self.means, (n, 3)),
            "quats": (self.quats, (n, 4)),
            "scales": (self.scales, (n, 3)),
            "opacities": (self.opacities, (n,)),
            "sh": (self.sh, (n, self.sh.shape[1] if self.sh.ndim == 3 else -1, 3)),
        }
        if self.part is not None:
            fields["part"] = (self.part, (n,))
        for name, (tensor, wanted) in fields.items():
            if tuple(tensor.shape) != wanted:
                raise GaussiansError(f"{name} must be {wanted} for {n} Gaussians, found {tuple(tensor.shape)}")
        if self.sh.shape[1] not in (1, 4, 9, 16):
            raise GaussiansError(f"sh needs 1, 4, 9 or 16 coefficients (degree 0 to 3), found {self.sh.shape[1]}")

    def __len__(self) -> int:
        return int(self.means.shape[0])

    def __getitem__(self, which: slice | Tensor) -> Gaussians:
        """A subset, by slice, index tensor or mask."""
        return replace(
            self,
            means=self.means[which],
            quats=self.quats[which],
            scales=self.scales[which],
            opacities=self.opacities[which],
            sh=self.sh[which],
            part=None if self.part is None else self.part[which],
        )

    def of_parts(self, *parts: Part) -> Gaussians:
        """Those of some parts, in their order; all or none of them where parts are not told."""
        if self.part is None:
            return self if Part.KEYFRAME in parts else self[:0]
        return self[torch.isin(self.part, self.part.new_tensor([int(part) for part in parts]))]

    def marked(self, part: Part) -> Gaussians:
        """The same Gaussians, all of one part."""
        return replace(self, part=torch.full((len(self),), int(part), dtype=torch.uint8, device=self.means.device))

    @property
    def sh_degree(self) -> int:
        """0 to 3."""
        return {1: 0, 4: 1, 9: 2, 16: 3}[int(self.sh.shape[1])]

    def to(self, device: str | torch.device) -> Gaussians:
        """The same Gaussians on another device."""
        return replace(
            self,
            means=self.means.to(device),
            quats=self.quats.to(device),
            scales=self.scales.to(device),
            opacities=self.opacities.to(device),
            sh=self.sh.to(device),
            part=None if self.part is None else self.part.to(device),
        )

    @classmethod
    def concatenate(cls, parts: list[Gaussians]) -> Gaussians:
        """All sets as one; lower degrees are padded with zeros to the highest, and a set that does not tell its parts
        counts as KEYFRAME beside one that does.

        Raises:
            GaussiansError: no sets.
        """
        if not parts:
            raise GaussiansError("concatenate needs at least one set of Gaussians, found none")
        is_told = any(p.part is not None for p in parts)
        told = [p.marked(Part.KEYFRAME).part if p.part is None else p.part for p in parts] if is_told else []
        k = max(int(part.sh.shape[1]) for part in parts)
        padded = [torch.nn.functional.pad(p.sh, (0, 0, 0, k - int(p.sh.shape[1]))) for p in parts]
        return cls(
            means=torch.cat([p.means for p in parts]),
            quats=torch.cat([p.quats for p in parts]),
            scales=torch.cat([p.scales for p in parts]),
            opacities=torch.cat([p.opacities for p in parts]),
            sh=torch.cat(padded),
            part=torch.cat([part for part in told if part is not None]) if is_told else None,
        )

    def save_ply(self, path: str | Path) -> None:
        """Write the INRIA layout; see lyra_core.formats.ply.write_ply."""
        from lyra_core.formats.ply import write_ply

        write_ply(self, path)

    @classmethod
    def load_ply(cls, path: str | Path) -> Gaussians:
        """Read the INRIA layout; see lyra_core.formats.ply.read_ply."""
        from lyra_core.formats.ply import read_ply

        return read_ply(path)
