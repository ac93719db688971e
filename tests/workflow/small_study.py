"""A study of a few phantoms: with Snakemake, and with one process after the other."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
SNAKEMAKE = ROOT / ".venv-workflow/bin/snakemake"
PROTOCOLS = ["paper", "no_box"]
JOINED = [f"results/{name}/joint_results.csv" for name in PROTOCOLS]
# Where the images and masks of the phantoms are.
FOLDERS = {"images": "CT", "masks": "Lung_Mask"}
STUDY = ["--dataset", "study.yml", "--output_folder", "results"]
STUDY += ["--prompts", ",".join(PROTOCOLS), "--model", "compact", "--device", "cpu"]
# The commands that give the results without Snakemake; the first three give JOINED.
COMMANDS = [
    ["process_image.py", *STUDY, "--threads", "1"],
    *(["join_results.py", "-r", f"results/{name}", "--dataset", "study.yml"] for name in PROTOCOLS),
    [
        *("compare_runs.py", "-r", *(f"results/{name}" for name in PROTOCOLS)),
        *("--dataset", "study.yml", "--output_folder", "results/comparison"),
    ],
    [
        *("make_report.py", "-r", "results/paper", "--compare", "results/no_box"),
        *("--dataset", "study.yml"),
    ],
]


def write_study(folder: Path, **config: object) -> None:
    """Write a dataset file and a configuration into a folder; its cases are added by `add_case`.

    config: keys of the configuration, further ones or others.
    """
    for name in FOLDERS.values():
        (folder / "scans" / name).mkdir(parents=True)
    dataset = {key: f"scans/{name}/{{case}}.nii.gz" for key, name in FOLDERS.items()}
    (folder / "study.yml").write_text(yaml.safe_dump(dataset))
    of_all = {"dataset": "study.yml", "results": "results", "prompts": PROTOCOLS}
    of_all |= {"models": ["compact"], "options": ["--device", "cpu"], "threads": 1, "gpu": False}
    of_all |= {"python": sys.executable}
    (folder / "config.yaml").write_text(yaml.safe_dump(of_all | config))


def add_case(folder: Path, phantoms: Path, number: int) -> None:
    """Add a phantom to the dataset of a study; its files are found by their names."""
    for name in FOLDERS.values():
        file_name = f"phantom_{number:03d}.nii.gz"
        (folder / "scans" / name / file_name).symlink_to(phantoms / name / file_name)


def start_snakemake(folder: Path, profile: Path, *arguments: str) -> subprocess.Popen:
    """Start the workflow in the folder of a study, in a process group of its own."""
    command = [SNAKEMAKE, "--snakefile", ROOT / "workflow/Snakefile"]
    command += ["--configfile", "config.yaml", "--profile", profile, *arguments]
    with (folder / "snakemake.log").open("a") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def run_snakemake(folder: Path, profile: Path, *arguments: str) -> None:
    """Run the workflow to its end, which must succeed."""
    assert start_snakemake(folder, profile, *arguments).wait() == 0, log_of(folder)


def log_of(folder: Path) -> str:
    """Return what Snakemake printed in the folder of a study."""
    return (folder / "snakemake.log").read_text()


def products(folder: Path) -> dict[str, bytes]:
    """Return the tables and pages of a study by their paths."""
    paths = [*folder.glob("results/**/*.csv"), *folder.glob("results/**/*.html")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(paths)}


def times_of_runs(folder: Path) -> dict[str, int]:
    """Return when each finished volume was written, by the path of its run.json."""
    paths = sorted(folder.glob("results/*/*/run.json"))
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in paths}
