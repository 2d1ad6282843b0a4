"""The losses of the two networks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def mask_loss(
    logits: Tensor, masks: Tensor, entropy_weight: float = 1.0, jaccard_weight: float = 1.0
) -> Tensor:
    """Binary cross entropy plus soft Jaccard distance, each averaged over the batch.

    Args:
        logits: float (N, 1, S, S).
        masks: float {0, 1} of the same shape.
    """
    probabilities = torch.sigmoid(logits)
    overlap = (probabilities * masks).sum((1, 2, 3))
    union = (probabilities + masks - probabilities * masks).sum((1, 2, 3))
    jaccard = (overlap + 1.0) / (union + 1.0)
    entropy = F.binary_cross_entropy_with_logits(logits, masks)
    return entropy_weight * entropy + jaccard_weight * (1.0 - jaccard).mean()


def target_score_loss(scores: Tensor, masks: Tensor) -> Tensor:
    """Squared error of a target model's scores, target and background counting the same in every sample.

    Args:
        scores: float (N, 1, S / 4, S / 4), wanted: 1 on the target, -1 elsewhere.
        masks: float {0, 1} (N, 1, S, S).
    """
    coverage = F.adaptive_avg_pool2d(masks, (scores.shape[-2], scores.shape[-1]))
    loss = scores.new_zeros(())
    for share, wanted in ((coverage, 1.0), (1.0 - coverage, -1.0)):
        weight = share / share.sum((1, 2, 3), keepdim=True).clamp(min=1.0)
        loss = loss + 0.5 * (weight * (scores - wanted).square()).sum((1, 2, 3)).mean()
    return loss


def hinge_score_loss(scores: Tensor, labels: Tensor, threshold: float = 0.05) -> Tensor:
    """Squared error that leaves negative scores of the background alone (DiMP, Bhat et al., 2019, eq. 7).

    Args:
        scores, labels: any equal shape; where the label is below `threshold`, the target value is zero and
            only positive scores count.
    """
    background = labels < threshold
    residual = torch.where(background, F.relu(scores), scores - labels)
    return residual.square().mean()


def kl_box_loss(scores: Tensor, proposal_density: Tensor, target_density: Tensor) -> Tensor:
    """Kullback-Leibler divergence to the box density, by Monte Carlo (PrDiMP, Danelljan et al., 2020, eq. 7).

    Args:
        scores: (N, B), unnormalised log densities of B proposals.
        proposal_density: (N, B), the density that the proposals were drawn from.
        target_density: (N, B), the density of the annotation at the proposals.
    """
    log_partition = torch.logsumexp(scores - proposal_density.log(), dim=1) - math.log(scores.shape[1])
    expected = (scores * target_density / proposal_density).mean(dim=1)
    return (log_partition - expected).mean()
