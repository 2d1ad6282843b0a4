"""Learning ECO's filters and projections in the Fourier domain (Danelljan et al. 2017, sections 3.1 and 4.1).

Every layer of features is learned for itself. K is the number of coefficients of its series, in row-major order;
samples are (K, n, channels) complex64, filters (channels, rows, columns) complex64, projections (features, channels)
float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tracker_ar.models.conjugate_gradient import Direction, Vector, conjugate_gradient
from tracker_ar.ops.fourier import bicubic_kernel, gaussian_kernel, inner_product, mirrored_columns, sample, series


@dataclass(frozen=True)
class LayerSettings:
    """How the filter of one layer of features is learned."""

    channels: int  # after the projection
    learning_rate: float
    label_sigma: float  # of the target's side
    window_minimum: float  # of the spatial regularisation, in the middle of the target
    window_edge: float  # the same at the target's border
    window_sparsity: float  # of the largest coefficient of that window: what is smaller is left out
    score_weight: float


@dataclass(frozen=True)
class SolverSettings:
    """Steps and preconditioning."""

    gauss_newton_steps: int = 10
    joint_steps: int = 10  # of conjugate gradient in each of them
    update_steps: int = 5
    projection_penalty: float = 5e-8
    data_share: float = 0.3  # of a channel's own energy in the preconditioner, against the mean of all
    penalty_share: float = 0.15  # of the regularisation's energy in it
    projection_gain: float = 35.0
    kept_after: float = 75.0  # updates' worth of forgetting between two runs, for the last direction


class LayerModel:
    """What is fixed for one layer once the target's size is known.

    window: (s, s), for features of s x s cells; interpolation: (rows, columns) complex64, which makes a function of the
    image out of their transform; label: (rows, columns) float32, the desired score; kernel: of
    `regularization_kernel`.
    """

    def __init__(
        self, cells: int, input_size: int, target_size: Tensor, settings: LayerSettings, bicubic: float,
        device: torch.device,
    ) -> None:
        """target_size: (height, width) float32 in pixels of the input."""
        self.settings = settings
        rows = cells + (cells + 1) % 2
        half = rows // 2
        cosine = 0.5 * (1 - torch.cos(2 * math.pi / (cells + 1) * torch.arange(1, cells + 1, dtype=torch.float32)))
        self.window = torch.outer(cosine, cosine).to(device)
        spline = bicubic_kernel(rows, bicubic)
        self.interpolation = torch.outer(spline, spline[half:]).to(device)
        sigma = (rows / input_size * torch.sqrt(target_size.prod()) * settings.label_sigma).item()
        peak = gaussian_kernel(rows, sigma)
        self.label = torch.outer(peak, peak[half:]).to(device)
        self.kernel = kernel = regularization_kernel(input_size, target_size, settings).to(device)
        self.penalty_energy = kernel.square().sum()
        # The kernel is applied twice in a row: once in the residual, once in its gradient.
        self.reach = kernel.shape[0] - 1, kernel.shape[1] - 1
        self.penalty = F.conv2d(kernel[None, None], kernel[None, None], padding=self.reach)

    def penalized(self, filters: Tensor, mirrored: bool = True) -> Tensor:
        """The gradient of the spatial regularisation. mirrored: whether negative frequencies count as well."""
        if mirrored:
            padded = F.pad(torch.view_as_real(mirrored_columns(filters, self.reach[1])), (0, 0, 0, self.reach[1]))
        else:
            padded = F.pad(torch.view_as_real(filters), (0, 0, self.reach[1], self.reach[1]))
        parts = padded.movedim(-1, 1).reshape(-1, 1, *padded.shape[1:3])
        spread = F.conv2d(parts, self.penalty, padding=(self.reach[0], 0))
        return torch.view_as_complex(spread.view(len(filters), 2, *filters.shape[1:]).movedim(1, -1).contiguous())

    def preconditioner(self, energy: Tensor, solver: SolverSettings) -> Tensor:
        """What a filter's residual is divided by; energy: (channels, rows, columns), mean square of samples."""
        own = solver.data_share * energy + (1 - solver.data_share) * energy.mean(dim=0, keepdim=True)
        return (1 - solver.penalty_share) * own + solver.penalty_share * self.penalty_energy


def regularization_kernel(input_size: int, target_size: Tensor, settings: LayerSettings) -> Tensor:
    """The few coefficients of the spatial regularisation window, (2 r + 1, 2 c + 1) float32 (SRDCF, Danelljan 2015).

    The window is a parabola in both directions; `settings.window_sparsity` says which of its coefficients count.
    """
    offsets = torch.arange(input_size, dtype=torch.float32) - (input_size - 1) // 2
    rows, columns = (offsets / (side / 2) for side in target_size)
    window = (settings.window_edge - settings.window_minimum) * (rows[:, None] ** 2 + columns**2)
    coefficients = series(window + settings.window_minimum) / input_size**2
    size = coefficients.abs()
    sparse = torch.where(size < settings.window_sparsity * size.max(), 0, coefficients)
    middle = input_size // 2
    used = sparse.nonzero()
    down, right = int(used[:, 0].max()) - middle, int(used[:, 1].max())
    sparse = sparse[middle - down : middle + down + 1, : right + 1]
    # What was left out must not make the window fall below its minimum.
    missing = settings.window_minimum - sample(sparse, (input_size, input_size)).min()
    kernel = sparse.real.clone()
    kernel[down, 0] += missing
    return torch.cat((kernel[:, 1:].flip((0, 1)), kernel), dim=1)


