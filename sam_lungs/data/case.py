"""A case: an image and the masks of its objects, and what a user must know about their files."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from sam_lungs.data import fit, labels, plausibility
from sam_lungs.data.alignment import align_masks
from sam_lungs.data.case_files import CaseFiles, Reading
from sam_lungs.data.plausibility import Finding
from sam_lungs.data.readers import read_volume
from sam_lungs.data.volume import Volume
from sam_lungs.data.windowing import Window, choose_window
from sam_lungs.utils.errors import InputError


@dataclass(frozen=True, eq=False)
class Case:
    """An image and its masks on one grid, both (rows, columns, slices).

    image, masks: `None` where a fault leaves none. The masks hold the labels of the chosen objects.
    masks_identities: `Volume.identity` of each masks file that was read. window: `None` if the
    values are used unchanged.
    """

    files: CaseFiles
    image: Volume | None
    masks: Volume | None
    masks_identities: list[dict]
    window: Window | None
    findings: list[Finding]

    @property
    def name(self) -> str:
        """Name of the case, and of its results folder."""
        return self.files.name

    @property
    def faults(self) -> list[str]:
        """A message for each fault; empty if the case can be processed."""
        return [finding.message for finding in self.findings if finding.is_fault]

    @property
    def warnings(self) -> list[str]:
        """A message for each other finding, also for the faults that are allowed."""
        return [finding.message for finding in self.findings if not finding.is_fault]

    @cached_property
    def lung_slices(self) -> list[int]:
        """Indices of the slices with lung."""
        return np.flatnonzero(self.masks.array.any(axis=(0, 1))).tolist()

    def prompted(self, empty_slices: str) -> dict[int, int]:
        """Return {index of a slice to segment: index of the slice whose masks give its prompts}.

        empty_slices: `skip` leaves out slices without lung. `nearest` gives them the prompts of the
            nearest slice with lung; of two equally near slices, the lower index is used.
        """
        if empty_slices == "skip":
            return {index: index for index in self.lung_slices}
        lung_slices = np.array(self.lung_slices)
        return {
            index: int(lung_slices[np.argmin(np.abs(lung_slices - index))])
            for index in range(self.image.array.shape[2])
        }


@dataclass(frozen=True)
class _Findings:
    """Collects findings; those that `allow` names are no faults."""

    allow: tuple[str, ...]
    found: list[Finding] = field(default_factory=list)

    def add(self, *findings: Finding | None) -> bool:
        """Add findings; return whether one of them is a fault."""
        added = [
            replace(finding, is_fault=False, is_allowed=True)
            if finding.is_fault and finding.name in self.allow
            else finding
            for finding in findings
            if finding
        ]
        self.found.extend(added)
        return any(finding.is_fault for finding in added)

    @contextmanager
    def collecting(self, name: str, prefix: str = "") -> Iterator[None]:
        """Add an `InputError` of the block as a fault of this name."""
        try:
            yield
        except InputError as error:
            self.add(Finding(name, f"{prefix}{error}", is_fault=True))


def read_case(files: CaseFiles) -> Case:
    """Read the image and the masks of a case, and check what they mean.

    Every fault is collected in the findings, instead of raising the first.
    """
    reading, findings = files.reading, _Findings(files.reading.allow)
    image = masks = window = None
    with findings.collecting("unreadable"):
        image = read_volume(files.image_path, reading.series, reading.spacing_mm)
        findings.add(plausibility.check_orientation(image))
    findings.add(plausibility.check_names(files.image_path, files.masks_paths))
    volumes = []
    for path in files.masks_paths:
        with findings.collecting("unreadable"):
            volumes.append(read_volume(path, spacing_mm=reading.spacing_mm))
    if len(volumes) == len(files.masks_paths):
        masks = _masks_on_image(volumes, image, reading, findings)
    # Masks that look like an image explain an image that looks like masks.
    if image and not any(finding.name == "not_masks" for finding in findings.found):
        findings.add(plausibility.check_image(image.path, image.array))
    if image:
        under_masks = labels.values_under(masks.array, image.array) if masks else None
        with findings.collecting("window", f"{image.path}: "):
            window = choose_window(reading.window, image.array, under_masks, image.is_picture)
            findings.add(plausibility.check_window(image, window, under_masks))
            if masks and not any(finding.is_fault for finding in findings.found):
                findings.add(
                    fit.check_coverage(image, masks, window),
                    fit.check_fit(image, masks, window),
                )
    identities = [volume.identity for volume in volumes]
    return Case(files, image, masks, identities, window, findings.found)


def _masks_on_image(
    volumes: list[Volume], image: Volume | None, reading: Reading, findings: _Findings
) -> Volume | None:
    """Return the masks of one or several files on the grid of the image, or `None` with faults."""
    aligned = []
    for volume in volumes:
        is_image = image is not None and volume.sha256 is not None and volume.sha256 == image.sha256
        if is_image:
            fault = plausibility.same_file(volume.path, image.path)
        else:
            fault = plausibility.check_masks(volume.path, volume.array)
        if fault is None and len(volumes) > 1:
            fault = labels.check_one_object(volume)
        if findings.add(fault):
            continue
        if image:
            with findings.collecting("alignment"):
                on_image, warnings = align_masks(image, labels.to_labels(volume), reading.align)
                findings.add(*warnings)
                aligned.append(on_image)
    if len(aligned) < len(volumes):
        return None
    masks, overlaps = (aligned[0], []) if len(aligned) == 1 else labels.merge_files(aligned)
    counts = labels.count_labels(masks.array)
    if not counts:
        message = f"{masks.path}: masks are all background; there is nothing to prompt"
        findings.add(Finding("empty", message, is_fault=True))
        return None
    present = list(counts)
    if len(aligned) > 1 and reading.objects is not None:
        # A file of several may be empty: an organ may lie outside the scan.
        present = list(range(1, len(aligned) + 1))
    if findings.add(*overlaps, *labels.check_labels(masks.path, present, reading.objects)):
        return None
    if reading.objects is not None:
        masks = replace(masks, array=labels.select_objects(masks.array, reading.objects))
        counts = labels.count_labels(masks.array)
    if not counts:
        message = f"{masks.path}: the labels of --labels have no voxels; choose others"
        findings.add(Finding("empty", message, is_fault=True))
        return None
    findings.add(*labels.check_parts(masks.path, masks.array, counts))
    return masks
