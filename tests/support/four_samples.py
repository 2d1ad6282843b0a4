"""Four images of one scene with their boxes, from which recorded filters were learned."""

from __future__ import annotations

import torch
from recipe import net_input
from torch import Tensor

# By the side of the images; x, y, w, h in pixels.
BOXES = {
    352: torch.tensor([[146.0, 136, 60, 80], [170, 176, 60, 80], [146, 136, 60, 80], [226, 80, 60, 80]]),
    288: torch.tensor([[114.0, 104, 60, 80], [138, 144, 60, 80], [114, 104, 60, 80], [194, 48, 60, 80]]),
}


def train_images(side: int) -> Tensor:
    """(4, 3, side, side): as it is, moved, mirrored, moved."""
    image = torch.from_numpy(net_input(side, side))
    moved = [image.roll(shift, dims=(2, 3)) for shift in ((40, 24), (-56, 80))]
    return torch.cat((image, moved[0], image.flip(3), moved[1]))
