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

    image, masks: `None` where a fault leaves none; masks also without a masks file. Without an
    image file `image` is the first masks file, whose grid is used. The masks hold the labels of the
    chosen objects.
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

    @property
    def lung_slices(self) -> list[int]:
        """Indices of the slices with lung."""
        return sorted(set().union(*self.slices_of_labels.values()))

    @property
    def objects(self) -> dict[str, int]:
        """The label of each object by its name; without a name it is named after the label."""
        if chosen := self.files.reading.objects:
            return labels.object_values(chosen)
        return {str(label): label for label in self.slices_of_labels}

    @cached_property
    def slices_of_labels(self) -> dict[int, list[int]]:
        """{label: indices of the slices with it}, sorted by label."""
        slices_of: dict[int, list[int]] = {}
        for index in range(self.masks.array.shape[2]):
            of_slice = self.masks.array[:, :, index]
            for label in np.unique(of_slice[of_slice != 0]).tolist():
                slices_of.setdefault(label, []).append(index)
        return dict(sorted(slices_of.items()))


@dataclass(frozen=True)
class Findings:
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
    reading, findings = files.reading, Findings(files.reading.allow)
    image = masks = window = None
    if files.image_path:
        with findings.collecting("unreadable"):
            image = read_volume(files.image_path, reading.series, reading.spacing_mm)
            findings.add(plausibility.check_orientation(image))
        if files.masks_paths:
            findings.add(plausibility.check_names(files.image_path, files.masks_paths))
    volumes = []
    for path in files.masks_paths:
        with findings.collecting("unreadable"):
            volumes.append(read_volume(path, spacing_mm=reading.spacing_mm))
    grid = image
    if volumes and not files.image_path:
        grid = volumes[0]
        findings.add(plausibility.check_orientation(grid))
    if volumes and len(volumes) == len(files.masks_paths):
        masks = _read_masks(volumes, image, grid, reading, findings)
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
    return Case(files, grid, masks, identities, window, findings.found)


def labels_on_grid(
    volumes: list[Volume],
    image: Volume | None,
    grid: Volume | None,
    align: str,
    findings: Findings,
) -> Volume | None:
    """Return the labels of one or several files, one object each, on a grid.

    image: for the check that masks are not the image. grid: a volume that has the grid. align: see
        `align_masks`.

    Returns `None` after a fault, which is added to the findings.
    """
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
        if grid:
            with findings.collecting("alignment"):
                on_grid, warnings = align_masks(grid, labels.to_labels(volume), align)
                findings.add(*warnings)
                aligned.append(on_grid)
    if len(aligned) < len(volumes):
        return None
    merged, overlaps = (aligned[0], []) if len(aligned) == 1 else labels.merge_files(aligned)
    return None if findings.add(*overlaps) else merged


def _read_masks(
    volumes: list[Volume],
    image: Volume | None,
    grid: Volume | None,
    reading: Reading,
    findings: Findings,
) -> Volume | None:
    """Return the chosen labels of the masks files on a grid, or `None` with faults."""
    masks = labels_on_grid(volumes, image, grid, reading.align, findings)
    if masks is None:
        return None
    counts = labels.count_labels(masks.array)
    if not counts:
        message = f"{masks.path}: masks are all background; there is nothing to prompt"
        findings.add(Finding("empty", message, is_fault=True))
        return None
    present = list(counts)
    if len(volumes) > 1 and reading.objects is not None:
        # A file of several may be empty: an organ may lie outside the scan.
        present = list(range(1, len(volumes) + 1))
    if findings.add(*labels.check_labels(masks.path, present, reading.objects)):
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
