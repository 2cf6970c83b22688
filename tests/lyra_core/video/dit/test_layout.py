import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyra_core.errors import FrameError, RecipeError
from lyra_core.video.dit.layout import HistoryLayout

OFFICIAL = HistoryLayout.parse("f1k1f4s2f1s1f16k4f2k2f1k1_g20")


def test_official_layout():
    assert OFFICIAL.num_history == 25
    assert OFFICIAL.num_slots == 45
    assert OFFICIAL.spatial_slots == (1, 2, 3, 4, 5)
    assert OFFICIAL.temporal_slots == (0, *range(6, 25))
    assert OFFICIAL.slot_ranges[-1] == range(25, 45)


@pytest.mark.parametrize(
    ("rows", "columns", "history", "generated"),
    [(30, 52, 7046, 31200), (28, 48, 6048, 26880)],
)
def test_token_counts_of_the_official_sizes(rows, columns, history, generated):
    assert OFFICIAL.num_tokens(rows, columns) == (history, generated)


def test_temporal_indices_are_the_anchor_and_the_newest():
    assert OFFICIAL.temporal_indices(25) == [0, *range(6, 25)]
    assert OFFICIAL.temporal_indices(45) == [0, *range(26, 45)]
    assert OFFICIAL.temporal_indices(20) == list(range(20))
    with pytest.raises(FrameError, match="at least 20 history latents, found 19"):
        OFFICIAL.temporal_indices(19)


def test_a_lone_unpacked_segment_is_recent_not_an_anchor():
    layout = HistoryLayout.parse("f2s1f3k1_g4")
    assert layout.num_anchors == 0
    assert layout.temporal_indices(10) == [7, 8, 9]


@given(
    st.lists(st.tuples(st.integers(1, 99), st.sampled_from("ks"), st.integers(1, 9)), min_size=1),
    st.integers(1, 99),
)
def test_the_written_form_round_trips(segments, generated):
    text = "".join(f"f{n}{kind}{k}" for n, kind, k in segments) + f"_g{generated}"
    layout = HistoryLayout.parse(text)
    assert str(layout) == text
    assert HistoryLayout.parse(str(layout)) == layout
    assert layout.num_history == sum(n for n, _, _ in segments)
    slots = sorted((*layout.spatial_slots, *layout.temporal_slots))
    assert slots == list(range(layout.num_history))


@pytest.mark.parametrize("text", ["", "f1k1", "f1k1_g0", "f0k1_g2", "f1k0_g2", "f1x1_g2", "f1k1_g2 "])
def test_malformed_layouts_are_refused(text):
    with pytest.raises(RecipeError, match="history layout"):
        HistoryLayout.parse(text)
