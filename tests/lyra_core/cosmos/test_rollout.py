"""Chunks after each other: equal to calls by hand, resumable, extendable, without a network, and in a closed loop."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cosmos_scene as scene
import pytest
import torch

from lyra_core.config.cosmos import CAMERA, DEPTH_TRANSFER, IMAGE
from lyra_core.cosmos.actions import path_to_actions
from lyra_core.cosmos.pipeline import FrameWindow, build_sampler
from lyra_core.cosmos.rollout import CosmosRecord, CosmosRollout
from lyra_core.cosmos.scene_memory import depth_range, depth_video
from lyra_core.errors import CameraPathError, DepthError, FrameError, RecipeError
from lyra_core.identity import rng_seed
from lyra_core.video.chunk_store import ChunkStore
from lyra_core.video.rollout_request import Photograph

FRAMES = 4
"""New frames of a chunk here: one latent."""


@pytest.fixture(scope="module")
def settings(shrink):
    return shrink(CAMERA, chunk_frames=FRAMES, num_steps=1)


@pytest.fixture
def rollout(sample, settings):
    """rollout(depth=..., **changes of the settings)"""

    def build(depth=None, base=None, **changes):
        options = replace(base or settings, **changes)
        return CosmosRollout(sample(options)[0], depth or scene.SlopeDepth(), options)

    return build


def run(rollout, chunks, folder=None, captions=("a wall",), path=None):
    return follow(rollout, chunks, folder, captions, path).clip


def follow(rollout, chunks, folder=None, captions=("a wall",), path=None):
    path = scene.path(1 + FRAMES * chunks) if path is None else path
    return rollout.follow(scene.photograph(), path, list(captions), scene.ids(chunks), folder)


def stored(folder, chunk, count):
    """A record, whatever it was asked with."""
    entry = json.loads((Path(folder) / "chunks.json").read_text())["chunks"][chunk]
    assert len(json.loads((Path(folder) / "chunks.json").read_text())["chunks"]) == count
    return ChunkStore(folder, CosmosRecord).read(chunk, entry["chunk_id"], entry["inputs_sha256"])


@pytest.mark.parametrize("tied", [1, 2])
def test_two_chunks_equal_two_calls_chained_through_eight_bits(rollout, sample, settings, tied):
    options = replace(settings, overlap_latents=tied)
    path = scene.path(9)
    clip = run(rollout(overlap_latents=tied), 2)
    assert clip.frames.shape == (9, scene.HEIGHT, scene.WIDTH, 3)
    assert torch.equal(clip.frames[0], scene.photograph().image)
    sampler, _ = sample(options)
    ids = scene.ids(2)
    first = sampler(FrameWindow(
        known=scene.photograph().image[None], num_frames=5, caption="a wall", seed=rng_seed(ids[0], "video", 0),
        actions=path_to_actions(path[:5]),
    ))  # fmt: skip
    assert torch.equal(clip.frames[1:5], first.frames[1:])
    overlap = 1 if tied == 1 else 5
    second = sampler(FrameWindow(
        known=clip.frames[5 - overlap : 5], num_frames=overlap + 4, caption="a wall",
        seed=rng_seed(ids[1], "video", 1), actions=path_to_actions(path[5 - overlap : 9]),
    ))  # fmt: skip
    assert torch.equal(clip.frames[5:], second.frames[overlap:])


def test_a_longer_path_continues_and_other_words_change_only_what_follows(rollout, tmp_path):
    depth = scene.SlopeDepth()
    short = run(rollout(), 1, tmp_path)
    kept = (tmp_path / "chunk-0000.safetensors").read_bytes()
    longer = run(rollout(depth), 2, tmp_path, ["a wall", "a garden"])
    assert (tmp_path / "chunk-0000.safetensors").read_bytes() == kept
    assert torch.equal(longer.frames[:5], short.frames)
    assert depth.calls == [1, 2], "the photograph and the second chunk alone"
    other = run(rollout(), 2, None, ["a wall", "a tower"])
    assert torch.equal(other.frames[:5], longer.frames[:5])
    assert not torch.equal(other.frames[5:], longer.frames[5:])
    elsewhere = run(rollout(), 2, None, ["a wall", "a garden"], scene.path(9, step_m=0.1))
    assert not torch.equal(elsewhere.frames[1:], longer.frames[1:])


@pytest.mark.slow
def test_killed_after_a_chunk_the_rest_has_equal_bytes(weights, rollout, tmp_path):
    whole, killed, marker = tmp_path / "whole", tmp_path / "killed", tmp_path / "marker"
    clip = run(rollout(), 2, whole)
    script = Path(__file__).with_name("killed_rollout.py")
    root = Path(__file__).resolve().parents[3]
    process = subprocess.Popen(
        [sys.executable, script, weights, killed, marker], env={**os.environ, "PYTHONPATH": str(root)}
    )
    try:
        deadline = time.monotonic() + 120
        while not marker.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (killed / "chunk-0000.safetensors").exists()
    assert not (killed / "chunk-0001.safetensors").exists()
    resumed = run(rollout(), 2, killed)
    assert torch.equal(resumed.frames, clip.frames)
    for name in ("chunk-0000.safetensors", "chunk-0001.safetensors", "chunks.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_no_network_no_global_randomness_and_any_number_of_threads(checkpoint, settings, no_network):
    from lyra_core.cosmos.components import load_components

    torch.manual_seed(123)
    state = torch.random.get_rng_state()
    made = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        sampler = build_sampler(load_components(checkpoint, settings, "cpu"), checkpoint, settings)
        made.append(run(CosmosRollout(sampler, scene.SlopeDepth(), settings), 1).frames)
    torch.set_num_threads(1)
    assert torch.equal(*made)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert no_network == []


def test_what_a_chunk_leaves_behind(rollout, tmp_path):
    followed = follow(rollout(scene.SlopeDepth(gain=0.5)), 1, tmp_path, path=scene.path(5, turn_deg=0.0))
    clip = followed.clip
    record = stored(tmp_path, 0, 1)
    assert torch.equal(record.frames, clip.frames[1:])
    assert torch.equal(record.actions, path_to_actions(clip.cameras))
    assert record.depth_frames.tolist() == [4]
    # The network's unit is half a metre; what is known of the first frame brings it to metres.
    assert record.depth_m.amin() == pytest.approx(3.0, abs=1e-4)
    assert torch.equal(record.recovered, followed.found.world_to_cam[1:])
    assert clip.depth_m.amax((1, 2)).nonzero().flatten().tolist() == [0, 4]


def test_a_camera_that_moves_half_as_far_is_seen_and_made_up_for(rollout, tmp_path):
    """One look a chunk, four frames on: the network sees a move of `8 step gain` metres to the right."""
    asked = scene.path(9, step_m=0.1, turn_deg=0.0)
    depth = scene.SlopeDepth(step_m=0.05, gain=0.5)  # 0.2 m a chunk
    bent = rollout(depth, is_closed_loop=True, max_correction_share=1.0)
    found = follow(bent, 2, tmp_path, path=asked).found.centers_m
    first, second = stored(tmp_path, 0, 2), stored(tmp_path, 1, 2)
    length = 4 * 0.1 * math.hypot(1, 0.5)
    assert first.adherence[0] == pytest.approx(0.0, abs=1e-6)
    assert first.adherence[1] == pytest.approx(math.degrees(math.atan2(0.5, 1)), abs=1e-6)
    assert first.adherence[2] == pytest.approx(0.2 / length, abs=1e-6)
    assert found[4] == pytest.approx(torch.tensor([0.2, 0, 0], dtype=torch.float64), abs=1e-6)
    assert found[2] == pytest.approx(torch.tensor([0.1, 0, 0], dtype=torch.float64), abs=1e-6)
    # The second chunk is sent from where the camera is to where it should end: farther than asked.
    sent = second.actions[:, :3].sum(0)
    assert sent == pytest.approx(asked.centers_m[8].float() - found[4].float(), abs=1e-5)
    plain = tmp_path / "open"
    run(rollout(scene.SlopeDepth(step_m=0.05, gain=0.5)), 2, plain, path=asked)
    assert stored(plain, 1, 2).actions[:, :3].sum(0) == pytest.approx(
        (asked.centers_m[8] - asked.centers_m[4]).float(), abs=1e-5
    )


def test_gain_is_sent_and_not_measured(rollout, tmp_path):
    run(rollout(), 1, tmp_path / "one")
    run(rollout(action_gain=2.0), 1, tmp_path / "two")
    one, two = (stored(tmp_path / name, 0, 1).actions for name in ("one", "two"))
    assert torch.equal(two[:, :3], 2 * one[:, :3])
    assert torch.equal(two[:, 3:], one[:, 3:])


def test_depth_mode_is_steered_by_the_remembered_depth(rollout, sample, shrink, tmp_path):
    base = shrink(DEPTH_TRANSFER, chunk_frames=FRAMES, num_steps=1, caption_form="plain")
    path = scene.path(9, turn_deg=0.0)
    clip = run(rollout(base=base), 2, tmp_path, path=path)
    records = [stored(tmp_path, i, 2) for i in (0, 1)]
    assert torch.equal(records[0].depth_limits, records[1].depth_limits)
    assert records[0].depth_limits.tolist() == pytest.approx([1 / 5, 1 / 3], abs=1e-6)
    assert records[0].actions.shape == (0, 9)
    # By hand: the photograph's depth from the second chunk's cameras, with what was found in the first chunk.
    from lyra_core.cosmos.scene_memory import SceneMemory

    memory = SceneMemory(scene.HEIGHT, scene.WIDTH)
    seed_depth = scene.SlopeDepth().estimate(clip.frames[:1], None).depth_m
    memory.add([0], clip.frames[:1], seed_depth, path[:1])
    found = replace(path[[4]], world_to_cam=records[0].recovered[-1:])
    memory.add([4], clip.frames[4:5], records[0].depth_m, found)
    control = depth_video(memory.depth_along(path), depth_range(seed_depth[0]))
    assert control[:, 0].float().mean() > 200, "near is bright"
    assert control[:, -1].float().mean() < 60
    made = sample(base)[0](FrameWindow(
        known=clip.frames[:5], num_frames=9, caption="a wall", seed=rng_seed(scene.ids(2)[1], "video", 1),
        control=control,
    ))  # fmt: skip
    assert torch.equal(made.frames[5:], clip.frames[5:])


def test_image_mode_stands_on_the_cameras_it_found(rollout, shrink):
    base = shrink(IMAGE, chunk_frames=FRAMES, num_steps=1, overlap_latents=1)
    followed = follow(rollout(scene.SlopeDepth(), base), 1)
    clip = followed.clip
    assert torch.equal(clip.cameras.world_to_cam, followed.found.world_to_cam)
    assert clip.cameras.centers_m[4] == pytest.approx(torch.tensor([0.4, 0, 0], dtype=torch.float64), abs=1e-6)


def test_image_mode_needs_cameras_to_stand_on(rollout, shrink):
    base = shrink(IMAGE, chunk_frames=FRAMES, num_steps=1, overlap_latents=1)
    with pytest.raises(DepthError, match="needs a depth network that finds them"):
        run(rollout(scene.SlopeDepth(finds_cameras=False), base), 1)


def test_memory_changes_the_frames_when_it_is_asked_for(rollout):
    plain, mixed = run(rollout(num_steps=2), 1), run(rollout(num_steps=2, memory="replace"), 1)
    assert not torch.equal(plain.frames[1:], mixed.frames[1:])


def test_a_depth_network_without_cameras_leaves_those_of_the_request(rollout):
    followed = follow(rollout(scene.SlopeDepth(finds_cameras=False)), 1)
    assert torch.allclose(followed.found.world_to_cam, followed.clip.cameras.world_to_cam, atol=1e-9)


def test_bad_requests(rollout):
    whole = rollout()
    photo = scene.photograph()
    with pytest.raises(FrameError, match=r"1 \+ 4k frames, found 7 cameras; the nearest are 5 and 9"):
        whole.run(photo, scene.path(7), ["a"], scene.ids(1))
    with pytest.raises(CameraPathError, match="2 chunk ids need cameras for 9 frames, found 5"):
        whole.run(photo, scene.path(5), ["a"], scene.ids(2))
    further = Photograph(image=photo.image, camera=scene.path(1))
    with pytest.raises(RecipeError, match="sees one photograph"):
        whole.run(photo, scene.path(5), ["a"], scene.ids(1), photographs=[further])
