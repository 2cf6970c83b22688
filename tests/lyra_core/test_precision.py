"""Precision is chosen by what a machine is fast at."""

import pytest
import torch

from lyra_core import precision
from lyra_core.errors import RecipeError
from lyra_core.precision import bfloat16_speedup, choose_dtype


def test_what_is_asked_for_is_taken():
    assert choose_dtype("float32", "cuda") is torch.float32
    assert choose_dtype("bfloat16", "cpu") is torch.bfloat16
    with pytest.raises(RecipeError, match="auto, float32 or bfloat16"):
        choose_dtype("half", "cpu")


@pytest.mark.parametrize(("speedup", "dtype"), [(4.0, torch.bfloat16), (1.1, torch.float32), (0.4, torch.float32)])
def test_a_processor_computes_in_what_it_is_faster_at(monkeypatch, speedup, dtype):
    monkeypatch.setattr(precision, "bfloat16_speedup", lambda: speedup)
    assert choose_dtype("auto", "cpu") is dtype
    assert choose_dtype("auto", "cuda:1") is torch.bfloat16


def test_the_speedup_is_measured_once():
    bfloat16_speedup.cache_clear()
    first = bfloat16_speedup()
    assert 0.01 < first < 100
    assert bfloat16_speedup() == first
