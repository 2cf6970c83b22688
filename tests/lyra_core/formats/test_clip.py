import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from lyra_core.errors import FormatError, FrameError
from lyra_core.formats.clip import (
    iterate_frames,
    probe_video,
    read_video,
    write_lossless,
    write_mp4,
)

SEEDS = Path(__file__).resolve().parents[3] / "examples" / "seeds"


@pytest.fixture(scope="module")
def pan() -> torch.Tensor:
    """A slow pan over a real photograph. [24 240 416 3]"""
    with Image.open(SEEDS / "forest_stream.jpg") as image:
        photo = torch.from_numpy(np.array(image.convert("RGB").resize((480, 320), Image.Resampling.LANCZOS)))
    return torch.stack([photo[40:280, i : i + 416] for i in range(24)])


@pytest.fixture(scope="module")
def mp4(pan, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "pan.mp4"
    write_mp4(pan, path, 16.0)
    return path


def psnr(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    mse = (a.float() - b.float()).square().mean((1, 2, 3))
    return 10 * torch.log10(255**2 / mse.clamp_min(1e-9))


def test_a_photographs_pan_keeps_35_db(pan, mp4):
    found = read_video(mp4)
    assert found.shape == pan.shape
    assert psnr(found, pan).min() > 35


@pytest.mark.parametrize("write", [write_mp4, write_lossless])
def test_equal_frames_give_equal_bytes(pan, tmp_path, write):
    write(pan[:12], tmp_path / "a.mkv", 16.0)
    write(pan[:12].clone(), tmp_path / "b.mkv", 16.0)
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a.mkv", "b.mkv"]


def test_bytes_do_not_depend_on_what_memory_held_before(tmp_path):
    """glibc fills fresh memory with a byte of one's choice: who reads what nobody wrote gives himself away."""
    code = (
        "import sys, torch\n"
        "from PIL import Image\n"
        "import numpy as np\n"
        "from lyra_core.formats.clip import write_mp4\n"
        "photo = torch.from_numpy(np.array(Image.open(sys.argv[1]).convert('RGB').resize((480, 320))))\n"
        "write_mp4(torch.stack([photo[40:280, i : i + 416] for i in range(12)]), sys.argv[2], 16.0)\n"
    )
    for fill in ("0", "1"):
        command = [sys.executable, "-c", code, str(SEEDS / "forest_stream.jpg"), str(tmp_path / f"{fill}.mp4")]
        subprocess.run(command, check=True, env={**os.environ, "MALLOC_PERTURB_": fill}, cwd=SEEDS.parents[1])
    assert (tmp_path / "0.mp4").read_bytes() == (tmp_path / "1.mp4").read_bytes()


@pytest.mark.parametrize("size", [(240, 416), (33, 47), (1, 1), (2, 2)])
def test_lossless_is_bit_exact_at_any_size(tmp_path, size):
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (5, *size, 3), generator=generator, dtype=torch.uint8)
    write_lossless(frames, tmp_path / "a.mkv", 16.0)
    assert torch.equal(read_video(tmp_path / "a.mkv"), frames)


def test_solid_colours_do_not_shift(tmp_path):
    colors = [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 255),
        (0, 0, 0),
        (200, 120, 40),
        (9, 10, 12),
    ]
    frames = torch.tensor(colors, dtype=torch.uint8)[:, None, None].expand(-1, 64, 96, 3)
    write_mp4(frames, tmp_path / "a.mp4", 16.0, crf=8)
    error = read_video(tmp_path / "a.mp4").int() - frames.int()
    assert error.abs().max() <= 2


def test_files_are_tagged_bt709_and_playable(mp4):
    with av.open(str(mp4)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        tags = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
        assert [int(tag) for tag in tags] == [1, 1, 1, 1]
        assert stream.average_rate == 16
    data = mp4.read_bytes()
    assert data.find(b"moov") < data.find(b"mdat")  # starts to play before it is loaded


def test_probe_agrees_with_decoding(pan, mp4):
    info = probe_video(mp4)
    assert (info.num_frames, info.height, info.width, info.fps) == (24, 240, 416, 16.0)
    assert info.codec == "h264"
    assert sum(1 for _ in iterate_frames(mp4)) == 24


def test_fractional_rates(pan, tmp_path):
    write_mp4(pan[:3], tmp_path / "a.mp4", 30000 / 1001)
    assert probe_video(tmp_path / "a.mp4").fps == pytest.approx(29.97, abs=0.001)


def test_lower_crf_is_better(pan, tmp_path):
    write_mp4(pan[:8], tmp_path / "fine.mp4", 16.0, crf=10)
    write_mp4(pan[:8], tmp_path / "coarse.mp4", 16.0, crf=34)
    fine, coarse = (read_video(tmp_path / f"{name}.mp4") for name in ("fine", "coarse"))
    assert psnr(fine, pan[:8]).mean() > psnr(coarse, pan[:8]).mean() + 5


def test_odd_sizes_are_refused_with_a_way_out(tmp_path):
    with pytest.raises(FrameError, match=r"even size, found 47x33; crop to 46x32 or use write_lossless"):
        write_mp4(torch.zeros(2, 33, 47, 3, dtype=torch.uint8), tmp_path / "a.mp4", 16.0)


def test_impossible_videos_are_refused(pan, tmp_path):
    for fps in (0.0, -1.0, float("nan"), float("inf"), 5000.0):
        with pytest.raises(FrameError, match="frames per second"):
            write_mp4(pan[:1], tmp_path / "a.mp4", fps)
    with pytest.raises(FrameError, match="at least one frame"):
        write_mp4(pan[:0], tmp_path / "a.mp4", 16.0)
    with pytest.raises(FrameError, match="crf"):
        write_mp4(pan[:1], tmp_path / "a.mp4", 16.0, crf=60)
    assert not list(tmp_path.iterdir())


def test_bad_files_are_format_errors(mp4, tmp_path):
    cases = {"empty": b"", "text": b"hello" * 100, "torn": mp4.read_bytes()[:900]}
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FormatError, match=name):
            read_video(tmp_path / name)
    with pytest.raises(FormatError, match="missing"):
        read_video(tmp_path / "missing.mp4")
    with pytest.raises(FormatError, match="missing"):
        probe_video(tmp_path / "missing.mp4")


def test_a_still_image_is_a_video_of_one_frame_and_sound_is_none(tmp_path):
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(FormatError, match="no video stream"):
        read_video(tmp_path / "a.wav")
