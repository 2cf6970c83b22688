from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from lyra_core.errors import CameraPathError, ReconstructionError
from lyra_core.gaussians import chunks


def test_golden_subsampling(golden_dir: Path) -> None:
    golden = load_file(golden_dir / "trajectory_gs.safetensors")
    wanted = golden["gs.uniform_subsample.241_128"]
    assert torch.equal(chunks.subsample_frames(241, len(wanted)), wanted)


def test_golden_uniform_chunks(golden_dir: Path) -> None:
    golden = load_file(golden_dir / "trajectory_gs.safetensors")
    layout = golden["gs.chunks.uniform"]
    found = chunks.uniform_chunks(600, len(layout), layout.shape[1], 10)
    assert torch.equal(torch.stack(found), layout)
    assert torch.equal(torch.cat(found).unique(), golden["gs.chunks.uniform.sampled"])


def test_golden_split_chunks(golden_dir: Path) -> None:
    layout = load_file(golden_dir / "trajectory_gs.safetensors")["gs.chunks.split"]
    found = chunks.split_chunks(600, (200, 421), layout.shape[1], 10)
    assert torch.equal(torch.stack(found), layout)


def test_golden_ownership(golden_dir: Path) -> None:
    golden = load_file(golden_dir / "trajectory_gs.safetensors")
    first, second = (
        chunks.nearest_camera(golden["gs.own.pos"], golden[key], golden["gs.own.K"], 48, 64)
        for key in ("gs.joint.src_w2c", "gs.joint.dst_w2c")
    )
    assert torch.equal(chunks.owned_by(first, second), golden["gs.own.keep0"].bool())
    assert torch.equal(chunks.owned_by(second, first), golden["gs.own.keep1"].bool())


def test_golden_camera_interpolation(golden_dir: Path) -> None:
    golden = load_file(golden_dir / "trajectory_gs.safetensors")
    known = golden["gs.joint.src_w2c"][[0, 4, 9]]
    wanted = golden["gs.interp_w2c"]
    found = chunks.interpolate_cameras(known, torch.tensor([2, 6, 12]), len(wanted))
    torch.testing.assert_close(found.float(), wanted, atol=1e-5, rtol=0)


@given(st.integers(1, 500), st.integers(1, 6), st.integers(6, 60), st.integers(3, 20))
def test_chunks_cover_the_video_in_order(frames: int, count: int, size: int, overlap: int) -> None:
    size = max(size, 2 * overlap)
    found = chunks.uniform_chunks(frames, count, size, overlap)
    assert int(found[0][0]) == 0
    assert int(found[-1][-1]) == frames - 1 or frames > sum(len(c) for c in found)
    for chunk in found:
        assert len(chunk) <= size
        assert bool((chunk.diff() > 0).all())
    for before, after in pairwise(found):
        assert torch.equal(before[-overlap:], after[:overlap])


def test_short_video_is_one_chunk_of_every_frame() -> None:
    (only,) = chunks.uniform_chunks(40, 3, 128, 10)
    assert torch.equal(only, torch.arange(40))


def test_gaussians_nobody_sees_stay_with_their_maker() -> None:
    unseen = torch.full((3,), torch.inf)
    assert bool(chunks.owned_by(unseen, unseen).all())
    assert not bool(chunks.owned_by(unseen, torch.ones(3)).any())


def test_bad_layouts_are_named() -> None:
    with pytest.raises(ReconstructionError, match="overlap of at least 3"):
        chunks.uniform_chunks(100, 2, 30, 2)
    with pytest.raises(ReconstructionError, match="rise strictly"):
        chunks.split_chunks(100, (60, 50), 30, 3)
    with pytest.raises(ReconstructionError, match="at least one frame"):
        chunks.subsample_frames(0, 10)
    with pytest.raises(CameraPathError, match="rising frame index"):
        chunks.interpolate_cameras(torch.eye(4).repeat(2, 1, 1), torch.tensor([4, 2]), 6)
