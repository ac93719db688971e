"""Results folders of volumes, written without a model, and their reports."""

from collections.abc import Sequence
from pathlib import Path

from sam_lungs.study.layout import EMPTY_SLICES_NAME, MASKS_NAME, RAW_DATA_NAME, SUMMARY_NAME
from sam_lungs.study.results import EmptySlice, SliceResult, slices_table, write_volume_tables
from sam_lungs.study.run_record import RunRecord, code_sha256
from sam_lungs.summary.compare import read_runs
from sam_lungs.summary.patients import Patients
from sam_lungs.summary.report import report_runs

RECORD = RunRecord(
    numbers_version=1,
    image={"file": "image.npy", "sha256": "1ma9e"},
    masks=[{"file": "masks.npy", "sha256": "3a5c5"}],
    segmenter={"model": "vit_l", "family": "sam", "weights": {"sam_vit_l.pth": "3adc"}},
    options={"precision": "float32", "save_masks": False},
    other_options={"model": "vit_l"},
    protocol={"points": "inside", "box": True},
    environment={
        "device": "cpu",
        "threads": 2,
        "commit": "abc",
        "python": "3.11",
        "packages": {"torch": "2.6"},
        "code_sha256": code_sha256(),
    },
    command=["process_image.py"],
    reading={"window": "auto", "align": "auto", "objects": None},
)


def write_volume(
    folder: Path,
    slices: list[SliceResult],
    record: RunRecord = RECORD,
    of_volume: dict[str, float] | None = None,
    empty_slices: list[EmptySlice] | None = None,
) -> None:
    """Write the results of a finished run; predicted masks are in the folder already."""
    write_volume_tables(folder, slices_table(slices), of_volume or {}, empty_slices)
    names = (RAW_DATA_NAME, SUMMARY_NAME, EMPTY_SLICES_NAME, MASKS_NAME)
    record.write(folder, [name for name in names if (folder / name).exists()])


def write_report(
    results_folder: Path,
    compared: Sequence[Path] = (),
    published_folder: Path | None = None,
    patients: Patients | None = None,
    allow_mixed: bool = False,
) -> Path:
    """Write a report as `make_report.py` does, and return its path."""
    runs = read_runs([results_folder, *compared], patients, allow_mixed)
    return report_runs(results_folder, runs, published_folder, patients)
