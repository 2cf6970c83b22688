"""What a folder of clips must be, and that each way of being something else is named by file."""

import json
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import torch

from lyra_core.errors import CameraPathError, DepthError, FormatError, MissingExtraError, UnsafePickleError
from lyra_core.finetuning.clip_check import check_folder
from lyra_core.finetuning.clip_folder import list_clips, open_clip
from lyra_core.formats.exr import write_exr


def named(folder, name):
    return next(files for files in list_clips(folder) if files.name == name)


def test_a_clip_is_opened_with_everything(clip_data):
    assert [files.name for files in list_clips(clip_data)] == ["slow", "fast"]
    info = open_clip(named(clip_data, "slow"))
    assert (info.video.num_frames, len(info.cameras), len(info.depth)) == (17, 17, 17)
    torch.testing.assert_close(info.cameras.centers_m[[0, 16], 0], torch.tensor([0.0, 0.64], dtype=torch.float64))
    assert [info.caption(frame) for frame in (0, 8, 9, 16)] == ["a wall", "a wall", "the same wall", "the same wall"]


def test_both_archives_hold_the_same_depth(clip_data):
    npz, exr = (open_clip(named(clip_data, name)).depth for name in ("slow", "fast"))
    assert (npz.path.suffix, exr.path.suffix) == (".npz", ".zip")
    np.testing.assert_array_equal(npz.read(16), exr.read(16))
    assert 2.5 < npz.read(0).min() < 4 < npz.read(0).max() < 9


def test_depth_in_one_array(own_data):
    path = own_data / "depth" / "slow.npz"
    depth = np.stack([np.full((6, 8), 1.0 + i, np.float16) for i in range(17)])
    np.savez(path, inds=np.arange(17), data=depth)
    np.testing.assert_array_equal(open_clip(named(own_data, "slow")).depth.read(3), np.full((6, 8), 4.0))


def test_unknown_depth_is_zero(own_data):
    path = own_data / "depth" / "slow.npz"
    frame = np.array([[1.0, np.inf], [np.nan, -2.0]], np.float16)
    np.savez(path, **{f"{i:05d}": frame for i in range(17)})
    np.testing.assert_array_equal(open_clip(named(own_data, "slow")).depth.read(0), [[1, 0], [0, 0]])


def rewrite(path, **changes):
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **(arrays | changes))


def shortened(folder):
    np.savez(folder / "pose" / "slow.npz", inds=np.arange(16), data=np.eye(4)[None].repeat(16, 0))


def skewed(folder):
    poses = np.eye(4)[None].repeat(17, 0)
    poses[5, 0, 1] = 0.4
    rewrite(folder / "pose" / "slow.npz", data=poses)


def nan_pose(folder):
    poses = np.eye(4)[None].repeat(17, 0)
    poses[5, 0, 3] = np.nan
    rewrite(folder / "pose" / "slow.npz", data=poses)


def skipping(folder):
    rewrite(folder / "pose" / "slow.npz", inds=np.arange(0, 34, 2))


def objects(folder):
    np.savez(folder / "pose" / "slow.npz", inds=np.arange(2), data=np.array([{}, {}], object))


def far_center(folder):
    rewrite(folder / "intrinsics" / "slow.npz", data=np.tile([50.0, 50, 400, 24], (17, 1)))


def three_numbers(folder):
    rewrite(folder / "intrinsics" / "slow.npz", data=np.ones((17, 3)))


def no_video(folder):
    (folder / "rgb" / "slow.mp4").write_bytes(b"not a video")


def strange_member(folder):
    (folder / "depth" / "slow.npz").unlink()
    with zipfile.ZipFile(folder / "depth" / "slow.zip", "w") as archive:
        archive.writestr("depth.png", b"")


def half_an_archive(folder):
    path = folder / "depth" / "slow.npz"
    path.write_bytes(path.read_bytes()[:-300])


def captions_by_name(folder):
    (folder / "captions" / "slow.json").write_text('{"first": "a wall"}')


def no_captions(folder):
    (folder / "captions" / "slow.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (shortened, FormatError, "rgb/slow.mp4 17, pose/slow.npz 16, intrinsics/slow.npz 17, depth/slow.npz 17"),
        (skewed, CameraPathError, "pose/slow.npz.*rigid.*frame 5"),
        (nan_pose, CameraPathError, r"pose/slow.npz.*finite; frames \[5\]"),
        (skipping, FormatError, r"pose/slow.npz needs one row for each frame.*\[0, 2, 4"),
        (objects, FormatError, "pose/slow.npz cannot be read"),
        (far_center, CameraPathError, "intrinsics/slow.npz.*principal point.*cx=400"),
        (three_numbers, FormatError, r"intrinsics/slow.npz should hold inds \[n\] and data \[n 4\]"),
        (no_video, FormatError, "rgb/slow.mp4 cannot be read as a video"),
        (strange_member, FormatError, "depth/slow.zip should hold 00000.exr.*'depth.png'"),
        (half_an_archive, FormatError, "depth/slow.npz cannot be read as an archive"),
        (captions_by_name, FormatError, "captions/slow.json should be an object of captions by first frame"),
        (no_captions, FormatError, "captions/slow.json should hold at least one caption"),
    ],
)
def test_what_is_wrong_is_named(own_data, damage, error, message):
    damage(own_data)
    with pytest.raises(error, match=message):
        open_clip(named(own_data, "slow"))
    report = check_folder(own_data)
    assert (report.num_clips, report.num_good, [name for name, _ in report.problems]) == (2, 1, ["slow"])


