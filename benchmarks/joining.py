"""Time and memory of joining a study and of its report, by the number of volumes.

    python -m benchmarks.joining --join 1000 2000 --report 200 2000

Results folders are written as a run writes them, with random scores and without images. Each script
is a process of its own, as a user starts it; its time is that of the processor.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from sam_lungs.study.layout import FIGURES_FOLDER, RAW_DATA_NAME, REPORT_NAME, SUMMARY_NAME
from sam_lungs.study.results import SliceResult, slices_table, write_volume_tables
from sam_lungs.study.run_record import RunRecord, code_sha256
from sam_lungs.utils.cli import option, parse_options, run_script
from sam_lungs.utils.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
SUBSETS = ("north", "south", "east", "west")
MOST_VOLUMES_OF_A_PATIENT = 3
RECORD = RunRecord(
    numbers_version=1,
    image={"file": "image.npy", "sha256": "1ma9e"},
    masks=[{"file": "masks.npy", "sha256": "3a5c5"}],
    reading={"window": "auto", "align": "auto", "objects": None},
    segmenter={"model": "vit_b", "family": "sam", "weights": {"sam_vit_b.pth": "ec64"}},
    options={"precision": "float32", "save_masks": False},
    other_options={"model": "vit_b"},
    protocol={"points": "inside", "box": True},
    environment={"device": "cpu", "threads": 2, "code_sha256": code_sha256()},
    command=["process_image.py"],
)


@dataclass
class Options:
    """Command-line options."""

    join: Sequence[int] = option(
        "volumes of the studies to join", (1000, 2000), group="data", shown_default="1000 2000"
    )
    report: Sequence[int] = option(
        "volumes of the studies to report", (200, 2000), group="data", shown_default="200 2000"
    )
    slices: int = option("slices per volume", 300, group="data")
    folder: Path | None = option(
        "where the studies are written and kept; those of an earlier run are used again",
        None,
        group="data",
        shown_default="a temporary folder",
    )


def main() -> None:
    options = parse_options(
        Options,
        "Measure time and memory of joining a study and of its report.",
        "python -m benchmarks.joining --join 1000 2000 --report 200 2000",
        prog="python -m benchmarks.joining",
    )
    with tempfile.TemporaryDirectory() as temporary:
        rows = []
        for script in ("join", "report"):
            for volumes in getattr(options, script):
                study = (options.folder or Path(temporary)) / f"{volumes}_volumes"
                write_study(study, volumes, options.slices)
                rows.append({"script": script, "volumes": volumes} | measure(script, study))
    table = pd.DataFrame(rows)
    first = table.groupby("script")[["s", "peak MB"]].transform("first")
    table[["s, ratio", "MB, ratio"]] = table[["s", "peak MB"]] / first
    print(table.to_string(index=False, na_rep="", float_format="{:.2f}".format))


def measure(script: str, study: Path) -> dict[str, float]:
    """Run a script on a study; return its processor time, peak memory, and sizes of its files."""
    if script == "join":
        return run("join_results.py", study)
    measured = run("make_report.py", study)
    figures = sorted((study / FIGURES_FOLDER).iterdir())
    sizes = {REPORT_NAME: study / REPORT_NAME} | {path.name: path for path in figures}
    return measured | {f"{name}, MB": path.stat().st_size / 1e6 for name, path in sizes.items()}


def run(script: str, study: Path) -> dict[str, float]:
    """Run a script on a study; return its processor time and peak memory."""
    # This process stays small, because a child starts with its parent's peak memory.
    command = [sys.executable, str(ROOT / script), "--results_folder_path", str(study)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        errors = process.stderr.read()
        _, process.returncode, usage = os.wait4(process.pid, 0)
    if process.returncode:
        raise InputError(f"{script} failed: {errors.decode()[-500:]}")
    # Linux counts in KiB, macOS in bytes.
    megabytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    return {"s": usage.ru_utime + usage.ru_stime, "peak MB": megabytes}


def write_study(folder: Path, volumes: int, slices: int) -> None:
    """Write a results folder for each volume that has none yet."""
    random = np.random.default_rng(0)
    patients = np.repeat(
        np.arange(volumes), random.integers(1, MOST_VOLUMES_OF_A_PATIENT + 1, volumes)
    )
    for number in range(volumes):
        volume_folder = folder / f"image_{number:06d}"
        if RunRecord.read(volume_folder):
            continue
        patient = int(patients[number])
        record = replace(
            RECORD, patient=f"patient_{patient:06d}", subset=SUBSETS[patient % len(SUBSETS)]
        )
        table = slices_table(draw_slices(np.random.default_rng(number), slices))
        write_volume_tables(volume_folder, table, {"interactions": float(slices)})
        record.write(volume_folder, [RAW_DATA_NAME, SUMMARY_NAME])


def draw_slices(random: np.random.Generator, slices: int) -> list[SliceResult]:
    """Draw the scores of a volume's slices; neighbours are similar, the outer slices are empty."""
    smooth = np.convolve(random.normal(0, 1, slices + 9), np.full(10, 0.3), "valid")
    dice = 1 / (1 + np.exp(-smooth - random.gamma(9, 0.4)))
    first, last = slices // 10, slices - slices // 8
    rows = []
    for number, value in enumerate(dice.tolist()):
        if not first <= number < last:
            rows.append(SliceResult(number))
            continue
        jaccard = value / (2 - value)
        score = min(1.0, max(0.0, jaccard + random.normal(0, 0.05)))
        areas = random.integers(1000, 60000, 2).tolist()
        rows.append(SliceResult(number, jaccard, value, score, *areas, 7))
    return rows


if __name__ == "__main__":
    run_script(main)