class JointProblem:
    """The normal equations of one Gauss-Newton step for filter and projection together (ECO, equation 7).

    As in the published code the negative frequencies of a change of the filter do not count in the regularisation.
    """

    def __init__(
        self, model: LayerModel, samples: Tensor, energy: Tensor, filters: Tensor, projection: Tensor,
        solver: SolverSettings,
    ) -> None:
        """samples: (K, n, features), weighing the same. energy: of the projected samples, as `LayerModel` takes it."""
        self._model, self._samples, self._solver = model, samples, solver
        self._filters, self._projection = filters, projection.to(samples.dtype)
        self._divisor = model.preconditioner(energy, solver)
        label = model.label.to(samples.dtype)
        self._projection_divisor = solver.projection_gain * (
            2 * inner_product(label, label) / samples.shape[2] + solver.projection_penalty
        )

    def right_side(self) -> Vector:
        """Minus the gradient."""
        responses = self._responses(_rows(self._filters) @ self._projection.T)
        filters, projection = self._transposed(responses - self._model.label.reshape(-1, 1))
        penalty = self._solver.projection_penalty * self._projection.real
        return -filters - self._model.penalized(self._filters), -projection - penalty

    def product(self, x: Vector) -> Vector:
        change, turn = x
        moved = _rows(change) @ self._projection.T + _rows(self._filters) @ turn.to(self._projection.dtype).T
        filters, projection = self._transposed(self._responses(moved))
        return (
            filters + self._model.penalized(change, mirrored=False),
            projection + self._solver.projection_penalty * turn,
        )

    def precondition(self, residual: Vector) -> Vector:
        return residual[0] / self._divisor, residual[1] / self._projection_divisor

    def inner(self, first: Vector, second: Vector) -> Tensor:
        return inner_product(first[0], second[0]) + torch.dot(first[1].reshape(-1), second[1].reshape(-1))

    def _responses(self, wide: Tensor) -> Tensor:
        """Of every sample to a filter for unprojected features, (K, features) -> (K, n)."""
        return torch.bmm(self._samples, wide[:, :, None])[:, :, 0]

    def _transposed(self, responses: Tensor) -> Vector:
        """(K, n) -> what they bring to filter and projection."""
        weighted = responses.conj()[:, None].resolve_conj() / self._samples.shape[1]
        wide = torch.bmm(weighted, self._samples)[:, 0].conj()
        filters = (wide @ self._projection).T.reshape(self._filters.shape)
        return filters, (wide.T @ _rows(self._filters).conj()).real


class FilterProblem:
    """The equations of the filter alone, from weighted projected samples (K, n, channels) and weights (n,)."""

    def __init__(
        self, model: LayerModel, samples: Tensor, weights: Tensor, energy: Tensor, solver: SolverSettings
    ) -> None:
        self._model, self._samples, self._weights = model, samples, weights.to(samples.dtype)
        self._divisor = model.preconditioner(energy, solver)

    def right_side(self) -> Vector:
        """Of the equations."""
        mean = self._weights @ self._samples
        shape = self._divisor.shape
        return (mean.conj().T.reshape(shape) * self._model.label,)

    def product(self, x: Vector) -> Vector:
        (filters,) = x
        responses = torch.bmm(self._samples, _rows(filters)[:, :, None])
        weighted = (responses[:, :, 0].conj() * self._weights)[:, None]
        seen = torch.bmm(weighted, self._samples)[:, 0].conj()
        return (seen.T.reshape(filters.shape) + self._model.penalized(filters),)

    def precondition(self, residual: Vector) -> Vector:
        return (residual[0] / self._divisor,)

    def inner(self, first: Vector, second: Vector) -> Tensor:
        return inner_product(first[0], second[0])


def learn_jointly(
    model: LayerModel, samples: Tensor, projection: Tensor, solver: SolverSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Filter and projection from the samples of the first frame, (K, n, features), and a first guess of the projection.

    Returns the filter, the projection, and the mean energy (channels, rows, columns) of the samples under the guess.
    """
    shape = projection.shape[1], *model.label.shape
    energy = (samples @ projection.to(samples.dtype)).abs().square().mean(dim=1).T.reshape(shape)
    filters = samples.new_zeros(shape)
    for _ in range(solver.gauss_newton_steps):
        problem = JointProblem(model, samples, energy, filters, projection, solver)
        change, _ = conjugate_gradient(problem, problem.right_side(), None, solver.joint_steps, polak_ribiere=False)
        if change is None:
            break
        filters, projection = filters + change[0], projection + change[1]
    return made_real(filters), projection, energy


def update_filter(
    model: LayerModel, filters: Tensor, samples: Tensor, weights: Tensor, energy: Tensor, last: Direction | None,
    kept: float, solver: SolverSettings,
) -> tuple[Tensor, Direction | None]:
    """The filter after more steps from where it is, and the direction for the next time: see `conjugate_gradient`."""
    problem = FilterProblem(model, samples, weights, energy, solver)
    found, last = conjugate_gradient(
        problem, problem.right_side(), (filters,), solver.update_steps, last=last, kept=kept
    )
    assert found is not None
    return made_real(found[0]), last


def made_real(filters: Tensor) -> Tensor:
    """The filter of a real function: coefficients without column frequency are conjugates of each other."""
    first = filters[..., 0]
    real = filters.clone()
    real[..., 0] = (first + first.flip(-1).conj()) / 2
    return real


def principal_directions(features: Tensor, count: int) -> Tensor:
    """(features, count) float32: those of largest variance in (n, features, h, w), by the SVD of their covariance."""
    values = features.transpose(0, 1).flatten(1)
    values = values - values.mean(dim=1, keepdim=True)
    return torch.linalg.svd(values @ values.T)[0][:, :count].contiguous()


def _rows(filters: Tensor) -> Tensor:
    """(channels, rows, columns) -> (K, channels)."""
    return filters.flatten(1).T
