"""Calibration: measured once, kept, judged by the smaller spread."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from lyra_core.config.cosmos import CAMERA, DEPTH_TRANSFER
from lyra_core.cosmos.calibrate import Measurement, calibrate, judge, require_ready
from lyra_core.errors import RecipeError, SeedError, StoreError

SEEDS = Path(__file__).resolve().parents[3] / "examples" / "seeds"


def forward(ratio, depth_m, experiment="forward"):
    return Measurement(
        experiment=experiment, photograph="a.jpg", move="dolly-in", gain=1.0, scene_depth_m=depth_m, ratio=ratio,
        direction_deg=0.0, rotation_deg=0.0,
    )  # fmt: skip


def test_metres_that_are_followed_by_half():
    verdict = judge([forward(0.5, 3.0), forward(0.52, 20.0), forward(0.48, 200.0)], "abc")
    assert verdict.rule == "constant"
    assert verdict.gain == pytest.approx(2.0)
    assert verdict.text.endswith("--set cosmos.action_gain=2 --set cosmos.calibration=abc")


def test_shares_of_the_scene():
    verdict = judge([forward(0.1 * depth, depth) for depth in (3.0, 20.0, 200.0)], "abc")
    assert verdict.rule == "by depth"
    assert verdict.gain == pytest.approx(10.0)
    assert "shares of the scene" in verdict.text


def test_a_table_that_says_nothing():
    scattered = judge([forward(r, d) for r, d in ((0.1, 3.0), (3.0, 3.0), (0.2, 200.0), (9.0, 200.0))], "abc")
    assert (scattered.rule, scattered.gain) == ("unclear", None)
    assert judge([forward(1.0, 3.0, "inverse"), forward(float("nan"), 3.0)], "abc").rule == "unclear"


@pytest.fixture(scope="module")
def parts(weights):
    from lyra_core.cosmos.model import load_parts

    small = {"chunk_frames": 4, "num_steps": 1, "transformer_dtype": "float32", "vae_dtype": "float32"}
    return load_parts("cosmos3-nano", CAMERA, device="cpu", weights=weights, cosmos=small)


@pytest.mark.filterwarnings("ignore:the camera moves:lyra_core.errors.LyraWarning")
def test_it_goes_on_where_it_was_stopped(parts, tmp_path):
    settings = {"size": (320, 192), "moves": ("truck-right",), "gains": (1.0,)}
    done = []
    photograph = [SEEDS / "coffee_table.jpg"]
    first = calibrate(parts, photograph, tmp_path, **settings, on_measurement=lambda *n: done.append(n))
    assert done == [(1, 2), (2, 2)]
    lines = list(csv.DictReader((tmp_path / "gains.csv").open()))
    assert [line["experiment"] for line in lines] == ["inverse", "forward"]
    assert all(float(line["ratio"]) == float(line["ratio"]) for line in lines), "the chunk's last frame is looked at"
    assert (tmp_path / "verdict.txt").read_text().strip() == first.text
    kept = sorted((tmp_path / "measurements").iterdir())
    changed = {path.name: path.stat().st_mtime_ns for path in kept}
    kept[0].write_text("{torn")
    again = calibrate(parts, photograph, tmp_path, **settings)
    assert again == first, "measured again, it is the same"
    assert kept[1].stat().st_mtime_ns == changed[kept[1].name]
    assert json.loads(kept[0].read_text())["photograph"] == "coffee_table.jpg"


def test_only_camera_actions_are_calibrated(parts, tmp_path):
    with pytest.raises(RecipeError, match="needs mode='camera'"):
        calibrate(replace(parts, options=DEPTH_TRANSFER), [SEEDS / "coffee_table.jpg"], tmp_path, size=(320, 192))
    with pytest.raises(RecipeError, match="0 photographs"):
        calibrate(parts, [], tmp_path, size=(320, 192))


def test_what_can_be_told_before_a_model_is_loaded(tmp_path):
    photograph, size = [SEEDS / "coffee_table.jpg"], (320, 192)
    require_ready(CAMERA, photograph, tmp_path / "new" / "folder", size)
    with pytest.raises(SeedError, match=r"nowhere\.jpg"):
        require_ready(CAMERA, [*photograph, tmp_path / "nowhere.jpg"], tmp_path, size)
    (tmp_path / "torn.jpg").write_bytes(photograph[0].read_bytes()[:3000])
    with pytest.raises(SeedError, match=r"torn\.jpg"):
        require_ready(CAMERA, [tmp_path / "torn.jpg"], tmp_path, size)
    with pytest.raises(StoreError, match=r"cannot write .*: not a directory; free some space"):
        require_ready(CAMERA, photograph, tmp_path / "torn.jpg", size)
