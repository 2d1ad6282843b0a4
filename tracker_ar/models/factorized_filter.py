"""ATOM's target classifier: a projection of the backbone's features and one filter, both learned in every sequence.

"ATOM: Accurate Tracking by Overlap Maximization" (Danelljan et al. 2019), section 3.2. With features x of a sample, its
label y and weight w, projection P and filter f minimise

    L(f, P) = sum over samples of w | activation(f * (P x)) - y |^2 + a | f |^2 + b | P |^2

by Gauss-Newton steps, whose linear equations conjugate gradient solves approximately. Correlating P x with f is
correlating x with the filter P^T f over all of x's channels, so that a change of both, P^T df + dP^T f, costs a single
correlation, and the derivatives need no automatic differentiation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tracker_ar.models.conjugate_gradient import Vector, conjugate_gradient
from tracker_ar.models.steepest_descent import Correlation


@dataclass(frozen=True)
class FactorizedFilterSettings:
    """Values of pytracking, `parameter/atom/default.py`."""

    channels: int = 64  # that the features are projected to
    filter_size: int = 4  # cells
    filter_regularization: float = 0.1
    projection_regularization: float = 1e-4
    bend: float = 0.05  # of the activation below zero: nothing falls below minus this
    initial_steps: tuple[int, ...] = (10,) * 6  # of conjugate gradient in every Gauss-Newton step of the first frame


@dataclass(frozen=True)
class Samples:
    """features: (n, C, h, w), the backbone's or projected ones; labels: (n, h, w); weights: (n,)."""

    features: Tensor
    labels: Tensor
    weights: Tensor

    def to(self, dtype: torch.dtype, device: torch.device) -> Samples:
        """The same numbers elsewhere."""
        return Samples(*(part.to(device, dtype) for part in (self.features, self.labels, self.weights)))


def normalized(features: Tensor) -> Tensor:
    """Features (n, C, h, w) of root mean square one in every sample."""
    return features / (features.square().mean(dim=(1, 2, 3), keepdim=True) + 1e-10).sqrt()


def project(projections: Tensor, features: Tensor) -> Tensor:
    """projections (N, D, C) of N targets, or (1, D, C) for all; features (N, C, h, w) -> (N, D, h, w)."""
    return (projections @ features.flatten(2)).unflatten(2, features.shape[2:])


def responses(filters: Tensor, features: Tensor) -> Tensor:
    """filters (N, D, k, k) of N targets; projected features (N, D, h, w) -> scores (N, h, w), not activated."""
    height, width = features.shape[2:]
    return Correlation(features[None], filters.shape[-1]).scores(filters)[0, :, :height, :width]


def gaussian_labels(centers: Tensor, sigma: float, filter_size: int, cells: int) -> Tensor:
    """What the scores should be, (n, cells, cells), for target centres (n, 2), (y, x) in cells from the map's middle.

    sigma: in cells. The scores of an even filter lie half a cell to the lower right.
    """
    places = torch.arange(cells, dtype=centers.dtype, device=centers.device) - (cells - 1) / 2
    shifted = centers + (filter_size + 1) % 2 / 2
    rows, columns = torch.exp((places - shifted[..., None]).square() / (-2 * sigma**2)).unbind(1)
    return rows[:, :, None] * columns[:, None]


