import pytest
import torch

from lyra_core.errors import OutOfMemoryError, RecipeError
from lyra_core.gaussians.depth_anything.budget import (
    MAX_VIEWS,
    Budget,
    budget_for_memory,
    bytes_per_token,
    device_budget,
    run_within,
    tokens_per_view,
)
from lyra_core.gaussians.depth_anything.config import GIANT, NESTED_GIANT_LARGE, SMALL

GIB = 2**30


def test_tokens_of_the_release_size() -> None:
    assert tokens_per_view(476, 826) == 34 * 59 + 1


def test_more_memory_never_means_fewer_views() -> None:
    views = [budget_for_memory(gib * GIB, 476, 826, NESTED_GIANT_LARGE).views for gib in (12, 24, 48, 130)]
    assert views == sorted(views)
    assert views[-1] == MAX_VIEWS
    assert bytes_per_token(GIANT.backbone) > bytes_per_token(SMALL.backbone)


def test_little_memory_first_thins_the_slices() -> None:
    assert budget_for_memory(3 * GIB, 476, 826, GIANT).views_per_slice < 8
    with pytest.raises(OutOfMemoryError, match="two views of 826x476 need about"):
        budget_for_memory(GIB // 8, 476, 826, GIANT)


def test_the_processor_has_no_limit_to_measure() -> None:
    assert device_budget(torch.device("cpu"), 476, 826, GIANT).views == MAX_VIEWS


def test_smaller_budgets_are_tried_until_one_fits() -> None:
    tried = []

    def run(budget: Budget) -> int:
        tried.append((budget.views, budget.views_per_slice))
        if budget.views > 20 or budget.views_per_slice > 1:
            raise torch.OutOfMemoryError("injected")
        return budget.views

    assert run_within(Budget(views=64), run) == 16
    assert tried == [(64, 8), (64, 2), (64, 1), (32, 1), (16, 1)]


def test_giving_up_says_what_was_tried() -> None:
    def run(budget: Budget) -> None:
        raise torch.OutOfMemoryError("injected")

    with pytest.raises(OutOfMemoryError, match="with 16 views nor with 2; use a smaller"):
        run_within(Budget(views=16), run)


def test_other_errors_pass_through() -> None:
    def run(budget: Budget) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_within(Budget(views=16), run)


def test_empty_budgets_are_refused() -> None:
    with pytest.raises(RecipeError, match="at least one view"):
        Budget(views=0)
