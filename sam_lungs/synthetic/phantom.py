"""Synthetic chest CT volumes with lung masks: demo and training data when no dataset is at hand.

    python -m sam_lungs.synthetic.phantom --output_folder datasets/phantom --cases 2 --slices 48

writes pairs laid out like the real dataset: `CT/phantom_001.nii.gz` and
`Lung_Mask/phantom_001.nii.gz`. Odd cases are 512 x 512 int16 Hounsfield units. Even cases are
windowed uint8, cropped to the body and rarely square, like slices that a publisher exported. To
resume after a kill, run the same command again: `phantoms.json` lists the finished files and the
settings that made them.

The same seed gives the same arrays on every platform. All random numbers are PCG64 integers or
uniform doubles made from them, and every per-pixel computation rounds as IEEE 754 prescribes (see
`plane`), or is OpenCV's integer drawing or JPEG codec. The compressed files have the same bytes if
also NiBabel writes the same header and zlib is the same; the gzip header has no time and no name.
"""

import gzip
import io
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import cv2
import nibabel as nib
import numpy as np

from sam_lungs.synthetic.anatomy import render
from sam_lungs.synthetic.folder import PhantomFolder
from sam_lungs.synthetic.patient import draw_patient, uniform
from sam_lungs.synthetic.plane import Grid, blur
from sam_lungs.utils.cli import option, parse_options, run_script
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import check_writable, locked_folder
from sam_lungs.utils.progress import Progress
from sam_lungs.utils.provenance import code_sha256

# The modules that decide the voxels.
CODE = tuple(
    f"synthetic/{name}.py" for name in ("phantom", "anatomy", "organs", "patient", "plane")
)
VARIANTS = ("hounsfield", "windowed", "alternate")
LOWEST, HIGHEST = -0.12, 1.08  # extent of a volume, as fractions of the lung's height


