"""Videos: H.264 for people, FFV1 for bit-exact keeping, and a reader for both.

Colours: frames are sRGB. They are stored as BT.709 Y'CbCr of limited range and tagged so, because
players take an untagged file for BT.601 or BT.709 by its height, and reds and greens shift. The
transfer function is left untouched: it is tagged BT.709, as browsers expect of sRGB content.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from lyra_core.errors import FormatError, FrameError
from lyra_core.replacing import replacing

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

# x264's output depends on the number of threads, not on their timing: fixed, equal frames give
# equal bytes on machines of any size.
ENCODER_THREADS = 4
MAX_FRAMES = 100_000
KEY_INTERVAL = 48  # frames from one key frame to the next, in H.264 files
# Values of AVColorSpace, AVColorRange, AVColorPrimaries, AVColorTransferCharacteristic
# (libavutil/pixfmt.h).
_BT709, _LIMITED, _FULL = 1, 1, 2
# SWS_BICUBIC, SWS_FULL_CHR_H_INT, SWS_ACCURATE_RND, SWS_BITEXACT (libswscale/swscale.h): correct
# rounding, the same on every processor; without them solid colours are off by up to 3 of 255.
_SCALING = 0x4 | 0x2000 | 0x40000 | 0x80000
_LOSSY = {
    # Chroma two steps finer than x264 would: saturated edges suffer first in 4:2:0. No macroblock tree: its
    # assembly reads memory that nobody wrote (MALLOC_PERTURB_=1 changes the bytes), so equal frames gave unequal files.
    "x264-params": f"chroma-qp-offset=-2:keyint={KEY_INTERVAL}:scenecut=0:open-gop=0:mbtree=0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What a video file says of itself.

    Attributes:
        num_frames: as counted by decoding, or as the container says.
        height: pixels.
        width: pixels.
        fps: frames per second.
        codec: such as "h264" or "ffv1".
    """

    num_frames: int
    height: int
    width: int
    fps: float
    codec: str


def write_mp4(
    clip_frames: UInt8[Tensor, "t h w 3"], path: str | Path, fps: float, *, crf: int = 18, preset: str = "medium"
) -> None:
    """Write sRGB frames as H.264 4:2:0 in .mp4, playable everywhere; whole or not at all.

    Equal frames give equal bytes with the same build of the encoder.

    Args:
        clip_frames: of even height and width, which 4:2:0 needs. [t h w 3] uint8
        path: replaced if it exists.
        fps: frames per second, more than 0.
        crf: 0 (best) to 51; 18 is hard to tell from the original.
        preset: of x264; "veryfast" takes half the time of "medium" and costs 1 dB at equal size.

    Raises:
        FrameError: no frames, an odd size, an impossible rate or quality.
    """
    _, height, width, _ = clip_frames.shape
    if height % 2 or width % 2:
        raise FrameError(
            f"H.264 4:2:0 stores colour for blocks of 2x2 pixels and needs an even size, found "
            f"{width}x{height}; "
            f"crop to {width // 2 * 2}x{height // 2 * 2} or use write_lossless"
        )
    if not 0 <= crf <= 51:
        raise FrameError(f"the quality crf lies between 0 (best) and 51, found {crf}")
    options = {**_LOSSY, "crf": str(crf), "preset": preset}
    container = {"movflags": "+faststart", "fflags": "+bitexact"}
    _encode(clip_frames, path, fps, ("mp4", "libx264", "yuv420p"), options, container)


def write_lossless(clip_frames: UInt8[Tensor, "t h w 3"], path: str | Path, fps: float) -> None:
    """Write sRGB frames bit-exact, as FFV1 (RFC 9043) in Matroska; any size; whole or not at all.

    Raises:
        FrameError: no frames, an impossible rate.
    """
    options = {"level": "3", "coder": "1", "context": "1", "slices": "4", "slicecrc": "1"}
    if min(clip_frames.shape[1:3]) < 2:
        options = {"level": "1"}  # without slices: there are not pixels enough for four
    _encode(clip_frames, path, fps, ("matroska", "ffv1", "bgr0"), options, {"fflags": "+bitexact"})


def read_video(path: str | Path) -> UInt8[Tensor, "t h w 3"]:
    """All frames of a video as sRGB; untagged files are taken for BT.709.

    Raises:
        FormatError: missing, not a video, without frames, of changing size, or damaged.
    """
    frames = [torch.from_numpy(frame) for frame in iterate_frames(path)]
    return torch.stack(frames)


def iterate_frames(path: str | Path) -> Iterator[np.ndarray]:
    """The frames of a video one by one, [h w 3] uint8: for videos that do not fit into memory.

    Raises:
        FormatError: as read_video.
    """
    import av

    shape: tuple[int, ...] | None = None
    try:
        with av.open(str(path)) as container:
            stream = _video_stream(container, path)
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                image = _to_rgb(frame)
                if shape is not None and image.shape != shape:
                    raise FormatError(f"{path} changes its size from {shape} to {image.shape}; re-encode it")
                shape = image.shape
                yield image
    except (av.FFmpegError, OSError) as error:
        raise FormatError(f"{path} cannot be decoded as a video: {error}") from error
    if shape is None:
        raise FormatError(f"{path} holds no video frames; write it again")


