"""Clips of photographs: inside the picture, moving as asked, reproducible."""

import pytest
import torch

from lyra_core.errors import SeedError
from lyra_core.procedural.photo_clips import PhotoLibrary, jitter_colors, photo_clips
from lyra_core.procedural.photographs import LibraryPhoto


@pytest.fixture(scope="module")
def library():
    v, u = torch.meshgrid(torch.linspace(0, 1, 400), torch.linspace(0, 1, 300), indexing="ij")
    ramp = torch.stack([u, v, 0.5 + 0.5 * torch.sin(40 * u) * torch.sin(40 * v)], -1)
    return PhotoLibrary.of([LibraryPhoto(name="ramp", pixels=(ramp * 255).to(torch.uint8))], "cpu")


def test_stills_stand_still_and_clips_move(library):
    still = photo_clips(library, 3, 5, 32, 56, torch.Generator().manual_seed(0), speed=0.0)
    torch.testing.assert_close(still, still[:, :1].expand_as(still))
    moving = photo_clips(library, 3, 5, 32, 56, torch.Generator().manual_seed(0))
    assert bool(((moving[:, 0] - moving[:, -1]).abs().flatten(1).mean(1) > 1e-3).all())


def test_views_stay_inside_the_photograph(library):
    """Red and green are position: along a clip they vary smoothly, without the fold of a reflected border."""
    clips = photo_clips(library, 12, 3, 32, 56, torch.Generator().manual_seed(1))
    step = clips[:, :, 0].diff(dim=-1)
    assert float((step < -0.01).float().mean()) < 0.02


def test_same_generator_same_clips(library):
    a, b = (photo_clips(library, 2, 3, 16, 32, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(a, b)
    c, d = (jitter_colors(a, torch.Generator().manual_seed(6)) for _ in range(2))
    assert torch.equal(c, d)
    assert not torch.equal(a, c)
    assert float(c.min()) >= 0
    assert float(c.max()) <= 1


def test_no_photographs_are_refused():
    with pytest.raises(SeedError):
        PhotoLibrary.of([], "cpu")
