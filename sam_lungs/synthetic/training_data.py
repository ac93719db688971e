"""Training data of the compact SAM: slices of random phantoms, prompts and target masks."""

from dataclasses import dataclass

import cv2
import numpy as np
from segment_anything.utils.transforms import ResizeLongestSide
from torch.utils.data import Dataset

from sam_lungs.data.windowing import LUNG_WINDOW, slice_to_rgb
from sam_lungs.prompts.protocols import PromptProtocol, Prompts
from sam_lungs.prompts.rules import make_prompts
from sam_lungs.segmenters.sam_compact import IMAGE_SIZE
from sam_lungs.synthetic.phantom import sample_slice

PROMPTS_PER_SLICE = 10
PADDING = 255


@dataclass(frozen=True, eq=False)
class Task:
    """Prompts on a slice, in its pixels, and the target mask, (rows, columns) bool."""

    prompts: Prompts
    mask: np.ndarray


@dataclass(frozen=True, eq=False)
class Batch:
    """The slices of one training step.

    grey, labels: (slices, IMAGE_SIZE, IMAGE_SIZE) uint8, see `fit`; tasks: a list for each slice.
    """

    grey: np.ndarray
    labels: np.ndarray
    tasks: list[list[Task]]


class TrainingBatches(Dataset):
    """The batches of all training steps, made on request; `batches[step]` is always the same."""

    def __init__(self, seed: int, slices: int, batch_size: int) -> None:
        """slices: number of different slices; a batch draws `batch_size` of them."""
        self._seed, self._slices, self._batch_size = seed, slices, batch_size

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([self._seed, step])
        numbers = rng.integers(self._slices, size=self._batch_size)
        slices = [augment(rng, *make_slice(self._seed, number)) for number in numbers]
        tasks = [draw_tasks(rng, grey, labels) for grey, labels in slices]
        grey, labels = (np.stack(arrays) for arrays in zip(*slices, strict=True))
        return Batch(grey, labels, tasks)


