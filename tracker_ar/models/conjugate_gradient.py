"""Conjugate gradient for the online learning of ATOM and ECO: few steps, preconditioned, directions may be kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

Vector = tuple[Tensor, ...]  # unknowns, as tensors of any shape


class LinearProblem(Protocol):
    """Symmetric positive equations; their matrix is known by what it does."""

    def product(self, x: Vector) -> Vector:
        """Matrix times x."""

    def precondition(self, residual: Vector) -> Vector:
        """An approximate inverse of the matrix times a residual."""

    def inner(self, first: Vector, second: Vector) -> Tensor:
        """The inner product, a scalar, in which the matrix is symmetric."""


@dataclass(frozen=True)
class Direction:
    """The last direction of a run, from which the next one may go on.

    energy: preconditioned square of the residual in the last step; residual: the one before that step.
    """

    step: Vector
    energy: Tensor
    residual: Vector


def conjugate_gradient(
    problem: LinearProblem, right: Vector, start: Vector | None, steps: int, *,
    polak_ribiere: bool = True, last: Direction | None = None, kept: float = 1.0,
) -> tuple[Vector | None, Direction | None]:
    """`steps` steps towards the solution of matrix * x = right.

    start: where to begin; None for zero, which saves one product. polak_ribiere: that formula, cut off at zero, for
    the part of the old direction; else Fletcher-Reeves. last: the direction of an earlier run to go on from, whose
    weight is multiplied by `kept`. Returns the solution (`start` where the residual is zero already) and the last
    direction.
    """
    residual = right if start is None else _plus(right, problem.product(start), -1.0)
    x = start
    if last is not None:
        last = Direction(last.step, last.energy / kept, last.residual)
    for index in range(steps):
        ahead = problem.precondition(residual)
        energy = problem.inner(residual, ahead)
        if energy == 0:
            break
        step = ahead
        if last is not None:
            fresh = energy - problem.inner(last.residual, ahead) if polak_ribiere else energy
            step = _plus(ahead, last.step, (fresh / last.energy).clamp(min=0))
        moved = problem.product(step)
        length = energy / problem.inner(step, moved)
        last = Direction(step, energy, residual)
        x = tuple(length * part for part in step) if x is None else _plus(x, step, length)
        if index < steps - 1:
            residual = _plus(residual, moved, -length)
    return x, last


def _plus(first: Vector, second: Vector, factor: float | Tensor) -> Vector:
    return tuple(a + factor * b for a, b in zip(first, second, strict=True))
