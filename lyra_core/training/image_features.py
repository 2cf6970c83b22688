"""What training takes from features of photographs: the frozen network, its distance, and a critic behind it."""

from __future__ import annotations

from lyra_core.image_features import (
    ImageFeatures,
    load_image_features,
    perceptual_distance,
    save_image_features,
)
from lyra_core.training.projected_critic import (
    Augmentation,
    CriticConfig,
    ProjectedCritic,
    critic_hinge,
    critic_verdict,
    draw_augmentation,
)

__all__ = [
    "Augmentation",
    "CriticConfig",
    "ImageFeatures",
    "ProjectedCritic",
    "critic_hinge",
    "critic_verdict",
    "draw_augmentation",
    "load_image_features",
    "perceptual_distance",
    "save_image_features",
]
