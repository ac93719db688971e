"""The commands of `scripts/compare_pythons.sh`, run in the project's root."""

import hashlib
import shutil
import sys
from pathlib import Path

from commands import run, say

PACKAGES = ("torch", "numpy", "pandas")


def run_study(python: Path, folder: Path) -> str:
    """Run a small study with a Python; return the SHA-256 of all its tables."""
    names = ["phantom_001", "phantom_002"]
    phantom = folder / "phantom"
    images = [phantom / "CT" / f"{name}.nii.gz" for name in names]
    masks = [phantom / "Lung_Mask" / f"{name}.nii.gz" for name in names]
    results = folder / "results"
    shutil.rmtree(phantom, ignore_errors=True)
    shutil.rmtree(results, ignore_errors=True)
    with (folder / "log").open("w") as log:
        make_phantoms = [python, "-m", "sam_lungs.synthetic.phantom", "--output_folder", phantom]
        run([*make_phantoms, "--cases", 2, "--slices", 16], log)
        study = [python, "process_image.py", "-i", *images, "-m", *masks, "--model", "compact"]
        study += ["--device", "cpu", "--prompts", "paper,contours_no_box"]
        study += [
            "--metrics",
            "nsd,hd95,lung_slices_dice,dice_3d,nsd_3d,hd95_3d",
            "--empty_slices",
            "nearest",
        ]
        run([*study, "--output_folder", results], log)
        run([python, "join_results.py", "-r", results / "paper"], log)
    tables = sorted(results.rglob("*.csv"))
    return hashlib.sha256(b"".join(table.read_bytes() for table in tables)).hexdigest()


def main() -> int:
    pythons = sys.argv[1:] or [f"python3.{minor}" for minor in range(11, 14)]
    tables = {}
    for name in pythons:
        if not shutil.which(name):
            say(f"{name}: not installed")
            continue
        folder = Path("working_data/pythons", Path(name).name)
        python = folder / "venv/bin/python"
        say(f"{name}: see {folder}/log")
        if not python.exists():
            run([name, "-m", "venv", folder / "venv"])
        run([python, "-m", "pip", "install", "--quiet", "-r", "requirements.txt"])
        versions = "; ".join(f"print('  {each}', {each}.__version__)" for each in PACKAGES)
        run([python, "-c", f"import {', '.join(PACKAGES)}; {versions}"])
        tables[name] = run_study(python, folder)
        say(f"  tables {tables[name]}")
    if not tables:
        sys.exit(f"error: none of {', '.join(pythons)} is installed; name one that is")
    same = len(set(tables.values())) == 1
    say("same tables" if same else "DIFFERENT TABLES")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
