"""Ids follow from what makes a world, from all of it and from nothing else."""

from __future__ import annotations

import enum
import hashlib
import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lyra_core.errors import RecipeError, StoreError
from lyra_core.formats.store import open_store
from lyra_core.identity import (
    canonical_digest,
    canonical_json,
    chain_next,
    chain_start,
    chunk_ids,
    digest_bytes,
    digest_file,
    rng_seed,
)

SEED = hashlib.sha256(b"seed").hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()
RECIPE = {"model": "mini", "steps": 4, "guidance": 1.0, "size": [480, 832]}
START = chain_start(SEED, RECIPE, [SEED, OTHER], "1", 0)

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_ids_are_what_they_were_in_the_first_release():
    """A change here makes every world ever made another world: bump the algorithm version instead."""
    assert START == "d4e32e4248bc48803ec52d04dc3af53a"
    assert chunk_ids(START, [b"cameras"], ["a caption"])[-1] == "1571b9aa72c6921dabfd2ba16e35e1b7"
    assert rng_seed(START, "video", 2) == 7_950_291_036_380_107_842


@pytest.mark.parametrize(
    "changed",
    [
        chain_start(OTHER, RECIPE, [SEED, OTHER], "1", 0),
        chain_start(SEED, {**RECIPE, "steps": 5}, [SEED, OTHER], "1", 0),
        chain_start(SEED, {**RECIPE, "guidance": 1}, [SEED, OTHER], "1", 0),
        chain_start(SEED, {**RECIPE, "extra": None}, [SEED, OTHER], "1", 0),
        chain_start(SEED, RECIPE, [SEED], "1", 0),
        chain_start(SEED, RECIPE, [SEED, OTHER], "2", 0),
        chain_start(SEED, RECIPE, [SEED, OTHER], "1", 1),
    ],
)
def test_every_ingredient_changes_the_id(changed):
    assert changed != START


def test_orders_do_not_change_the_id():
    assert chain_start(SEED, dict(reversed(RECIPE.items())), [OTHER, SEED], "1", 0) == START
    assert chain_start(SEED, {**RECIPE, "size": (480, 832)}, [SEED, OTHER], "1", 0) == START


def test_a_longer_world_shares_its_first_chunks():
    long = chunk_ids(START, [b"1", b"2", b"3"], ["a", "b", "c"])
    assert chunk_ids(START, [b"1", b"2"], ["a", "b"]) == long[:2]
    assert chunk_ids(START, [b"1", b"2", b"3"], ["a", "b", "c"])[-1] == long[-1]
    assert chunk_ids(START, [b"1", b"2", b"4"], ["a", "b", "c"])[:2] == long[:2]
    assert len(set(long)) == 3
    assert all(len(i) == 32 and int(i, 16) >= 0 for i in long)


def test_cameras_and_captions_cannot_be_confused():
    assert chain_next(START, b"ab", "c") != chain_next(START, b"a", "bc")
    assert chain_next(START, "ab", "c") == chain_next(START, b"ab", "c")


def test_a_world_needs_chunks_and_captions():
    for cameras, captions in (([], []), ([b"1"], []), ([b"1"], ["a", "b"])):
        with pytest.raises(RecipeError, match="at least one chunk and one caption a chunk"):
            chunk_ids(START, cameras, captions)


def test_digests_and_variants_are_checked():
    for digest in ("", "abc", SEED.upper(), SEED[:-1] + "g"):
        with pytest.raises(RecipeError, match="64 lower-case hex digits"):
            chain_start(digest, RECIPE, [], "1", 0)
    with pytest.raises(RecipeError, match="64 lower-case"):
        chain_start(SEED, RECIPE, ["x"], "1", 0)
    with pytest.raises(RecipeError, match=r"0, 1, 2, .*found -1"):
        chain_start(SEED, RECIPE, [], "1", -1)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), plain, max_size=4))
def test_canonical_json_reads_back_exactly_and_ignores_order(mapping):
    text = canonical_json(mapping)
    assert text.isascii()
    assert json.loads(text) == mapping
    shuffled = dict(sorted(mapping.items(), key=lambda item: digest_bytes(item[0].encode("utf8", "replace"))))
    assert canonical_digest(shuffled) == canonical_digest(mapping)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_no_two_floats_share_a_digest(a, b):
    same = a.hex() == b.hex()
    assert (canonical_digest({"x": a}) == canonical_digest({"x": b})) == same


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", {1, 2}, {1: "int key"}, object()])
def test_values_without_a_canonical_form_are_refused(value):
    with pytest.raises(RecipeError, match=r"the mapping\.a\[0\]"):
        canonical_json({"a": [value]})


def test_string_enumerations_are_their_strings():
    class Size(enum.StrEnum):
        MINI = "mini"

    assert canonical_digest({"m": Size.MINI}) == canonical_digest({"m": "mini"})


def test_random_seeds_differ_by_world_stage_and_chunk():
    seeds = {
        rng_seed(i, stage, chunk) for i in (START, SEED[:32]) for stage in ("video", "refine") for chunk in range(50)
    }
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert sum(seed >> 62 for seed in seeds) > 50, "the top bit is used"
    assert rng_seed(START, "video") == rng_seed(START, "video", 0)


def test_files_are_digested_from_paths_urls_and_stores(tmp_path):
    (tmp_path / "x").write_bytes(b"seed")
    assert digest_file(tmp_path / "x") == digest_file(f"file://{tmp_path}/x") == SEED == digest_bytes(b"seed")
    assert digest_file("x", open_store(tmp_path)) == SEED
    with pytest.raises(StoreError, match=r"cannot read .*nowhere"):
        digest_file(tmp_path / "nowhere")


def test_ids_are_the_same_in_a_process_with_other_hash_seeds():
    code = (
        "from lyra_core.identity import *; import hashlib; s = hashlib.sha256(b'seed').hexdigest();"
        f"print(canonical_digest({RECIPE!r}))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": h}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for h in ("1", "2")
    }
    assert found == {canonical_digest(RECIPE)}


def test_ids_never_change_by_accident():
    """Worlds of every catalog are found by these; a change here makes all of them anew."""
    start = chain_start("0" * 64, {"width": 416, "fps": 16.0, "video": {"num_steps": 35}}, ("1" * 64,), "1", 0)
    links = chunk_ids(start, [b"cameras 0", "cameras 1"], ["a place", ""])
    assert start == "9faf3fe991bd0ac5ada9b5f339e9e4fa"
    assert links == ("93a345621da403c020c278cc4611548c", "f74bdc9dfb80bd80fbb09f1bd32a659e")
    assert rng_seed(start, "video", 1) == 9001656124179851695
