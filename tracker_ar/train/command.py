"""`alpharefine train RECIPE`: train one network and export its weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from tracker_ar.train.recipes import RECIPES, RefinerRecipe


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("recipe", choices=sorted(RECIPES), help="what to train")
    parser.add_argument("--data", type=Path, required=True, help="folder with index.json, images/, masks/")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint, log and weights")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--steps", type=int, help="number of steps (resuming is exact)")
    budget.add_argument("--minutes", type=float, help="minutes of training time, over all runs into --out")
    parser.add_argument("--backbone", type=Path, help="a refiner whose backbone lite-base starts from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="processor threads (default 1)")
    parser.add_argument(
        "--half",
        action="store_true",
        help="bfloat16 convolutions: about twice as fast where the processor has them, slower elsewhere",
    )


def run(args: argparse.Namespace) -> int:
    """Train; returns 0. Run it again with the same --out to go on after an interruption."""
    import cv2
    import torch

    from tracker_ar.data.library import ImageLibrary
    from tracker_ar.train.loop import Budget, Trainer

    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    recipe = RECIPES[args.recipe]
    train = ImageLibrary(args.data, "train")
    validation = ImageLibrary(args.data, "validation")
    print(f"{len(train.images)} training images, {len(validation.images)} held out", flush=True)
    if isinstance(recipe, RefinerRecipe):
        from tracker_ar.train.refiner import RefinerTask

        task = RefinerTask(recipe, train, validation, args.seed, args.half)
    else:
        from tracker_ar.train.base import BaseTask

        task = BaseTask(recipe, train, validation, args.seed, args.half, args.backbone)
    Trainer(task, args.out, Budget(args.steps, args.minutes)).run()
    return 0
