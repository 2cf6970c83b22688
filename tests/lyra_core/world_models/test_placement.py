"""Which networks wait in host memory follows from the GPU, and changes nothing else."""

import pytest
import torch
from torch import nn

from lyra_core.errors import RecipeError
from lyra_core.world_models.placement import choose_placement, fitting, home_of

GIB = 2**30


@pytest.mark.parametrize(
    ("memory_gib", "is_narrow", "wanted"),
    [
        (139, False, "resident"),
        (79, False, "visiting"),
        (79, True, "visiting"),
        (47, True, "visiting"),
        (47, False, "streamed"),
        (23, True, "streamed"),
    ],
)
def test_what_fits_follows_from_memory(memory_gib, is_narrow, wanted):
    assert fitting(memory_gib * GIB, is_narrow=is_narrow) == wanted


def test_a_cpu_keeps_everything_and_other_words_are_refused():
    assert choose_placement("streamed", "cpu", "exact") == "resident"
    with pytest.raises(RecipeError, match=r"video.placement should be one of auto, resident, .*found 'swapped'"):
        choose_placement("swapped", "cpu", "exact")


def test_a_visitor_is_there_while_it_is_used():
    layer, x = nn.Linear(3, 4).requires_grad_(False), torch.randn(2, 3)
    wanted, home = layer(x), home_of(layer, "visiting", "cpu")
    waiting = layer.weight.data_ptr()
    with home:
        assert layer.weight.data_ptr() != waiting
        assert torch.equal(layer(x), wanted)
    with home_of(layer, "resident", "cpu"):
        assert layer.weight.data_ptr() == waiting, "a resident stays where it is"
