import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lyra_core.depth import DepthEstimate
from lyra_core.errors import (
    CameraPathError,
    DepthError,
    FrameError,
    GaussiansError,
    OutOfMemoryError,
    RecipeError,
    ReconstructionError,
)
from lyra_core.gaussians.clip_source import MemoryClip, write_stored_clip
from lyra_core.gaussians.depth_anything.budget import Budget
from lyra_core.gaussians.keyframes import KeyframeConfig
from lyra_core.gaussians.lifters import ClipDepthLifter, DepthLifter, Lift
from lyra_core.gaussians.reconstruct import Reconstruction, ReconstructionConfig, reconstruct
from lyra_core.gaussians.render import render
from lyra_core.image_metrics import psnr_db
from lyra_core.values import CameraPath, Gaussians, VideoClip

EVERY_FRAME = KeyframeConfig(max_shift=0.0, min_shared=1.0)
STILL = KeyframeConfig(max_shift=9.0, min_shared=0.0)
LAYERS = ("means", "quats", "scales", "opacities", "sh")


def part(clip: VideoClip, frames: list[int]) -> VideoClip:
    return MemoryClip(clip).window(torch.tensor(frames))


def quality_db(gaussians: Gaussians, clip: VideoClip) -> float:
    drawn = render(gaussians, clip.cameras).color
    return psnr_db(drawn, clip.frames.float() / 255.0)


def rebuild(clip: VideoClip, **options: object) -> Reconstruction:
    return reconstruct(clip, lifter=ClipDepthLifter(), config=ReconstructionConfig(**options))


class NoisyDepth:
    """An estimator whose scale drifts from call to call, like a network's."""

    def __init__(self, clip: VideoClip, factors: tuple[float, ...], turn_deg: float = 0.0) -> None:
        self.clip, self.factors, self.calls, self.turn_deg = clip, factors, 0, turn_deg

    def estimate(self, frames, cameras, reference_depth_m=None) -> DepthEstimate:
        first = int((self.clip.cameras.world_to_cam - cameras.world_to_cam[0]).abs().amax((1, 2)).argmin())
        span = slice(first, first + len(frames))
        factor = self.factors[self.calls % len(self.factors)]
        self.calls += 1
        angle = torch.deg2rad(torch.linspace(-self.turn_deg, self.turn_deg, len(frames)).double())
        wobble = torch.eye(4, dtype=torch.float64).repeat(len(frames), 1, 1)
        wobble[:, 0, 0] = wobble[:, 2, 2] = angle.cos()
        wobble[:, 0, 2], wobble[:, 2, 0] = angle.sin(), -angle.sin()
        return DepthEstimate(
            depth_m=self.clip.depth_m[span] * factor,
            confidence=torch.ones_like(self.clip.depth_m[span]),
            sky=self.clip.sky[span],
            cameras=replace(cameras, world_to_cam=wobble @ cameras.world_to_cam),
        )


def test_held_out_views_are_drawn_at_30_db(make_clip):
    clip = make_clip(25)
    held = list(range(4, 25, 8))
    found = rebuild(part(clip, [i for i in range(25) if i not in held]))
    assert quality_db(found.gaussians, part(clip, held)) >= 30.0
    assert found.report.coverage > 0.999
    assert found.report.num_gaussians == len(found.gaussians)
    # Without removing duplicates every keyframe would add all of its pixels.
    assert len(found.gaussians) < 0.6 * found.report.num_keyframes * 48 * 64


def test_many_chunks_equal_one_pass(make_clip):
    clip = make_clip(21)
    single = rebuild(clip, chunk_frames=64, keyframes=EVERY_FRAME)
    chunked = rebuild(clip, chunk_frames=8, keyframes=EVERY_FRAME)
    assert chunked.report.num_chunks > 3 > single.report.num_chunks == 1
    assert abs(quality_db(single.gaussians, clip) - quality_db(chunked.gaussians, clip)) < 0.5


def test_chunks_of_drifting_scale_are_joined(make_clip):
    clip = make_clip(21)
    drifting = NoisyDepth(clip, (1.0, 1.15, 0.9, 1.1))
    config = ReconstructionConfig(chunk_frames=12, keyframes=EVERY_FRAME, cameras="requested")
    found = reconstruct(clip, lifter=DepthLifter(drifting, name="drifting"), config=config)
    placed = [s * f for s, f in zip(found.report.chunk_scales, (1.0, 1.15, 0.9, 1.1, 1.0, 1.15), strict=False)]
    assert max(placed) / min(placed) < 1.03  # the chunks came in up to 28 % apart
    assert quality_db(found.gaussians, clip) > 27.0


