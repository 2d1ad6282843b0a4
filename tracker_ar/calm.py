"""Threads that leave the processor to others: set before torch is loaded, by every entry point.

OpenMP's threads spin while they wait for each other. On a busy machine they take the processor from those that work:
with a load of 5 on two cores a frame of `lite` took 950 to 1,240 ms instead of 47, and 46 ms without spinning.
Whoever has set these variables keeps what was set.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def calm() -> None:
    """No spinning, and no more threads than processors that may really be used. Has no effect once torch is loaded."""
    os.environ.setdefault("GOMP_SPINCOUNT", "0")  # GNU's OpenMP
    os.environ.setdefault("KMP_BLOCKTIME", "0")  # Intel's and LLVM's
    usable = usable_processors()
    if usable < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(usable))


def usable_processors(cgroup: Path = CGROUP) -> int:
    """How many processors this process may use: by its affinity, and by the quota of its container (cgroup 2 or 1)."""
    if sys.platform == "linux":
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    quota = _quota(cgroup)
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def _quota(cgroup: Path) -> float | None:
    """Processors' worth of time, None where nothing limits it."""
    try:
        if (cgroup / "cpu.max").is_file():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            files = (cgroup / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
            quota, period = (file.read_text().strip() for file in files)
        return float(quota) / float(period) if float(quota) > 0 and float(period) > 0 else None
    except (OSError, ValueError):  # no cgroups here; "max" is no number
        return None
