"""The cameras of a video as a table of catalog rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lyra_core.errors import CameraPathError
from lyra_core.records import FrameRecord, arrow_schema

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def frame_table(
    world_id: str,
    world_to_cam: np.ndarray,
    intrinsics: np.ndarray,
    *,
    fps: float,
    image_size: tuple[int, int],
    frames: Sequence[int] | None = None,
) -> pa.Table:
    """The cameras of a video as rows of `frames`, built by columns: a row of its own for each camera costs 50 us.

    Args:
        world_id: the world.
        world_to_cam: world to OpenCV camera, metres. [t 4 4]
        intrinsics: px, centres at +0.5. [t 3 3]
        fps: frames per second of the video.
        image_size: width and height the intrinsics belong to.
        frames: index in the video of each camera; 0, 1, 2, ... if None.

    Raises:
        CameraPathError: transforms, intrinsics and indices of different lengths.
    """
    import numpy as np
    import pyarrow as pa

    count = len(world_to_cam)
    indices = np.arange(count) if frames is None else np.asarray(frames)
    if len(intrinsics) != count or len(indices) != count:
        raise CameraPathError(
            f"cameras need as many intrinsics and indices as transforms: {count} transforms, "
            f"found {len(intrinsics)} intrinsics and {len(indices)} indices"
        )
    schema = pa.schema([field.remove_metadata() for field in arrow_schema(FrameRecord)])
    matrices = {"w2c": (world_to_cam, 16), "K": (intrinsics, 9)}
    columns = {
        "world_id": pa.repeat(world_id, count),
        "frame": pa.array(indices.astype(np.int32)),
        "t_s": pa.array(indices / fps),
        **{
            name: pa.FixedSizeListArray.from_arrays(np.ascontiguousarray(values, dtype=np.float64).reshape(-1), size)
            for name, (values, size) in matrices.items()
        },
        "width": pa.repeat(pa.scalar(image_size[0], pa.int32()), count),
        "height": pa.repeat(pa.scalar(image_size[1], pa.int32()), count),
    }
    return pa.Table.from_arrays([columns[field.name] for field in schema], schema=schema)
