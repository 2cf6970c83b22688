"""Depth Anything 3 against the published package `depth-anything-3` (PyPI) on small random
networks.

The package is installed without its dependencies (only omegaconf, addict and einops are needed by
its model code). Two imports it makes and these tests do not exercise are answered here: `evo`
(aligning trajectories; it raises, which the package answers with scale 1) and `e3nn` (its harmonics
rotation is replaced by one that solves for the rotated colour field at sample directions,
independent of our closed form).
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from lyra_core.gaussians.depth_anything.camera import normalise_cameras
from lyra_core.gaussians.depth_anything.config import (
    BackboneConfig,
    DepthAnythingConfig,
    HeadConfig,
    NestedConfig,
)
from lyra_core.gaussians.depth_anything.model import (
    DepthAnything3,
    InferenceOptions,
    NestedDepthAnything3,
    build_model,
    random_state,
)
from lyra_core.geometry.rotation import quat_to_matrix
from lyra_core.spherical_harmonics import SH_C0, SH_C1, SH_C2

TOLERANCE = 1e-4
HEAD = HeadConfig(features=16, out_channels=(8, 12, 16, 20))
TINY = DepthAnythingConfig(
    backbone=BackboneConfig(dim=48, depth=8, num_heads=3, out_layers=(4, 5, 6, 7), alt_start=3, pos_grid=4),
    head=HEAD,
    camera_heads=4,
)
TINY_GIANT = DepthAnythingConfig(
    backbone=BackboneConfig(
        dim=64, depth=9, num_heads=2, out_layers=(5, 6, 7, 8), alt_start=4, swiglu=True, pos_grid=5
    ),
    head=HEAD,
    camera_heads=4,
    gaussian_head=True,
)
TINY_METRIC = DepthAnythingConfig(
    backbone=BackboneConfig(dim=32, depth=5, num_heads=2, out_layers=(1, 2, 3, 4), alt_start=None, pos_grid=4),
    head=HEAD,
)


def harmonics_basis(directions: Tensor) -> Tensor:
    x, y, z = directions.unbind(-1)
    return torch.stack(
        [
            torch.full_like(x, SH_C0),
            -SH_C1 * y,
            SH_C1 * z,
            -SH_C1 * x,
            SH_C2[0] * x * y,
            SH_C2[1] * y * z,
            SH_C2[2] * (2 * z * z - x * x - y * y),
            SH_C2[3] * x * z,
            SH_C2[4] * (x * x - y * y),
        ],
        dim=-1,
    )


def rotate_by_sampling(coefficients: Tensor, rotations: Tensor) -> Tensor:
    """Coefficients c' with field'(R d) = field(d), solved at 64 directions."""
    directions = torch.randn(64, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    inverse = torch.linalg.pinv(harmonics_basis(directions))
    turned = torch.einsum("...ji,mj->...mi", rotations.double(), directions)  # R^T d
    matrix = torch.einsum("km,...mj->...kj", inverse, harmonics_basis(turned))
    return torch.einsum("...kj,...j->...k", matrix, coefficients.double()).to(coefficients)


@dataclass(frozen=True)
class Oracle:
    da3: types.ModuleType
    vit: types.ModuleType
    dinov2: types.ModuleType
    dualdpt: types.ModuleType
    dpt: types.ModuleType
    gsdpt: types.ModuleType
    cam_enc: types.ModuleType
    cam_dec: types.ModuleType
    gs_adapter: types.ModuleType
    transform: types.ModuleType

    def backbone(self, config: BackboneConfig) -> nn.Module:
        start = -1 if config.alt_start is None else config.alt_start
        net = self.dinov2.DinoV2.__new__(self.dinov2.DinoV2)
        nn.Module.__init__(net)
        net.out_layers = list(config.out_layers)
        net.pretrained = self.vit.DinoVisionTransformer(
            img_size=14 * config.pos_grid,
            patch_size=14,
            embed_dim=config.dim,
            depth=config.depth,
            num_heads=config.num_heads,
            ffn_layer="swiglufused" if config.swiglu else "mlp",
            alt_start=start,
            qknorm_start=start,
            rope_start=start,
            cat_token=config.alt_start is not None,
        )
        return net

    def network(self, config: DepthAnythingConfig) -> nn.Module:
        dim, widths = (
            config.backbone.out_dim,
            {
                "features": config.head.features,
                "out_channels": list(config.head.out_channels),
            },
        )
        net = self.backbone(config.backbone)
        if not config.any_view:
            return self.da3.DepthAnything3Net(net, self.dpt.DPT(dim, output_dim=1, **widths)).eval()
        parts = {
            "cam_enc": self.cam_enc.CameraEnc(config.backbone.dim, num_heads=config.camera_heads),
            "cam_dec": self.cam_dec.CameraDec(dim),
        }
        if config.gaussian_head:
            parts["gs_head"] = self.gsdpt.GSDPT(dim, output_dim=38, **widths)
            parts["gs_adapter"] = self.gs_adapter.GaussianAdapter(
                sh_degree=2,
                pred_offset_depth=True,
                gaussian_scale_min=1e-5,
                gaussian_scale_max=30.0,
            )
        return self.da3.DepthAnything3Net(net, self.dualdpt.DualDPT(dim, **widths), **parts).eval()

    def nested(self, config: NestedConfig) -> nn.Module:
        net = self.da3.NestedDepthAnything3Net.__new__(self.da3.NestedDepthAnything3Net)
        nn.Module.__init__(net)
        net.da3, net.da3_metric = self.network(config.any_view), self.network(config.metric)
        return net.eval()


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    if importlib.util.find_spec("depth_anything_3") is None:
        message = "pip install --no-deps depth-anything-3==0.1.1 omegaconf addict"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)

    class NoTrajectories:
        def __init__(self, *args: object, **kwargs: object) -> None:
            raise RuntimeError("trajectory alignment is not part of this comparison")

    answered = {name: types.ModuleType(name) for name in ("evo", "evo.core", "evo.core.trajectory")}
    answered["evo.core.trajectory"].PosePath3D = NoTrajectories
    missing = {name: module for name, module in answered.items() if importlib.util.find_spec("evo") is None}
    sys.modules.update(missing)
    names = ("da3", "dualdpt", "dpt", "gsdpt", "cam_enc", "cam_dec", "gs_adapter")
    modules = {n: importlib.import_module(f"depth_anything_3.model.{n}") for n in names}
    modules["vit"] = importlib.import_module("depth_anything_3.model.dinov2.vision_transformer")
    modules["dinov2"] = importlib.import_module("depth_anything_3.model.dinov2.dinov2")
    modules["transform"] = importlib.import_module("depth_anything_3.model.utils.transform")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modules["gs_adapter"], "rotate_sh", rotate_by_sampling)
        yield Oracle(**modules)
    for name in missing:
        del sys.modules[name]


def lively_state(config: DepthAnythingConfig | NestedConfig, seed: int) -> dict[str, Tensor]:
    """Random weights under which every parameter moves the output: no gain is 1 and no bias 0."""
    generator = torch.Generator().manual_seed(seed)
    state = random_state(config, generator)
    for name, tensor in state.items():
        if tensor.ndim == 1:
            tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator))
        if name.endswith(".gamma"):
            tensor.mul_(0.3)  # residual blocks that grow without bound would amplify rounding
        if name.endswith("fc_fov.0.bias"):
            tensor.fill_(1.0)  # fields of view near 60 degrees
        if name.endswith("sky_output_conv2.2.bias"):
            tensor.fill_(0.3)  # about half of the image is sky
    return state


def random_images(views: int, rows: int, cols: int, seed: int = 3) -> Tensor:
    return torch.randn(views, 3, 14 * rows, 14 * cols, generator=torch.Generator().manual_seed(seed))


def random_cameras(views: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    w2c = torch.eye(4).repeat(views, 1, 1)
    axis = torch.randn(views, 3, 3, generator=generator) * 0.2
    w2c[:, :3, :3] = torch.linalg.matrix_exp(axis - axis.mT)
    w2c[:, :3, 3] = torch.randn(views, 3, generator=generator)
    k = torch.tensor([[0.9 * width, 0, width / 2], [0, 1.1 * width, height / 2], [0, 0, 1]])
    return normalise_cameras(w2c)[0], k.repeat(views, 1, 1)


def close(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    assert ours.shape == theirs.shape
    assert torch.isfinite(theirs).all()
    error = (ours - theirs).abs() / (1.0 + theirs.abs())
    assert float(error.max()) < tolerance, f"largest deviation {float(error.max()):.2e}"


def pair(oracle: Oracle, config: DepthAnythingConfig, seed: int = 0) -> tuple[DepthAnything3, nn.Module]:
    state = lively_state(config, seed)
    theirs = oracle.network(config)
    theirs.load_state_dict(state)
    return build_model(config, state), theirs


@pytest.mark.parametrize("config", [TINY, TINY_GIANT, TINY_METRIC], ids=["mlp", "swiglu", "metric"])
@pytest.mark.parametrize("views", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [(3, 5), (4, 4)], ids=["interpolated", "trained grid"])
@torch.no_grad()
def test_oracle_backbone(oracle: Oracle, config: DepthAnythingConfig, views: int, size: tuple[int, int]) -> None:
    ours, theirs = pair(oracle, config)
    images = random_images(views, *size)
    features = ours.backbone(images)
    expected, _ = theirs.backbone(images[None])
    for mine, (patches, camera) in zip(features, expected, strict=True):
        close(mine.patches, patches[0])
        close(mine.camera, camera[0])


@pytest.mark.parametrize("views", [1, 3, 8])
@torch.no_grad()
def test_oracle_camera_encoder(oracle: Oracle, views: int) -> None:
    ours, theirs = pair(oracle, TINY)
    w2c, k = random_cameras(views, 42, 70)
    tokens = ours.cam_enc(w2c, k, 42, 70)
    close(tokens, theirs.cam_enc(w2c[None], k[None], (42, 70))[0])


@torch.no_grad()
def test_oracle_camera_decoder(oracle: Oracle) -> None:
    from lyra_core.gaussians.depth_anything.camera import decode_cameras

    ours, theirs = pair(oracle, TINY)
    tokens = torch.randn(5, 96, generator=torch.Generator().manual_seed(2))
    encoding = theirs.cam_dec(tokens[None])
    close(ours.cam_dec(tokens), encoding[0])
    c2w, k = oracle.transform.pose_encoding_to_extri_intri(encoding, (42, 70))
    w2c, intrinsics = decode_cameras(ours.cam_dec(tokens), 42, 70)
    close(torch.linalg.inv(w2c)[:, :3], c2w[0])
    close(intrinsics, k[0])


@pytest.mark.parametrize("per_slice", [3, 8])
@torch.no_grad()
def test_oracle_dense_head_with_rays(oracle: Oracle, per_slice: int) -> None:
    ours, theirs = pair(oracle, TINY, seed=4)
    levels = [torch.randn(5, 15, 96, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    mine = ours.head(levels, 3, 5, with_rays=True, views_per_slice=per_slice)
    expected = theirs.head([(x[None], None) for x in levels], 42, 70, patch_start_idx=0)
    close(mine.depth, expected["depth"][0])
    close(mine.confidence, expected["depth_conf"][0])
    close(mine.rays, expected["ray"][0])
    close(mine.ray_confidence, expected["ray_conf"][0])


@torch.no_grad()
def test_oracle_metric_head(oracle: Oracle) -> None:
    ours, theirs = pair(oracle, TINY_METRIC)
    levels = [torch.randn(9, 15, 32, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    mine = ours.head(levels, 3, 5)
    expected = theirs.head([(x[None], None) for x in levels], 42, 70, patch_start_idx=0)
    close(mine.depth, expected["depth"][0])
    close(mine.sky, expected["sky"][0])


@torch.no_grad()
def test_oracle_gaussian_head(oracle: Oracle) -> None:
    ours, theirs = pair(oracle, TINY_GIANT)
    levels = [torch.randn(3, 15, 128, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    images = random_images(3, 3, 5)
    mine = ours.gs_head(levels, images, torch.ones(3, 42, 70), stride=1, views_per_slice=2)
    expected = theirs.gs_head(
        feats=[(x[None], None) for x in levels], H=42, W=70, patch_start_idx=0, images=images[None]
    )
    close(mine.raw, expected["raw_gs"][0])
    close(mine.opacity, expected["raw_gs_conf"][0])


@torch.no_grad()
def test_oracle_adapter_with_turned_cameras(oracle: Oracle) -> None:
    from lyra_core.gaussians.depth_anything.adapter import gaussians_from_maps
    from lyra_core.gaussians.depth_anything.gaussian_head import GaussianMaps

    generator = torch.Generator().manual_seed(8)
    w2c, k = random_cameras(3, 28, 42)
    maps = GaussianMaps(
        raw=torch.randn(3, 28, 42, 37, generator=generator),
        opacity=torch.rand(3, 28, 42, generator=generator),
        depth=3.0 + torch.rand(3, 28, 42, generator=generator),
    )
    adapter = oracle.gs_adapter.GaussianAdapter(sh_degree=2, pred_offset_depth=True)
    expected = adapter(
        w2c[None],
        k[None],
        maps.depth[None],
        maps.opacity[None],
        maps.raw[None],
        image_shape=(28, 42),
    )
    compare_gaussians(gaussians_from_maps(maps, w2c, k, 28, 42), expected)


def compare_gaussians(mine, expected) -> None:
    close(mine.means, expected.means[0])
    close(mine.scales, expected.scales[0])
    close(mine.opacities, expected.opacities[0])
    close(mine.sh, expected.harmonics[0].mT)
    # As matrices: q and -q are one rotation, and components near zero lose digits.
    close(quat_to_matrix(mine.quats), quat_to_matrix(expected.rotations[0]))


@pytest.mark.parametrize("views", [1, 3, 8])
@pytest.mark.parametrize("with_cameras", [False, True], ids=["free", "posed"])
@torch.no_grad()
def test_oracle_whole_model(oracle: Oracle, views: int, with_cameras: bool) -> None:
    ours, theirs = pair(oracle, TINY_GIANT, seed=views)
    images = random_images(views, 3, 4)
    w2c, k = random_cameras(views, 42, 56) if with_cameras else (None, None)
    mine = ours(images, w2c, k, InferenceOptions(gaussian_stride=1))
    expected = theirs(images[None], *(None if x is None else x[None] for x in (w2c, k)), infer_gs=True)
    close(mine.depth, expected.depth[0])
    close(mine.confidence, expected.depth_conf[0])
    close(mine.world_to_cam[:, :3], expected.extrinsics[0][:, :3])
    close(mine.intrinsics, expected.intrinsics[0])
    compare_gaussians(mine.gaussians(), expected.gaussians)


@torch.no_grad()
def test_oracle_whole_metric_model(oracle: Oracle) -> None:
    ours, theirs = pair(oracle, TINY_METRIC, seed=2)
    images = random_images(8, 3, 4)
    mine, expected = ours(images), theirs(images[None])
    sky = expected.sky[0] >= 0.3
    assert 10 < int(sky.sum()) < sky.numel() - 10
    assert torch.equal(mine.sky, sky)
    close(mine.depth, expected.depth[0])


@pytest.mark.parametrize("views", [1, 3])
@torch.no_grad()
def test_oracle_nested_model_and_its_aligned_gaussians(oracle: Oracle, views: int) -> None:
    config = NestedConfig(any_view=TINY_GIANT, metric=TINY_METRIC)
    state = lively_state(config, 2)
    theirs = oracle.nested(config)
    theirs.load_state_dict(state)
    ours = build_model(config, state)
    assert isinstance(ours, NestedDepthAnything3)
    images = random_images(views, 3, 4)
    mine = ours(images, options=InferenceOptions(gaussian_stride=1))
    expected = theirs(images[None], infer_gs=True)
    factor = expected.scale_factor
    assert abs(factor - 1.0) > 0.1
    close(mine.depth, expected.depth[0])
    close(mine.confidence, expected.depth_conf[0])
    close(mine.world_to_cam[:, :3], expected.extrinsics[0][:, :3])
    # The package leaves its Gaussians in the network's unit; ours are metric like everything else.
    expected.gaussians = replace(
        expected.gaussians,
        means=expected.gaussians.means * factor,
        scales=expected.gaussians.scales * factor,
    )
    compare_gaussians(mine.gaussians(), expected.gaussians)
