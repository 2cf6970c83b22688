"""Frames as WebDataset shards: tar files that training jobs stream one after the other.

A sample is three files of one key, `<world id>_<frame>`: `jpg`, `depth.npy` (float32 z-depth, 0 where there is none;
where depth was asked for) and `camera.json`. Depth is no .png, of which the readers' usual decoders make eight bits.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lyra_core.errors import FormatError
from lyra_core.formats.image import encode_jpeg

JPEG_QUALITY = 95  # trainers learn from these pictures


def write_webdataset(
    samples: Iterable[Mapping[str, Any]], folder: str | Path, *, shard_bytes: int = 500_000_000
) -> int:
    """Write samples of `lyra_core.dataset` as shard-000000.tar, ...; returns how many there were.

    Args:
        samples: image [3 h w] uint8, intrinsics [3 3], cam_to_world [4 4], world_id, frame and more; maybe depth [h w].
        folder: made where missing.
        shard_bytes: a shard is closed once it is larger.

    Raises:
        FormatError: no samples, or a world id that cannot be part of a key.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    count, shard, tar = 0, 0, None
    try:
        for sample in samples:
            if tar is None:
                tar = tarfile.open(folder / f"shard-{shard:06d}.tar", "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            for name, data in _files(sample).items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
            count += 1
            if tar.offset >= shard_bytes:
                tar.close()
                tar, shard = None, shard + 1
    finally:
        if tar is not None:
            tar.close()
    if not count:
        raise FormatError("WebDataset shards need at least one frame, found none; loosen the condition")
    return count


def _files(sample: Mapping[str, Any]) -> dict[str, bytes]:
    world = str(sample["world_id"])
    if not world.isalnum():
        raise FormatError(
            f"the key of a sample is made of its world's id, which has letters and digits, found {world!r}"
        )
    key = f"{world}_{int(sample['frame']):05d}"
    camera = {
        "intrinsics": sample["intrinsics"].tolist(),
        "cam_to_world": sample["cam_to_world"].tolist(),
        "convention": "OpenCV camera to world, pixel centres at +0.5",
        "height": sample["image"].shape[1],
        "width": sample["image"].shape[2],
        **{name: sample[name] for name in ("world_id", "seed_id", "frame", "metric_scale_source")},
        **{
            # NaN is no JSON.
            name: None if sample[name] != sample[name] else sample[name]
            for name in ("meters_per_unit", "scale_confidence")
        },
    }
    files = {
        f"{key}.jpg": encode_jpeg(sample["image"].permute(1, 2, 0), quality=JPEG_QUALITY),
        f"{key}.camera.json": json.dumps(camera).encode(),
    }
    if "depth" in sample:
        target = io.BytesIO()
        np.save(target, sample["depth"].numpy())
        files[f"{key}.depth.npy"] = target.getvalue()
    return files
