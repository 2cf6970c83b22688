"""Forward warp: golden numbers, a plain loop, and what the corrected forms repair."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from lyra_core.config.rollout import REFERENCE_WARP, WarpConfig
from lyra_core.errors import FrameError, RecipeError
from lyra_core.geometry.warp import (
    WarpSource,
    forward_warp,
    is_reliable,
    is_smooth,
    project_integer,
    unproject_integer,
)

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def golden(golden_dir):
    return load_file(golden_dir / "memory.safetensors")


def relative_error(found, wanted):
    return float((found - wanted).abs().max() / wanted.abs().max())


def golden_source(golden, items, views):
    return WarpSource(
        values=golden["warp.rgb"][:items, :views],
        depth_m=golden["warp.depth"][:items, :views, 0],
        world_to_cam=golden["warp.w2c_src"][:items, :views],
        intrinsics=golden["K"].expand(items, views, 3, 3),
    )


def random_scene(seed=0, views=1, targets=3, height=6, width=8, sources=1):
    generator = torch.Generator().manual_seed(seed)
    depth = 2 + torch.rand(sources, views, height, width, generator=generator) * 0.05
    depth[..., 0, 0] = 0
    w2c = torch.eye(4).repeat(targets, 1, 1)
    w2c[:, :3, 3] = torch.rand(targets, 3, generator=generator) * 0.3
    K = torch.tensor([[7.0, 0, 4], [0, 7.5, 3], [0, 0, 1]])
    source = WarpSource(
        values=torch.rand(sources, views, 2, height, width, generator=generator) * 2 - 1,
        depth_m=depth,
        world_to_cam=torch.eye(4).expand(sources, views, 4, 4).clone(),
        intrinsics=K.expand(sources, views, 3, 3),
    )
    return source, w2c, K.expand(targets, 3, 3)


def looped_warp(source, w2c, intrinsics, threshold=0.05):
    """One pixel after another, in double precision: the definition, with the normaliser over all targets."""
    (_, views, c, h, w), targets = source.values.shape, w2c.shape[0]
    samples = []
    for b in range(targets):
        for v in range(views):
            depth = source.depth_m[0, v].double()
            for y in range(h):
                for x in range(w):
                    rows, columns = (
                        range(max(0, y - 2), min(h, y + 3)),
                        range(max(0, x - 2), min(w, x + 3)),
                    )
                    window = [float(depth[i, j]) for i in rows for j in columns]
                    spread = (max(window) - min(window)) / (sum(window) / 25 + 1e-6)
                    valid = depth[y, x] > 0 and spread < threshold
                    point = torch.zeros(4, dtype=torch.float64)
                    point[3] = 1
                    if valid:
                        ray = torch.linalg.inv(source.intrinsics[0, v].double()) @ torch.tensor(
                            [x, y, 1.0], dtype=torch.float64
                        )
                        camera = torch.cat([depth[y, x] * ray, torch.ones(1, dtype=torch.float64)])
                        point = torch.linalg.inv(source.world_to_cam[0, v].double()) @ camera
                    image = intrinsics[b].double() @ (w2c[b].double() @ point)[:3]
                    samples.append((b, v, y, x, valid, image.tolist()))
    largest = max(math.log(1 + max(s[5][2], 0)) for s in samples)
    total = torch.zeros(targets, h, w, c + 2, dtype=torch.float64)
    for b, v, y, x, valid, (X, Y, Z) in samples:
        if not valid or Z <= 0:
            continue
        u, r = X / (Z + 1e-7), Y / (Z + 1e-7)
        importance = math.exp(min(50 * math.log(1 + Z) / (largest + 1e-7), 80)) + 1e-7
        for row in (math.floor(r), math.ceil(r)):
            for column in (math.floor(u), math.ceil(u)):
                if 0 <= row < h and 0 <= column < w:
                    weight = (1 - abs(u - column)) * (1 - abs(r - row)) / importance
                    carried = torch.cat(
                        [
                            source.values[0, v, :, y, x].double(),
                            torch.tensor([Z, 1.0], dtype=torch.float64),
                        ]
                    )
                    total[b, row, column] += carried * weight
    weight = total[..., -1:]
    mean = total[..., :-1] / weight.clamp(min=1e-300)
    values = torch.where(weight > 0, mean[..., :-1], -1.0).clamp(-1, 1).movedim(-1, 1)
    return values.float(), torch.where(weight[..., 0] > 0, mean[..., -1], 0.0).float()


class TestGolden:
    def test_golden_unproject_project(self, golden):
        w2c, K = golden["w2c"], golden["K"]
        points = unproject_integer(golden["unproject.depth"][:, 0], w2c[:1], K[None])
        assert relative_error(points, golden["unproject.points"]) < TOLERANCE
        assert relative_error(project_integer(points, w2c[40:41], K[None]), golden["project.out"]) < TOLERANCE

    def test_golden_reliable(self, golden):
        keys = [key for key in golden if key.startswith("reliable.r")]
        assert keys
        for key in keys:
            found = is_reliable(golden["unproject.depth"][:, 0], float(key.removeprefix("reliable.r")))
            assert torch.equal(found.float(), golden[key][:, 0])

    @pytest.mark.parametrize("backend", ["numba", "torch"])
    @pytest.mark.parametrize(("name", "items", "views"), [("v1", 2, 1), ("v2", 2, 2), ("alone", 1, 1)])
    def test_golden_warp(self, golden, backend, name, items, views):
        source = golden_source(golden, items, views)
        targets, K = golden["warp.w2c_dst"][:items], golden["K"].expand(items, 3, 3)
        warp = forward_warp(source, targets, K, backend=backend)
        assert relative_error(warp.values, golden[f"warp.{name}.image"]) < TOLERANCE
        assert relative_error(warp.depth_m, golden[f"warp.{name}.depth"]) < TOLERANCE
        if name != "alone":
            assert torch.equal(warp.mask.float(), golden[f"warp.{name}.mask"][:, 0])


class TestPlainLoop:
    @pytest.mark.parametrize("backend", ["numba", "torch"])
    @pytest.mark.parametrize("views", [1, 2])
    def test_agrees(self, backend, views):
        source, w2c, K = random_scene(views=views)
        values, depth = looped_warp(source, w2c, K)
        warp = forward_warp(source, w2c, K, backend=backend)
        assert 0.3 < warp.mask.float().mean() < 1
        assert torch.allclose(warp.values, values, atol=1e-4)
        assert torch.allclose(warp.depth_m, depth, atol=1e-4)

    @pytest.mark.parametrize("sources", [1, 5])
    def test_backends_agree_beyond_a_batch(self, sources):
        source, w2c, K = random_scene(targets=5, height=24, width=32, sources=sources, views=2)
        config = WarpConfig(group_size=2, num_targets_at_once=2)
        fast = forward_warp(source, w2c, K, config, backend="numba", render=[1, 4])
        plain = forward_warp(source, w2c, K, config, backend="torch", render=[1, 4])
        assert torch.equal(fast.mask, plain.mask)
        assert torch.allclose(fast.values, plain.values, atol=1e-5)


class TestGeometry:
    @settings(max_examples=25, deadline=None)
    @given(
        x=st.integers(0, 7),
        y=st.integers(0, 5),
        depth=st.floats(0.125, 50, width=32),
        angle=st.floats(-3, 3),
        shift=st.floats(-5, 5),
    )
    def test_project_undoes_unproject(self, x, y, depth, angle, shift):
        w2c = torch.eye(4)
        w2c[0, 0] = w2c[2, 2] = math.cos(angle)
        w2c[0, 2], w2c[2, 0] = math.sin(angle), -math.sin(angle)
        w2c[:3, 3] = shift
        K = torch.tensor([[7.0, 0, 4], [0, 7.5, 3], [0, 0, 1]])
        image = project_integer(
            unproject_integer(torch.full((1, 6, 8), depth), w2c[None], K[None]), w2c[None], K[None]
        )[0, y, x]
        assert torch.allclose(image[2], torch.tensor(depth), rtol=1e-3, atol=1e-3)
        assert torch.allclose(image[:2] / image[2], torch.tensor([float(x), float(y)]), atol=2e-2 * (1 + 5 / depth))

    def test_same_camera_gives_the_same_image(self):
        source, _, K = random_scene(height=16, width=20)
        warp = forward_warp(source, torch.eye(4)[None], K[:1])
        kept = is_reliable(source.depth_m)[0, 0]
        assert torch.allclose(warp.values[0][:, kept], source.values[0, 0][:, kept], atol=1e-4)

    def test_nearer_surface_wins(self):
        source, _, K = random_scene(views=2, height=12, width=16)
        near, far = torch.full((1, 12, 16), 1.0), torch.full((1, 12, 16), 3.0)
        both = WarpSource(
            values=torch.stack([torch.full((1, 2, 12, 16), 0.9), torch.full((1, 2, 12, 16), -0.9)], dim=1),
            depth_m=torch.stack([near, far], dim=1),
            world_to_cam=source.world_to_cam,
            intrinsics=source.intrinsics,
        )
        warp = forward_warp(both, torch.eye(4)[None], K[:1])
        assert (warp.values[0, 0, 3:-3, 3:-3] > 0.89).all()

    def test_source_mask_keeps_pixels_out(self):
        source, w2c, K = random_scene()
        nothing = WarpSource(
            values=source.values,
            depth_m=source.depth_m,
            world_to_cam=source.world_to_cam,
            intrinsics=source.intrinsics,
            mask=torch.zeros_like(source.depth_m, dtype=torch.bool),
        )
        warp = forward_warp(nothing, w2c, K)
        assert not warp.mask.any()
        assert (warp.values == -1).all()
        assert (warp.depth_m == 0).all()


class TestDeterminism:
    def test_equal_bytes_for_any_number_of_threads(self):
        source, w2c, K = random_scene(targets=8, height=48, width=64, views=2)
        before = torch.get_num_threads()
        try:
            results = []
            for threads in (1, 2, 2):
                torch.set_num_threads(threads)
                results.append(forward_warp(source, w2c, K, backend="numba").values)
                assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        assert all(torch.equal(results[0], other) for other in results[1:])

    def test_torch_path_repeats(self):
        source, w2c, K = random_scene(targets=8, height=48, width=64, views=2)
        first = forward_warp(source, w2c, K, backend="torch").values
        assert torch.equal(first, forward_warp(source, w2c, K, backend="torch").values)


class TestCorrected:
    def test_result_does_not_depend_on_company(self):
        source, w2c, K = random_scene(targets=2, height=24, width=32)
        w2c[1, 2, 3] = 40.0  # a far companion changes the shared normaliser
        wavy = WarpSource(
            values=source.values,
            depth_m=source.depth_m + 0.04 * torch.arange(32) / 32,
            world_to_cam=source.world_to_cam,
            intrinsics=source.intrinsics,
        )

        def alone_and_together(config):
            alone = forward_warp(wavy, w2c[:1], K[:1], config).values[0]
            return alone, forward_warp(wavy, w2c, K, config).values[0]

        alone, together = alone_and_together(WarpConfig(group_size=None))
        assert torch.equal(alone, together)
        alone, together = alone_and_together(REFERENCE_WARP)
        assert not torch.allclose(alone, together, atol=1e-4)

    def test_curvature_keeps_a_floor_that_range_refuses(self):
        rows = torch.arange(48, dtype=torch.float32)[:, None].expand(48, 64)
        floor = 1.5 * 60.0 / (rows - 10).clamp(min=1)  # camera 1.5 m above a plane, horizon at row 10
        floor = torch.where(rows > 10, floor, torch.zeros_like(floor))
        visible = (rows > 12) & (floor < 15)
        assert is_reliable(floor)[visible].float().mean() < 0.55
        assert is_smooth(floor)[visible].float().mean() > 0.95

    def test_curvature_refuses_an_edge(self):
        depth = torch.full((1, 16, 16), 2.0)
        depth[..., 8:] = 4.0
        smooth = is_smooth(depth)
        assert not smooth[..., 7:9].any()
        assert smooth[..., :6].all()


class TestErrors:
    def test_sources_and_targets_must_match(self):
        source, w2c, K = random_scene(targets=3, sources=2)
        with pytest.raises(FrameError, match="equal numbers of the 3 targets, found 2"):
            forward_warp(source, w2c, K)

    def test_group_size_is_positive(self):
        with pytest.raises(RecipeError, match="group_size must be at least 1, found 0"):
            WarpConfig(group_size=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_agrees_with_cpu():
    source, w2c, K = random_scene(targets=20, height=48, width=64, views=2)
    moved = WarpSource(
        values=source.values.cuda(),
        depth_m=source.depth_m.cuda(),
        world_to_cam=source.world_to_cam.cuda(),
        intrinsics=source.intrinsics.cuda(),
    )
    on_cpu, on_gpu = forward_warp(source, w2c, K), forward_warp(moved, w2c.cuda(), K.cuda())
    # A position that rounds differently may open or close a hole; nothing else may differ.
    same = on_cpu.mask == on_gpu.mask.cpu()
    assert same.float().mean() > 0.999
    difference = (on_cpu.values - on_gpu.values.cpu()).abs().amax(1)[same]
    assert difference.quantile(0.999) < 1e-3
