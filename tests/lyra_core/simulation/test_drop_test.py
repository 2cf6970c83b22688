"""Things stay where they should, and the test says so where they cannot."""

import numpy as np
import pytest

pytest.importorskip("mujoco")

from lyra_core.errors import FormatError
from lyra_core.formats.mjcf import MujocoWorld, write_mjcf
from lyra_core.simulation.drop_test import drop_test


def mjcf(folder, heights, *, boxes=(), spawn=(0.0, 3.0, 0.0, 0.8)) -> str:
    world = MujocoWorld(
        heights=np.asarray(heights, float),
        spacing=0.2,
        x0=-3.0,
        y0=0.0,
        boxes=np.array(boxes, float).reshape(-1, 6),
        spawn=spawn,
        camera=np.eye(4),
        fovy_deg=50.0,
    )
    write_mjcf(world, folder / "world.xml")
    return (folder / "world.xml").read_text()


def test_things_rest_on_flat_ground_and_the_robot_drives(tmp_path):
    result = drop_test(mjcf(tmp_path, np.zeros((31, 31))))
    assert result.reasons == ()
    assert result.is_passed
    for landing in (result.ball, result.box, result.robot):
        assert abs(landing.error_m) < 0.01
        assert landing.moved_m < 0.05
        assert landing.tilt_deg < 2
    assert result.drove_m == pytest.approx(0.6, abs=0.1)
    assert result.simulator.startswith("mujoco ")


def test_a_gentle_rough_slope_holds(tmp_path):
    rng = np.random.default_rng(0)
    heights = np.tile(0.2 * np.arange(31) * 0.1, (31, 1)) + rng.normal(0, 0.008, (31, 31))
    result = drop_test(mjcf(tmp_path, heights, spawn=(0.0, 3.0, float(heights[15, 15]), 0.8)))
    assert result.reasons == ()
    assert result.robot.tilt_deg < 10


def test_a_spawn_point_inside_a_box_or_above_the_ground_fails(tmp_path):
    inside = drop_test(mjcf(tmp_path, np.zeros((31, 31)), boxes=[(0.0, 3.0, 0.5, 0.5, 0.5, 0.6)]))
    assert not inside.is_passed
    cliff = np.zeros((31, 31))
    cliff[:, 15:] = -4.0
    tall = drop_test(mjcf(tmp_path, cliff, spawn=(0.1, 3.0, 0.0, 0.0)))
    assert not tall.is_passed
    assert any("does not rest" in reason or "tilted" in reason for reason in tall.reasons)


def test_equal_worlds_give_equal_results(tmp_path):
    text = mjcf(tmp_path, np.zeros((31, 31)))
    assert drop_test(text) == drop_test(text)


@pytest.mark.parametrize(
    "text", ["", "<mujoco/>", "<mujoco><worldbody><site name='spawn' pos='0 0'/></worldbody></mujoco>"]
)
def test_what_is_no_world_is_a_format_error(text):
    with pytest.raises(FormatError):
        drop_test(text)