def sample_slice(
    rng: np.random.Generator,
    rows: int,
    columns: int,
    variant: str = "alternate",
    with_lung: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one slice of a new random patient, for training.

    Heights near the bases and apices, where lungs are small, are drawn more often than others. The
    slice has one of 8 orientations (quarter turns and mirror images), as slices of NIfTI files do.

    variant: "hounsfield", "windowed", or "alternate" for one of the two with equal chances.
    with_lung: draw again until the slice has lung.

    Returns the image, (rows, columns), int16 Hounsfield units or windowed uint8; and the masks,
    uint8 of the same shape: 0 background, 1 left lung, 2 right lung.
    """
    if variant == "alternate":
        variant = "windowed" if rng.random() < 0.5 else "hounsfield"
    patient = draw_patient(rng)
    turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
    shape = (columns, rows) if turns % 2 else (rows, columns)
    grid = _draw_grid(rng, patient, shape, variant)
    scanner = _draw_scanner(rng, variant)
    thickness_mm = uniform(rng, 1, 8)
    labels = None
    while labels is None or (with_lung and not labels.any()):
        place = rng.random()
        low, high = (-0.05, 1.0) if place < 0.65 else (-0.08, 0.3) if place < 0.88 else (0.85, 1.02)
        z_mm = uniform(rng, low, high) * patient.lung_height_mm
        image, labels = _scan(rng, patient, z_mm, thickness_mm, grid, scanner)
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    if mirrored:
        image, labels = image[:, ::-1], labels[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(labels)


def phantom_volume(
    seed: int, case: int, slices: int, variant: str, shape: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make one volume, from below the diaphragm to above the apices.

    variant: "hounsfield" or "windowed". shape: (rows, columns); by default 512 x 512 for Hounsfield
        units and random for windowed volumes.

    Returns the image, (rows, columns, slices), int16 Hounsfield units or windowed uint8; the masks,
    uint8 of the same shape (0 background, 1 left lung, 2 right lung); and the 4 x 4 affine from
    (column, row, slice) to NIfTI millimetres (right, anterior, superior). Row 0 is anterior, column
    0 the patient's right, slice 0 inferior.
    """
    rng = np.random.default_rng([seed, case])
    patient = draw_patient(rng)
    if shape is None:
        columns = int(rng.integers(420, 680))
        rows = int(
            columns * patient.body_depth_mm / patient.body_width_mm * uniform(rng, 0.85, 1.15)
        )
        shape = (512, 512) if variant == "hounsfield" else (rows, columns)
    grid = _draw_grid(rng, patient, shape, variant)
    scanner = _draw_scanner(rng, variant)
    slice_mm = round((HIGHEST - LOWEST) * patient.lung_height_mm / slices, 4)
    heights = LOWEST * patient.lung_height_mm + (np.arange(slices) + 0.5) * slice_mm
    planes = [_scan(rng, patient, z, slice_mm, grid, scanner) for z in heights.tolist()]
    image, masks = (np.stack(arrays, axis=-1) for arrays in zip(*planes, strict=True))
    row_mm, column_mm = grid.spacing_mm
    affine = np.diag([-column_mm, -row_mm, slice_mm, 1.0])
    affine[:2, 3] = (shape[1] - 1) / 2 * column_mm, (shape[0] - 1) / 2 * row_mm
    return image, masks, affine


def write_phantoms(
    output_folder: Path,
    cases: int,
    slices: int,
    seed: int,
    variant: str = "alternate",
    overwrite: bool = False,
) -> None:
    """Write `cases` pairs of image and masks; see the module's docstring for names and formats.

    With variant "alternate" odd cases are in Hounsfield units and even ones windowed. Finished
    pairs are kept. overwrite: first remove all phantoms of the folder.

    Raises `InputError` for fewer than 1 case or slice, a negative seed, a folder with phantoms of
    other settings, a folder that another process works in, and when a file cannot be written.
    """
    if cases < 1 or slices < 1 or seed < 0:
        raise InputError("--cases and --slices must be at least 1, --seed at least 0")
    check_writable(output_folder)
    made_of = {"slices": slices, "seed": seed, "variant": variant, "code_sha256": code_sha256(CODE)}
    with locked_folder(output_folder):
        folder = PhantomFolder(output_folder, made_of, overwrite)
        missing = folder.missing(cases)
        with Progress("phantoms", cases, cases - len(missing), "volume") as progress:
            for case in missing:
                kind = VARIANTS[(case - 1) % 2] if variant == "alternate" else variant
                image, masks, affine = phantom_volume(seed, case, slices, kind)
                folder.write(case, [_nifti_gz(array, affine) for array in (image, masks)])
                progress.update()


def _nifti_gz(array: np.ndarray, affine: np.ndarray) -> bytes:
    nifti = nib.Nifti1Image(array.swapaxes(0, 1), affine)
    nifti.header.set_xyzt_units("mm")
    compressed = io.BytesIO()
    with gzip.GzipFile("", "wb", compresslevel=4, fileobj=compressed, mtime=0) as stream:
        stream.write(nifti.to_bytes())
    return compressed.getvalue()


def _draw_grid(rng, patient, shape, variant):
    """Draw a field of view: wide to tight in Hounsfield units, close to the body when windowed."""
    zoom = uniform(rng, 0.96, 1.5) if variant == "hounsfield" else uniform(rng, 0.9, 1.15)
    width_mm, depth_mm = patient.body_width_mm * zoom, patient.body_depth_mm * zoom
    pixel_mm = max(depth_mm / shape[0], width_mm / shape[1])
    stretch = uniform(rng, 0.9, 1.1) if variant == "windowed" else 1.0
    spacing_mm = (round(pixel_mm * stretch, 4), round(pixel_mm, 4))
    offset_mm = uniform(rng, -20, 20), uniform(rng, -25, 25)
    if variant == "windowed":
        offset_mm = offset_mm[0] / 2, offset_mm[1] / 2
    centre_mm = offset_mm[0], offset_mm[1] + patient.back_mm - patient.body_depth_mm / 2
    return Grid(shape, spacing_mm, centre_mm, uniform(rng, -0.15, 0.15))


def _draw_scanner(rng, variant):
    """Draw the settings of acquisition, reconstruction and, when windowed, publication."""
    windowed = variant == "windowed"
    streaks = int(rng.integers(3, 12)) if rng.random() < 0.2 else 0
    return SimpleNamespace(
        windowed=windowed,
        # A slice is the mean of so many planes.
        planes=3 if rng.random() < (0.35 if windowed else 0.12) else 1,
        noise_hu=uniform(rng, 4, 45) * uniform(rng, 0.4, 1.3),
        grain=int(rng.integers(1, 3)) if windowed else int(rng.integers(0, 3)),
        sharpness=uniform(rng, -1, 2.0),
        shoulder_noise=uniform(rng, 0.5, 3.0),
        streaks=[
            (uniform(rng, 0, 6.2832), uniform(rng, -70, 70), uniform(rng, 1.5, 6))
            for _ in range(streaks)
        ],
        streak_centre=(uniform(rng, -90, 90), uniform(rng, -60, 80)),
        round_field=rng.random() < 0.15,
        window_hu=(uniform(rng, -1450, -1000), uniform(rng, 0, 450)),
        jpeg_quality=int(rng.integers(35, 96)) if rng.random() < 0.5 else None,
        border=uniform(rng, 0.01, 0.12) if rng.random() < 0.15 else 0.0,
    )


def _scan(rng, patient, z_mm, thickness_mm, grid, scanner):
    """Return image and labels of one slice after acquisition and, when windowed, publication."""
    steps = (0, -1, 1)[: scanner.planes]
    planes = [render(patient, z_mm + step * thickness_mm / 3, grid) for step in steps]
    hu, labels = sum(hu for hu, _ in planes) / scanner.planes, planes[0][1]
    hu += scanner.sharpness * (hu - blur(hu))
    for angle, height_hu, width_mm in scanner.streaks:
        cos, sin = round(math.cos(angle), 6), round(math.sin(angle), 6)
        x, y = scanner.streak_centre
        streak = cos * (grid.x - x) + sin * (grid.y - y)
        hu += np.clip(1 - np.abs(streak) / width_mm, 0, 1) * height_hu
    shoulders = min(max((z_mm / patient.lung_height_mm - 0.7) / 0.2, 0), 1)
    hu += scanner.noise_hu * _noise(rng, grid, scanner, shoulders)
    if scanner.round_field:
        reach = 0.5 * min(grid.shape) * grid.pixel_mm
        hu[grid.down_mm[:, None] ** 2 + grid.across_mm[None] ** 2 > reach * reach] = -1024
    if not scanner.windowed:
        return np.clip(np.floor(hu + 0.5), -1024, 3071).astype(np.int16), labels
    low, high = scanner.window_hu
    grey = np.clip(np.floor((hu - low) * (255 / (high - low)) + 0.5), 0, 255).astype(np.uint8)
    if scanner.jpeg_quality:
        _, code = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, scanner.jpeg_quality])
        grey = cv2.imdecode(code, cv2.IMREAD_GRAYSCALE)
    if scanner.border:
        edge = int(scanner.border * grey.shape[1])
        for array in (grey, labels):
            array[:, :edge] = array[:, grey.shape[1] - edge :] = 0
    return grey, labels


