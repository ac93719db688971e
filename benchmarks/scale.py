"""Where many GPUs would starve: the study with a stub in place of the model, and Snakemake's plan.

    python -m benchmarks.scale --processes 1 2 --volumes 4 --slices 300
    python -m benchmarks.scale --dry_run 20000

The stub waits 10 ms a slice, as a fast GPU would compute. All else is the code of a study: files
are decompressed, hashed and checked, slices resized, masks measured, results written and joined.
CPU times are those of the processes without their imports; other processes disturb them less than
the elapsed time.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from segment_anything.utils.transforms import ResizeLongestSide

from benchmarks.machine import report
from sam_lungs.data.case import read_case
from sam_lungs.data.case_files import CaseFiles
from sam_lungs.data.readers import identify, read_volume
from sam_lungs.prompts.protocols import PROTOCOLS
from sam_lungs.segmenters import baselines
from sam_lungs.study import run
from sam_lungs.study.options import Options as StudyOptions
from sam_lungs.summary.join import join_results, write_tables
from sam_lungs.synthetic.phantom import write_phantoms
from sam_lungs.utils.cli import option, parse_options, run_script

ROOT = Path(__file__).resolve().parent.parent
SECONDS_A_SLICE = 0.01


@dataclass
class Options:
    """Command-line options."""

    processes: Sequence[int] = option("numbers of processes", (1, 2), shown_default="1 2")
    volumes: int = option("volumes of each process", 2)
    slices: int = option("slices per volume", 100)
    protocols: int = option("number of prompt protocols", 1)
    dry_run: int | None = option("instead time Snakemake's dry run of so many volumes", None)
    json: Path | None = option("also write the table to this file", None)


class Stub(baselines.Box):
    """A model that needs 10 ms a slice and no processor; its mask is the box."""

    resize = ResizeLongestSide(1024)

    def prepare(self, image_rgb, in_window=None):
        self.resize.apply_image(image_rgb)
        return torch.zeros(1)

    def encode(self, pictures):
        time.sleep(SECONDS_A_SLICE * len(pictures))
        return (torch.stack(list(pictures)),)


def main() -> None:
    options = parse_options(
        Options,
        "Measure where many processes would wait for something else than the model.",
        "python -m benchmarks.scale --processes 1 2 --volumes 4 --slices 300",
        prog="python -m benchmarks.scale",
    )
    with tempfile.TemporaryDirectory() as folder:
        measure = time_dry_runs if options.dry_run else time_studies
        report(measure(Path(folder), options), torch.device("cpu"), options.json)


def time_studies(folder: Path, options: Options) -> list[dict]:
    """Return a row for each number of processes; print the times of single steps."""
    write_phantoms(folder, cases=1, slices=options.slices, seed=7, variant="hounsfield")
    image, masks = (folder / name / "phantom_001.nii.gz" for name in ("CT", "Lung_Mask"))
    for name, step in (
        ("SHA-256 of image and masks", lambda: (identify(image), identify(masks))),
        ("reading the image", lambda: read_volume(image)),
        ("reading and checking both", lambda: read_case(CaseFiles(image, (masks,)))),
        ("resizing the slices", lambda: resize_slices(options.slices)),
    ):
        started = time.process_time()
        step()
        print(f"{name}: {time.process_time() - started:.2f} CPU s a volume")

    most = max(options.processes)
    table = folder / "cases.csv"
    lines = ["case,image,masks"]
    for number in range(most * options.volumes):
        # Another name for each: the file is in the page cache, as after a fast file system.
        for path in (image, masks):
            (path.parent / f"{number}.nii.gz").symlink_to(path.name)
        lines.append(f"case_{number},CT/{number}.nii.gz,Lung_Mask/{number}.nii.gz")
    rows = []
    for processes in options.processes:
        table.write_text("\n".join(lines[: 1 + processes * options.volumes]) + "\n")
        (folder / "study.yml").write_text("table: cases.csv\n")
        results = folder / f"results_{processes}"
        names = list(PROTOCOLS)[: options.protocols]
        with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
            parts = [
                pool.submit(run_part, folder / "study.yml", results, names, part, processes)
                for part in range(1, processes + 1)
            ]
            measured = [part.result() for part in parts]
        started = time.process_time()
        joined = join_results(results / names[0])
        write_tables(joined, results / names[0])
        slices = int(joined.volumes["lung_slices"].sum())
        seconds = max(elapsed for elapsed, _ in measured)
        waited = slices / processes * SECONDS_A_SLICE
        rows.append(
            {
                "processes": processes,
                "slices with lung": slices,
                "slices per s": slices / seconds,
                "outside the stub": 1 - waited / seconds,
                "CPU ms per slice": sum(cpu for _, cpu in measured) / slices * 1e3,
                "join, CPU ms per slice": (time.process_time() - started) / slices * 1e3,
            }
        )
    return rows


def resize_slices(slices: int) -> None:
    picture = np.zeros((512, 512, 3), np.uint8)
    for _ in range(slices):
        Stub.resize.apply_image(picture)


def run_part(
    dataset: Path, results: Path, protocols: list[str], part: int, parts: int
) -> tuple[float, float]:
    """Run a part of the study with the stub; return its elapsed and its CPU seconds."""
    run.load_segmenters = lambda _: [Stub(baselines.identify("box"))]
    options = StudyOptions(
        dataset=dataset,
        output_folder=results,
        prompts=tuple(protocols),
        model="box",
        part=(part, parts),
        threads=1,
    )
    elapsed, cpu = time.perf_counter(), time.process_time()
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        assert run.run_study(options) == 0
    return time.perf_counter() - elapsed, time.process_time() - cpu


def time_dry_runs(folder: Path, options: Options) -> list[dict]:
    """Return a row for each number of volumes per job."""
    lines = [f"case_{each},ct/{each}.nii.gz,masks/{each}.nii.gz" for each in range(options.dry_run)]
    (folder / "cases.csv").write_text("\n".join(["case,image,masks", *lines]) + "\n")
    (folder / "study.yml").write_text("table: cases.csv\n")
    rows = []
    for volumes in (100, 1):
        command = [ROOT / ".venv-workflow/bin/snakemake", "-s", ROOT / "workflow/Snakefile", "-n"]
        command += ["--quiet", "all", "--profile", ROOT / "profiles/local", "--config"]
        command += ["dataset=study.yml", "results=results", f"python={sys.executable}"]
        started, before = time.perf_counter(), os.times()
        subprocess.run([*command, f"volumes_per_job={volumes}"], cwd=folder, check=True)
        after = os.times()
        rows.append(
            {
                "volumes": options.dry_run,
                "volumes per job": volumes,
                "s": time.perf_counter() - started,
                "CPU s": after.children_user
                + after.children_system
                - before.children_user
                - before.children_system,
            }
        )
    return rows


if __name__ == "__main__":
    run_script(main)
