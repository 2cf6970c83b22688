import subprocess
import sys

import numpy as np
import pytest

from lyra_core.errors import CameraPathError
from lyra_core.geometry.requests import (
    PRESETS,
    REFERENCE_PRESETS,
    is_steady,
    num_chunks,
    request_digest_parts,
)


def save_npz(path, frames: int, shift: float = 0.0) -> None:
    w2c = np.tile(np.eye(4), (frames, 1, 1))
    w2c[:, 2, 3] = np.arange(frames) * 0.01 + shift
    intrinsics = np.tile(np.diag([500.0, 500.0, 1.0]), (frames, 1, 1))
    intrinsics[:, 0, 2], intrinsics[:, 1, 2] = 416, 240
    np.savez(path, w2c=w2c, intrinsics=intrinsics, image_height=480, image_width=832)


def test_planning_needs_no_torch():
    code = (
        "import sys; from lyra_core.geometry.requests import request_digest_parts; "
        "request_digest_parts('dolly-in', 161); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("frames", "chunks"), [(81, 1), (161, 2), (961, 12)])
def test_chunk_counts(frames, chunks):
    assert num_chunks(frames) == chunks


@pytest.mark.parametrize(("frames", "nearest"), [(80, 81), (100, 81), (0, 81), (1, 81), (150, 161)])
def test_other_counts_name_the_nearest(frames, nearest):
    with pytest.raises(CameraPathError, match=rf"found {frames}, the nearest is {nearest}"):
        num_chunks(frames)


@pytest.mark.parametrize("name", PRESETS)
def test_steady_presets_share_their_prefix_and_closed_ones_do_not(name):
    short, long = request_digest_parts(name, 161), request_digest_parts(name, 241)
    assert len(short) == 2
    assert len(long) == 3
    assert (short == long[:2]) == is_steady(name)


def test_every_request_has_parts_of_its_own():
    names = [
        *PRESETS,
        *(f"lyra2/{name}/{way}" for name in REFERENCE_PRESETS for way in ("left", "up")),
    ]
    parts = [p for name in names for p in request_digest_parts(name, 241)]
    parts += request_digest_parts("dolly-in", 241, strength=0.5)
    assert len(set(parts)) == len(parts)


def test_reference_presets_are_closed():
    assert not is_steady("lyra2/horizontal_zoom/right")


@pytest.mark.parametrize("name", ["dolly_in", "zoom", "lyra2/horizontal_zoom", "lyra2/zoom/right", ""])
def test_unknown_names_list_the_presets(name):
    with pytest.raises(CameraPathError, match="dolly-in"):
        request_digest_parts(name, 81)


def test_a_folder_is_told_apart(tmp_path):
    with pytest.raises(CameraPathError, match=r"a folder is none.*transforms\.json"):
        request_digest_parts(tmp_path, 81)


def test_a_near_miss_is_named():
    with pytest.raises(CameraPathError, match="did you mean 'dolly-in'"):
        is_steady("dolly_in")


@pytest.mark.parametrize("strength", [0.0, -1.0, float("nan"), float("inf")])
def test_strengths_must_be_positive(strength):
    with pytest.raises(CameraPathError, match="strength"):
        request_digest_parts("dolly-in", 81, strength=strength)


def test_npz_parts_follow_the_cameras_not_the_file(tmp_path):
    save_npz(tmp_path / "short.npz", 81)
    save_npz(tmp_path / "long.npz", 161)
    save_npz(tmp_path / "other.npz", 161, shift=1e-9)
    short = request_digest_parts(tmp_path / "short.npz", 81)
    long = request_digest_parts(tmp_path / "long.npz", 161)
    assert short == long[:1]
    assert long == request_digest_parts(str(tmp_path / "long.npz"), 161)
    assert not set(long) & set(request_digest_parts(tmp_path / "other.npz", 161))
    with pytest.raises(CameraPathError, match="has 81 frames, 161"):
        request_digest_parts(tmp_path / "short.npz", 161)


def test_key_poses_are_hashed_by_meaning(tmp_path):
    (tmp_path / "a.json").write_text('[{"position": [0, 0, 0]}, {"position": [1, 0, 0]}]')
    (tmp_path / "b.json").write_text('[ {"position":[0,0,0]},\n {"position":[1,0,0]} ]')
    (tmp_path / "c.json").write_text('[{"position": [0, 0, 0]}, {"position": [2, 0, 0]}]')
    a, b, c = (request_digest_parts(tmp_path / f"{name}.json", 161) for name in "abc")
    assert a == b
    assert not set(a) & set(c)
    assert not set(a) & set(request_digest_parts(tmp_path / "a.json", 241))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CameraPathError, match=r"gone\.npz cannot be read: No such file"):
        request_digest_parts(tmp_path / "gone.npz", 81)
