"""Small synthetic files under the names that the README and the docs use."""

import csv
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import scanner
from conftest import ROOT, chest, save_nifti
from scipy.ndimage import binary_erosion

# That of `scanner.scan`.
AFFINE = np.array([[-0.75, 0, 0, 9], [0, -0.5, 0, -8], [0, 0, 2, 30], [0, 0, 0, 1]])
# Volumes of the paper, and the slices with lung that the pages name.
PAPER = {"coronacases_001": 122, "radiopaedia_10_85902_3": 171}
PROMPTS_PAGE = ROOT / "docs/prompts.md"
XRAYS = ("MCUCXR_0001_0", "MCUCXR_0002_0")


def write_inputs(folder: Path) -> None:
    """Write every file that a command of the pages reads and no earlier command writes."""
    image, masks = noisy_chest(64, 96)
    organs = np.array([0, 10, 12], np.uint8)[masks]  # lobes of the left and the right lung
    organs[32:] += masks[32:] > 0
    organs[28:32][masks[28:32] == 2] = 14
    for case in (".", "s0001", "scans/anna_1", "scans/anna_2"):
        save(folder / case / "ct.nii.gz", image)
        save(folder / case / "lungs.nii.gz", masks)
        save(folder / case / "organs.nii.gz", organs)
        for label, side in enumerate(("left", "right"), 1):
            save(folder / case / f"{side}.nii.gz", masks == label)
    for case in ("anna_1", "anna_2"):
        for theirs in ("theirs", "their_masks"):
            save(folder / theirs / f"{case}.nii.gz", smaller(masks))
        for label, side in enumerate(("left", "right"), 1):
            save(folder / "out" / case / f"{side}.nii.gz", smaller(masks == label))
    save(folder / "theirs.nii.gz", smaller(masks))
    (folder / "my_data.yml").write_text(
        "images: 'scans/{case}/ct.nii.gz'\nmasks: 'scans/{case}/{object}.nii.gz'\n"
        "objects: {left: left, right: right}\n"
    )
    (folder / "my_dataset.yml").write_text(
        "images: 'scans/{case}/ct.nii.gz'\nmasks: 'scans/{case}/lungs.nii.gz'\n"
    )
    running = ROOT.joinpath("docs/running.md").read_text()
    (folder / "study.yml").write_text(running.split("```yaml\n")[1].split("```")[0])
    (folder / "patients.csv").write_text("image,patient\nanna_1,anna\nanna_2,anna\n")
    save(folder / "new_ct.nii.gz", image)
    (folder / "my_clicks.csv").write_text("case,slice,kind,row,column\nnew_ct,1,positive,32,28\n")
    write_dicom(folder, image, masks)
    write_prompts(folder)
    write_paper(folder)
    write_xrays(folder)


def noisy_chest(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `chest` with two slices and noise, without which an image looks like masks."""
    image, masks = chest(rows, columns, 2)
    noise = np.random.default_rng(0).integers(-20, 20, image.shape, np.int16)
    return np.maximum(image + noise, -1000), masks


def write_prompts(folder: Path) -> None:
    """Write the prompts of docs/prompts.md, and an image that they fit."""
    table = re.search(r"^case,slice,kind.*?(?=^```)", PROMPTS_PAGE.read_text(), re.M | re.S)[0]
    (folder / "clicks.csv").write_text(table)
    image, masks = np.full((340, 440, 42), -1000, np.int16), np.zeros((340, 440, 42), np.uint8)
    image[:, :, 40:], masks[:, :, 40:] = noisy_chest(340, 440)
    save(folder / "p01.nii.gz", image)
    save(folder / "p01_lungs.nii.gz", masks)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = array.astype(np.uint8) if array.dtype == bool else array
    save_nifti(path, array, AFFINE)


def smaller(masks: np.ndarray) -> np.ndarray:
    """Return the masks without their outermost pixels: masks that someone else drew."""
    return masks * binary_erosion(masks, np.ones((3, 3, 1)))


def write_dicom(folder: Path, image: np.ndarray, masks: np.ndarray) -> None:
    """Write a scan twice, and a DICOM-SEG of it."""
    images = scanner.scan(image)
    for name in ("dicom_folder", "scan_folder"):
        scanner.save(folder / name, images)
    scanner.segmentation(images, masks).save_as(folder / "segmentation.dcm")


def write_paper(folder: Path) -> None:
    """Write volumes of the paper as unpacked, and its dataset file for these volumes only."""
    datasets = folder / "datasets"
    datasets.mkdir()
    for name, index in PAPER.items():
        image, masks = np.full((32, 48, 180), -1000, np.int16), np.zeros((32, 48, 180), np.uint8)
        here = slice(index - 1, index + 1)
        image[:, :, here], masks[:, :, here] = noisy_chest(32, 48)
        if name.startswith("radiopaedia"):  # values from 0 to 255
            image = ((image + 1000) / 5).astype(np.uint8)
        save(datasets / f"zenodo/COVID-19-CT-Seg_20cases/{name}.nii.gz", image)
        save(datasets / f"zenodo/Lung_Mask/{name}.nii.gz", masks)
    for name in ("paper.yml", "montgomery.yml"):
        shutil.copy(ROOT / "datasets" / name, datasets)
    with open(ROOT / "datasets/paper.csv") as whole, open(datasets / "paper.csv", "w") as part:
        rows = list(csv.reader(whole))
        kept = [row for row in rows if row[0].removeprefix("image_") in PAPER]
        csv.writer(part).writerows([rows[0], *kept])


def write_xrays(folder: Path) -> None:
    """Write X-rays of 12 bits as the archive has them, and one with its masks in one file."""
    image, masks = (array[:, :, 1] for array in noisy_chest(96, 80))
    pictures = {"CXR_png": (image + 1000).astype(np.uint16)}
    pictures |= {f"ManualMask/{side}Mask": (masks == label).astype(np.uint8) * 255
                 for label, side in enumerate(("left", "right"), 1)}  # fmt: skip
    for name in XRAYS:
        for kind, pixels in pictures.items():
            path = folder / "datasets/montgomery/MontgomerySet" / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), pixels)
    cv2.imwrite(str(folder / "xray.png"), pictures["CXR_png"])
    cv2.imwrite(str(folder / "xray_masks.png"), masks)
