"""What feeds a recipe: scenes from a folder of annotated images, or a mixture of published data sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tracker_ar.data.datasets.catalogue import open_dataset
from tracker_ar.data.datasets.youtube_vos import YouTubeVOS
from tracker_ar.data.mixture import FrameSampling, Mixture
from tracker_ar.data.synthetic.library import ImageLibrary, in_split, read_index
from tracker_ar.data.synthetic.scenes import SceneSampler
from tracker_ar.data.target_crops import Deferred, MixedCrops, SceneCrops, VideoCrops
from tracker_ar.data.training_samples import MixedPairs, MixedSequences, SyntheticSource
from tracker_ar.errors import InputError
from tracker_ar.train.recipes import BaseRecipe, DataMix, PooledRefinerRecipe, RefinerRecipe
from tracker_ar.train.rendered import RenderedSource

Source = SyntheticSource | MixedPairs | MixedSequences


def supply(
    recipe: BaseRecipe | RefinerRecipe, data: Path, places: Mapping[str, Path], rendered: bool = False
) -> tuple[Source, Source, str]:
    """Sources of training and of validation samples, and a line that says what they hold.

    Args:
        data: the folder of annotated images, or the one that holds the data sets.
        places: folders of data sets that are elsewhere, by name.
        rendered: have torch render the crops of training scenes, in batches, where the network is.

    Raises:
        DataError: something is missing or not in the layout expected.
    """
    if recipe.data is None:
        train, validation = ImageLibrary(data, "train"), ImageLibrary(data, "validation")
        summary = f"{len(train.images)} training images, {len(validation.images)} held out"
        kind = RenderedSource if rendered else SyntheticSource
        samplers = [SceneSampler(one, recipe.scenes) for one in (train, validation)]
        return kind(samplers[0]), SyntheticSource(samplers[1]), summary
    if rendered:
        raise InputError(f"{recipe.name} learns from data sets: nothing to render, leave --renderer out")
    mixtures = [_open(shares, data, places) for shares in (recipe.data.sets, recipe.data.validation)]
    summary = f"training: {mixtures[0]}\nvalidation: {mixtures[1]}"
    return _mixed(recipe, recipe.data, mixtures[0]), _mixed(recipe, recipe.data, mixtures[1]), summary


def supply_crops(
    recipe: PooledRefinerRecipe, data: Path, places: Mapping[str, Path]
) -> tuple[MixedCrops, MixedCrops, str]:
    """Sources of training and of validation crops: videos with masks, laid out as YouTube-VOS and named `clips` or
    under `data`, and scenes from the folder of annotated images `data`; and a line that says what they hold.

    Raises:
        DataError: something is missing or not in the layout expected.
    """
    folder = places.get("clips", data / "videos")
    index = read_index(data)
    sources, summaries = [], []
    for split in ("train", "validation"):
        videos = YouTubeVOS(folder, split=split)
        clips = {name for name, *_ in videos.objects}
        images = sum(in_split(entry["name"], split) for entry in index)
        summaries.append(f"{split}: {len(clips)} clips with {len(videos)} objects, {images} images")
        held_out = split == "validation"
        share = 0.6 if held_out else recipe.video_share
        parts = VideoCrops(videos, augment=not held_out, stayed=held_out), Deferred(_scenes(data, split, recipe))
        sources.append(MixedCrops(parts, (share, 1.0 - share)))
    return sources[0], sources[1], "\n".join(summaries)


def _scenes(data: Path, split: str, recipe: PooledRefinerRecipe) -> Callable[[], SceneCrops]:
    return lambda: SceneCrops(SceneSampler(ImageLibrary(data, split), recipe.scenes))


def _open(shares: tuple[tuple[str, float], ...], data: Path, places: Mapping[str, Path]) -> Mixture:
    datasets = [open_dataset(name, data, places) for name, _ in shares]
    return Mixture(datasets, [weight for _, weight in shares])


def _mixed(recipe: BaseRecipe | RefinerRecipe, mix: DataMix, mixture: Mixture) -> Source:
    if isinstance(recipe, RefinerRecipe):
        sampling = FrameSampling(1, 1, mix.max_gap, shortest=mix.shortest)
        return MixedPairs(mixture, sampling, mix.augmentation)
    sampling = FrameSampling(recipe.train_frames, recipe.test_frames, mix.max_gap, shortest=mix.shortest)
    return MixedSequences(mixture, sampling, mix.augmentation)
