"""MuJoCo itself says where the ground is: rows turned over are off by a hand at places that a flat floor hides."""

import math
from pathlib import Path

import numpy as np
import pytest

from lyra_core.errors import FormatError
from lyra_core.formats.mesh import Mesh, write_obj
from lyra_core.formats.mjcf import MujocoWorld, write_mjcf

ROWS, COLUMNS, SPACING, X0, Y0 = 12, 17, 0.25, -1.0, 2.0


def height(x: float, y: float) -> float:
    """Asymmetric in x, in y and under their exchange."""
    return 0.1 * (x - X0) + 0.04 * (y - Y0) ** 2 - 0.3


def world(**changes) -> MujocoWorld:
    x, y = X0 + SPACING * np.arange(COLUMNS), Y0 + SPACING * np.arange(ROWS)
    values = {
        "heights": np.array([[height(a, b) for a in x] for b in y]),
        "spacing": SPACING,
        "x0": X0,
        "y0": Y0,
        "boxes": np.array([[1.5, 4.0, 0.7, 0.2, 0.3, 0.5]]),
        "spawn": (0.5, 3.0, height(0.5, 3.0), 0.6),
        "camera": np.array([[1.0, 0, 0, 0.2], [0, 0, -1, 1.5], [0, 1, 0, -0.5], [0, 0, 0, 1]]),
        "fovy_deg": 50.0,
    }
    return MujocoWorld(**{**values, **changes})


def compiled(folder: Path, what: MujocoWorld):
    mujoco = pytest.importorskip("mujoco")
    write_mjcf(what, folder / "world.xml")
    model = mujoco.MjModel.from_xml_path(str(folder / "world.xml"))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return mujoco, model, data


def ground_below(mujoco, model, data, x: float, y: float) -> float:
    hit = np.zeros(1, np.int32)
    down = mujoco.mj_ray(model, data, np.array([x, y, 20.0]), np.array([0, 0, -1.0]), None, 1, -1, hit)
    assert down >= 0
    return 20.0 - down


def test_the_ground_is_where_it_should_be(tmp_path):
    mujoco, model, data = compiled(tmp_path, world())
    for row, column in ((0, 0), (0, 16), (11, 0), (11, 16), (2, 13), (9, 3)):
        x, y = X0 + column * SPACING, Y0 + row * SPACING
        inwards = (1e-4 if column == 0 else -1e-4, 1e-4 if row == 0 else -1e-4)
        found = ground_below(mujoco, model, data, x + inwards[0], y + inwards[1])
        assert found == pytest.approx(height(x, y), abs=1e-3), (row, column)


def test_box_walls_spawn_and_camera_stand_where_they_should(tmp_path):
    mujoco, model, data = compiled(tmp_path, world())
    assert ground_below(mujoco, model, data, 1.5, 4.0) == pytest.approx(1.2)
    right = X0 + (COLUMNS - 1) * SPACING
    assert ground_below(mujoco, model, data, right + 0.1, 3.0) > 1.0  # on a wall
    site = data.site("spawn")
    np.testing.assert_allclose(site.xpos, [0.5, 3.0, height(0.5, 3.0)], atol=1e-6)
    np.testing.assert_allclose(site.xmat.reshape(3, 3)[:, 0], [math.cos(0.6), math.sin(0.6), 0], atol=1e-6)
    camera = data.camera("seed")
    axes = camera.xmat.reshape(3, 3)
    pose = world().camera
    np.testing.assert_allclose(camera.xpos, -pose[:3, :3].T @ pose[:3, 3], atol=1e-6)
    np.testing.assert_allclose(axes[:, 0], pose[0, :3], atol=1e-6)  # right
    np.testing.assert_allclose(axes[:, 1], -pose[1, :3], atol=1e-6)  # up
    np.testing.assert_allclose(-axes[:, 2], pose[2, :3], atol=1e-6)  # forward
    assert model.camera("seed").fovy == pytest.approx(50.0)


def test_contacts_roll(tmp_path):
    _, model, _ = compiled(tmp_path, world())
    assert set(model.geom_condim.tolist()) == {6}


def test_flat_ground_is_allowed(tmp_path):
    mujoco, model, data = compiled(tmp_path, world(heights=np.full((ROWS, COLUMNS), -0.7), boxes=np.zeros((0, 6))))
    assert ground_below(mujoco, model, data, 0.3, 3.1) == pytest.approx(-0.7, abs=2e-3)


def test_what_is_no_world_is_refused(tmp_path):
    with pytest.raises(FormatError, match="at least 2 rows and columns, found 1 and 17"):
        write_mjcf(world(heights=np.zeros((1, COLUMNS))), tmp_path / "a.xml")
    with pytest.raises(FormatError, match="finite"):
        write_mjcf(world(heights=np.full((ROWS, COLUMNS), np.nan)), tmp_path / "a.xml")
    assert list(tmp_path.iterdir()) == []


def test_the_obj_beside_it_loads(tmp_path):
    mujoco = pytest.importorskip("mujoco")
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    write_obj(Mesh(vertices=corners, faces=np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])), tmp_path / "a.obj")
    asset, geom = "<asset><mesh name='a' file='a.obj'/></asset>", "<geom type='mesh' mesh='a'/>"
    (tmp_path / "a.xml").write_text(f"<mujoco>{asset}<worldbody>{geom}</worldbody></mujoco>")
    assert mujoco.MjModel.from_xml_path(str(tmp_path / "a.xml")).nmesh == 1
