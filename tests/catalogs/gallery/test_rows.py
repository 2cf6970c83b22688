"""The index's columns are documented ones, and its one number orders worlds as people would."""

from dataclasses import fields

from catalogs.gallery.rows import COLUMNS, MAX_TEXT, by_quality, index_columns, index_row, quality_score
from lyra_core.records import WorldRecord

GOOD = {"world_id": "a" * 32, "psnr_db": 32.5, "coverage_frac": 1.0, "accepted": True}


def test_columns_are_those_of_the_catalog():
    assert set(COLUMNS) <= {field.name for field in fields(WorldRecord)}
    columns = index_columns()
    assert [column["name"] for column in columns] == ["quality", *COLUMNS]
    kinds = {column["name"]: column["kind"] for column in columns}
    assert (kinds["psnr_db"], kinds["accepted"], kinds["reject_reasons"]) == ("number", "bool", "text")
    assert all(column["meaning"] for column in columns)


def test_a_row_is_plain_json_in_the_order_of_the_columns():
    record = WorldRecord(
        world_id="a" * 32, prompt="x" * 1000, psnr_db=float("nan"), reject_reasons=("one", "two"), accepted=False
    )
    row = dict(zip([column["name"] for column in index_columns()], index_row(record.to_row()), strict=True))
    assert row["world_id"] == "a" * 32
    assert len(row["prompt"]) == MAX_TEXT
    assert (row["psnr_db"], row["quality"], row["accepted"]) == (None, None, False)
    assert row["reject_reasons"] == "one; two"


def test_the_score_falls_with_every_fault():
    assert quality_score(GOOD) == 70.0
    for fault in (
        *({"psnr_db": 25.0}, {"coverage_frac": 0.7}, {"accepted": False}, {"floater_frac": 0.2}, {"needle_frac": 0.2}),
        *({"texture_frac": 0.0}, {"motion_frac": 0.0}, {"isolated_frac": 0.3}),
    ):
        assert quality_score({**GOOD, **fault}) < 70.0, fault
    blank = {**GOOD, "psnr_db": 99.0, "texture_frac": 0.0}
    unknown = {"world_id": "c" * 32, "accepted": True}
    assert quality_score(blank) == 0.0
    ordered = by_quality([unknown, {**blank, "world_id": "b" * 32}, GOOD])
    assert [row["world_id"][0] for row in ordered] == ["a", "b", "c"]
