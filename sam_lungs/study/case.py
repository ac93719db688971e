"""What a study is given: an image and its masks, checked before hours are spent on them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from sam_lungs.data.volumes import Volume, check_alike, read_masks, read_volume
from sam_lungs.data.windowing import Window, choose_window
from sam_lungs.study.options import Options
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import check_writable

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Pair:
    """An image, its masks, the window to look through, and a warning if their affines disagree."""

    image: Volume
    masks: Volume
    window: Window | None
    warning: str | None

    @cached_property
    def lung_slices(self) -> list[int]:
        """Numbers of the slices that have lung."""
        return np.flatnonzero(self.masks.array.any(axis=(0, 1))).tolist()

    def prompted(self, empty_slices: str) -> dict[int, int]:
        """Return the slices to segment, and of each the slice whose masks prompt it.

        empty_slices: as `Options` has it.
        """
        if empty_slices == "skip":
            return {index: index for index in self.lung_slices}
        lung_slices = np.array(self.lung_slices)
        # Of two that are as near the first.
        return {
            index: int(lung_slices[np.argmin(np.abs(lung_slices - index))])
            for index in range(self.image.array.shape[2])
        }


@dataclass(frozen=True, eq=False)
class Inspected:
    """What could be read of an image and its masks, and every fault that was found, a line each."""

    image: Volume | None
    masks: Volume | None
    window: Window | None
    warning: str | None
    faults: list[str]


def inspect(image_path: Path, masks_path: Path, options: Options) -> Inspected:
    """Look for all that can be wrong with an image and its masks, and where results would go."""
    faults = []

    def attempt(check: Callable[..., T], *arguments: object) -> T | None:
        try:
            return check(*arguments)
        except InputError as error:
            faults.append(str(error))
            return None

    image, masks = attempt(read_volume, image_path), attempt(read_masks, masks_path)
    window = warning = None
    if image:
        window = attempt(choose_window, options.window, image)
        attempt(_check_image, image, options)
    if image and masks:
        warning = attempt(check_alike, image, masks, options.strict_geometry)
    for folder in written_folders(image_path, options):
        attempt(check_writable, folder)
    return Inspected(image, masks, window, warning, faults)


def read_input(image_path: Path, masks_path: Path, options: Options) -> Pair:
    """Read an image and its masks; raises `InputError` for the first fault that `inspect` finds."""
    found = inspect(image_path, masks_path, options)
    if found.faults:
        raise InputError(found.faults[0])
    return Pair(found.image, found.masks, found.window, found.warning)


def check_names(image_paths: list[Path], masks_paths: list[Path], options: Options) -> None:
    """Raise `InputError` unless images and masks pair up and each image has a folder of its own."""
    if len(image_paths) != len(masks_paths):
        raise InputError(
            f"{len(image_paths)} images but {len(masks_paths)} masks: give as many, in order"
        )
    folders = [options.results_folder("", path) for path in image_paths]
    for folder, path in zip(folders, image_paths, strict=True):
        if folders.count(folder) > 1:
            raise InputError(f"{path}: another image has its name, and so the same {folder}")


def _check_image(image: Volume, options: Options) -> None:
    index, slices = options.slice_index, image.array.shape[2]
    if index is not None and not 0 <= index < slices:
        raise InputError(f"{image.path}: no slice {index}; its slices are 0 to {slices - 1}")
    needs = "--save_masks" if options.save_masks else options.needs_spacing and "--metrics"
    if needs and image.geometry is None:
        raise InputError(
            f"{image.path}: its affine is not known, and so neither where masks would lie nor"
            f" how long a pixel is; convert it with nifti_to_numpy.py, or run without {needs}"
        )


def written_folders(image_path: Path, options: Options) -> list[Path]:
    """Return the folders that a study writes to for an image."""
    folders = [options.embeddings_folder] if options.embeddings_folder else []
    for protocol in options.protocols:
        if options.slice_index is None:
            folders.append(options.results_folder(protocol, image_path))
        if options.debug:
            folders.append(options.debug_folder(protocol, image_path))
    return folders
