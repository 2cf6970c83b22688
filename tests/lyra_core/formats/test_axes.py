"""Axes are proven: one asymmetric world goes through every format and a reader not written here, and is drawn again.

Each reader's numbers are turned back by the convention that the format documents, never by a matrix fitted to the
answer, and the picture of the seed's camera must show every splat where the world has it.
"""

from __future__ import annotations

import json
import struct
import zipfile

import numpy as np
import pytest
import torch
from jaxtyping import Float
from plyfile import PlyData
from torch import Tensor

from lyra_core.formats.cameras import write_colmap_text, write_transforms_json
from lyra_core.formats.colmap import write_colmap_binary
from lyra_core.formats.compressed_ply import write_compressed_ply
from lyra_core.formats.gltf_splats import write_splat_glb
from lyra_core.formats.ply import write_full_ply, write_ply
from lyra_core.formats.points import write_points_ply
from lyra_core.formats.spz import write_spz
from lyra_core.formats.usd import UsdWorld, write_usd, write_usdz
from lyra_core.gaussians.render import render
from lyra_core.geometry.rotation import matrix_to_quat, multiply_quats, rotation_vector_to_matrix
from lyra_core.scene_geometry.ground_frame import GroundFrame
from lyra_core.spherical_harmonics import SH_C0, rotate_sh
from lyra_core.values import CameraPath, Gaussians

gsply = pytest.importorskip("gsply")

# Red right and near, green up and middle, blue left, down and far: no mirror or turn maps one onto another.
MEANS = torch.tensor([[0.9, 0.3, 3.0], [0.2, -0.8, 4.0], [-0.7, 0.9, 5.5]])
# Where the harmonics of degree 1 make each brighter: seen from the seed it is their own colour, from behind it is not.
LOPSIDED = torch.tensor([[0.2, 0.0, -0.3], [0.0, 0.3, 0.1], [-0.2, 0.1, 0.2]])


@pytest.fixture(scope="module")
def world() -> Gaussians:
    sh = torch.zeros(3, 4, 3)
    sh[:, 0] = (0.9 * torch.eye(3) - 0.5) / SH_C0
    sh[:, 1:] = 0.3 * LOPSIDED[:, :, None] * torch.eye(3)[:, None]
    return Gaussians(
        means=MEANS,
        quats=matrix_to_quat(rotation_vector_to_matrix(torch.tensor([[0.5, 0, 0.3], [0, 0.9, 0], [0.2, 0.4, -0.8]]))),
        scales=torch.tensor([[0.25, 0.06, 0.1], [0.05, 0.2, 0.08], [0.3, 0.1, 0.05]]),
        opacities=torch.tensor([0.95, 0.9, 0.8]),
        sh=sh,
        part=torch.tensor([0, 1, 2], dtype=torch.uint8),
    )


@pytest.fixture(scope="module")
def cameras() -> CameraPath:
    """The seed's, with a principal point that is not in the middle, and one beside it."""
    side = torch.eye(4, dtype=torch.float64)
    side[:3, :3] = rotation_vector_to_matrix(torch.tensor([0.1, 0.15, -0.2], dtype=torch.float64))
    side[:3, 3] = torch.tensor([0.3, -0.2, 0.4])
    lens = torch.tensor([[90.0, 0, 50.0], [0, 80.0, 60.0], [0, 0, 1]], dtype=torch.float64)
    return CameraPath(
        world_to_cam=torch.stack([torch.eye(4, dtype=torch.float64), side]),
        intrinsics=lens.repeat(2, 1, 1),
        image_height=96,
        image_width=128,
    )


@pytest.fixture(scope="module")
def frame() -> GroundFrame:
    """A ground that is tilted, 1.3 units below the camera, and measured in another unit."""
    tilt = rotation_vector_to_matrix(torch.tensor([0.15, 0.3, -0.1], dtype=torch.float64)).numpy()
    upright = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    return GroundFrame(rotation=upright @ tilt, origin=np.array([0.2, 1.3, -0.1]), scale=1.7)


