"""Presets of the reference implementation against its own numbers (N=17, depth 2, strength 0.5)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lyra_core.errors import CameraPathError
from lyra_core.geometry.reference_presets import reference_camera_path
from lyra_core.geometry.requests import REFERENCE_DIRECTIONS, REFERENCE_PRESETS

K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]], dtype=torch.float64)


@pytest.fixture(scope="module")
def golden(golden_dir: Path):
    return load_file(golden_dir / "trajectory_gs.safetensors")


def build(preset, direction, intrinsics=K, size=(480, 640), **kwargs):
    return reference_camera_path(
        preset,
        direction,
        num_frames=17,
        intrinsics=intrinsics,
        image_size=size,
        scene_depth_m=2.0,
        strength=0.5,
        generator=torch.Generator().manual_seed(0),
        **kwargs,
    )


@pytest.mark.parametrize("direction", REFERENCE_DIRECTIONS)
@pytest.mark.parametrize("preset", [name for name in REFERENCE_PRESETS if name != "spiral_outwards"])
def test_golden_preset(golden, preset, direction):
    wanted = golden[f"traj.{preset}.{direction}"].double()
    found = build(preset, direction).world_to_cam
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_golden_dolly_zoom_changes_the_focal_length(golden):
    wanted = golden["traj.dolly_zoom.right.K"].double()
    width, height = int(2 * wanted[0, 0, 2]) + 1, int(2 * wanted[0, 1, 2]) + 1
    found = build("dolly_zoom", "right", intrinsics=wanted[0], size=(height, width))
    torch.testing.assert_close(found.intrinsics, wanted, rtol=1e-5, atol=1e-5)
    assert wanted[-1, 0, 0] < 0.5 * wanted[0, 0, 0]


def test_noise_presets_depend_on_their_generator_only():
    again = build("horizontal_noise", "left")
    assert torch.equal(again.world_to_cam, build("horizontal_noise", "left").world_to_cam)
    other = reference_camera_path(
        "horizontal_noise",
        "left",
        num_frames=17,
        intrinsics=K,
        image_size=(480, 640),
        scene_depth_m=2.0,
        strength=0.5,
        generator=torch.Generator().manual_seed(1),
    )
    assert not torch.equal(again.world_to_cam, other.world_to_cam)


def test_noise_without_generator_is_refused():
    with pytest.raises(CameraPathError, match="generator"):
        reference_camera_path(
            "horizontal_noise",
            "left",
            num_frames=17,
            intrinsics=K,
            image_size=(480, 640),
            scene_depth_m=2.0,
            strength=0.5,
        )


def test_spiral_outwards_turns_without_moving():
    path = build("spiral_outwards", "right")
    assert path.centers_m.abs().max() == 0
    assert torch.allclose(path.world_to_cam[0], path.world_to_cam[-1], atol=1e-12)
    assert path.world_to_cam[8, 0, 2].abs() < 0.7


def test_unknown_names_are_refused():
    with pytest.raises(CameraPathError, match="horizontal_zoom"):
        build("zoom", "right")
    with pytest.raises(CameraPathError, match="left, right, up, down"):
        build("spiral", "forward")
