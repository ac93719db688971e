"""How a study is run."""

from dataclasses import dataclass, field
from pathlib import Path

from sam_lungs import results
from sam_lungs.prompts import PromptProtocol

# What a metric is asked for as, and its name in the tables.
METRICS = {
    "jaccard": "jaccard",
    "dice": "dice",
    "nsd": "nsd",
    "hd95": "hd95_mm",
    "volume_dice": "volume_dice",
}
EMPTY_SLICES = ("skip", "nearest")


@dataclass(frozen=True)
class Options:
    """What is asked of a study; every default reproduces the paper.

    slice_index: process this one only, and write no results.
    output_folder: the results folder; `results/` beside each image when `None`.
    checkpoint: weights to use in place of the official ones of `model`.
    window: as `windowing.choose_window` takes it.
    protocols: prompt protocols by name, all evaluated in one pass; the results of each go into the
        folder of its name in the results folder, those of the nameless one straight into it.
    batch_size: slices encoded at once; `None` lets each device say.
    metrics: which are reported, as the tables name them; Jaccard and Dice always are.
    tolerance_mm: how far outlines may lie apart and still agree, for `nsd`.
    empty_slices: of `EMPTY_SLICES`, what becomes of slices without lung; `nearest` prompts them as
        the nearest slice with lung, to count what SAM finds where nothing is.
    save_masks: write what SAM predicts as `predicted_masks.nii.gz` beside the results.
    embeddings_folder: where embeddings are kept, as numbers of `embeddings_precision`, one of
        `embeddings.DTYPES`.
    """

    slice_index: int | None = None
    debug: bool = False
    dry_run: bool = False
    output_folder: Path | None = None
    model: str = "vit_l"
    checkpoint: Path | None = None
    device: str = "auto"
    precision: str = "float32"
    window: str = "auto"
    protocols: dict[str, PromptProtocol] = field(default_factory=lambda: {"": PromptProtocol()})
    batch_size: int | None = None
    metrics: tuple[str, ...] = results.METRICS
    tolerance_mm: float = 1.0
    empty_slices: str = "skip"
    save_masks: bool = False
    embeddings_folder: Path | None = None
    embeddings_precision: str = "float32"
    strict_geometry: bool = False
