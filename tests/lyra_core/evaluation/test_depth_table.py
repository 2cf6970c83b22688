"""Depth is measured on many scenes of which little is drawn, Gaussians on some."""

from itertools import islice

import pytest

from lyra_core.evaluation import depth_table as tables
from lyra_core.evaluation.depth_table import depth_frames, depth_table, held_out_clips, measure_depth
from lyra_core.mini.depth import TINY_MINI_DEPTH
from lyra_core.training.depth import build_mini_depth

SIZE = {"height": 16, "width": 24}


def test_only_frames_that_are_looked_at_are_drawn(atlas):
    some = list(islice(held_out_clips(9, **SIZE, atlas=atlas, drawn=[0, 4]), 2))
    whole = list(islice(held_out_clips(9, **SIZE, atlas=atlas), 2))
    for sparse, full in zip(some, whole, strict=True):
        assert (sparse.frames[[0, 4]] == full.frames[[0, 4]]).all()
        assert (sparse.depth_m[[0, 4]] == full.depth_m[[0, 4]]).all()
        assert (sparse.sky[[0, 4]] == full.sky[[0, 4]]).all()
        assert (sparse.cameras.world_to_cam == full.cameras.world_to_cam).all()
        assert not sparse.frames[1:4].any()
        assert not sparse.depth_m[1:4].any()
    assert not (some[0].frames == some[1].frames).all()


def test_depth_says_the_same_of_clips_drawn_in_part(atlas):
    model = build_mini_depth(TINY_MINI_DEPTH, 0).eval()
    frames = depth_frames(17)
    assert (frames[0], len(frames)) == (0, 9)
    some, whole = (next(held_out_clips(17, **SIZE, atlas=atlas, drawn=drawn)) for drawn in (frames, None))
    assert measure_depth(model, some) == measure_depth(model, whole)


def test_more_scenes_may_be_measured_than_lifted(atlas, monkeypatch):
    lifted = []
    monkeypatch.setattr(tables, "measure_splats", lambda _, clip: lifted.append(clip) or SPLATS)
    model = build_mini_depth(TINY_MINI_DEPTH, 0).eval()
    found = depth_table(model, num_scenes=3, num_splat_scenes=1, num_frames=9, **SIZE, atlas=atlas)
    assert (found.num_scenes, found.num_splat_scenes, len(lifted)) == (3, 1, 1)
    rows = [measure_depth(model, clip) for clip in islice(held_out_clips(9, **SIZE, atlas=atlas), 3)]
    assert found.absrel_cameras == pytest.approx(sum(row["absrel_cameras"] for row in rows) / 3)
    assert found.head_video_db == 20.0


SPLATS = dict.fromkeys(
    ("head_video_db", "footprint_video_db", "layered_novel_db", "head_novel_db", "parallax_novel_db"), 20.0
)
