"""How a study is run."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from sam_lungs.data.volumes import volume_name
from sam_lungs.prompts.rules import PromptProtocol
from sam_lungs.study import results

# What a metric is asked for as, and its name in the tables.
METRICS = {
    "jaccard": "jaccard",
    "dice": "dice",
    "nsd": "nsd",
    "hd95": "hd95_mm",
    "volume_dice": "volume_dice",
}
EMPTY_SLICES = ("skip", "nearest")
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("float32", "bfloat16", "float16")
EMBEDDINGS_PRECISIONS = ("float32", "float16")


@dataclass(frozen=True)
class Options:
    """What is asked of a study; every default reproduces the paper.

    slice_index: process this one only, and write no results.
    output_folder: the results folder; `results/` beside each image when `None`.
    checkpoint: weights to use in place of the official ones of `model`.
    window: as `windowing.choose_window` takes it.
    protocols: prompt protocols by name, all evaluated in one pass; the results of each go into the
        folder of its name in the results folder, those of the nameless one straight into it.
    batch_size: slices that a GPU encodes at once; `None` lets each device say.
    metrics: which are reported, as the tables name them; Jaccard and Dice always are.
    tolerance_mm: how far outlines may lie apart and still agree, for `nsd`.
    empty_slices: of `EMPTY_SLICES`, what becomes of slices without lung; `nearest` prompts them as
        the nearest slice with lung, to count what SAM finds where nothing is.
    save_masks: write what SAM predicts as `predicted_masks.nii.gz` beside the results.
    embeddings_folder: where embeddings are kept, as numbers of `embeddings_precision`, one of
        `EMBEDDINGS_PRECISIONS`.
    overwrite: begin anew where a results folder holds another run, or this one.
    """

    slice_index: int | None = None
    debug: bool = False
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
    overwrite: bool = False

    @property
    def needs_spacing(self) -> bool:
        """Whether a metric is measured in mm."""
        return any(metric in results.SURFACE_METRICS for metric in self.metrics)

    def results_folder(self, protocol: str, image_path: Path) -> Path:
        """Return where the results of an image go, prompted by the protocol of that name."""
        folder = self.output_folder or image_path.parent / "results"
        # Written out, so that equal folders look equal and each has a parent.
        return Path(os.path.abspath(folder / protocol / volume_name(image_path)))

    def debug_folder(self, protocol: str, image_path: Path) -> Path:
        """Return where the pictures of an image go, prompted by the protocol of that name."""
        folder = self.results_folder("", image_path)
        return folder.parent.parent / "debug" / protocol / folder.name