def read_frames(
    path: str | Path, wanted: Sequence[int], *, size: tuple[int, int] | None = None, threads: int = 0
) -> Iterator[tuple[int, np.ndarray]]:
    """Some frames of a video with their numbers, decoded from the key frame before each stretch of them.

    Args:
        path: a video of constant rate.
        wanted: numbers of frames, ascending.
        size: height and width to scale to, or None to keep the video's.
        threads: of the decoder; 0: as many as it likes.

    Raises:
        FormatError: as read_video; or the video ends before the last of the frames.
    """
    import av
    from av.video.reformatter import VideoReformatter

    stretches: list[list[int]] = []
    for number in wanted:
        if stretches and number - stretches[-1][-1] <= KEY_INTERVAL:
            stretches[-1].append(number)
        else:
            stretches.append([number])
    try:
        with av.open(str(path)) as container:
            stream = _video_stream(container, path)
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads
            reformatter, step = VideoReformatter(), 1 / ((stream.average_rate or 1) * (stream.time_base or 1))
            for stretch in stretches:
                container.seek(round(stretch[0] * step) + (stream.start_time or 0), stream=stream)
                left = set(stretch)
                for frame in container.decode(stream):
                    number = round(((frame.pts or 0) - (stream.start_time or 0)) / step)
                    if number in left:
                        left.remove(number)
                        yield number, _to_rgb(frame, reformatter, size)
                    if not left:
                        break
                if left:
                    raise FormatError(f"{path}: wanted frame {max(left)}, the video has fewer; verify or re-encode it")
    except (av.FFmpegError, OSError) as error:
        raise FormatError(f"{path} cannot be decoded as a video: {error}") from error


def probe_video(path: str | Path) -> VideoInfo:
    """Size, rate and number of frames, without decoding.

    Raises:
        FormatError: missing or not a video.
    """
    import av

    try:
        with av.open(str(path)) as container:
            stream = _video_stream(container, path)
            packets = sum(packet.size > 0 for packet in container.demux(stream))
            return VideoInfo(
                num_frames=packets,
                height=stream.codec_context.height,
                width=stream.codec_context.width,
                fps=float(stream.average_rate or 0),
                codec=stream.codec_context.name,
            )
    except (av.FFmpegError, OSError) as error:
        raise FormatError(f"{path} cannot be read as a video: {error}") from error


def _encode(
    frames: Tensor,
    path: str | Path,
    fps: float,
    form: tuple[str, str, str],
    options: dict[str, str],
    container_options: dict[str, str],
) -> None:
    import av

    count, height, width, _ = frames.shape
    if count < 1 or height < 1 or width < 1:
        raise FrameError(f"a video needs at least one frame of at least one pixel, found {tuple(frames.shape)}")
    rate = Fraction(fps).limit_denominator(1001) if 0 < fps < 1000 else Fraction(0)
    if rate <= 0:
        raise FrameError(f"a video needs a rate between 0 and 1000 frames per second, found {fps}")
    kind, codec, pixel_format = form
    pixels = frames.detach().to("cpu").contiguous().numpy()
    with (
        replacing(path) as temporary,
        av.open(str(temporary), "w", format=kind, container_options=container_options) as container,
    ):
        # The codecs here are video codecs; PyAV's signature covers sound and text too.
        stream = cast("VideoStream", container.add_stream(codec, rate=rate, options=options))
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        context = stream.codec_context
        context.thread_count = ENCODER_THREADS
        context.color_primaries = context.color_trc = _BT709
        if pixel_format == "yuv420p":
            context.colorspace, context.color_range = _BT709, _LIMITED
        for image in pixels:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            for packet in stream.encode(_from_rgb(frame, pixel_format)):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)


def _video_stream(container: InputContainer, path: str | Path) -> VideoStream:
    if not container.streams.video:
        raise FormatError(f"{path} holds no video stream; found {[s.type for s in container.streams]}")
    return container.streams.video[0]


def _from_rgb(frame: VideoFrame, pixel_format: str) -> VideoFrame:
    from av.video.reformatter import VideoReformatter

    if pixel_format != "yuv420p":
        return VideoReformatter().reformat(frame, format=pixel_format)
    return VideoReformatter().reformat(
        frame,
        format=pixel_format,
        src_colorspace=_BT709,
        dst_colorspace=_BT709,
        src_color_range=_FULL,
        dst_color_range=_LIMITED,
        interpolation=_SCALING,
    )


def _to_rgb(
    frame: VideoFrame, reformatter: VideoReformatter | None = None, size: tuple[int, int] | None = None
) -> np.ndarray:
    from av.video.reformatter import VideoReformatter

    height, width = size or (frame.height, frame.width)
    if frame.format.name == "bgr0" and (height, width) == (frame.height, frame.width):
        return frame.to_ndarray(format="rgb24")
    # 2 is "unspecified" in a frame's colour space. What is RGB already has none.
    space = _BT709 if frame.colorspace == 2 else frame.colorspace
    converted = (reformatter or VideoReformatter()).reformat(
        frame,
        width=width,
        height=height,
        format="rgb24",
        src_colorspace=space,
        dst_colorspace=space,
        src_color_range=frame.color_range or _LIMITED,
        dst_color_range=_FULL,
        interpolation=_SCALING,
    )
    return converted.to_ndarray()
