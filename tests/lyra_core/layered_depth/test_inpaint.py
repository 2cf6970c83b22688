"""Filling: known pixels stay, unknown ones continue what is near, with texture."""

import torch

from lyra_core.layered_depth.inpaint import fill, nearest_known, push_pull


def test_push_pull_keeps_known_pixels_and_continues_smoothly():
    picture = torch.linspace(0, 1, 40).expand(2, 30, 40).clone()
    known = torch.ones(30, 40, dtype=torch.bool)
    known[8:20, 10:25] = False
    damaged = torch.where(known, picture, 77.0)
    filled = push_pull(damaged, known)
    torch.testing.assert_close(filled[:, known], picture[:, known])
    assert float((filled - picture).abs().max()) < 0.25
    assert float(filled[:, 14, 10].mean()) < float(filled[:, 14, 24].mean())


def test_push_pull_of_nothing_is_zero_and_of_everything_is_itself():
    picture = torch.rand(3, 9, 14, generator=torch.Generator().manual_seed(0))
    assert float(push_pull(picture, torch.zeros(9, 14, dtype=torch.bool)).abs().max()) == 0.0
    assert torch.equal(push_pull(picture, torch.ones(9, 14, dtype=torch.bool)), picture)


def test_nearest_known_agrees_with_trying_all():
    known = torch.rand(23, 31, generator=torch.Generator().manual_seed(1)) < 0.03
    found = nearest_known(known)
    candidates = known.nonzero()
    rows, columns = torch.meshgrid(torch.arange(23), torch.arange(31), indexing="ij")
    here = torch.stack([rows, columns], -1)
    assert bool(known[found[..., 0], found[..., 1]].all())
    best = (here[:, :, None] - candidates).square().sum(-1).amin(-1)
    got = (here - found).square().sum(-1)
    # Vector propagation errs by less than a pixel, and seldom.
    assert float((got.double().sqrt() - best.double().sqrt()).max()) < 1.0
    assert float((got == best).double().mean()) > 0.98


def test_fill_continues_texture():
    g = torch.Generator().manual_seed(2)
    picture = 0.5 + 0.2 * torch.randn(3, 60, 90, generator=g)
    known = torch.ones(60, 90, dtype=torch.bool)
    known[:, 40:55] = False
    textured = fill(picture, known)[:, :, 42:53]
    smooth = fill(picture, known, texture=0.0)[:, :, 42:53]
    assert float(textured.std()) > 0.12
    assert float(smooth.std()) < 0.1