def make_slice(seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Make a training slice; each number is another patient.

    Returns grey values and labels, (IMAGE_SIZE, IMAGE_SIZE) uint8, see `fit`.
    """
    cv2.setNumThreads(1)
    rng = np.random.default_rng([seed, number])
    long_side = int(rng.choice([IMAGE_SIZE, 360]))
    short_side = int(long_side * min(rng.uniform(0.6, 1.2), 1))
    shape = (long_side, short_side) if rng.random() < 0.5 else (short_side, long_side)
    image, labels = sample_slice(rng, *shape)
    return fit(slice_to_rgb(image, LUNG_WINDOW if image.dtype == np.int16 else None), labels)


def fit(image_rgb: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Resize a slice and its labels as SAM does; pad both below and right to a square.

    image_rgb: (rows, columns, 3) uint8, three equal channels. labels: (rows, columns) uint8.

    Returns two arrays (IMAGE_SIZE, IMAGE_SIZE) uint8: grey values, 0 in the padding, and labels,
    PADDING in the padding.
    """
    grey = ResizeLongestSide(IMAGE_SIZE).apply_image(image_rgb)[:, :, 0]
    rows, columns = grey.shape
    squares = np.zeros((2, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    squares[1] = PADDING
    squares[:, :rows, :columns] = grey, np.zeros_like(grey)
    for label in np.unique(labels[labels > 0]):
        share = cv2.resize(
            (labels == label).astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA
        )
        squares[1, :rows, :columns][share > 0.5] = label
    return squares[0], squares[1]


def augment(
    rng: np.random.Generator, grey: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Crop, turn, mirror, blur and change the contrast of a slice at random; lung stays in it.

    Takes and returns grey values and labels, see `fit`.
    """
    rows, columns = (int(inside.sum()) for inside in (labels[:, 0] < PADDING, labels[0] < PADDING))
    grey, labels = grey[:rows, :columns], labels[:rows, :columns]
    if rng.random() < 0.5:
        grey, labels = _crop(rng, grey, labels)
    turns = int(rng.integers(4))
    grey, labels = np.rot90(grey, turns), np.rot90(labels, turns)
    if rng.random() < 0.5:
        grey, labels = grey[:, ::-1], labels[:, ::-1]
    shade = grey / 255
    if rng.random() < 0.3:
        shade = cv2.GaussianBlur(shade, (0, 0), rng.uniform(0.4, 1.2))
    shade = shade ** np.exp(rng.normal(0, 0.25))
    shade = shade + rng.normal(0, rng.exponential(0.02), shade.shape)
    rgb = slice_to_rgb(np.clip(shade, 0, rng.uniform(0.8, 1)), None)
    return fit(rgb, np.ascontiguousarray(labels))


def _crop(
    rng: np.random.Generator, grey: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Crop to a window around a random lung pixel, of half to all of the slice per axis."""
    centre_rc = rng.choice(np.argwhere(labels > 0))
    size_rc = (np.array(grey.shape) * rng.uniform(0.5, 1, 2)).astype(int)
    first = np.clip(centre_rc - (size_rc * rng.random(2)).astype(int), 0, grey.shape - size_rc)
    window = tuple(slice(low, low + size) for low, size in zip(first, size_rc, strict=True))
    return grey[window], labels[window]


def draw_tasks(rng: np.random.Generator, grey: np.ndarray, labels: np.ndarray) -> list[Task]:
    """Draw PROMPTS_PER_SLICE tasks: the paper's prompts, variants, one lung, and other tissue.

    grey, labels: see `fit`.
    """
    masks = np.where(labels < PADDING, labels, 0)
    lungs = masks > 0
    tasks = [Task(make_prompts(masks, PromptProtocol()), lungs)]
    while len(tasks) < PROMPTS_PER_SLICE:
        kind = rng.choice(["protocol", "lungs", "one lung", "elsewhere"], p=[0.2, 0.15, 0.4, 0.25])
        if kind == "protocol":
            protocol = PromptProtocol(
                points=str(rng.choice(["inside", "centroid", "contours"])),
                negative=str(rng.choice(["box_center", "none"])),
                negative_offset_rows=int(rng.integers(-30, 31)),
                box=bool(rng.random() < 0.6),
            )
            tasks.append(Task(make_prompts(masks, protocol), lungs))
            continue
        if kind == "lungs":
            tasks.append(Task(_draw_clicks(rng, lungs, labels, masks), lungs))
            continue
        if kind == "one lung":
            mask = masks == rng.choice(np.unique(masks[lungs]))
        else:
            mask = _other_tissue(rng, grey, labels)
        tasks.append(Task(_draw_clicks(rng, mask, labels, mask), mask))
    return tasks


def _other_tissue(rng: np.random.Generator, grey: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return a random connected region of soft tissue or air outside the lungs.

    Large regions are more likely. Returns (rows, columns) bool.
    """
    outside = labels == 0
    threshold, _ = cv2.threshold(grey[labels < PADDING], 0, 255, cv2.THRESH_OTSU)
    bright = cv2.medianBlur(grey, 5) > threshold
    regions = np.zeros(grey.shape, dtype=np.int32)
    for tissue in (outside & bright, outside & ~bright):
        _, components = cv2.connectedComponents(tissue.astype(np.uint8), connectivity=4)
        regions[tissue] = components[tissue] + regions.max()
    weights = np.sqrt(np.bincount(regions[outside]))
    return regions == rng.choice(len(weights), p=weights / weights.sum())


def _draw_clicks(
    rng: np.random.Generator, mask: np.ndarray, labels: np.ndarray, parts: np.ndarray
) -> Prompts:
    """Draw points in each part of a mask, perhaps points outside it, and perhaps a box.

    parts: (rows, columns) bool or int, a different value other than 0 in each part of the mask.
    """
    inside = [rng.choice(np.argwhere(parts == part), 1) for part in np.unique(parts[mask])]
    inside.append(rng.choice(np.argwhere(mask), int(rng.choice([0, 0, 1, 2]))))
    inside = np.concatenate(inside)
    outside = np.argwhere(~mask & (labels < PADDING))
    outside = rng.choice(outside, int(rng.choice([0, 0, 1, 2])) if len(outside) else 0)
    box_rc = None
    if rng.random() < 0.5:
        pixels_rc = np.argwhere(mask)
        corners_rc = np.stack([pixels_rc.min(axis=0), pixels_rc.max(axis=0) + 1])
        slack = 0.05 * (corners_rc[1] - corners_rc[0])
        box_rc = (corners_rc + rng.normal(0, 1, (2, 2)) * slack).reshape(4).round().astype(int)
    return Prompts(
        points_rc=np.concatenate([inside, outside]),
        labels=np.repeat([1, 0], [len(inside), len(outside)]),
        box_rc=box_rc,
    )