def test_output_is_bounded_and_stays_whole(make_clip):
    clip = make_clip(25)
    small = rebuild(clip, tier=1500, keyframes=EVERY_FRAME)
    assert len(small.gaussians) <= 1500
    assert small.report.coarsenings > 0
    assert small.report.coverage > 0.98
    assert quality_db(small.gaussians, clip) > 22.0


def test_equal_arguments_give_equal_bytes(make_clip):
    clip = make_clip(9)
    first, second = rebuild(clip).gaussians, rebuild(clip).gaussians
    for name in LAYERS:
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_sky_is_a_far_shell_or_left_out(make_clip):
    clip = make_clip(9)
    shell, dropped = rebuild(clip).gaussians, rebuild(clip, sky="drop").gaussians
    assert float(shell.means.norm(dim=1).max()) > 15.0  # the room ends at 8 m
    assert float(dropped.means.norm(dim=1).max()) < 10.0
    seen = render(dropped, clip.cameras[:1]).alpha[0]
    assert float(seen[clip.sky[0]].mean()) < 0.4  # the window is a dozen pixels wide
    assert float(seen[~clip.sky[0]].mean()) > 0.98


def test_cameras_beyond_the_gate_are_replaced_and_marked(make_clip):
    clip = make_clip(13, 24, 32)
    config = ReconstructionConfig(keyframes=EVERY_FRAME, color_passes=0)
    good = reconstruct(clip, lifter=DepthLifter(NoisyDepth(clip, (1.0,)), name="good"), config=config).report
    assert (good.cameras, good.is_deviating) == ("requested", False)
    assert good.residual_deg < 0.1
    assert good.residual_percent < 0.1
    lost = DepthLifter(NoisyDepth(clip, (1.0,), turn_deg=20.0), name="lost")
    report = reconstruct(clip, lifter=lost, config=config).report
    assert (report.cameras, report.is_deviating) == ("recovered", True)
    assert report.residual_deg > 4.0
    kept = reconstruct(clip, lifter=lost, config=replace(config, cameras="requested")).report
    assert kept.cameras == "requested"


def test_a_still_camera_works_with_metric_depth_only(make_clip):
    clip = make_clip(5, motion="static")
    found = rebuild(clip)
    assert found.report.num_keyframes == 2
    assert quality_db(found.gaussians, clip) > 27.0
    with pytest.raises(CameraPathError, match="stand in one place"):
        reconstruct(clip, lifter=DepthLifter(NoisyDepth(clip, (1.0,)), name="any"))


def test_every_useless_input_has_a_named_error(make_clip):
    clip = make_clip(5)
    with pytest.raises(FrameError, match="at least two frames"):
        rebuild(part(clip, [0]))
    with pytest.raises(DepthError, match=r"NaN or infinity in frames \[0, 4\]"):
        rebuild(replace(clip, depth_m=torch.full_like(clip.depth_m, torch.nan)), keyframes=STILL)
    with pytest.raises(ReconstructionError, match="nothing but sky"):
        rebuild(replace(clip, depth_m=torch.zeros_like(clip.depth_m), sky=torch.ones_like(clip.sky)))
    with pytest.raises(ReconstructionError, match="known depth"):
        rebuild(replace(clip, depth_m=torch.zeros_like(clip.depth_m), sky=None))
    with pytest.raises(DepthError, match="negative"):
        rebuild(replace(clip, depth_m=-clip.depth_m))
    with pytest.raises(DepthError, match="found none"):
        rebuild(replace(clip, depth_m=None))
    with pytest.raises(FrameError, match="cameras"):
        replace(clip, cameras=clip.cameras.resized(24, 32))
    with pytest.raises(GaussiansError, match="pruning left none"):
        rebuild(replace(clip, depth_confidence=torch.zeros_like(clip.depth_m), sky=None))
    with pytest.raises(RecipeError, match="tier"):
        ReconstructionConfig(tier="3k")
    with pytest.raises(ReconstructionError, match="recovered"):
        rebuild(clip, cameras="recovered")


class Hungry(ClipDepthLifter):
    """A lifter that runs out of memory above some number of frames."""

    name = "hungry"

    def __init__(self, fits: int) -> None:
        self.fits, self.tried = fits, []

    def lift(self, clip: VideoClip, reference_depth_m: torch.Tensor | None, budget: Budget) -> Lift:
        self.tried.append(len(clip))
        if len(clip) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().lift(clip, reference_depth_m, budget)


