import pytest

from lyra_core.errors import SeedError
from lyra_core.scene_geometry.floor import Floor
from lyra_core.scene_geometry.scale import GivenScale, find_scale


def floor(height: float) -> Floor:
    return Floor(up=(0.0, -1.0, 0.0), camera_height=height, inliers=0.5, tilt_deg=1.0, spread_deg=0.1, rmse=0.01)


@pytest.fixture
def views(scenes):
    """A floor one unit below, and something 4 units ahead of the first camera."""
    import numpy as np

    thing = scenes.box(np.array([-1.0, -1.0, 4.0]), np.array([1.0, 1.0, 5.0]))
    return scenes.views([scenes.plane(scenes.up(0.0, 0.0), 1.0), thing], scenes.path)


def test_nothing_is_claimed_that_nobody_measured(views):
    none = find_scale(None, views, is_metric_model=False)
    assert (none.meters_per_unit, none.prior, none.best, none.source, none.confidence) == (
        None, None, None, "relative", 0.1,
    )  # fmt: skip
    likely = find_scale(floor(1.24), views, is_metric_model=False)
    assert (likely.meters_per_unit, likely.source, likely.confidence) == (None, "relative", 0.3)
    assert likely.best == likely.prior == pytest.approx(1.25)


@pytest.mark.parametrize("height", [0.5, 4.0])
def test_a_camera_at_no_persons_height_tells_nothing(views, height):
    assert find_scale(floor(height), views, is_metric_model=False).prior is None


def test_a_metric_network_is_kept_and_the_prior_stands_beside_it(views):
    found = find_scale(floor(1.0), views, is_metric_model=True)
    assert (found.meters_per_unit, found.source, found.confidence) == (1.0, "depth_model", 0.5)
    assert found.prior == pytest.approx(1.55)
    assert found.best == 1.0


def test_a_person_overrules_and_a_height_needs_a_floor(views):
    given = GivenScale(camera_height_m=3.0, center_distance_m=10.0)
    high = find_scale(floor(1.0), views, is_metric_model=True, given=given)
    assert (high.meters_per_unit, high.source, high.confidence) == (3.0, "camera_height", 0.9)
    far = find_scale(None, views, is_metric_model=True, given=given)
    assert (far.meters_per_unit, far.source) == (pytest.approx(2.5), "center_distance")
    lost = find_scale(None, views, is_metric_model=False, given=GivenScale(camera_height_m=3.0))
    assert (lost.meters_per_unit, lost.source) == (None, "relative")


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_lengths_that_are_none_are_refused(value):
    with pytest.raises(SeedError, match="positive number of metres"):
        GivenScale(center_distance_m=value)
