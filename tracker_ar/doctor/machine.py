"""Processor, GPU and checkpoints."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tracker_ar.doctor.report import Row, failed, ok, warning

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
MODEL_CARD = "README.md"
_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")


def cpu(threads: int, cores: int, environment: Mapping[str, str]) -> Row:
    """The threads that torch uses. cores: that this process may run on. environment: `os.environ`."""
    asked = {name: environment[name] for name in THREAD_VARIABLES if name in environment}
    settings = ", ".join(f"{name}={value}" for name, value in asked.items()) or "OMP_NUM_THREADS not set"
    found = f"torch threads: {threads}, cores: {cores}, {settings}"
    wrong = [name for name, value in asked.items() if not re.fullmatch(r"\s*[1-9]\d*\s*(,.*)?", value)]
    if wrong:
        return warning("CPU", found, f"{wrong[0]} is not a number of threads.",
                       f"export {wrong[0]}={cores}, or unset it")
    if threads > cores:
        return warning("CPU", found, "More threads than cores slow each other down.",
                       f"export OMP_NUM_THREADS={cores}")
    if threads < cores and asked:
        return warning("CPU", found, f"{next(iter(asked))} keeps cores idle.",
                       f"unset {' '.join(asked)}, unless other programs need the cores")
    return ok("CPU", found)


def usable_cores() -> int:
    """The number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu() -> Row:
    """Whether torch has a GPU. None is no fault; a CUDA build that cannot use one is a warning."""
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return ok("GPU",
                  f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}")
    if torch.version.cuda:
        return warning("GPU", f"none usable, though torch is built for CUDA {torch.version.cuda}",
                       "No NVIDIA driver, one that is too old for this build, or CUDA_VISIBLE_DEVICES hides "
                       "the GPU.",
                       "See nvidia-smi; install a driver for this CUDA version. Without a GPU the CPU is "
                       "used.")
    return ok("GPU", "none; this torch is built for CPUs")


# ---- checkpoints


def checkpoints(folder: Path) -> Iterator[Row]:
    """A row for each file that belongs to the best trackers or is installed, and one for the tracker that the id
    AlphaRefine will run."""
    from tracker_ar.weights.slots import SLOTS, where_to_get
    from tracker_ar.weights.store import problem_with
    from tracker_ar.zoo import BEST, best_installed, slots_of

    best = [slot for name in BEST for slot in slots_of(name)]
    shown = [slot for slot in SLOTS if slot in best or (folder / slot.file_name).exists()]
    recorded = recorded_hashes(folder / MODEL_CARD, [slot.file_name for slot in shown])
    running = best_installed(folder)
    usable = True
    for slot in shown:
        name = f"checkpoint {slot.file_name}"
        problem = problem_with(slot, folder)
        if problem is None:
            path = folder / slot.file_name
            row = _whole(name, path, recorded.get(slot.file_name), slot.published is not None)
        elif slot.published and problem == "is missing":
            row = ok(name,
                     "not installed (the authors' weights; `alpharefine checkpoints install` takes them)")
        elif slot.published:
            row = warning(name, "cannot be used", f"It {problem}",
                          f"Until it is fixed, trackers that need it cannot run.\n{where_to_get([slot])}")
        else:
            fix = "git checkout -- checkpoints, or let ALPHAREFINE_CHECKPOINTS name the folder that holds it"
            make = failed if slot in slots_of(running) else warning
            row = make(name, "cannot be used", f"In {folder} it {problem}; the tracker lite cannot run.", fix)
        usable &= slot not in slots_of(running) or (problem is None and row.state != "FAILED")
        yield row
    if usable:
        yield ok("tracker", f"AlphaRefine runs {running} with the weights in {folder}")
    else:
        yield failed("tracker", "AlphaRefine cannot run",
                     f"The tracker {running} lacks sound weights; see above.",
                     f"Fix the checkpoints above, or install the authors':\n{where_to_get(slots_of(BEST[0]))}")


def recorded_hashes(card: Path, file_names: list[str]) -> dict[str, set[str]]:
    """File name -> the SHA-256 that a model card gives in lines that name the file."""
    lines = card.read_text(encoding="utf-8").splitlines() if card.is_file() else []
    found = {name: {digest for line in lines if re.search(rf"(?<![\w-]){re.escape(name)}", line)
                    for digest in _SHA256.findall(line.lower())} for name in file_names}
    return {name: digests for name, digests in found.items() if digests}


def _whole(name: str, path: Path, recorded: set[str] | None, published: bool) -> Row:
    """A row for a file whose header fits: read to its end, and held against the record where there is one."""
    from tracker_ar.errors import CheckpointError
    from tracker_ar.weights.containers import read_checkpoint

    fix = ("Install the authors' file again: alpharefine checkpoints install --force FILE" if published else
            "Restore it: git checkout -- checkpoints. Weights of your own belong in a folder of their own, "
            "named by ALPHAREFINE_CHECKPOINTS.")
    try:
        source = read_checkpoint(path).metadata.get("source", "")
    except CheckpointError as error:
        return failed(name, "damaged", str(error), fix)
    digest = _sha256_of(path)
    if recorded is None:
        origin = f", from {source}" if source else ", no recorded hash to compare with"
        return ok(name, f"SHA-256 {digest}{origin}")
    if digest in recorded:
        return ok(name, f"SHA-256 {digest}, as recorded")
    return failed(name, f"SHA-256 {digest}",
                  f"{path.parent / MODEL_CARD} records {', '.join(sorted(recorded))}: the file was altered "
                  "or is another version.", fix)


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
