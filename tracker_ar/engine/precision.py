"""How exactly a GPU multiplies: what torch keeps in global settings, set for as long as it is needed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


@contextmanager
def tf32_allowed(convolutions: bool, products: bool) -> Iterator[None]:
    """Allow or forbid TF32 - float32 with factors rounded to 10 bits - in convolutions and matrix products;
    afterwards as it was. Without a GPU it changes nothing."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = products, convolutions
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def in_float32(method: Callable[..., Result]) -> Callable[..., Result]:
    """Makes a method of an object with a `device` compute in float32 proper, whatever torch is set to, unless
    something within decides otherwise."""

    @functools.wraps(method)
    def run(self: Any, *arguments: Any, **more: Any) -> Result:
        if self.device.type != "cuda":
            return method(self, *arguments, **more)
        with tf32_allowed(convolutions=False, products=False):
            return method(self, *arguments, **more)

    return run