def moved(gaussians: Gaussians, matrix: np.ndarray) -> Gaussians:
    """Gaussians in another frame, by a similarity. [4 4]"""
    linear = torch.from_numpy(np.asarray(matrix, np.float64)[:3, :3].copy())
    size = torch.linalg.det(linear) ** (1 / 3)
    turn = linear / size
    return Gaussians(
        means=(gaussians.means.double() @ linear.T + torch.from_numpy(np.asarray(matrix)[:3, 3].copy())).float(),
        quats=multiply_quats(matrix_to_quat(turn).expand(len(gaussians), 4), gaussians.quats.double()).float(),
        scales=(gaussians.scales * size).float(),
        opacities=gaussians.opacities,
        sh=rotate_sh(gaussians.sh, turn.float()[None]),
    )


def of_gsply(data) -> Gaussians:
    rest = np.asarray(data.shN).reshape(len(data.means), -1, 3) if data.shN is not None else np.zeros((3, 0, 3))
    sh = np.concatenate([np.asarray(data.sh0)[:, None], rest], 1)[:, :4]
    return Gaussians(
        means=torch.from_numpy(np.array(data.means)),
        quats=torch.nn.functional.normalize(torch.from_numpy(np.array(data.quats))),
        scales=torch.from_numpy(np.array(data.scales)).exp(),
        opacities=torch.sigmoid(torch.from_numpy(np.array(data.opacities)).reshape(-1)),
        sh=torch.from_numpy(np.ascontiguousarray(sh, np.float32)),
    )


def ply(folder, world, cameras, frame):
    write_ply(world, folder / "a.ply")
    vertex = PlyData.read(folder / "a.ply")["vertex"]

    def stacked(*names):
        return torch.from_numpy(np.stack([np.asarray(vertex[name]) for name in names], 1).astype(np.float32))

    rest = stacked(*(f"f_rest_{i}" for i in range(9))).reshape(3, 3, 3).mT
    return Gaussians(
        means=stacked("x", "y", "z"),
        quats=stacked("rot_0", "rot_1", "rot_2", "rot_3"),
        scales=stacked("scale_0", "scale_1", "scale_2").exp(),
        opacities=torch.sigmoid(stacked("opacity")[:, 0]),
        sh=torch.cat([stacked("f_dc_0", "f_dc_1", "f_dc_2")[:, None], rest], 1),
    )


def full_ply(folder, world, cameras, frame):
    write_full_ply(world, folder / "a.ply")
    assert len(PlyData.read(folder / "a.ply")["vertex"].properties) == 62
    return of_gsply(gsply.plyread(folder / "a.ply"))


def compressed(folder, world, cameras, frame):
    write_compressed_ply(world, folder / "a.compressed.ply")
    return of_gsply(gsply.plyread(folder / "a.compressed.ply"))


def spz(folder, world, cameras, frame):
    # x right, y up, z backward: half a turn about x from OpenCV's.
    write_spz(world, folder / "a.spz")
    return moved(of_gsply(gsply.read_spz(folder / "a.spz")), np.diag([1.0, -1, -1, 1]))


