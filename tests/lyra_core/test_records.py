"""Records come back from rows, JSON and Parquet as they went in."""

from __future__ import annotations

import io
import json
from dataclasses import MISSING, FrozenInstanceError, fields
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lyra_core.errors import CameraPathError, CatalogError
from lyra_core.frame_table import frame_table
from lyra_core.records import (
    SCHEMA_VERSION,
    Artifact,
    FrameRecord,
    RejectRecord,
    SimcheckRecord,
    WorldRecord,
    arrow_schema,
)

RECORDS = [WorldRecord, FrameRecord, RejectRecord, SimcheckRecord]
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
float32 = st.floats(width=32, allow_nan=False)
double = st.floats(allow_nan=False)
VALUES = {
    "string": text,
    "bool": st.booleans(),
    "int8": st.integers(-128, 127),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float": float32,
    "double": double,
    "timestamp": st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    "list<string>": st.lists(text, max_size=3).map(tuple),
    "list<float>[3]": st.tuples(float32, float32, float32),
    "list<double>[16]": st.tuples(*[double] * 16),
    "list<double>[9]": st.tuples(*[double] * 9),
    "list<artifact>": st.lists(st.tuples(text, text, text, st.integers(0, 2**62), text, text), max_size=3),
    "list<stage>": st.dictionaries(text, double, max_size=3),
}


def values_of(cls):
    """Values for any record of a class: each optional column given, or left at its default."""
    required, optional = {}, {}
    for f in fields(cls):
        is_required = f.default is MISSING and f.default_factory is MISSING
        (required if is_required else optional)[f.name] = VALUES[f.metadata["type"]]
    return st.fixed_dictionaries(required, optional=optional)


@pytest.mark.parametrize("cls", RECORDS)
def test_records_come_back(cls):
    @settings(max_examples=40, deadline=None)
    @given(values=values_of(cls))
    def check(values):
        if "artifacts" in values:
            values["artifacts"] = tuple(
                Artifact(**dict(zip(Artifact.__slots__, artifact, strict=True))) for artifact in values["artifacts"]
            )
        record = cls(**values)
        assert cls.from_row(record.to_row()) == record
        assert cls.from_json(record.to_json()) == record
        assert cls.row_from_json(record.to_json()) == cls.from_json(record.to_json()).to_row()
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([record.to_row()], schema=arrow_schema(cls)), sink)
        table = pq.read_table(pa.BufferReader(sink.getvalue()))
        assert table.schema == arrow_schema(cls)
        assert cls.from_row(table.to_pylist()[0]) == record

    check()


@pytest.mark.parametrize("cls", RECORDS)
def test_records_are_frozen_slotted_and_keyword_only(cls):
    assert cls.__dataclass_params__.frozen
    assert "__slots__" in vars(cls)
    assert all(f.kw_only for f in fields(cls))
    assert not hasattr(WorldRecord(world_id="a"), "__dict__")
    with pytest.raises(FrozenInstanceError):
        WorldRecord(world_id="a").variant = 3


@pytest.mark.parametrize("cls", RECORDS)
def test_every_column_says_what_it_means(cls):
    for field in arrow_schema(cls):
        assert field.metadata[b"meaning"]
    assert len(set(arrow_schema(cls).names)) == len(fields(cls))


def test_required_columns_are_missed():
    with pytest.raises(CatalogError, match=r"a row of frames lacks a required column.*w2c"):
        FrameRecord.from_row({"world_id": "a", "frame": 0, "t_s": 0.0, "K": [0.0] * 9})


def test_unknown_columns_of_a_newer_version_are_left_out():
    assert WorldRecord.from_row({"world_id": "a", "news": 3}) == WorldRecord(world_id="a")
    assert WorldRecord.from_json('{"world_id": "a", "news": 3}') == WorldRecord(world_id="a")
    assert "news" not in WorldRecord.row_from_json('{"world_id": "a", "news": 3}')


def test_json_holds_only_what_is_known():
    assert json.loads(WorldRecord(world_id="a").to_json()) == {
        "world_id": "a",
        "schema_version": SCHEMA_VERSION,
        "attempt": 1,
        "variant": 0,
        "accepted": True,
    }


def test_artifacts_fill_the_flat_columns():
    files = [
        Artifact(role=role, key=f"worlds/a/{role}", media_type="x", bytes=1, sha256="d")
        for role in ("ply", "video", "preview", "depth")
    ]
    record = WorldRecord(world_id="a").with_artifacts(files, "s3://b")
    assert (record.ply_uri, record.video_uri, record.usd_uri) == ("worlds/a/ply", "worlds/a/video", None)
    assert record.thumb_uri == "worlds/a/preview"
    assert (record.artifacts, record.base_uri) == (tuple(files), "s3://b")


@pytest.mark.parametrize("cls", RECORDS)
def test_no_column_is_a_map(cls):
    """Readers of published parts, Hugging Face's datasets among them, cannot open maps."""
    assert not [f.name for f in arrow_schema(cls) if pa.types.is_map(f.type)]


def test_seconds_of_stages_are_rows_of_a_list():
    record = WorldRecord(world_id="a", stage_s={"video": 1.5, "encode": 0.5})
    assert record.to_row()["stage_s"] == [{"stage": "video", "seconds": 1.5}, {"stage": "encode", "seconds": 0.5}]
    assert json.loads(record.to_json())["stage_s"] == {"video": 1.5, "encode": 0.5}, "as commits have always held it"


def test_frames_of_a_camera_path():
    generator = np.random.default_rng(0)
    w2c, K = generator.random((3, 4, 4)), generator.random((3, 3, 3))
    table = frame_table("a", w2c, K, fps=16.0, image_size=(832, 480), frames=[0, 8, 16])
    rows = [FrameRecord.from_row(row) for row in table.to_pylist()]
    assert [(r.frame, r.t_s, r.width, r.height) for r in rows] == [
        (0, 0.0, 832, 480),
        (8, 0.5, 832, 480),
        (16, 1.0, 832, 480),
    ]
    assert np.array_equal(np.reshape([r.w2c for r in rows], (3, 4, 4)), w2c)
    assert np.array_equal(np.reshape([r.K for r in rows], (3, 3, 3)), K)
    assert table.equals(pa.Table.from_pylist([r.to_row() for r in rows], schema=table.schema))
    assert table.schema.equals(arrow_schema(FrameRecord))
    assert frame_table("a", w2c, K, fps=16.0, image_size=(8, 4))["frame"].to_pylist() == [0, 1, 2]


def test_frames_need_one_intrinsics_a_camera():
    with pytest.raises(CameraPathError, match="2 intrinsics"):
        frame_table("a", np.zeros((3, 4, 4)), np.zeros((2, 3, 3)), fps=16.0, image_size=(8, 4))
