"""A folder of one's own clips to train on: videos with cameras, depth and captions, in the layout of the released data.

    FOLDER/rgb/NAME.mp4            the video
    FOLDER/pose/NAME.npz           inds [n], data [n 4 4]: camera to world, OpenCV axes, metres
    FOLDER/intrinsics/NAME.npz     inds [n], data [n 4]: fx fy cx cy, pixels of the video
    FOLDER/depth/NAME.zip          00000.exr ...: channel Z, metres along the camera's axis; 0 or not finite: unknown
                or NAME.npz        00000 ... [h w] each; or inds [n], data [n h w]
    FOLDER/captions/NAME.json      {"0": "caption from this frame on", "80": ...}
      or framepack-caption-*/NAME.pkl   {frame: {"caption": ...}}, read without trusting it
    FOLDER/all_filter.lst          names to use, one a line; without it all of rgb/

Nothing is read before it is asked for; every message names the file, what was wanted and what was found.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lyra_core.errors import CameraPathError, DepthError, FormatError, UnsafePickleError, WeightsError
from lyra_core.formats.clip import VideoInfo, probe_video
from lyra_core.formats.exr import read_exr
from lyra_core.values import CameraPath
from lyra_core.weights.pickles import read_pickled_captions

LIST_NAME = "all_filter.lst"
RELEASED_CAPTIONS = "framepack-caption-*"
_FRAME_FILE = re.compile(r"(\d+)\.(exr|npy)")
# What numpy and zipfile raise for damaged archives.
_DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFiles:
    """Where the parts of one clip lie.

    Attributes:
        name: of the clip.
        video: the video.
        pose: its cameras.
        intrinsics: their intrinsics.
        depth: an archive.
        captions: a file, or None where the folder has no captions.
    """

    name: str
    video: Path
    pose: Path
    intrinsics: Path
    depth: Path
    captions: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipInfo:
    """Everything of a clip but its pixels and depth.

    Attributes:
        files: where it lies.
        video: size, rate and frames of the video.
        cameras: one a frame, of the video's size; the first one at the world's origin.
        captions: (first frame, caption), ascending; empty where the folder has none.
        depth: the archive.
    """

    files: ClipFiles
    video: VideoInfo
    cameras: CameraPath
    captions: tuple[tuple[int, str], ...]
    depth: DepthArchive

    def caption(self, frame: int) -> str:
        """What holds from a frame on: the last caption that begins at or before it, or the first one."""
        if not self.captions:
            return ""
        begun = [text for first, text in self.captions if first <= frame]
        return begun[-1] if begun else self.captions[0][1]


def list_clips(folder: Path) -> list[ClipFiles]:
    """The clips of a folder by name, each with all its parts.

    Raises:
        FormatError: no folder, no clips, or clips without some of their parts: all are listed.
    """
    if not (folder / "rgb").is_dir():
        raise FormatError(
            f"{folder} should hold clips as rgb/NAME.mp4, pose/NAME.npz, intrinsics/NAME.npz and depth/NAME.zip; "
            "it has no folder rgb (docs/training.md)"
        )
    names = _names(folder)
    captions = _caption_folder(folder)
    clips, missing = [], []
    for name in names:
        depth = next((p for s in (".zip", ".npz") if (p := folder / "depth" / f"{name}{s}").is_file()), None)
        parts = [folder / "rgb" / f"{name}.mp4", *(folder / part / f"{name}.npz" for part in ("pose", "intrinsics"))]
        texts = _caption_file(captions, name)
        lacking = [str(path.relative_to(folder)) for path in parts if not path.is_file()]
        lacking += [] if depth else [f"depth/{name}.zip or .npz"]
        lacking += [f"{captions.name}/{name}.json or .pkl"] if captions is not None and texts is None else []
        if lacking or depth is None:
            missing.append(f"{name} lacks {', '.join(lacking)}")
            continue
        video, pose, intrinsics = parts
        clips.append(ClipFiles(name=name, video=video, pose=pose, intrinsics=intrinsics, depth=depth, captions=texts))
    if missing:
        more = f"\n  ... and {len(missing) - 8} more" if len(missing) > 8 else ""
        raise FormatError(
            f"{len(missing)} of {len(names)} clips of {folder} lack parts; add them, or name the complete ones in "
            f"{LIST_NAME}:\n  " + "\n  ".join(missing[:8]) + more
        )
    return clips


def _names(folder: Path) -> list[str]:
    listed = folder / LIST_NAME
    if listed.is_file():
        lines = (line.strip() for line in listed.read_text("utf-8").splitlines())
        names = [line.removesuffix(".mp4").removeprefix("rgb/") for line in lines if line and not line.startswith("#")]
    else:
        names = sorted(path.stem for path in (folder / "rgb").glob("*.mp4"))
    if not names:
        raise FormatError(f"{folder} should hold at least one clip, found none in {LIST_NAME} or as rgb/NAME.mp4")
    outside = [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise FormatError(f"{listed} names a file outside of the folder: {outside[0]!r}")
    return names


def _caption_folder(folder: Path) -> Path | None:
    if (folder / "captions").is_dir():
        return folder / "captions"
    released = sorted(path for path in folder.glob(RELEASED_CAPTIONS) if path.is_dir())
    if len(released) > 1:
        names = ", ".join(path.name for path in released)
        raise FormatError(f"{folder} should have one folder of captions, found {names}; keep one, or name it captions")
    return released[0] if released else None


def _caption_file(folder: Path | None, name: str) -> Path | None:
    if folder is None:
        return None
    return next((path for suffix in (".json", ".pkl") if (path := folder / f"{name}{suffix}").is_file()), None)


def open_clip(files: ClipFiles) -> ClipInfo:
    """Read everything of a clip but its pixels and depth.

    Raises:
        FormatError: a part that cannot be read, or parts of different lengths.
        CameraPathError: poses that are not rigid, or impossible intrinsics.
        UnsafePickleError: captions whose pickle asked for a name outside the allow-list.
    """
    video = probe_video(files.video)
    poses = _numbered(files.pose, (4, 4))
    lenses = _numbered(files.intrinsics, (4,))
    depth = DepthArchive(files.depth)
    lengths = {
        files.video: video.num_frames,
        files.pose: len(poses),
        files.intrinsics: len(lenses),
        files.depth: len(depth),
    }
    if len(set(lengths.values())) != 1:
        counts = ", ".join(f"{path.parent.name}/{path.name} {count}" for path, count in lengths.items())
        raise FormatError(f"clip {files.name} needs the same number of frames in all its parts, found {counts}")
    return ClipInfo(
        files=files,
        video=video,
        cameras=_cameras(files, poses, lenses, video),
        captions=() if files.captions is None else _captions(files.captions),
        depth=depth,
    )


def _cameras(files: ClipFiles, poses: np.ndarray, lenses: np.ndarray, video: VideoInfo) -> CameraPath:
    cam_to_world = torch.from_numpy(poses.astype(np.float64))
    if not torch.isfinite(cam_to_world).all():
        bad = (~torch.isfinite(cam_to_world).flatten(1).all(1)).nonzero().flatten().tolist()
        raise CameraPathError(f"{files.pose}: camera poses must be finite; frames {bad[:8]} hold NaN or infinity")
    intrinsics = torch.eye(3, dtype=torch.float64).repeat(len(lenses), 1, 1)
    fx, fy, cx, cy = torch.from_numpy(lenses.astype(np.float64)).unbind(1)
    intrinsics[:, 0, 0], intrinsics[:, 1, 1], intrinsics[:, 0, 2], intrinsics[:, 1, 2] = fx, fy, cx, cy
    try:
        given = CameraPath(
            world_to_cam=cam_to_world,
            intrinsics=intrinsics,
            image_height=video.height,
            image_width=video.width,
            name=files.name,
        )
        # rigid transforms: the path that was checked above holds the inverses of the wanted ones
        world_to_cam = given.cam_to_world @ cam_to_world[:1]
        return CameraPath(
            world_to_cam=world_to_cam,
            intrinsics=intrinsics,
            image_height=video.height,
            image_width=video.width,
            name=files.name,
        )
    except CameraPathError as error:
        raise CameraPathError(f"{files.pose} and {files.intrinsics.parent.name}/{files.name}.npz: {error}") from error


def _numbered(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The array `data` of a file, whose frames `inds` must count 0, 1, 2, ..."""
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in ("inds", "data") if name not in file]
            if missing:
                raise FormatError(f"{path} should hold inds and data, found {', '.join(file) or 'nothing'}")
            frames, data = np.asarray(file["inds"]), np.asarray(file["data"])
    except _DAMAGE as error:
        raise FormatError(f"{path} cannot be read as .npz: {error}") from error
    if data.shape[1:] != shape or frames.shape != data.shape[:1] or data.dtype.kind not in "fiu" or not len(data):
        expected = " ".join(str(size) for size in ("n", *shape))
        raise FormatError(
            f"{path} should hold inds [n] and data [{expected}], found {frames.shape} and {data.shape} {data.dtype}"
        )
    if not np.array_equal(frames, np.arange(len(frames))):
        raise FormatError(
            f"{path} needs one row for each frame of the video, inds 0, 1, 2, ...; found {frames[:6].tolist()}..."
        )
    return data