def gltf(folder, world, cameras, frame):
    # Node transforms and positions are trimesh's; the other accessors are read by the letter of the specification.
    trimesh = pytest.importorskip("trimesh")
    write_splat_glb(world, folder / "a.glb", frame.matrix)
    scene = trimesh.load(folder / "a.glb")
    data = (folder / "a.glb").read_bytes()
    size = struct.unpack("<I", data[12:16])[0]
    document, body = json.loads(data[20 : 20 + size]), data[28 + size :]
    assert document["extensionsUsed"] == ["KHR_gaussian_splatting"]
    found = []
    for mesh in document["meshes"]:
        (primitive,) = mesh["primitives"]
        kind = primitive["extensions"]["KHR_gaussian_splatting"]
        assert (primitive["mode"], kind) == (0, {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"})

        def array(name, primitive=primitive):
            accessor = document["accessors"][primitive["attributes"][f"KHR_gaussian_splatting:{name}"]]
            assert accessor["componentType"] == 5126
            width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
            start = document["bufferViews"][accessor["bufferView"]]["byteOffset"]
            values = np.frombuffer(body, "<f4", accessor["count"] * width, start).reshape(-1, width)
            return torch.from_numpy(values.copy())

        matrix, name = scene.graph[mesh["name"]]
        centers = torch.from_numpy(np.asarray(scene.geometry[name].vertices, np.float32))
        sh = torch.stack([array("SH_DEGREE_0_COEF_0"), *(array(f"SH_DEGREE_1_COEF_{n}") for n in range(3))], 1)
        local = Gaussians(
            means=centers,
            quats=array("ROTATION").roll(1, 1),
            scales=array("SCALE"),
            opacities=array("OPACITY")[:, 0],
            sh=sh,
        )
        found.append(moved(local, matrix))
    # y up and -z forward, of the ground frame with z up and y forward.
    to_ground = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    return moved(Gaussians.concatenate(found), np.linalg.inv(frame.matrix) @ to_ground)


def read_stage(file, frame):
    pxr = pytest.importorskip("pxr.Usd")
    from pxr import UsdVol

    stage = pxr.Stage.Open(str(file))
    found = []
    for name in ("keyframes", "backing", "dome"):
        splats = UsdVol.ParticleField3DGaussianSplat(stage.GetPrimAtPath(f"/world/visual/{name}"))
        quats = splats.GetOrientationsAttr().Get()
        count = len(quats)
        coefficients = np.array(splats.GetRadianceSphericalHarmonicsCoefficientsAttr().Get())
        local = Gaussians(
            means=torch.from_numpy(np.array(splats.GetPositionsAttr().Get())),
            quats=torch.tensor([[q.GetReal(), *q.GetImaginary()] for q in quats]),
            scales=torch.from_numpy(np.array(splats.GetScalesAttr().Get())),
            opacities=torch.from_numpy(np.array(splats.GetOpacitiesAttr().Get())),
            sh=torch.from_numpy(coefficients.reshape(count, -1, 3).copy()),
        )
        found.append(moved(local, np.array(splats.ComputeLocalToWorldTransform(0)).T))
    return moved(Gaussians.concatenate(found), np.linalg.inv(frame.matrix))


def usd(folder, world, cameras, frame):
    write_usd(usd_world(world, cameras, frame), folder / "a.usdc")
    return read_stage(folder / "a.usdc", frame)


def usdz(folder, world, cameras, frame):
    write_usdz(usd_world(world, cameras, frame), folder / "a.usdz")
    (inner,) = zipfile.ZipFile(folder / "a.usdz").infolist()
    assert (inner.filename, inner.date_time[0]) == ("world.usdc", 2000)  # no clock: equal worlds have equal bytes
    return read_stage(folder / "a.usdz", frame)


def usd_world(world, cameras, frame):
    return UsdWorld(gaussians=world, world_to_ground=frame.matrix, camera=cameras, collision=None, facts={})


@pytest.mark.parametrize("through", [ply, full_ply, compressed, spz, gltf, usd, usdz])
def test_what_a_reader_gets_is_drawn_where_it_was(tmp_path, world, cameras, frame, through):
    wanted = render(world, cameras).color
    read = through(tmp_path, world, cameras, frame)
    # Formats may sort; colours tell the splats apart.
    read = read[read.sh[:, 0].argmax(1).argsort()]
    found = render(read, cameras).color
    assert (centroids(found) - centroids(wanted)).abs().max() <= 1.0
    # Orientations, sizes, opacities and harmonics too, within what the smallest formats keep.
    assert (found - wanted).abs().mean() < 0.004
    for mirrored in (torch.tensor([-1.0, 1, 1]), torch.tensor([1.0, -1, 1])):  # such errors would be seen
        wrong = Gaussians(
            means=world.means * mirrored, quats=world.quats, scales=world.scales, opacities=world.opacities, sh=world.sh
        )
        assert (centroids(render(wrong, cameras).color) - centroids(wanted)).abs().max() > 10


def centroids(pictures: Float[Tensor, "t h w 3"]) -> Float[Tensor, "t 3 2"]:
    """Where each colour is, px."""
    down, right = torch.meshgrid(
        torch.arange(pictures.shape[1]) + 0.5, torch.arange(pictures.shape[2]) + 0.5, indexing="ij"
    )
    places = torch.stack([right, down], -1)
    weight = pictures.clamp_min(0).permute(0, 3, 1, 2)
    weight = weight * (weight > 0.3 * weight.amax((2, 3), keepdim=True))
    return torch.einsum("tchw,hwp->tcp", weight, places) / weight.sum((2, 3))[..., None]


def test_openusd_s_own_camera_sees_them_there(tmp_path, world, cameras, frame):
    pytest.importorskip("pxr")
    from pxr import Gf, Usd, UsdGeom

    write_usd(usd_world(world, cameras, frame), tmp_path / "a.usda")
    stage = Usd.Stage.Open(str(tmp_path / "a.usda"))
    frustum = UsdGeom.Camera(stage.GetPrimAtPath("/world/seedCamera")).GetCamera(0).frustum
    projection = frustum.ComputeViewMatrix() * frustum.ComputeProjectionMatrix()
    for mean in MEANS.numpy().astype(float):
        x, y, _ = projection.Transform(Gf.Vec3d(*frame.to_ground(mean[None])[0].tolist()))
        pixel = [(x + 1) / 2 * cameras.image_width, (1 - y) / 2 * cameras.image_height]
        fx, fy, cx, cy = 90.0, 80.0, 50.0, 60.0
        assert pixel == pytest.approx([fx * mean[0] / mean[2] + cx, fy * mean[1] / mean[2] + cy], abs=1e-3)


def pinhole(points: np.ndarray, world_to_cam: np.ndarray, lens: tuple[float, float, float, float]) -> np.ndarray:
    x, y, z = (points @ world_to_cam[:3, :3].T + world_to_cam[:3, 3]).T
    fx, fy, cx, cy = lens
    return np.stack([fx * x / z + cx, fy * y / z + cy], 1)


def test_points_and_cameras_of_nerfstudio(tmp_path, world, cameras):
    from dataclasses import replace

    write_points_ply(replace(world, part=None), tmp_path / "points.ply")
    write_transforms_json(cameras, tmp_path / "transforms.json", ["a.jpg", "b.jpg"], points_file="points.ply")
    meta = json.loads((tmp_path / "transforms.json").read_text())
    vertex = PlyData.read(tmp_path / "points.ply")["vertex"]
    points = np.stack([vertex[axis] for axis in "xyz"], 1).astype(float)
    order = np.stack([vertex[c] for c in ("red", "green", "blue")], 1).argmax(1).argsort()
    for i, shot in enumerate(meta["frames"]):
        # OpenGL camera to world: y up, looking along -z.
        pose = np.linalg.inv(np.array(shot["transform_matrix"]) @ np.diag([1.0, -1, -1, 1]))
        pixels = pinhole(points[order], pose, (meta["fl_x"], meta["fl_y"], meta["cx"], meta["cy"]))
        assert np.abs(pixels - wanted_pixels(cameras, i)).max() < 0.01


def test_points_and_cameras_of_colmap(tmp_path, world, cameras):
    from dataclasses import replace

    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed: COLMAP's axes are not tried")
    write_colmap_binary(cameras, tmp_path, ["a.jpg", "b.jpg"], replace(world, part=None))
    write_colmap_text(cameras, tmp_path, replace(world, part=None), image_names=["a.jpg", "b.jpg"])
    model = pycolmap.Reconstruction(str(tmp_path))
    points = sorted(model.points3D.values(), key=lambda point: int(np.argmax(point.color)))
    for i, image in enumerate(sorted(model.images.values(), key=lambda image: image.name)):
        pose = image.cam_from_world().matrix()
        pixels = pinhole(np.array([p.xyz for p in points]), pose, tuple(model.cameras[image.camera_id].params))
        assert np.abs(pixels - wanted_pixels(cameras, i)).max() < 0.01


def wanted_pixels(cameras: CameraPath, i: int) -> np.ndarray:
    return pinhole(MEANS.numpy().astype(float), cameras.world_to_cam[i].numpy(), (90.0, 80.0, 50.0, 60.0))
