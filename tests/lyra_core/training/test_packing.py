"""Weights of runs on their way into the package."""

import pytest
import torch

from lyra_core.errors import ConfigError, WeightsError
from lyra_core.training.packing import blended


def test_a_blend_lies_between_student_and_teacher():
    student, teacher = {"a": torch.tensor([1.0, 3.0])}, {"a": torch.tensor([0.0, 1.0])}
    assert blended(student, teacher, 0.25)["a"].tolist() == [0.25, 1.5]
    assert torch.equal(blended(student, teacher, 0.0)["a"], teacher["a"])
    with pytest.raises(ConfigError, match="found 2"):
        blended(student, teacher, 2.0)
    with pytest.raises(WeightsError, match="1 names"):
        blended(student, {}, 0.5)
