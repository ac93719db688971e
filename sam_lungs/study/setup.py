"""The steps before the first case of a study: set threads, check options, load the model."""

import torch

from sam_lungs.data.volume import volume_name
from sam_lungs.segmenters import registry
from sam_lungs.segmenters.base import Segmenter
from sam_lungs.segmenters.devices import choose_devices
from sam_lungs.study import layout
from sam_lungs.study.options import Options
from sam_lungs.utils.errors import InputError


def prepare(options: Options) -> None:
    """Set the threads, and check the options that concern all cases.

    Raises `InputError` when two images would share a results folder, or there is no such device.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    choose_devices(options.device)
    folders = set()
    for image_path, _ in options.pairs:
        study_folder = layout.study_folder(options.output_folder, image_path)
        folder = layout.results_folder(study_folder, "", volume_name(image_path))
        if folder in folders:
            raise InputError(
                f"{image_path}: another image has the same name, so both would write to {folder};"
                " rename one of them"
            )
        folders.add(folder)


def load_segmenters(options: Options) -> list[Segmenter]:
    """Load the model that the options name, once per device; see `registry.load_segmenters`."""
    return registry.load_segmenters(
        options.model, options.checkpoint, options.device, options.precision
    )
