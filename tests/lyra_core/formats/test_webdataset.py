"""WebDataset shards: keys, fields and values by the tar alone, and read by webdataset where it is installed."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from lyra_core.errors import FormatError
from lyra_core.formats.webdataset import write_webdataset


def sample(frame: int, **changes: object) -> dict:
    return {
        "image": torch.full((3, 16, 24), 10 * frame, dtype=torch.uint8),
        "depth": torch.full((16, 24), 1.5 * frame),
        "intrinsics": torch.eye(3),
        "cam_to_world": torch.eye(4),
        "world_id": "ab" * 16,
        "seed_id": "cd",
        "frame": frame,
        "meters_per_unit": float("nan"),
        "scale_confidence": 0.5,
        "metric_scale_source": "relative",
        **changes,
    }


def test_a_sample_is_three_files_of_one_key(tmp_path):
    assert write_webdataset((sample(i) for i in range(5)), tmp_path, shard_bytes=10_000) == 5
    shards = sorted(tmp_path.glob("*.tar"))
    assert [shard.name for shard in shards] == [f"shard-{i:06d}.tar" for i in range(len(shards))]
    assert len(shards) > 1
    found = {}
    for shard in shards:
        with tarfile.open(shard) as tar:
            names = tar.getnames()
            assert len(names) % 3 == 0  # no sample in two shards
            found |= {name: tar.extractfile(name).read() for name in names}
    assert sorted({name.partition(".")[0] for name in found}) == [f"{'ab' * 16}_{i:05d}" for i in range(5)]
    key = f"{'ab' * 16}_00003"
    assert (np.load(io.BytesIO(found[f"{key}.depth.npy"])) == 4.5).all()
    assert np.asarray(Image.open(io.BytesIO(found[f"{key}.jpg"]))).mean() == pytest.approx(30, abs=1)
    camera = json.loads(found[f"{key}.camera.json"])
    assert (camera["meters_per_unit"], camera["scale_confidence"], camera["height"]) == (None, 0.5, 16)


def test_the_package_webdataset_reads_it(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    write_webdataset((sample(i) for i in range(3)), tmp_path)
    read = list(webdataset.WebDataset(str(tmp_path / "shard-000000.tar"), shardshuffle=False).decode("pil"))
    assert [item["__key__"][-5:] for item in read] == ["00000", "00001", "00002"]
    assert (read[2]["depth.npy"] == 3.0).all()


def test_bad_keys_and_nothing_are_refused(tmp_path):
    with pytest.raises(FormatError, match="letters and digits"):
        write_webdataset([sample(0, world_id="../a.b")], tmp_path)
    with pytest.raises(FormatError, match="at least one frame"):
        write_webdataset([], tmp_path)
