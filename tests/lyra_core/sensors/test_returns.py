"""Laser returns as a .ply, read by plyfile."""

from __future__ import annotations

import numpy as np
import plyfile
import torch

from lyra_core.sensors.cast import Caster
from lyra_core.sensors.lidar import LidarModel
from lyra_core.sensors.rays import lidar_rays
from lyra_core.sensors.returns import write_lidar_ply
from lyra_core.values import Gaussians


def test_points_lie_on_the_wall_in_the_worlds_frame(tmp_path):
    side = torch.linspace(-3, 3, 61)
    y, x = torch.meshgrid(side, side, indexing="ij")
    count = x.numel()
    wall = Gaussians(
        means=torch.stack([x.flatten(), y.flatten(), torch.full((count,), 5.0)], 1),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1),
        scales=torch.tensor([0.08, 0.08, 0.001]).repeat(count, 1),
        opacities=torch.full((count,), 0.95),
        sh=torch.tensor([1.0, 0.0, -1.0]).repeat(count, 1, 1),
    )
    model = LidarModel(elevations_deg=(-10.0, 0.0, 10.0), columns=40, horizontal_fov_deg=90.0, max_range=5.5)
    pose = torch.eye(4, dtype=torch.float64)
    pose[2, 3] = -1.0  # the scanner stands at z = 1
    turn = Caster(wall).capture(lidar_rays(model), pose)
    count = write_lidar_ply([turn, turn], tmp_path / "a.ply", model.max_range)
    vertex = plyfile.PlyData.read(tmp_path / "a.ply")["vertex"]
    assert len(vertex) == count > 100
    assert np.abs(vertex["z"] - 5).max() < 0.01
    assert vertex["range"].max() <= 5.5
    assert set(vertex["ring"]) == {0, 1, 2}
    assert set(vertex["turn"]) == {0, 1}
    assert (vertex["red"] > vertex["blue"]).all()
    # Row 0 is the highest beam, and y points down.
    assert vertex["y"][vertex["ring"] == 0].mean() < vertex["y"][vertex["ring"] == 2].mean()
