"""PSNR and SSIM: known values, another implementation, and the form of SSIM that losses use."""

import pytest
import torch

from lyra_core.errors import FrameError
from lyra_core.image_metrics import decibels, differentiable_ssim, psnr_db, psnr_each_db, ssim


def test_psnr_and_ssim_have_their_known_values():
    a = torch.full((1, 16, 16, 3), 0.5)
    assert psnr_db(a, a + 0.1) == pytest.approx(20.0, abs=1e-4)
    assert psnr_db(a, a) == 99.0
    assert psnr_db(a, a, max_db=120.0) == 120.0
    assert ssim(a, a) == pytest.approx(1.0)
    # Constant pictures: only the luminance term is left.
    expected = (2 * 0.5 * 0.6 + 1e-4) / (0.5**2 + 0.6**2 + 1e-4)
    assert ssim(a, torch.full_like(a, 0.6)) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(FrameError, match="at least 11x11"):
        ssim(a[:, :8], a[:, :8])


def test_ssim_agrees_with_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    g = torch.Generator().manual_seed(0)
    a = torch.rand(1, 40, 50, 3, generator=g)
    b = (a + 0.15 * torch.randn(1, 40, 50, 3, generator=g)).clamp(0, 1)
    expected = metrics.structural_similarity(
        a[0].double().numpy(), b[0].double().numpy(), channel_axis=2, data_range=1.0,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    assert ssim(a, b) == pytest.approx(expected, abs=2e-4)


def test_each_clip_has_its_own_ratio():
    g = torch.Generator().manual_seed(0)
    truth = torch.rand(3, 3, 2, 8, 8, generator=g)
    found = (truth + 0.1 * torch.randn(truth.shape, generator=g)).clamp(0, 1)
    each = psnr_each_db(found, truth)
    assert each.tolist() == pytest.approx([psnr_db(a, b) for a, b in zip(found, truth, strict=True)], abs=1e-3)
    assert decibels(torch.tensor([0.01, 0.0])).tolist() == pytest.approx([20.0, 99.0], abs=1e-3)


def test_the_differentiable_form_of_known_images():
    picture = torch.rand(20, 30, 3, generator=torch.Generator().manual_seed(0))
    assert float(differentiable_ssim(picture, picture)) == pytest.approx(1.0, abs=1e-5)
    noisy = (picture + 0.2 * torch.randn(20, 30, 3, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    assert 0.2 < float(differentiable_ssim(noisy, picture)) < 0.95
    assert psnr_db(picture * 0, picture * 0 + 0.1) == pytest.approx(20.0, abs=1e-3)
    # away from the border both forms are one
    wide, other = (torch.nn.functional.pad(p.permute(2, 0, 1), (40,) * 4).permute(1, 2, 0) for p in (picture, noisy))
    assert float(differentiable_ssim(wide, other)) == pytest.approx(ssim(wide[None], other[None]), abs=0.05)
    picture.requires_grad_()
    differentiable_ssim(picture, noisy).backward()
    assert bool(torch.isfinite(picture.grad).all())
