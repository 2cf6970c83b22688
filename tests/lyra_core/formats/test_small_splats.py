"""SPZ and compressed PLY: many Gaussians of every degree come back through gsply within the steps of each format."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from lyra_core.errors import FormatError, GaussiansError, MissingExtraError
from lyra_core.formats.compressed_ply import CHUNK, morton_order, write_compressed_ply
from lyra_core.formats.spz import write_spz
from lyra_core.formats.usd import UsdWorld, write_usd
from lyra_core.values import CameraPath, Gaussians

gsply = pytest.importorskip("gsply")


def make(count: int, degree: int) -> Gaussians:
    generator = torch.Generator().manual_seed(degree)
    near = torch.randn(count, 3, generator=generator)
    return Gaussians(
        means=torch.where(torch.arange(count)[:, None] % 3 == 2, 300 * near, near),  # a far dome among near things
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=generator)),
        scales=torch.rand(count, 3, generator=generator) * 0.1 + 1e-3,
        opacities=torch.rand(count, generator=generator),
        sh=torch.rand(count, (degree + 1) ** 2, 3, generator=generator) - 0.5,
        part=(torch.arange(count) % 3).to(torch.uint8),
    )


def same_turns(found: np.ndarray, wanted: np.ndarray) -> bool:
    return bool((np.abs((found * wanted).sum(1)) > 1 - 1e-5).all())


@pytest.mark.parametrize("degree", [0, 3])
def test_compressed_ply(tmp_path, degree):
    count = 4 * CHUNK + 17
    wanted = make(count, degree)
    write_compressed_ply(wanted, tmp_path / "a.compressed.ply")
    found = gsply.plyread(tmp_path / "a.compressed.ply")
    # Each part along its own curve, one after the other.
    parts = [torch.arange(count)[wanted.part == part] for part in range(3)]
    order = torch.cat([part[torch.from_numpy(morton_order(wanted.means[part].numpy()))] for part in parts])
    ordered = wanted[order]
    error = np.abs(found.means - ordered.means.numpy()).max(1)
    # Two parts have chunks of near things only; where the dome begins, one chunk holds both.
    assert np.median(error[ordered.part.numpy() < 2]) < 0.003
    assert np.abs(np.exp(found.scales) / ordered.scales.numpy() - 1).max() < 0.01
    assert same_turns(found.quats, ordered.quats.numpy())
    assert np.abs(1 / (1 + np.exp(-found.opacities.reshape(-1))) - ordered.opacities.numpy()).max() < 0.003
    assert np.abs(found.sh0 - ordered.sh[:, 0].numpy()).max() < 0.01
    if degree:
        assert np.abs(np.asarray(found.shN).reshape(count, 15, 3) - ordered.sh[:, 1:].numpy()).max() < 0.04


def test_spz_is_version_3_with_y_up(tmp_path):
    wanted = make(500, 3)
    write_spz(wanted, tmp_path / "a.spz")
    assert gsply.spz._gunzip((tmp_path / "a.spz").read_bytes())[4:8] == b"\3\0\0\0"
    found = gsply.read_spz(tmp_path / "a.spz")
    assert np.abs(found.means - (wanted.means * torch.tensor([1.0, -1, -1])).numpy()).max() < 1 / 4096
    assert same_turns(found.quats, (wanted.quats * torch.tensor([1.0, 1, -1, -1])).numpy())


def test_what_a_format_cannot_hold_is_refused(tmp_path, monkeypatch):
    wanted = make(9, 0)
    with pytest.raises(FormatError, match=r"up to 2048 units; 1 of 9"):
        write_spz(replace(wanted, means=wanted.means.index_fill(0, torch.tensor([4]), 3000.0)), tmp_path / "a.spz")
    bad = replace(wanted, scales=wanted.scales.index_fill(0, torch.tensor([2]), float("nan")))
    with pytest.raises(GaussiansError, match=r"scales must be finite; 1 of 9 .*first: 2"):
        write_compressed_ply(bad, tmp_path / "a.ply")
    eye = torch.eye(3, dtype=torch.float64)[None]
    camera = CameraPath(
        world_to_cam=torch.eye(4, dtype=torch.float64)[None], intrinsics=eye, image_height=2, image_width=2
    )
    world = UsdWorld(gaussians=bad, world_to_ground=np.eye(4), camera=camera, collision=None, facts={})
    pytest.importorskip("pxr")
    with pytest.raises(GaussiansError, match="scales must be finite"):
        write_usd(world, tmp_path / "a.usdc")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(sys.modules, "gsply", None)
    with pytest.raises(MissingExtraError, match=r"lyra-worlds\[export\]"):
        write_spz(wanted, tmp_path / "a.spz")
