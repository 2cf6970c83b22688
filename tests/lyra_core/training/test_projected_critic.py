"""The projected critic: fixed projections, heads that learn to tell, changes alike for truth and made images."""

from __future__ import annotations

import torch
from torch.nn import functional

from lyra_core.training.image_features import (
    ImageFeatures,
    ProjectedCritic,
    critic_hinge,
    critic_verdict,
    draw_augmentation,
)


def network(levels: int = 2) -> ImageFeatures:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        features = ImageFeatures("lite0", levels).eval()
        for parameter in features.parameters():
            if parameter.ndim > 1:  # as strong as trained ones: signals neither die nor grow
                torch.nn.init.kaiming_normal_(parameter)
        return features


def test_only_heads_learn_and_the_seed_decides_all():
    first, second = (ProjectedCritic(network().widths) for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert {name.partition(".")[0] for name, p in first.named_parameters() if p.requires_grad} == {"heads"}


def test_it_learns_to_tell_noise_from_its_blur():
    features, generator = network(), torch.Generator().manual_seed(0)
    critic = ProjectedCritic(features.widths)
    optimizer = torch.optim.AdamW([p for p in critic.parameters() if p.requires_grad], lr=2e-3)
    for step in range(61):
        true = torch.rand(4, 3, 32, 32, generator=generator)
        made = functional.avg_pool2d(true, 3, 1, 1)
        verdicts = [critic(features(images)) for images in (true, made)]
        loss = critic_hinge(*verdicts)
        if step == 0:
            before = float(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.7 * before
    assert critic_verdict(verdicts[1]) > critic_verdict(verdicts[0])  # a maker of blur is not content


def test_changes_are_alike_move_and_cut():
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(3, 3, 32, 48)
    change = draw_augmentation(images.shape, generator)
    assert torch.equal(change(images), change(images))
    empty = (change(images) == 0).all(1).flatten(1).sum(1)
    assert (empty >= 8 * 8 - 1).all()  # the cut square, and what moved in
    still = draw_augmentation(images.shape, generator, cut_share=0.0)
    moved = still(images + 0.0)
    row, column = (int(v) for v in still.shift[0])
    inside = (slice(max(0, -row), 32 - max(0, row)), slice(max(0, -column), 48 - max(0, column)))
    source = (slice(max(0, row), 32 + min(0, row)), slice(max(0, column), 48 + min(0, column)))
    image = images[0] + still.brightness[0]
    grey = image.mean(0, keepdim=True)
    image = (image - grey) * still.saturation[0] + grey
    image = (image - image.mean()) * still.contrast[0] + image.mean()
    assert torch.allclose(moved[0][:, inside[0], inside[1]], image[:, source[0], source[1]], atol=1e-6)