def test_memory_that_does_not_suffice_means_smaller_chunks(make_clip):
    clip = make_clip(16, 24, 32)
    config = ReconstructionConfig(keyframes=EVERY_FRAME, chunk_frames=16, color_passes=0)
    lifter = Hungry(5)
    assert reconstruct(clip, lifter=lifter, config=config).report.chunk_frames == 4
    assert max(lifter.tried) == 16
    with pytest.raises(OutOfMemoryError, match="16 views nor with 2"):
        reconstruct(clip, lifter=Hungry(1), config=config)


def test_progress_reports_every_stage_to_its_end(make_clip):
    seen: list[tuple[str, int, int]] = []
    reconstruct(make_clip(9), lifter=ClipDepthLifter(), on_progress=lambda *step: seen.append(step))
    for stage in ("lift", "fuse", "colour"):
        steps = [(done, total) for name, done, total in seen if name == stage]
        assert steps
        assert steps == [(i + 1, steps[-1][1]) for i in range(steps[-1][1])]


RESUMED = """
import sys, time
from lyra_core.gaussians.clip_source import StoredClip
from lyra_core.gaussians.keyframes import KeyframeConfig
from lyra_core.gaussians.lifters import ClipDepthLifter
from lyra_core.gaussians.reconstruct import ReconstructionConfig, reconstruct

class Slow(ClipDepthLifter):
    def lift(self, clip, reference, budget):
        time.sleep(0.4)
        return super().lift(clip, reference, budget)

config = ReconstructionConfig(chunk_frames=4, keyframes=KeyframeConfig(max_shift=0.0, min_shared=1.0))
reconstruct(StoredClip(sys.argv[1]), lifter=Slow(), config=config, chunk_dir=sys.argv[2])
"""


def test_a_killed_reconstruction_goes_on_and_gives_equal_bytes(make_clip, tmp_path: Path):
    clip = make_clip(13)
    write_stored_clip(clip, tmp_path / "clip.safetensors")
    chunks = tmp_path / "chunks"
    command = [sys.executable, "-c", RESUMED, str(tmp_path / "clip.safetensors"), str(chunks)]
    root = Path(__file__).parents[3]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(root)}, cwd=root)
    deadline = time.monotonic() + 120
    while len(list(chunks.glob("chunk-*.safetensors"))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, "the reconstruction ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    config = ReconstructionConfig(chunk_frames=4, keyframes=EVERY_FRAME)
    whole = reconstruct(clip, lifter=ClipDepthLifter(), config=config)
    resumed = reconstruct(clip, lifter=ClipDepthLifter(), config=config, chunk_dir=chunks)
    assert 2 <= resumed.report.resumed_chunks < resumed.report.num_chunks
    for name in LAYERS:
        assert torch.equal(getattr(whole.gaussians, name), getattr(resumed.gaussians, name))


def test_chunks_of_another_video_are_not_taken(make_clip, tmp_path: Path):
    clip = make_clip(9)
    reconstruct(clip, lifter=ClipDepthLifter(), chunk_dir=tmp_path)
    again = reconstruct(clip, lifter=ClipDepthLifter(), chunk_dir=tmp_path).report
    other = reconstruct(replace(clip, frames=255 - clip.frames), lifter=ClipDepthLifter(), chunk_dir=tmp_path).report
    assert again.resumed_chunks == again.num_chunks
    assert other.resumed_chunks == 0


def test_cameras_of_another_size_are_refused_by_the_estimators_result(make_clip):
    clip = make_clip(5)

    class Half(NoisyDepth):
        def estimate(self, frames, cameras, reference_depth_m=None) -> DepthEstimate:
            found = super().estimate(frames, cameras)
            cut = {name: getattr(found, name)[:, ::2, ::2] for name in ("depth_m", "confidence", "sky")}
            return DepthEstimate(**cut)

    with pytest.raises(FrameError, match="frames' size"):
        reconstruct(clip, lifter=DepthLifter(Half(clip, (1.0,)), name="half"))


def test_the_path_type_is_untouched(make_clip):
    clip = make_clip(5)
    before = clip.cameras.world_to_cam.clone()
    rebuild(clip)
    assert isinstance(clip.cameras, CameraPath)
    assert torch.equal(before, clip.cameras.world_to_cam)