def _noise(rng, grid, scanner, shoulders):
    """Return noise of unit deviation at the edge, stronger inside and along the shoulders."""
    rows, columns = grid.shape
    dice = rng.integers(0, 256, (4, rows, columns), dtype=np.uint8).astype(np.float32)
    noise = lines = (dice[0] + dice[1] + dice[2] + dice[3] - 510) / 147.8  # almost normal
    for _ in range(scanner.grain):
        noise = blur(noise)
    noise = noise * (1.0, 2.67, 3.66)[scanner.grain]  # restores the deviation after 0, 1, 2 blurs
    if shoulders:
        for step in (1, 2, 4):  # mean of 8 neighbours along the row
            lines = (lines + np.roll(lines, step, axis=1)) / 2
        noise += shoulders * scanner.shoulder_noise * 2 * lines
    distance = (grid.x / 200) ** 2 + (grid.y / 140) ** 2
    return noise * (0.5 + np.maximum(1 - distance, 0))


@dataclass
class Options:
    """Command-line options."""

    output_folder: Path = option(
        "folder of the volumes",
        Path("datasets/phantom"),
        group="output",
        short="-o",
    )
    overwrite: bool = option(
        "first remove all phantoms of the folder, also those of other settings",
        False,
        group="output",
    )
    cases: int = option("number of volumes", 2, group="phantoms")
    slices: int = option("slices per volume", 48, group="phantoms")
    seed: int = option("seed of the random patients", 0, group="phantoms")
    variant: str = option(
        "intensities; alternate: odd volumes hounsfield, even volumes windowed",
        "alternate",
        group="phantoms",
        choices=VARIANTS,
    )


def main() -> None:
    """Write the phantoms that the command line asks for."""
    options = parse_options(
        Options,
        "Write synthetic chest CT volumes and their lung masks.",
        "python -m sam_lungs.synthetic.phantom -o datasets/phantom --cases 2 --slices 48",
        prog="python -m sam_lungs.synthetic.phantom",
    )
    write_phantoms(**vars(options))


if __name__ == "__main__":
    run_script(main, resume="run the same command again, without --overwrite")
