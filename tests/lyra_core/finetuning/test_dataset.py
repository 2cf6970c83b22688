"""Windows of clips: what is exported comes back, scaled pixels and cameras agree, short clips turn back."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lyra_core.errors import DepthError, FormatError
from lyra_core.finetuning.clip_export import export_clip
from lyra_core.finetuning.dataset import Framing, OwnClips, mirrored
from lyra_core.mini.encoders import END
from lyra_core.video.depth_cache import SKY_DEPTH_M


def text(window):
    row = window.captions[0]
    return bytes(row[row != END].tolist()).decode()


@pytest.mark.parametrize(("name", "shift"), [("slow", 0.04), ("fast", 0.08)])
def test_an_exported_clip_comes_back(clip_data, wall, name, shift):
    clips, clip = OwnClips(clip_data, (48, 64)), wall(shift)
    index = [files.name for files in clips.files].index(name)
    window = clips.window(index, 17)
    # H.264 changes colours a little, half precision depth by 1/2048
    assert (window.frames[0] - (clip.frames.permute(0, 3, 1, 2) / 127.5 - 1)).abs().mean() < 0.05
    torch.testing.assert_close(window.depth_m[0], clip.depth_m, rtol=1e-3, atol=0)
    moved = clip.cameras.world_to_cam @ clip.cameras.cam_to_world[:1]
    torch.testing.assert_close(window.world_to_cam[0], moved.float())
    torch.testing.assert_close(window.intrinsics[0], clip.cameras.intrinsics.float())


def test_captions_follow_the_frames(clip_data):
    clips = OwnClips(clip_data, (48, 64))
    assert text(clips.window(0, 10, caption_frame=9)) == "the same wall"
    # frame 24 of a clip of 17 is frame 8, on the way back
    assert text(clips.window(0, 25, caption_frame=24)) == "a wall"
    assert clips.captions() == ["a wall", "the same wall", "a wall passing by"]


def test_short_clips_turn_back(clip_data):
    window = OwnClips(clip_data, (48, 64)).window(0, 25)
    for layer in (window.frames, window.depth_m, window.world_to_cam):
        assert torch.equal(layer[0, 17:25], layer[0, 8:16].flip(0))


@given(st.integers(1, 60), st.integers(1, 20))
def test_mirroring_moves_by_at_most_one_frame(num_frames, available):
    order = mirrored(num_frames, available)
    assert order[: min(num_frames, available)] == list(range(min(num_frames, available)))
    assert all(0 <= i < available for i in order)
    assert all(abs(a - b) == (available > 1) for a, b in itertools.pairwise(order))


def test_depth_is_read_where_it_is_asked_for(clip_data):
    window = OwnClips(clip_data, (48, 64)).window(0, 17, depth_every=8)
    known = window.depth_m[0].flatten(1).amax(1) > 0
    assert known.nonzero().flatten().tolist() == [0, 8, 16]


def test_a_video_of_16_to_9_is_scaled_as_the_released_data():
    framing = Framing.cover((720, 1280), (480, 832))
    assert (framing.scaled_height, framing.scaled_width, framing.top, framing.left) == (480, 854, 0, 11)
    assert dataclasses.asdict(Framing.cover((480, 832), (480, 832)))["scaled_width"] == 832


@given(st.integers(16, 90), st.integers(16, 90))
def test_framing_covers_and_moves_cameras_with_pixels(wall, height, width):
    framing = Framing.cover((height, width), (32, 48))
    assert framing.scaled_height >= 32
    assert framing.scaled_width >= 48
    assert framing.scaled_height == 32 or framing.scaled_width == 48
    cameras = wall(num_frames=1, height=height, width=width).cameras
    # a picture whose colours are its pixel coordinates keeps them in the middle, up to the crop
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    moved = framing.cameras(cameras)
    found = [float(moved.intrinsics[0, 0, 2]), float(moved.intrinsics[0, 1, 2])]
    ramp = framing.depth(np.maximum(x, 0.1)), framing.depth(np.maximum(y, 0.1))
    # the principal point is the centre of the picture: there the ramp has half the width and height
    at = (round(found[1] - 0.5), round(found[0] - 0.5))
    for layer, middle, scale in zip(
        ramp, (width / 2, height / 2), (framing.scaled_width / width, framing.scaled_height / height), strict=True
    ):
        assert abs(float(layer[at]) - middle) <= 0.51 / scale + 0.51
    assert float(moved.intrinsics[0, 0, 0]) == pytest.approx(50 * framing.scaled_width / width)


def test_scaled_depth_does_not_mix_with_the_unknown():
    depth = np.zeros((12, 12), np.float32)
    depth[:, :6] = 5.0
    scaled = Framing.cover((12, 12), (20, 20)).depth(depth)
    assert set(np.unique(scaled.numpy().round(5))) == {0.0, 5.0}
    assert 0.4 < float((scaled > 0).float().mean()) < 0.6


def test_a_truncated_video_is_named(own_data, wall):
    clips = OwnClips(own_data, (48, 64))
    info = clips.info(0)
    longer = dataclasses.replace(info.video, num_frames=20)
    clips._opened[0] = dataclasses.replace(info, video=longer)
    with pytest.raises(FormatError, match=r"slow.mp4 should have 20 frames, but only 17"):
        clips.window(0, 20)


def test_the_sky_is_exported_as_rollouts_know_it(wall, tmp_path):
    clip = wall(num_frames=2)
    sky = torch.zeros(2, 48, 64, dtype=torch.bool)
    sky[:, :5] = True
    export_clip(dataclasses.replace(clip, sky=sky), tmp_path, "a", {0: "a wall"}, depth_format="exr")
    depth = OwnClips(tmp_path, (48, 64)).window(0, 2).depth_m[0]
    assert torch.equal(depth == SKY_DEPTH_M, sky)


def test_an_exported_clip_replaces_one_of_its_name(wall, tmp_path):
    for form in ("exr", "npz", "exr"):
        export_clip(wall(num_frames=2), tmp_path, "a", {0: "a wall"}, depth_format=form)
    assert (tmp_path / "all_filter.lst").read_text() == "a\n"
    assert [path.name for path in (tmp_path / "depth").iterdir()] == ["a.zip"]


def test_clips_that_cannot_be_exported(wall, tmp_path):
    clip = wall(num_frames=2)
    with pytest.raises(DepthError, match="'a' has none"):
        export_clip(dataclasses.replace(clip, depth_m=None), tmp_path, "a", {0: "a wall"})
    with pytest.raises(FormatError, match="name"):
        export_clip(clip, tmp_path, "../a", {0: "a wall"})
    with pytest.raises(FormatError, match="captions by first frame"):
        export_clip(clip, tmp_path, "a", {})
