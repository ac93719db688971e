r"""The whole study, from files to tables: ours beside `SamPredictor`, one slice at a time.

python -m benchmarks.study --model vit_b --volumes 1 --slices 8

Each is a process of its own, as a user starts it, and they take turns. The volumes are phantoms in
Hounsfield units; without --checkpoint the weights are untrained, which takes as long.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks import weights
from benchmarks.machine import median, peak_memory_gb, report
from sam_lungs.prompts.rules import PROTOCOLS
from sam_lungs.segmenters.checkpoints import CHECKPOINTS
from sam_lungs.segmenters.sam import PRECISIONS, choose_devices
from sam_lungs.synthetic.phantom import phantom_volume
from sam_lungs.utils.errors import InputError, run_script

ROOT = Path(__file__).resolve().parent.parent
TEN_PROTOCOLS = list(PROTOCOLS)[:10]


def main() -> None:
    parser = argparse.ArgumentParser(
        description="The whole study, ours beside SamPredictor slice by slice.", allow_abbrev=False
    )
    parser.add_argument("--model", choices=CHECKPOINTS, default="vit_b")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--volumes", type=int, default=1)
    parser.add_argument("--slices", type=int, default=8, help="of each volume")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--precision", choices=PRECISIONS, nargs="+", default=["float32"])
    parser.add_argument("--skip_sam_predictor", action="store_true")
    parser.add_argument("--skip_sweep", action="store_true")
    parser.add_argument("--json", type=Path, help="write the table here as well")
    args = parser.parse_args()

    device = choose_devices(args.device)[0]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        checkpoint = folder / "weights.pth"
        torch.save(weights.load(args.model, args.checkpoint).state_dict(), checkpoint)
        model_gb = checkpoint.stat().st_size / 1e9
        write = partial(write_volume, folder, args.slices)
        with get_context("spawn").Pool() as processes:
            lung_slices = sum(processes.map(write, range(args.volumes), chunksize=1))
        images = [folder / f"image_{case}.npy" for case in range(args.volumes)]
        masks = [folder / f"masks_{case}.npy" for case in range(args.volumes)]

        ours = [sys.executable, str(ROOT / "process_image.py"), "-i", *images, "-m", *masks]
        ours += ["--model", args.model, "--checkpoint", checkpoint, "--device", args.device]
        ours += ["--overwrite"]  # for rounds, and runs in one folder
        commands = {}
        if not args.skip_sam_predictor:
            pairs = [path for pair in zip(images, masks, strict=True) for path in pair]
            commands["SamPredictor, slice by slice"] = [
                *(sys.executable, "-m", "benchmarks.slice_by_slice"),
                *(args.model, checkpoint, args.device, folder / "theirs.csv", *pairs),
            ]
        for precision in args.precision:
            name = f"ours, {precision}"
            commands[name] = [*ours, "--precision", precision, "--output_folder", folder / name]
        precision = args.precision[0]
        if not args.skip_sweep:
            commands[f"ours, {precision}, ten protocols"] = [
                *(*ours, "--precision", precision, "--prompts", ",".join(TEN_PROTOCOLS)),
                *("--output_folder", folder / "sweep"),
            ]
        keep = ("--embeddings_folder", folder / "embeddings", "--output_folder", folder / "kept")
        commands["ours, embeddings written"] = [*ours, "--precision", precision, *keep]
        commands["ours, embeddings read"] = [*ours, "--precision", precision, *keep]

        took = {name: [] for name in commands}
        for _ in range(args.rounds):
            for name, command in commands.items():
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
                "s a lung slice": seconds / lung_slices,
                "ratio": median([seconds for seconds, _ in took[first]]) / seconds,
                "peak GB": peak_gb,
                "beyond the weights": peak_gb - model_gb,
            }
            if (folder / name).exists():
                row["mean Dice"] = read_dice(folder / name).mean()
                row["Dice differs by"] = np.abs(read_dice(folder / name) - exact).mean()
            elif name == first:
                theirs = pd.read_csv(folder / "theirs.csv")["dice"].to_numpy()
                row["mean Dice"] = theirs.mean()
                row["Dice differs by"] = np.abs(theirs - exact).mean()
            rows.append(row)
        report(rows, device, args.json)
        print(f"{args.volumes} volumes, {lung_slices} slices with lung, {args.model}")


def write_volume(folder: Path, slices: int, case: int) -> int:
    """Write a phantom and its masks as arrays; return how many slices have lung."""
    image, masks, _ = phantom_volume(7, case, slices, "hounsfield")
    np.save(folder / f"image_{case}.npy", image)
    np.save(folder / f"masks_{case}.npy", masks)
    return int(masks.any(axis=(0, 1)).sum())


def run(command: list) -> tuple[float, float]:
    """Run a command; return its seconds and the peak of its memory in GB."""
    started = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE)
    with process.stderr:
        said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise InputError(f"{command[1]} failed: {said.decode()[-500:]}")
    return seconds, peak_memory_gb(usage)


def read_dice(results_folder: Path) -> np.ndarray:
    """Return the Dice score of each slice with lung, in the order of volumes and slices."""
    paths = sorted(
        results_folder.glob("*/raw_data.csv"),
        key=lambda path: int(path.parent.name.rpartition("_")[2]),
    )
    return pd.concat([pd.read_csv(path)["dice"] for path in paths]).dropna().to_numpy()


if __name__ == "__main__":
    run_script(main)