def write_depth(folder, members):
    (folder / "depth" / "slow.npz").unlink()
    with zipfile.ZipFile(folder / "depth" / "slow.zip", "w") as archive:
        for name, data in members:
            archive.writestr(name, data)


def test_bad_frames_of_depth_are_named(own_data):
    good = write_exr(np.ones((6, 8), np.float32))
    piz = bytearray(good)
    piz[piz.index(b"compression\0compression\0") + 28] = 4
    last = {"00016.exr": bytes(piz)}
    write_depth(own_data, [(f"{i:05d}.exr", last.get(f"{i:05d}.exr", good)) for i in range(17)])
    depth = open_clip(named(own_data, "slow")).depth
    assert depth.read(0).shape == (6, 8)
    with pytest.raises((MissingExtraError, FormatError), match=r"slow.zip:00016.exr .*PIZ"):
        depth.read(16)
    assert len(check_folder(own_data).problems) == 1


def test_depth_without_a_known_pixel_is_no_depth(own_data):
    empty = write_exr(np.zeros((6, 8), np.float16))
    write_depth(own_data, [(f"{i:05d}.exr", empty) for i in range(17)])
    with pytest.raises(DepthError, match=r"slow.zip:00003.exr should hold depth in metres"):
        open_clip(named(own_data, "slow")).depth.read(3)


def test_missing_parts_are_listed_together(own_data):
    (own_data / "pose" / "slow.npz").unlink()
    (own_data / "depth" / "fast.zip").unlink()
    with pytest.raises(FormatError, match=r"2 of 2 clips(.|\n)*slow lacks pose/slow.npz\n *fast lacks depth/fast.zip"):
        list_clips(own_data)
    (own_data / "all_filter.lst").write_text("../elsewhere\n")
    with pytest.raises(FormatError, match=r"outside of the folder: '../elsewhere'"):
        list_clips(own_data)
    with pytest.raises(FormatError, match="no folder rgb"):
        list_clips(own_data / "pose")


def test_the_list_chooses(own_data):
    (own_data / "pose" / "slow.npz").unlink()
    (own_data / "all_filter.lst").write_text("# good ones\nrgb/fast.mp4\n")
    assert [files.name for files in list_clips(own_data)] == ["fast"]


def released_captions(folder, content):
    shutil.rmtree(folder / "captions")
    (folder / "framepack-caption-80").mkdir()
    for name in ("slow", "fast"):
        (folder / "framepack-caption-80" / f"{name}.pkl").write_bytes(content)


def test_pickled_captions_come_through_without_their_embeddings(own_data):
    entry = {"frame_range": (0, 80), "caption": "a wall", "embedding": torch.ones(3, 4, dtype=torch.bfloat16)}
    released_captions(own_data, pickle.dumps({0: entry, 9: {**entry, "caption": "later"}}))
    info = open_clip(named(own_data, "slow"))
    assert info.captions == ((0, "a wall"), (9, "later"))


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ({0: {"caption": "a wall", "embedding": Evil()}}, UnsafePickleError, "slow.pkl asks for 'builtins.print'"),
        (["a wall"], FormatError, "slow.pkl cannot be read: captions should be a dictionary"),
        ({0: {"text": "a wall"}}, FormatError, "slow.pkl.*entry of frame 0"),
    ],
)
def test_other_pickles_are_refused(own_data, content, error, message, capfd):
    released_captions(own_data, pickle.dumps(content))
    with pytest.raises(error, match=message):
        open_clip(named(own_data, "slow"))
    assert "run\n" not in capfd.readouterr().out


def test_a_good_folder_is_counted(clip_data):
    done = []
    report = check_folder(clip_data, decode=True, on_clip=lambda *counts: done.append(counts))
    assert (report.num_good, report.num_frames, report.num_captions, report.problems) == (2, 34, 3, ())
    assert (report.sizes, report.shortest, report.longest) == ({(48, 64): 2}, 17, 17)
    assert report.total_bytes > 10_000
    assert done == [(1, 2), (2, 2)]


def test_captions_as_json_are_those_written(clip_data):
    assert json.loads((clip_data / "captions" / "slow.json").read_text()) == {"0": "a wall", "9": "the same wall"}
