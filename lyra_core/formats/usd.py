"""Worlds as OpenUSD stages: Gaussians to see, a mesh to collide with, units, labels, where it came from.

/world                                defaultPrim
/world/visual                         turns world axes (OpenCV) to the ground frame: z up, y forward
/world/visual/{keyframes,backing,dome}  ParticleField3DGaussianSplat, one prim a part: a dome can be hidden
/world/collision                      a mesh of the ground frame with physics collision
/world/physicsScene, /world/seedCamera

Splats are UsdVol's of OpenUSD 26: linear scales, opacities of 0 to 1, orientations, harmonics by coefficient. A
renderer turns harmonics with the prim. Splats are for the eye only: contacts come from the mesh.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lyra_core.errors import FormatError
from lyra_core.extras import require
from lyra_core.formats.mesh import Mesh, vertex_normals
from lyra_core.formats.parts import by_part
from lyra_core.formats.ply import require_finite
from lyra_core.replacing import replacing
from lyra_core.values import CameraPath, Gaussians

GRAVITY = 9.81  # metres a second squared
APERTURE = 20.955  # millimetres: width of the film of 35 mm, OpenUSD's default; only ratios to it mean anything
EXTENT_DEVIATIONS = 3.0
LABELS = {"keyframes": "surface", "backing": "backing", "dome": "background", "collision": "terrain"}
PACKED_AT = 946_728_000  # 2000-01-01, 12:00 UTC
_GRAY = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class UsdWorld:
    """What goes into a stage.

    Attributes:
        gaussians: world frame.
        world_to_ground: a similarity from the world frame to the ground frame, whose unit is the stage's. [4 4]
        camera: whose first is the seed's; world frame.
        collision: ground frame, or None.
        facts: license, provenance and measures, for `customLayerData`.
    """

    gaussians: Gaussians
    world_to_ground: Float[np.ndarray, "4 4"]
    camera: CameraPath
    collision: Mesh | None
    facts: Mapping[str, str | float | bool]


def write_usd(world: UsdWorld, file: str | Path) -> None:
    """Write a stage as one file: .usdc (binary) or .usda (text) by its ending.

    Raises:
        GaussiansError: no Gaussians, or values that are not finite.
        FormatError: OpenUSD cannot write it.
        MissingExtraError: usd-core is not installed.
    """
    require("pxr", "writing USD")
    from pxr import Tf, Usd

    require_finite(world.gaussians)
    with replacing(file) as temporary:
        try:
            stage = Usd.Stage.CreateNew(str(temporary))
            _fill(stage, world)
            stage.GetRootLayer().Save()
        except Tf.ErrorException as error:
            raise FormatError(f"{file}: OpenUSD cannot write it: {error}") from error


def write_usdz(world: UsdWorld, file: str | Path) -> None:
    """Write a stage as a package: an uncompressed archive that holds it as world.usdc.

    Raises:
        GaussiansError: no Gaussians, or values that are not finite.
        FormatError: OpenUSD cannot write it.
        MissingExtraError: usd-core is not installed.
    """
    require("pxr", "writing USDZ")
    from pxr import Sdf, UsdUtils

    with replacing(file) as temporary, tempfile.TemporaryDirectory(dir=temporary.parent, prefix=".usdz-") as folder:
        inner = Path(folder) / "world.usdc"
        write_usd(world, inner)
        os.utime(inner, (PACKED_AT, PACKED_AT))  # the archive tells it: equal worlds have equal bytes
        if not UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(inner)), str(temporary), "world.usdc"):
            raise FormatError(f"{file}: OpenUSD cannot pack it; is the disk full?")


def _fill(stage: Any, world: UsdWorld) -> None:
    from pxr import Gf, UsdGeom, UsdPhysics

    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    UsdPhysics.SetStageKilogramsPerUnit(stage, 1.0)
    stage.GetRootLayer().customLayerData = {"lyraWorlds": dict(world.facts)}
    root = UsdGeom.Xform.Define(stage, "/world")
    stage.SetDefaultPrim(root.GetPrim())
    visual = UsdGeom.Xform.Define(stage, "/world/visual")
    # OpenUSD multiplies row vectors.
    visual.AddTransformOp().Set(Gf.Matrix4d(world.world_to_ground.T.tolist()))
    for name, part in by_part(world.gaussians).items():
        _define_splats(stage, f"/world/visual/{name}", part)
        _label(stage.GetPrimAtPath(f"/world/visual/{name}"), LABELS[name])
    if world.collision is not None:
        _define_collision(stage, world.collision)
        _label(stage.GetPrimAtPath("/world/collision"), LABELS["collision"])
    _define_camera(stage, world.camera, world.world_to_ground)
    physics = UsdPhysics.Scene.Define(stage, "/world/physicsScene")
    physics.CreateGravityDirectionAttr(Gf.Vec3f(0, 0, -1))
    physics.CreateGravityMagnitudeAttr(GRAVITY)


def _define_splats(stage: Any, path: str, part: Gaussians) -> None:
    from pxr import UsdGeom, UsdVol, Vt

    splats = UsdVol.ParticleField3DGaussianSplat.Define(stage, path)
    means, scales = part.means.numpy().astype("f4"), part.scales.numpy().astype("f4")
    quats = part.quats.numpy().astype(np.float64)
    quats = quats / np.linalg.norm(quats, axis=1, keepdims=True)
    splats.CreatePositionsAttr(Vt.Vec3fArray.FromNumpy(means))
    # FromNumpy takes the imaginary part first.
    splats.CreateOrientationsAttr(Vt.QuatfArray.FromNumpy(np.roll(quats, -1, axis=1).astype("f4")))
    splats.CreateScalesAttr(Vt.Vec3fArray.FromNumpy(scales))
    splats.CreateOpacitiesAttr(Vt.FloatArray.FromNumpy(part.opacities.numpy().astype("f4").clip(0, 1)))
    splats.CreateRadianceSphericalHarmonicsDegreeAttr(part.sh_degree)
    coefficients = splats.CreateRadianceSphericalHarmonicsCoefficientsAttr(
        Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(part.sh.numpy().reshape(-1, 3).astype("f4")))
    )
    primvar = UsdGeom.Primvar(coefficients)
    primvar.SetInterpolation(UsdGeom.Tokens.vertex)
    primvar.SetElementSize((part.sh_degree + 1) ** 2)
    # OpenUSD has no plugin that computes it for splats.
    reach = EXTENT_DEVIATIONS * scales.max(1, keepdims=True)
    ends = np.stack([(means - reach).min(0), (means + reach).max(0)])
    splats.CreateExtentAttr(Vt.Vec3fArray.FromNumpy(ends))


def _define_collision(stage: Any, mesh: Mesh) -> None:
    from pxr import UsdGeom, UsdPhysics, Vt

    prim = UsdGeom.Mesh.Define(stage, "/world/collision")
    points = mesh.vertices.astype("f4")
    prim.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(points))
    prim.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(mesh.faces), 3, "i4")))
    prim.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(mesh.faces.astype("i4").ravel()))
    prim.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(vertex_normals(mesh).astype("f4")))
    prim.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    prim.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    prim.CreateDoubleSidedAttr(True)
    prim.CreateExtentAttr(Vt.Vec3fArray.FromNumpy(np.stack([points.min(0), points.max(0)])))
    prim.CreatePurposeAttr(UsdGeom.Tokens.guide)
    prim.CreateDisplayColorAttr([(_GRAY, _GRAY, _GRAY)])
    UsdPhysics.CollisionAPI.Apply(prim.GetPrim())
    # The surface itself: of a whole world, a convex hull would fill every room.
    UsdPhysics.MeshCollisionAPI.Apply(prim.GetPrim()).CreateApproximationAttr(UsdPhysics.Tokens.none)


def _define_camera(stage: Any, cameras: CameraPath, world_to_ground: np.ndarray) -> None:
    """The seed's camera in the ground frame; OpenUSD's look along -z with y up."""
    from pxr import Gf, UsdGeom

    camera = UsdGeom.Camera.Define(stage, "/world/seedCamera")
    size = np.cbrt(np.linalg.det(world_to_ground[:3, :3]))
    pose = world_to_ground @ cameras.cam_to_world[0].numpy() @ np.diag([1.0, -1.0, -1.0, 1.0])
    pose[:3, :3] /= size
    camera.AddTransformOp().Set(Gf.Matrix4d(pose.T.tolist()))
    fx, fy = (float(cameras.intrinsics[0, i, i]) for i in (0, 1))
    cx, cy = (float(cameras.intrinsics[0, i, 2]) for i in (0, 1))
    width, height = cameras.image_width, cameras.image_height
    camera.CreateFocalLengthAttr(fx / width * APERTURE)
    camera.CreateHorizontalApertureAttr(APERTURE)
    camera.CreateVerticalApertureAttr(APERTURE * height / width * fx / fy)
    camera.CreateHorizontalApertureOffsetAttr((0.5 - cx / width) * APERTURE)
    camera.CreateVerticalApertureOffsetAttr((cy / height - 0.5) * APERTURE * height / width * fx / fy)
    camera.CreateClippingRangeAttr(Gf.Vec2f(0.01, 10_000))


def _label(prim: Any, label: str) -> None:
    from pxr import UsdSemantics

    UsdSemantics.LabelsAPI.Apply(prim, "class").CreateLabelsAttr([label])
