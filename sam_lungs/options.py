"""How a study is run."""

from dataclasses import dataclass, field
from pathlib import Path

from sam_lungs.prompts import PromptProtocol


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
    save_masks: bool = False
    embeddings_folder: Path | None = None
    embeddings_precision: str = "float32"
    strict_geometry: bool = False
