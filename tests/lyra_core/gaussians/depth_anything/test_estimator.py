from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

from lyra_core.depth import DepthEstimate, DepthEstimator
from lyra_core.errors import (
    CameraPathError,
    DepthError,
    FrameError,
    OutOfMemoryError,
    ReconstructionError,
)
from lyra_core.gaussians.depth_anything.budget import Budget
from lyra_core.gaussians.depth_anything.estimator import (
    DepthAnythingEstimator,
    to_unit_confidence,
    windows,
)
from lyra_core.gaussians.depth_anything.model import (
    DepthAnything3,
    NestedDepthAnything3,
)
from lyra_core.geometry.alignment import pose_residual
from lyra_core.values import CameraPath

HEIGHT, WIDTH = 48, 64


def frames(count: int, seed: int = 0) -> torch.Tensor:
    noise = torch.randint(0, 256, (count, HEIGHT, WIDTH, 3), generator=torch.Generator().manual_seed(seed))
    return noise.to(torch.uint8)


def cameras(count: int) -> CameraPath:
    poses = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    poses[:, 0, 3] = -0.3 * torch.arange(count)
    poses[:, 1, 3] = 0.1 * torch.arange(count) ** 2
    k = torch.tensor([[60.0, 0, WIDTH / 2], [0, 60, HEIGHT / 2], [0, 0, 1]], dtype=torch.float64)
    return CameraPath(
        world_to_cam=poses,
        intrinsics=k.repeat(count, 1, 1),
        image_height=HEIGHT,
        image_width=WIDTH,
    )