def learn_jointly(
    samples: Samples, target_filter: Tensor, projection: Tensor, settings: FactorizedFilterSettings,
    steps: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Filter (1, D, k, k) and projection (1, D, C) after Gauss-Newton steps from those given, in their type and place.

    steps: of conjugate gradient in each of them; None for the settings'. It is computed in float64 on the CPU: the
    equations are so badly conditioned that in float32 the outcome depends on the order of summation.
    """
    cpu = torch.device("cpu")
    exact = samples.to(torch.float64, cpu)
    correlation = Correlation(exact.features[:, None], target_filter.shape[-1])
    place: Vector = target_filter.to(cpu, torch.float64), projection.to(cpu, torch.float64)
    for count in settings.initial_steps if steps is None else steps:
        place = _gauss_newton(_Equations(correlation, exact, place[0], place[1], settings), place, count)
    return place[0].to(target_filter), place[1].to(projection)


def update_filter(samples: Samples, target_filter: Tensor, settings: FactorizedFilterSettings, steps: int) -> Tensor:
    """The filter (1, D, k, k) after one Gauss-Newton step of `steps` conjugate gradients on projected samples."""
    correlation = Correlation(samples.features[:, None], target_filter.shape[-1])
    equations = _Equations(correlation, samples, target_filter, None, settings)
    return _gauss_newton(equations, (target_filter,), steps)[0]


def objective(
    samples: Samples, target_filter: Tensor, projection: Tensor, settings: FactorizedFilterSettings
) -> float:
    """L(f, P)."""
    correlation = Correlation(samples.features[:, None], target_filter.shape[-1])
    return float(_Equations(correlation, samples, target_filter, projection, settings).objective)


def _gauss_newton(equations: _Equations, place: Vector, steps: int) -> Vector:
    change, _ = conjugate_gradient(equations, equations.right, None, steps)
    return place if change is None else tuple(part + moved for part, moved in zip(place, change, strict=True))


class _Equations:
    """Gauss-Newton's linear equations for the change of the filter, and of the projection if there is one."""

    def __init__(
        self, correlation: Correlation, samples: Samples, target_filter: Tensor, projection: Tensor | None,
        settings: FactorizedFilterSettings,
    ) -> None:
        self._correlation, self._filter, self._projection = correlation, target_filter, projection
        self._cells = samples.labels.shape[1:]
        self._regularization = settings.filter_regularization, settings.projection_regularization
        place: Vector = (target_filter,) if projection is None else (target_filter, projection)
        scores = self._scores(place[:1])
        root = samples.weights.sqrt()[:, None, None]
        below = scores.clamp(max=0) / settings.bend
        residual = root * (scores.clamp(min=0) + settings.bend * below.expm1() - samples.labels)
        self._slope = root * below.exp()
        self.right = tuple(-part for part in self._regularized(self._transposed(self._slope * residual), place))
        self.objective = residual.square().sum() + sum(
            weight * part.square().sum() for weight, part in zip(self._regularization, place)
        )

    def product(self, x: Vector) -> Vector:
        """See `LinearProblem`."""
        return self._regularized(self._transposed(self._slope.square() * self._scores(x)), x)

    def precondition(self, residual: Vector) -> Vector:
        """See `LinearProblem`: of the joint equations the regularization, of the filter's alone nothing."""
        if self._projection is None:
            return residual
        return tuple(part / weight for part, weight in zip(residual, self._regularization, strict=True))

    def inner(self, first: Vector, second: Vector) -> Tensor:
        """See `LinearProblem`."""
        products = [a.flatten() @ b.flatten() for a, b in zip(first, second, strict=True)]
        return torch.stack(products).sum()

    def _scores(self, change: Vector) -> Tensor:
        """Of a change of the filter, and of the projection if it is given, the change of the scores, (n, h, w)."""
        whole = change[0]
        if self._projection is not None:
            whole = _back(self._projection, change[0])
            if len(change) > 1:
                whole = whole + _back(change[1], self._filter)
        height, width = self._cells
        return self._correlation.scores(whole)[:, 0, :height, :width]

    def _transposed(self, maps: Tensor) -> Vector:
        """The transpose of `_scores`."""
        # The last row and column of an even filter's scores are cut off.
        missing = [self._correlation.output_size[axis] - self._cells[axis] for axis in (1, 0)]
        whole = self._correlation.transposed(F.pad(maps, (0, missing[0], 0, missing[1]))[:, None])
        if self._projection is None:
            return (whole,)
        flat = whole.flatten(2)
        of_filter = (self._projection @ flat).view_as(self._filter)
        return of_filter, self._filter.flatten(2) @ flat.transpose(1, 2)

    def _regularized(self, gradient: Vector, place: Vector) -> Vector:
        return tuple(
            part + weight * own for part, weight, own in zip(gradient, self._regularization, place)
        )


def _back(projection: Tensor, target_filter: Tensor) -> Tensor:
    """P^T f: the filter (1, D, k, k) over all channels, (1, C, k, k)."""
    return (projection.transpose(1, 2) @ target_filter.flatten(2)).unflatten(2, target_filter.shape[2:])
