"""Timing, and a description of the machine, for the benchmarks."""

import json
import platform
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sam_lungs.utils import provenance


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(function: Callable[[], object], device: torch.device) -> float:
    """Return the duration of a call, with all work that it starts on the device."""
    synchronize(device)
    started = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - started


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return floating-point operations per second of the fastest of 5 large matrix products.

    Sizes are doubled until a product takes 0.1 s: without instructions for `dtype`, a processor
    takes minutes for one that is a second in float32.
    """
    largest = 8192 if device.type == "cuda" else 4096
    size, seconds = 128, 0.0
    while seconds < 0.1 and size < largest:
        size *= 2
        one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        torch.mm(one, other)
        seconds = min(seconds_of(partial(torch.mm, one, other), device) for _ in range(5))
    return 2 * size**3 / seconds


def peak_memory_gb(usage: resource.struct_rusage) -> float:
    """Return the peak resident memory of a process."""
    # Linux counts in KiB, macOS in bytes.
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def report(rows: list[dict], device: torch.device, path: Path | None) -> None:
    """Print a table and the machine; if there is a path, also write both as JSON."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    machine = {
        "device": provenance.device_name(device),
        "processor": processor,
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "versions": provenance.versions_of(provenance.PACKAGES),
        "commit": provenance.code_commit(),
    }
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format=lambda number: f"{number:.4g}"))
    print(
        f"{machine['device']}, {processor} ({machine['capability']}), {machine['threads']} threads,"
        f" torch {torch.__version__}"
    )
    if path:
        rows = table.astype(object).where(table.notna(), None).to_dict("records")
        path.write_text(
            json.dumps({"machine": machine, "rows": rows}, indent=2, default=str) + "\n"
        )


def median(values: list[float]) -> float:
    return float(np.median(values))
