"""The base tracker SuperDiMP: a target filter learned online (DiMP) and boxes refined by an IoU network (PrDiMP)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tracker_ar.base import BaseResult
from tracker_ar.base.augmentation import augment_first_frame
from tracker_ar.base.box_refinement import ascend, best_box, jittered_boxes
from tracker_ar.base.localization import Decision, SearchGeometry, keep_inside, localize
from tracker_ar.base.memory import SampleMemory
from tracker_ar.base.randomness import RandomSource
from tracker_ar.base.recorded import Ascent, search
from tracker_ar.crops import SearchRegion, normalize, sample_patch
from tracker_ar.device_crops import on_device, search_region
from tracker_ar.engine.cuda_graphs import Call, Steps, alone, graphs_for
from tracker_ar.engine.inference import move, prepare_for_inference
from tracker_ar.engine.precision import in_float32
from tracker_ar.models.dimp import SuperDiMP
from tracker_ar.base.settings import BaseSettings


@dataclass
class TargetState:
    """Where the target is: position (y, x) and size (height, width), float32, image pixels; scale: image pixels per
    pixel of the network's input."""

    position: Tensor
    size: Tensor
    scale: Tensor


class SuperDiMPTracker:
    """Follows one target. `initialize` once, then `track` each frame; `correct` may move it in between.

    After a frame `scores`, (h, w) float32, and `decision` say how it was found. fast: see `prepare_for_inference` and
    `graphs_for`.
    """

    def __init__(
        self, network: SuperDiMP, settings: BaseSettings, device: torch.device, seed: int = 0, fast: bool = True
    ) -> None:
        self._network = prepare_for_inference(network, device, fast)
        self.graphs = graphs_for(self._network, device, fast)
        self._ascent = Ascent(settings.box_refinement)
        self._settings = settings
        self._seed = seed
        self._input = torch.full((2,), float(settings.input_size))

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._network.device

    def move_to(self, device: torch.device) -> None:
        """Move the network; what was learned of a target stays behind, so that `initialize` must follow."""
        self.graphs.drop()
        move(self._network, device)

    @in_float32
    @torch.no_grad()
    def initialize(self, image: np.ndarray, box: np.ndarray) -> None:
        """Learn the target. image: (H, W, 3) uint8 RGB; box: (4,) x, y, w, h in pixels, of positive size."""
        x, y, width, height = torch.as_tensor(np.asarray(box), dtype=torch.float32)
        self.random = RandomSource(self._seed)
        self.frame_number = 1
        size = torch.stack((height, width))
        position = torch.stack((y + (height - 1) / 2, x + (width - 1) / 2))
        side = math.sqrt(torch.prod(size * self._settings.search_area_scale).item())
        scale = side / self._input.prod().sqrt()
        self.state = TargetState(position, size, scale)
        self.base_size = size / scale
        self._image_size = torch.tensor(image.shape[:2], dtype=torch.float32)
        self._refined_position: Tensor | None = None
        self._learn_first_frame(image)
        if self.graphs.active:
            alone(self.rehearse(image))

    @in_float32
    def track(self, image: np.ndarray) -> BaseResult:
        """Find the target in the next frame, (H, W, 3) uint8 RGB of the first frame's size."""
        return alone(self.steps(image))

    @torch.no_grad()
    def steps(self, image: np.ndarray) -> Steps[BaseResult]:
        """`track`, to be run together with the steps of other targets."""
        self.frame_number += 1
        settings, state = self._settings, self.state
        region = self._cut(image)
        images = normalize(region.patch).to(self.device)
        backbone, features, scores = yield Call(self.graphs, search, (images, self.filter))
        self.scores = scores[0, 0].float().cpu()
        geometry = self._geometry(region.coords, features)

        translation, decision = localize(self.scores, geometry, state.position, state.size, settings.localization)
        if decision is not Decision.NOT_FOUND:
            state.position = keep_inside(
                geometry.position + translation, state.size, self._image_size, settings.localization.inside_ratio
            )
            start = self._start_boxes(geometry)
            if self.graphs.active:
                rated = (yield self._ascent_call(backbone, start))[0].cpu()
                box = best_box(rated[:, :4], rated[:, 4], settings.box_refinement)
            else:
                box = self._refine_box(backbone, start)
            if box is not None:
                self._take_over(box, geometry)
        if decision.learns:
            self._learn(features, self._box_in_search(geometry), decision)
        if decision is not Decision.NOT_FOUND:
            # Where no sane box was found this returns to the last refined position, as the reference does.
            if self._refined_position is not None:
                self.state.position = self._refined_position
        self.decision = decision
        return BaseResult(self._box(), float(self.scores.max().clamp(0, 1)))

    def correct(self, box: np.ndarray) -> None:
        """Continue from `box`, (4,) x, y, w, h.

        The centre is corner + size / 2, half a pixel off the convention of `initialize`, as in the entry.
        """
        x, y, width, height = (float(v) for v in box)
        size = torch.tensor([height, width], dtype=torch.float32)
        position = torch.tensor([y + height / 2, x + width / 2], dtype=torch.float32)
        self.state = TargetState(position, size, self._scale_of(size))

    # ---- the first frame

    def _learn_first_frame(self, image: np.ndarray) -> None:
        settings, state = self._settings, self.state
        center = state.position.round()
        patches, shifts = augment_first_frame(
            image, center, state.scale, settings.input_size, settings.augmentation, self.random.augmentation_shifts
        )
        backbone = self._network.extract_backbone(normalize(patches).to(self.device))
        features = self._network.classification_features(backbone)
        features = torch.cat((features, self._with_dropped_channels(features[:1])))
        search = SearchGeometry(center, state.scale, self._input)
        plain_box = self._box_in_search(search)
        moves = torch.zeros(len(features), 4)
        moves[: len(shifts), :2] = torch.as_tensor(shifts, dtype=torch.float32).flip(1)
        boxes = (plain_box + moves).to(self.device)

        classifier = self._network.classifier
        self.filter = classifier.initial_filter(features, boxes)
        self.filter = classifier.optimize_filter(
            self.filter, features, boxes, settings.memory.initial_iterations
        )
        self.memory = SampleMemory(features, boxes, settings.memory)
        first = {name: layer[:1] for name, layer in backbone.items()}
        self._target_iou = self._network.target_iou(first, boxes[:1])

    def _with_dropped_channels(self, features: Tensor) -> Tensor:
        """Copies of the plain sample's features, (1, C, h, w), with a share of the channels set to zero."""
        settings = self._settings.augmentation
        kept = self.random.kept_channels(settings.dropout_samples, features.shape[1], settings.dropout_probability)
        gain = kept.to(features) / (1 - settings.dropout_probability)
        return features * gain[:, :, None, None]

    @torch.no_grad()
    def rehearse(self, image: np.ndarray) -> Steps[None]:
        """Record now what the next frames replay: a first replay would cost the first frame a second."""
        images = normalize(self._cut(image).patch)
        backbone, _, _ = yield Call(self.graphs, search, (images, self.filter))
        middle = torch.cat((self._input / 4, self._input / 2)).to(self.device)
        yield self._ascent_call(backbone, middle.expand(1 + self._settings.box_refinement.random_boxes, 4))

    # ---- one frame

    def _cut(self, image: np.ndarray) -> SearchRegion:
        """The search region; already on the device where the tracker makes the most of a GPU."""
        where = self._search_center(), self.state.scale * self._input, self._input
        how = self._settings.border_mode, self._settings.max_scale_change
        if self.graphs.active:
            return search_region(on_device(image, self.device), *where, *how)
        return sample_patch(image, *where, *how)

    def _search_center(self) -> Tensor:
        """The centre of the next search region; half a cell aside where the score map has no middle cell."""
        side, kernel = self.memory.features.shape[-1], self.filter.shape[-1]
        return self.state.position + (side + kernel) % 2 * self.state.scale * self._input / (2 * side)

    def _geometry(self, coords: Tensor, features: Tensor) -> SearchGeometry:
        corners = coords.float().reshape(2, 2)
        position = 0.5 * (corners[0] + corners[1] - 1)
        scale = ((corners[1] - corners[0]) / self._input).prod().sqrt()
        cells = torch.tensor(features.shape[-2:], dtype=torch.float32)
        return SearchGeometry(position, scale, self._input / cells)

    def _start_boxes(self, geometry: SearchGeometry) -> Tensor:
        settings = self._settings.box_refinement
        noise = self.random.box_noise(settings.random_boxes)
        return jittered_boxes(self._box_in_search(geometry), noise, settings).to(self.device)

    def _ascent_call(self, backbone: dict[str, Tensor], start: Tensor) -> Call:
        folded = tuple(part[None] for part in self._target_iou.folded)
        return Call(self.graphs, self._ascent, (backbone, folded, start[None]))

    def _refine_box(self, backbone: dict[str, Tensor], start: Tensor) -> Tensor | None:
        """Operator by operator."""
        features, settings = self._network.iou_features(backbone), self._settings.box_refinement
        # Hundreds of small operators: what torch keeps track of for each even without gradients adds up.
        with torch.inference_mode():
            boxes, iou = ascend(self._target_iou.on(features), start, settings)
            return best_box(boxes.cpu(), iou.cpu(), settings)

    def _take_over(self, box: Tensor, geometry: SearchGeometry) -> None:
        """The box, (4,) x, y, w, h in pixels of the search region, is where the target is."""
        center = (box[:2] + box[2:] / 2).flip(0)
        position = (center - (self._input - 1) / 2) * geometry.scale + geometry.position
        size = box[2:].flip(0) * geometry.scale
        self._refined_position = position
        self.state = TargetState(position, size, self._scale_of(size))

    def _learn(self, features: Tensor, box: Tensor, decision: Decision) -> None:
        settings = self._settings.memory
        hard = decision is Decision.HARD_NEGATIVE
        self.memory.add(
            features, box.to(self.device), settings.hard_negative_learning_rate if hard else settings.learning_rate
        )
        if hard:
            iterations = settings.hard_negative_iterations
        elif (self.frame_number - 1) % settings.update_interval == 0:
            iterations = settings.update_iterations
        else:
            return
        self.filter = self._network.classifier.optimize_filter(
            self.filter, self.memory.features, self.memory.boxes, iterations,
            self.memory.active_weights.to(self.device),
        )

    # ---- conversions

    def _scale_of(self, size: Tensor) -> Tensor:
        return torch.sqrt(size.prod() / self.base_size.prod())

    def _box(self) -> np.ndarray:
        position, size = self.state.position, self.state.size
        corner = position.flip(0) - (size.flip(0) - 1) / 2
        return torch.cat((corner, size.flip(0))).double().numpy()

    def _box_in_search(self, search: SearchGeometry) -> Tensor:
        """The target's box in pixels of the search region, (4,) x, y, w, h."""
        center = (self.state.position - search.position) / search.scale + (self._input - 1) / 2
        size = self.state.size / search.scale
        return torch.cat(((center - (size - 1) / 2).flip(0), size.flip(0)))