def _captions(path: Path) -> tuple[tuple[int, str], ...]:
    if path.suffix == ".pkl":
        try:
            captions: dict[int, str] = read_pickled_captions(path)
        except UnsafePickleError:
            raise
        except WeightsError as error:
            raise FormatError(str(error)) from error
    else:
        captions = _json_captions(path)
    if not captions:
        raise FormatError(f"{path} should hold at least one caption, found none")
    return tuple(sorted(captions.items()))


def _json_captions(path: Path) -> dict[int, str]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be read as JSON: {error}") from error
    fits = isinstance(content, dict) and all(k.isdecimal() and isinstance(v, str) for k, v in content.items())
    if not fits:
        raise FormatError(f'{path} should be an object of captions by first frame, as {{"0": "a room"}}, found other')
    return {int(frame): text for frame, text in content.items()}


class DepthArchive:
    """Depth of a clip, frame by frame; the archive's list is read at once, frames when asked for."""

    def __init__(self, path: Path) -> None:
        """Read the list.

        Raises:
            FormatError: no archive, frames that do not count 0, 1, 2, ..., or files of another kind.
        """
        self.path = path
        self._whole: np.ndarray | None = None
        try:
            with zipfile.ZipFile(path) as archive:
                names = [info.filename for info in archive.infolist() if not info.is_dir()]
            if set(names) == {"inds.npy", "data.npy"}:
                with np.load(path, allow_pickle=False) as file:
                    frames, self._whole = file["inds"].tolist(), file["data"]
        except _DAMAGE as error:
            raise FormatError(f"{path} cannot be read as an archive of depth: {error}") from error
        if self._whole is not None:
            self._members = {int(frame): "data" for frame in frames}
            if self._whole.ndim != 3 or len(self._members) != len(self._whole):
                raise FormatError(
                    f"{path} should hold inds [n] and data [n h w], found {len(frames)} and {self._whole.shape}"
                )
        else:
            matches = [(_FRAME_FILE.fullmatch(Path(name).name), name) for name in names]
            strange = [name for match, name in matches if match is None]
            if strange:
                raise FormatError(f"{path} should hold 00000.exr, 00001.exr, ... (or .npy), found {strange[0]!r}")
            self._members = {int(match[1]): name for match, name in matches if match is not None}
        if sorted(self._members) != list(range(len(self._members))) or not self._members:
            raise FormatError(
                f"{path} needs depth of every frame, counted from 0; found {len(self._members)} frames, "
                f"the first ones {sorted(self._members)[:6]}"
            )

    def __len__(self) -> int:
        return len(self._members)

    def read(self, frame: int) -> np.ndarray:
        """Depth of one frame, metres; 0 where unknown. [h w] float32

        Raises:
            FormatError: a damaged archive or image, or one of an unknown compression.
            DepthError: not a single known pixel.
        """
        name = f"{self.path}:{self._members[frame]}"
        if self._whole is not None:
            depth = self._whole[frame].astype(np.float32)
        else:
            depth = self._read_member(name, frame)
        depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))
        if not depth.any():
            raise DepthError(f"{name} should hold depth in metres, found no positive finite value in frame {frame}")
        return depth

    def _read_member(self, name: str, frame: int) -> np.ndarray:
        try:
            with zipfile.ZipFile(self.path) as archive:
                data = archive.read(self._members[frame])
            if name.endswith(".exr"):
                return read_exr(data, name)
            depth = np.load(io.BytesIO(data), allow_pickle=False)
        except _DAMAGE as error:
            raise FormatError(f"{name} cannot be read: {error}") from error
        if depth.ndim != 2 or depth.dtype.kind != "f":
            raise FormatError(f"{name} should be [h w] of floats, found {depth.shape} {depth.dtype}")
        return depth.astype(np.float32)
