"""Rollout: reproducible, resumable after SIGKILL with equal bytes, extendable, and strict about what it is given."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lyra_core.config.rollout import CORRECTED, REFERENCE, RolloutConfig
from lyra_core.errors import CameraPathError, FrameError, LyraWarning, PromptError, RecipeError
from lyra_core.video.rollout import Rollout, RolloutModels, seed_from_id
from lyra_core.video.rollout_request import Photograph

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def finished(tiny_world, tmp_path_factory):
    """A world of three chunks, never interrupted, and its folder."""
    folder = tmp_path_factory.mktemp("finished")
    t = tiny_world
    return t.rollout().run(t.seed(), t.path(25), ["a wall"], t.ids(3), folder), folder


def chunk_bytes(folder, num=3):
    return [(Path(folder) / f"chunk-{i:04d}.safetensors").read_bytes() for i in range(num)]


def latents(folder, chunk):
    return load_file(Path(folder) / f"chunk-{chunk:04d}.safetensors")["sampled"]


class TestReproducible:
    def test_frame_zero_is_the_photograph_and_appears_once(self, finished, tiny_world):
        clip, _ = finished
        assert clip.frames.shape == (25, 32, 48, 3)
        assert torch.equal(clip.frames[0], tiny_world.seed().image)
        assert not torch.equal(clip.frames[1], clip.frames[0])
        assert clip.depth_m.amax((1, 2)).nonzero().flatten().tolist() == [0, 8, 16, 24]

    def test_global_generator_is_neither_used_nor_moved(self, finished, tiny_world):
        clip, _ = finished
        t = tiny_world
        torch.manual_seed(123)
        state = torch.random.get_rng_state()
        again = t.rollout().run(t.seed(), t.path(9), ["a wall"], t.ids(1))
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.equal(again.frames, clip.frames[:9])

    def test_another_id_is_another_world(self, finished, tiny_world):
        clip, _ = finished
        t = tiny_world
        other = t.rollout().run(t.seed(), t.path(9), ["a wall"], ["f" * 32])
        assert not torch.equal(other.frames[1:], clip.frames[1:9])

    def test_caption_changes_the_chunk_it_belongs_to(self, finished, tiny_world, tmp_path):
        t = tiny_world
        t.rollout().run(t.seed(), t.path(17), ["a wall", "a garden"], t.ids(2), tmp_path)
        first, second = (latents(finished[1], i) == latents(tmp_path, i) for i in (0, 1))
        assert first.all()
        assert not second.all()

    @pytest.mark.parametrize(
        "change", [{}, {"sampler": "distilled"}, {"noise": "generator", "exact_timesteps": True, "encoded_prefix": 3}]
    )
    def test_reference_form_runs(self, tiny_world, change):
        t = tiny_world
        config = replace(t.REFERENCE_TINY, **change)
        clip = t.rollout(config).run(t.seed(), t.path(9), ["a wall"], t.ids(1))
        assert len(clip) == 9
        assert clip.frames.float().std() > 1

    def test_mini_form_runs_and_resumes(self, tiny_world, tmp_path):
        t = tiny_world
        whole = t.mini_rollout().run(t.seed(), t.path(17), [""], t.ids(2))
        t.mini_rollout().run(t.seed(), t.path(9), [""], t.ids(1), tmp_path)
        extended = t.mini_rollout().run(t.seed(), t.path(17), [""], t.ids(2), tmp_path)
        assert torch.equal(extended.frames, whole.frames)
        assert torch.equal(extended.depth_m, whole.depth_m)


class TestDurable:
    def test_killed_and_resumed_equals_uninterrupted(self, finished, tiny_world, tmp_path):
        """A process killed by SIGKILL in its second chunk; this process goes on and gives equal bytes."""
        clip, folder = finished
        t, store, marker = tiny_world, tmp_path / "killed", tmp_path / "marker"
        child = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("tiny_world.py")), str(store), str(marker), "3"],
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )
        try:
            deadline = time.monotonic() + 240
            while not marker.exists():
                assert child.poll() is None, "the child ended before it could be killed"
                assert time.monotonic() < deadline, "the child never reached its second chunk"
                time.sleep(0.05)
        finally:
            child.kill()
            child.wait()
        assert child.returncode == -signal.SIGKILL
        assert sorted(p.name for p in store.glob("chunk-*")) == ["chunk-0000.safetensors"]
        depth = t.WallDepth()
        resumed = t.rollout(depth=depth).run(t.seed(), t.path(25), ["a wall"], t.ids(3), store)
        assert len(depth.calls) == 3  # the seed and two chunks: the first was not made again
        assert torch.equal(resumed.frames, clip.frames)
        assert torch.equal(resumed.depth_m, clip.depth_m)
        assert chunk_bytes(store) == chunk_bytes(folder)

    def test_finished_world_is_extended(self, finished, tiny_world, tmp_path):
        clip, folder = finished
        t = tiny_world
        short = t.rollout().run(t.seed(), t.path(9), ["a wall"], t.ids(1), tmp_path)
        depth = t.WallDepth()
        longer = t.rollout(depth=depth).run(t.seed(), t.path(25), ["a wall"], t.ids(3), tmp_path)
        assert torch.equal(longer.frames[:9], short.frames)
        assert len(depth.calls) == 3
        assert torch.equal(longer.frames, clip.frames)
        assert chunk_bytes(tmp_path) == chunk_bytes(folder)

    def test_changed_request_starts_where_it_differs(self, finished, tiny_world, tmp_path):
        t = tiny_world
        t.rollout().run(t.seed(), t.path(17), ["a wall"], t.ids(2), tmp_path)
        depth = t.WallDepth()
        other_ids = [t.ids(1)[0], "e" * 32]
        other = t.rollout(depth=depth).run(t.seed(), t.path(17), ["a wall", "a lake"], other_ids, tmp_path)
        assert len(depth.calls) == 2  # the seed and the second chunk
        assert torch.equal(other.frames[:9], finished[0].frames[:9])

    def test_other_choices_under_equal_ids_are_not_mixed(self, tiny_world, tmp_path):
        t = tiny_world
        t.rollout().run(t.seed(), t.path(9), ["a wall"], t.ids(1), tmp_path)
        depth = t.WallDepth()
        config = replace(t.CORRECTED_TINY, num_steps=3)
        t.rollout(config, depth).run(t.seed(), t.path(9), ["a wall"], t.ids(1), tmp_path)
        assert len(depth.calls) == 2

    def test_torn_chunk_is_made_again(self, finished, tiny_world, tmp_path):
        clip, _ = finished
        t = tiny_world
        t.rollout().run(t.seed(), t.path(17), ["a wall"], t.ids(2), tmp_path)
        torn = tmp_path / "chunk-0001.safetensors"
        torn.write_bytes(torn.read_bytes()[:1000])
        with pytest.warns(LyraWarning, match="chunk-0001.safetensors is unusable"):
            again = t.rollout().run(t.seed(), t.path(17), ["a wall"], t.ids(2), tmp_path)
        assert torch.equal(again.frames, clip.frames[:17])


class TestPhotographs:
    def photograph(self, t, from_chunk):
        w2c = torch.eye(4, dtype=torch.float64)[None].clone()
        w2c[0, 0, 3] = -0.9
        camera = replace(t.path(1), world_to_cam=w2c)
        return Photograph(image=t.seed().image.flip(1), camera=camera, from_chunk=from_chunk)

    def test_joins_a_finished_world(self, finished, tiny_world, tmp_path):
        clip, folder = finished
        t = tiny_world
        t.rollout().run(t.seed(), t.path(9), ["a wall"], t.ids(1), tmp_path)
        depth = t.WallDepth()
        longer = t.rollout(depth=depth).run(
            t.seed(),
            t.path(17),
            ["a wall"],
            t.ids(2),
            tmp_path,
            photographs=[self.photograph(t, 1)],
        )
        assert torch.equal(longer.frames[:9], clip.frames[:9])
        assert not torch.equal(latents(tmp_path, 1), latents(folder, 1))
        assert len(depth.calls) == 3  # seed, photograph, second chunk

    @pytest.mark.parametrize("replace_seed", [False, True])
    def test_known_from_the_start(self, tiny_world, replace_seed):
        t = tiny_world
        config = replace(t.CORRECTED_TINY, photographs_replace_seed=replace_seed)
        rollout = t.rollout(config)
        remembered = []
        build = rollout._chunk_request
        rollout._chunk_request = lambda world, *rest: remembered.append(world.memory.frame_ids) or build(world, *rest)
        rollout.run(t.seed(), t.path(9), ["a wall"], t.ids(1), photographs=[self.photograph(t, 0)])
        assert remembered == [(-1,) if replace_seed else (0, -1)]


class TestCorrected:
    def test_depth_scale_is_kept_over_chunks(self, tiny_world):
        """The estimator's scale jumps by half from window to window; aligned windows agree with the seed's."""
        t = tiny_world

        def scales(align):
            config = replace(t.CORRECTED_TINY, depth=replace(t.CORRECTED_TINY.depth, align=align))
            rollout = t.rollout(config, t.WallDepth(factors=(1.0, 1.5, 0.6)))
            depth = rollout.run(t.seed(), t.path(17), ["a wall"], t.ids(2)).depth_m
            truth = [t.wall(t.path(17).world_to_cam[i], t.INTRINSICS) for i in (0, 8, 16)]
            return [float((depth[i] / d).median()) for i, d in zip((0, 8, 16), truth, strict=True)]

        assert scales("none") == pytest.approx([1.0, 1.5, 0.6], abs=0.01)
        assert scales("overlap") == pytest.approx([1.0, 1.0, 1.0], abs=0.02)

    def test_short_prefix_keeps_the_history_length(self, tiny_world):
        t = tiny_world
        for encoded in (None, 3):
            world = t.rollout(replace(t.CORRECTED_TINY, encoded_prefix=encoded))
            with torch.no_grad():
                state = world._begin(t_request(t, world.config))
            assert state.history.shape[1] == world.layout.num_history
            if encoded:
                assert torch.equal(state.history[:, 2], state.history[:, -1])

    def test_timesteps_are_exact(self, tiny_world):
        t = tiny_world
        truncated = t.rollout(replace(REFERENCE, num_steps=7))._schedule()
        exact = t.rollout(replace(REFERENCE, num_steps=7, exact_timesteps=True))._schedule()
        assert torch.equal(exact.sigmas, truncated.sigmas)
        assert torch.allclose(exact.timesteps, exact.sigmas[:-1] * 1000)
        assert (exact.timesteps - truncated.timesteps > 0.1).any()

    def test_frames_are_cut_before_they_are_seen_again(self, tiny_world):
        t = tiny_world
        worlds = {}
        for clamp in (False, True):
            rollout = t.rollout(replace(t.CORRECTED_TINY, clamp_frames=clamp))
            generator = torch.Generator().manual_seed(0)
            with torch.no_grad():
                state = rollout._begin(t_request(t, rollout.config))
                state.append(torch.randn(16, 2, 4, 6, generator=generator) * 30)
            worlds[clamp] = float(state.last_image.abs().max())
        assert worlds[False] > 1
        assert worlds[True] <= 1

    def test_noise_of_the_reference_is_the_references(self, tiny_world):
        assert REFERENCE.noise == "reference"
        assert CORRECTED.noise == "generator"
        assert seed_from_id("a" * 32, 0) != seed_from_id("a" * 32, 1)


def t_request(t, config):
    from lyra_core.video.rollout_request import RolloutRequest

    return RolloutRequest(seed=t.seed(), camera_path=t.path(9), chunk_ids=tuple(t.ids(1)))


class TestErrors:
    def test_frame_count(self, tiny_world):
        t = tiny_world
        with pytest.raises(FrameError, match=r"1 \+ 8k frames, found 12 cameras; the nearest are 9 and 17"):
            t.rollout().run(t.seed(), t.path(12), ["a wall"], t.ids(1))

    def test_cameras_and_ids(self, tiny_world):
        t = tiny_world
        with pytest.raises(CameraPathError, match="3 chunk ids need cameras for 25 frames, found 17"):
            t.rollout().run(t.seed(), t.path(17), ["a wall"], t.ids(3))

    def test_cameras_of_another_size(self, tiny_world):
        t = tiny_world
        with pytest.raises(CameraPathError, match="for 96x64 images, the seed is 48x32"):
            t.rollout().run(t.seed(), t.path(9).resized(64, 96), ["a wall"], t.ids(1))

    def test_image_of_no_whole_latents(self, tiny_world):
        t = tiny_world
        seed = replace(t.seed(), image=t.seed().image[:30])
        with pytest.raises(FrameError, match="multiples of 8 pixels on both axes, found 48x30"):
            t.rollout().run(seed, t.path(9).resized(30, 48), ["a wall"], t.ids(1))

    @pytest.mark.parametrize(("captions", "message"), [([], "empty list"), (["a", "b", "c"], "found 3")])
    def test_captions(self, tiny_world, captions, message):
        t = tiny_world
        with pytest.raises(PromptError, match=message):
            t.rollout().run(t.seed(), t.path(17), captions, t.ids(2))

    def test_photograph_of_another_size(self, tiny_world):
        t = tiny_world
        photograph = Photograph(image=t.seed().image[:, :40], camera=t.path(1))
        with pytest.raises(FrameError, match="seed's size 48x32, found 40x32"):
            t.rollout().run(t.seed(), t.path(9), ["a wall"], t.ids(1), photographs=[photograph])

    def test_network_and_choices(self, tiny_world):
        t = tiny_world
        dit, vae = t.networks()
        models = RolloutModels(dit=dit, vae=vae, depth=t.WallDepth(), text=t.text, image=t.image)
        config = replace(t.CORRECTED_TINY, conditioning=replace(CORRECTED.conditioning, ray_downsample=4))
        with pytest.raises(RecipeError, match="ray_channels: 384 against 24"):
            Rollout(models, config)
        with pytest.raises(RecipeError, match="needs text tokens"):
            Rollout(replace(models, text=None), t.CORRECTED_TINY)

    def test_config(self):
        with pytest.raises(RecipeError, match="at least 1, found 0"):
            RolloutConfig(num_steps=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnGpu:
    @pytest.mark.parametrize("preset", ["REFERENCE_TINY", "CORRECTED_TINY"])
    def test_world_agrees_with_the_cpu(self, tiny_world, preset, tmp_path):
        t = tiny_world
        config = getattr(t, preset)
        on_cpu = t.rollout(config).run(t.seed(), t.path(17), ["a wall"], t.ids(2))
        dit, vae = t.networks()
        models = RolloutModels(dit=dit.cuda(), vae=vae.cuda(), depth=t.WallDepth(), text=t.text, image=t.image)
        folder = tmp_path / "world"
        on_gpu = Rollout(models, config).run(t.seed(), t.path(17), ["a wall"], t.ids(2), folder)
        difference = (on_gpu.frames.float() - on_cpu.frames.float()).abs()
        assert difference[:9].mean() < 1
        assert difference.mean() < 3
        resumed = Rollout(models, config).run(t.seed(), t.path(17), ["a wall"], t.ids(2), folder)
        assert (resumed.frames.float() - on_gpu.frames.float()).abs().max() <= 1
