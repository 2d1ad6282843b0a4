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
    entropy, jaccard = _mask_terms(logits, masks)
    return entropy_weight * entropy.mean() + jaccard_weight * jaccard.mean()


def mask_losses(logits: Tensor, masks: Tensor) -> Tensor:
    """`mask_loss` of every sample alone, (N,)."""
    entropy, jaccard = _mask_terms(logits, masks)
    return entropy + jaccard


def _mask_terms(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    probabilities = torch.sigmoid(logits)
    overlap = (probabilities * masks).sum((1, 2, 3))
    union = (probabilities + masks - probabilities * masks).sum((1, 2, 3))
    jaccard = (overlap + 1.0) / (union + 1.0)
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((1, 2, 3))
    return entropy, 1.0 - jaccard


def box_loss(corners: Tensor, wanted: Tensor, size: int) -> Tensor:
    """Generalised IoU loss (Rezatofighi et al. 2019) plus five times the mean error of an edge against the crop's side
    (the weights of DETR, Carion et al. 2020, are 2 and 5). Corners (N, 4) x1, y1, x2, y2 in pixels of crops of `size`.
    """
    if not len(corners):
        return corners.sum()
    shared, union = _shared_and_union(corners, wanted)
    around = torch.maximum(corners[:, 2:], wanted[:, 2:]) - torch.minimum(corners[:, :2], wanted[:, :2])
    hull = around.clamp(min=0).prod(1).clamp(min=1.0)
    generalised = shared / union - (hull - union) / hull
    return (1.0 - generalised).mean() + 5.0 * ((corners - wanted) / size).abs().mean()


def box_overlap(corners: Tensor, wanted: Tensor) -> Tensor:
    """IoU of boxes (N, 4) x1, y1, x2, y2, pair by pair: (N,)."""
    shared, union = _shared_and_union(corners, wanted)
    return shared / union


def _shared_and_union(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    sides = torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])
    shared = sides.clamp(min=0).prod(1)
    areas = [(one[:, 2:] - one[:, :2]).clamp(min=0).prod(1) for one in (first, second)]
    return shared, (areas[0] + areas[1] - shared).clamp(min=1.0)


def judgement_loss(logits: Tensor, present: Tensor, overlaps: Tensor) -> Tensor:
    """Cross entropy of (N, 2) logits: that the target is there, bool (N,), and the mask's IoU, (N,), 0 where it is not.
    """
    quality = torch.where(present, overlaps, torch.zeros_like(overlaps))
    return F.binary_cross_entropy_with_logits(logits, torch.stack((present.float(), quality), dim=1))


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
