"""Time, memory and agreement of the whole study, from files to tables: ours and `SamPredictor`'s.

    python -m benchmarks.study --model vit_b --volumes 1 --slices 8

Each study is a process of its own, as a user starts it, and they take turns. The volumes are
phantoms in Hounsfield units. Without --checkpoint the weights are untrained, which does not change
the times.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks import weights
from benchmarks.machine import median, peak_memory_gb, report
from sam_lungs.prompts.protocols import PROTOCOLS
from sam_lungs.segmenters.base import DEVICES, PRECISIONS
from sam_lungs.segmenters.checkpoints import CHECKPOINTS
from sam_lungs.segmenters.devices import choose_devices
from sam_lungs.synthetic.phantom import phantom_volume
from sam_lungs.utils.cli import option, parse_options, run_script
from sam_lungs.utils.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
TEN_PROTOCOLS = list(PROTOCOLS)[:10]


@dataclass
class Options:
    """Command-line options."""

    model: str = option("size of SAM", "vit_b", group="model", choices=list(CHECKPOINTS))
    checkpoint: Path | None = option("file of its weights", None, group="model")
    device: str = option("where to compute", "auto", group="model", choices=DEVICES)
    precision: Sequence[str] = option(
        "of our encoder",
        ("float32",),
        group="model",
        choices=PRECISIONS,
        shown_default="float32",
    )
    volumes: int = option("number of volumes", 1, group="data")
    slices: int = option("slices per volume", 8, group="data")
    rounds: int = option("measurements of each study", 1, group="output")
    skip_sam_predictor: bool = option("measure only ours", False, group="output")
    skip_sweep: bool = option("do not measure ten protocols", False, group="output")
    json: Path | None = option("also write the table to this file", None, group="output")


def main() -> None:
    options = parse_options(
        Options,
        "Measure time, memory and agreement of the whole study.",
        "python -m benchmarks.study --model vit_b --volumes 1 --slices 8",
        prog="python -m benchmarks.study",
    )
    device = choose_devices(options.device)[0]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        checkpoint = folder / "weights.pth"
        torch.save(weights.load(options.model, options.checkpoint).state_dict(), checkpoint)
        model_gb = checkpoint.stat().st_size / 1e9
        write = partial(write_volume, folder, options.slices)
        with get_context("spawn").Pool() as processes:
            lung_slices = sum(processes.map(write, range(options.volumes), chunksize=1))
        images = [folder / f"image_{case}.npy" for case in range(options.volumes)]
        masks = [folder / f"masks_{case}.npy" for case in range(options.volumes)]

        ours = [sys.executable, str(ROOT / "process_image.py"), "-i", *images, "-m", *masks]
        ours += ["--model", options.model, "--checkpoint", checkpoint, "--device", options.device]
        commands = {}
        if not options.skip_sam_predictor:
            commands["SamPredictor, slice by slice"] = [
                *(sys.executable, "-m", "benchmarks.slice_by_slice"),
                *("-i", *images, "-m", *masks, "--table", folder / "theirs.csv"),
                *("--model", options.model, "--checkpoint", checkpoint),
                *("--device", options.device),
            ]
        for precision in options.precision:
            name = f"ours, {precision}"
            commands[name] = [*ours, "--precision", precision, "--output_folder", folder / name]
        precision = options.precision[0]
        if not options.skip_sweep:
            commands[f"ours, {precision}, ten protocols"] = [
                *(*ours, "--precision", precision, "--prompts", ",".join(TEN_PROTOCOLS)),
                *("--output_folder", folder / "sweep"),
            ]
        keep = ("--embeddings_folder", folder / "embeddings", "--output_folder", folder / "kept")
        commands["ours, embeddings written"] = [*ours, "--precision", precision, *keep]
        commands["ours, embeddings read"] = [*ours, "--precision", precision, *keep]

        took = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, command in commands.items():
                if "--output_folder" in command:  # finished results would be skipped
                    shutil.rmtree(command[command.index("--output_folder") + 1], ignore_errors=True)
                took[name].append(run(command))
                if name == "ours, embeddings read":
                    for path in (folder / "embeddings").rglob("*.npz"):
                        path.unlink()

        first = next(iter(commands))
        rows = []
        exact = read_dice(folder / f"ours, {precision}")
        for name, measured in took.items():
            seconds = median([seconds for seconds, _ in measured])
            peak_gb = max(peak_gb for _, peak_gb in measured)
            row = {
                "study": name,
                "s": seconds,
                "s per lung slice": seconds / lung_slices,
                "ratio": median([seconds for seconds, _ in took[first]]) / seconds,
                "peak GB": peak_gb,
                "GB without the weights": peak_gb - model_gb,
            }
            if (folder / name).exists():
                row["mean Dice"] = read_dice(folder / name).mean()
                row["Dice differs by"] = np.abs(read_dice(folder / name) - exact).mean()
            elif name == first:
                theirs = pd.read_csv(folder / "theirs.csv")["dice"].to_numpy()
                row["mean Dice"] = theirs.mean()
                row["Dice differs by"] = np.abs(theirs - exact).mean()
            rows.append(row)
        report(rows, device, options.json)
        print(f"{options.volumes} volumes, {lung_slices} slices with lung, {options.model}")


def write_volume(folder: Path, slices: int, case: int) -> int:
    """Write a phantom and its masks as arrays; return its number of slices with lung."""
    image, masks, _ = phantom_volume(7, case, slices, "hounsfield")
    np.save(folder / f"image_{case}.npy", image)
    np.save(folder / f"masks_{case}.npy", masks)
    return int(masks.any(axis=(0, 1)).sum())


def run(command: list) -> tuple[float, float]:
    """Run a command; return its duration in seconds and its peak memory in GB."""
    started = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE)
    with process.stderr:
        errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise InputError(f"{command[1]} failed: {errors.decode()[-500:]}")
    return seconds, peak_memory_gb(usage)


def read_dice(results_folder: Path) -> np.ndarray:
    """Return the Dice score of each slice with lung, ordered by volume and slice."""
    paths = sorted(
        results_folder.glob("*/raw_data.csv"),
        key=lambda path: int(path.parent.name.rpartition("_")[2]),
    )
    return pd.concat([pd.read_csv(path)["dice"] for path in paths]).dropna().to_numpy()


if __name__ == "__main__":
    run_script(main)