@contextmanager
def memory_for(model: nn.Module, views: int) -> Iterator[list[int]]:
    """Makes a network run out of memory beyond a number of views; yields the passes it finished."""
    passes: list[int] = []

    def allocate(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > views:
            raise torch.OutOfMemoryError(f"{len(inputs[0])} views")
        passes.append(len(inputs[0]))

    handle = model.register_forward_pre_hook(allocate)
    try:
        yield passes
    finally:
        handle.remove()


def test_the_estimator_is_a_depth_estimator(tiny_nested: NestedDepthAnything3) -> None:
    estimator: DepthEstimator = DepthAnythingEstimator(tiny_nested, process_size=56)
    estimate = estimator.estimate(frames(5), cameras(5))
    assert isinstance(estimate, DepthEstimate)
    assert estimate.depth_m.shape == estimate.confidence.shape == (5, HEIGHT, WIDTH)
    assert estimate.depth_m.dtype == estimate.confidence.dtype == torch.float32
    assert bool(torch.isfinite(estimate.depth_m).all())
    assert 0.0 <= float(estimate.confidence.min()) <= float(estimate.confidence.max()) <= 1.0
    assert estimate.sky.any()
    assert not estimate.sky.all()
    assert estimate.cameras is not None
    assert len(estimate.cameras) == 5
    assert estimate.intrinsics is None
    rotation_deg, percent = pose_residual(cameras(5).world_to_cam, estimate.cameras.world_to_cam)
    assert rotation_deg > 0
    assert percent > 0


def test_one_photograph(tiny_nested: NestedDepthAnything3) -> None:
    estimate = DepthAnythingEstimator(tiny_nested, process_size=56).estimate(frames(1), None)
    assert estimate.intrinsics is not None
    assert estimate.intrinsics.shape == (1, 3, 3)
    assert float(estimate.intrinsics[0, 0, 2]) == pytest.approx(WIDTH / 2)
    assert estimate.cameras is not None
    torch.testing.assert_close(estimate.cameras.world_to_cam[0], torch.eye(4, dtype=torch.float64), atol=1e-5, rtol=0)


def test_same_frames_same_depth(tiny_nested: NestedDepthAnything3) -> None:
    estimator = DepthAnythingEstimator(tiny_nested, process_size=56)
    first, second = (estimator.estimate(frames(4), cameras(4)).depth_m for _ in range(2))
    assert torch.equal(first, second)


def test_reference_depth_fixes_the_scale_of_a_still_camera(tiny_model: DepthAnything3) -> None:
    still = cameras(3)
    still = replace(still, world_to_cam=still.world_to_cam[:1].expand(3, 4, 4).contiguous())
    estimator = DepthAnythingEstimator(tiny_model, process_size=56)
    with pytest.raises(CameraPathError, match="cameras that move"):
        estimator.estimate(frames(3), still)
    known = torch.full((3, HEIGHT, WIDTH), 40.0)
    near = estimator.estimate(frames(3), still, known)
    far = estimator.estimate(frames(3), still, 2.0 * known)
    torch.testing.assert_close(far.depth_m, 2.0 * near.depth_m)
    assert 10.0 < float(near.depth_m.median()) < 160.0


@pytest.mark.parametrize("posed", [True, False])
def test_too_many_frames_become_overlapping_passes(tiny_nested: NestedDepthAnything3, posed: bool) -> None:
    estimator = DepthAnythingEstimator(
        tiny_nested, process_size=56, budget=Budget(views=14, views_per_slice=8), overlap=3
    )
    with memory_for(tiny_nested, 7) as passes:
        estimate = estimator.estimate(frames(14), cameras(14) if posed else None)
    assert passes == [7, 7, 7]
    assert bool((estimate.depth_m > 0).all())
    assert estimate.cameras is not None
    assert len(estimate.cameras) == 14


def test_one_pass_if_it_fits(tiny_nested: NestedDepthAnything3) -> None:
    with memory_for(tiny_nested, 100) as passes:
        whole = DepthAnythingEstimator(tiny_nested, process_size=56).estimate(frames(9), cameras(9))
    assert passes == [9]
    slices = DepthAnythingEstimator(tiny_nested, process_size=56, budget=Budget(views=9, views_per_slice=1)).estimate(
        frames(9), cameras(9)
    )
    torch.testing.assert_close(whole.depth_m, slices.depth_m, rtol=1e-4, atol=1e-4)


def test_memory_that_never_suffices(tiny_nested: NestedDepthAnything3) -> None:
    estimator = DepthAnythingEstimator(tiny_nested, process_size=56)
    with memory_for(tiny_nested, 1), pytest.raises(OutOfMemoryError, match="nor with 2"):
        estimator.estimate(frames(8), cameras(8))


def test_a_chunk_yields_gaussians_in_the_world(tiny_nested: NestedDepthAnything3) -> None:
    estimator = DepthAnythingEstimator(tiny_nested, process_size=56)
    scene = estimator.view(frames(4), cameras(4), gaussian_stride=2)
    requested, recovered = scene.gaussians("requested"), scene.gaussians("recovered")
    assert len(requested) == len(recovered) == 4 * 21 * 28
    assert not torch.allclose(requested.means, recovered.means)
    assert bool(torch.isfinite(requested.means).all())
    with pytest.raises(ReconstructionError, match="no Gaussian maps"):
        estimator.view(frames(4), cameras(4)).gaussians()


def test_bad_input_is_named(tiny_nested: NestedDepthAnything3) -> None:
    estimator = DepthAnythingEstimator(tiny_nested, process_size=56)
    with pytest.raises(FrameError, match="at least one frame"):
        estimator.estimate(frames(0), None)
    with pytest.raises(CameraPathError, match="3 frames, 4 cameras"):
        estimator.estimate(frames(3), cameras(4))
    with pytest.raises(CameraPathError, match=r"call cameras.resized\(48, 64\)"):
        estimator.estimate(frames(3), cameras(3).resized(96, 128))
    with pytest.raises(ReconstructionError, match="metric one alone"):
        DepthAnythingEstimator(tiny_nested.da3_metric)


def test_broken_weights_are_noticed(tiny_model: DepthAnything3) -> None:
    broken = deepcopy(tiny_model)
    with torch.no_grad():
        broken.head.scratch["output_conv1"].bias[0] = torch.nan
    with pytest.raises(DepthError, match="check the weights"):
        DepthAnythingEstimator(broken, process_size=56).estimate(frames(1), None)


def test_confidence_and_windows() -> None:
    mapped = to_unit_confidence(torch.tensor([1.0, 2.0, 1e9]))
    torch.testing.assert_close(mapped, torch.tensor([0.0, 0.5, 1.0]))
    assert windows(5, 8, 2) == [slice(0, 5)]
    assert windows(20, 8, 2) == [slice(0, 8), slice(6, 14), slice(12, 20)]
    assert windows(10, 8, 8) == [slice(0, 8), slice(1, 9), slice(2, 10)]
