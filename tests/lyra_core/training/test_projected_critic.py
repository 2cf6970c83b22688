"""The projected critic: fixed projections, and heads that learn to tell."""

from __future__ import annotations

import torch
from torch.nn import functional

from lyra_core.image_features import ImageFeatures
from lyra_core.training.projected_critic import ProjectedCritic, critic_hinge, critic_verdict


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
