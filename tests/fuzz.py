"""Bad input without end: `python tests/fuzz.py regions --cases 1000000`.

Each case is made from a seed and its number alone, so `--seed S --first N --cases 1` repeats one. The cases run
in a worker process; one that crashes it or hangs is named, and a new worker goes on behind it. What is allowed to
escape is InputError or CheckpointError, depending on the kind; what must not happen stands in `fuzz_cases`.
Exits with 1 when anything else happened.

Not part of the fast suite, which runs a few hundred of the same cases.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
import traceback
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

PATIENCE = 60.0  # seconds for one case
MOST_SHOWN = 20
CRASHES_ALLOWED = 50  # before the rest is given up

ROOT = Path(__file__).resolve().parents[1]


def work(kind: str, seed: int, first: int, end: int, at: Synchronized, failures: Synchronized) -> None:
    """Run cases first to end - 1; `at` is the present one."""
    import fuzz_cases

    with fuzz_cases.running(kind) as run:
        for number in range(first, end):
            at.value = number
            try:
                run(fuzz_cases.randomness(kind, seed, number))
            except Exception:
                with failures.get_lock():
                    failures.value += 1
                if failures.value <= MOST_SHOWN:
                    print(f"\n{kind} --seed {seed} --first {number} --cases 1", flush=True)
                    traceback.print_exc()
        at.value = end


def watch(kind: str, seed: int, first: int, end: int) -> int:
    """Have workers run the cases; how many went wrong."""
    context = multiprocessing.get_context("spawn")  # a worker that crashed must not have left anything behind
    at, failures = context.Value("q", first - 1), context.Value("q", 0)
    crashes, started, shown, begin = 0, time.monotonic(), time.monotonic(), first
    while first < end and crashes < CRASHES_ALLOWED:
        worker = context.Process(target=work, args=(kind, seed, first, end, at, failures))
        worker.start()
        seen, since = at.value, time.monotonic()
        while worker.is_alive():
            worker.join(0.5)
            now = time.monotonic()
            if at.value != seen:
                seen, since = at.value, now
            if now - since > PATIENCE and seen >= first:
                print(f"\nHANG: {kind} --seed {seed} --first {seen} --cases 1", flush=True)
                worker.kill()
            if now - shown > 30:
                shown = now
                print(f"{kind}: {max(at.value - begin, 0)} of {end - begin} cases, "
                      f"{failures.value + crashes} went wrong, {now - started:.0f} s", flush=True)
        if at.value >= end:
            break
        crashes += 1
        print(f"\nENDED with {worker.exitcode}: {kind} --seed {seed} --first {at.value} --cases 1", flush=True)
        first = at.value + 1
    wrong = failures.value + crashes
    print(f"{kind}: {max(at.value - begin, 0)} cases with seed {seed} in {time.monotonic() - started:.0f} s, "
          f"{wrong} went wrong")
    return wrong


def main() -> int:
    """The exit status: 0 when nothing went wrong."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
    import fuzz_cases

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=sorted(fuzz_cases.KINDS))
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first case (default: 0)")
    args = parser.parse_args()
    return 1 if watch(args.kind, args.seed, args.first, args.first + args.cases) else 0


if __name__ == "__main__":
    sys.exit(main())
