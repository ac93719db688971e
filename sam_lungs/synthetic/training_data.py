"""What the compact SAM learns from: slices of random phantoms, prompts, and what they ask for."""

from dataclasses import dataclass

import cv2
import numpy as np
from segment_anything.utils.transforms import ResizeLongestSide

from sam_lungs.data.windowing import LUNG_WINDOW, slice_to_rgb
from sam_lungs.prompts.rules import NEGATIVES, POINTS, PromptProtocol, Prompts, make_prompts
from sam_lungs.segmenters.sam_compact import IMAGE_SIZE
from sam_lungs.synthetic.phantom import sample_slice

PROMPTS_PER_SLICE = 10
PADDING = 255


@dataclass(frozen=True, eq=False)
class Task:
    """Prompts on a slice, in its pixels, and the mask (rows, columns) bool that they ask for."""

    prompts: Prompts
    mask: np.ndarray


def make_slice(seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Make one training slice of a new patient: what SAM sees of it, and the labels.

    Returns two (IMAGE_SIZE, IMAGE_SIZE) uint8 arrays as `fit` does.
    """
    cv2.setNumThreads(1)
    rng = np.random.default_rng([seed, number])
    long_side = int(rng.choice([IMAGE_SIZE, 360]))
    short_side = int(long_side * min(rng.uniform(0.6, 1.2), 1))
    shape = (long_side, short_side) if rng.random() < 0.5 else (short_side, long_side)
    image, labels = sample_slice(rng, *shape)
    return fit(slice_to_rgb(image, LUNG_WINDOW if image.dtype == np.int16 else None), labels)


def fit(image_rgb: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Resize a slice as SAM does, and its labels with it; pad both to a square below and right.

    image_rgb: (rows, columns, 3) uint8, three equal channels; labels: (rows, columns) uint8.
    Returns two (IMAGE_SIZE, IMAGE_SIZE) uint8 arrays: grey values, 0 outside the slice, and labels,
    PADDING outside it.
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
    """Turn, mirror, crop, stretch and blur a slice of `make_slice`; lung stays in it.

    Takes and returns grey values and labels as `fit` returns them.
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
    """Cut out a window around a random pixel of lung, half to all of the slice along each axis."""
    centre_rc = rng.choice(np.argwhere(labels > 0))
    size_rc = (np.array(grey.shape) * rng.uniform(0.5, 1, 2)).astype(int)
    first = np.clip(centre_rc - (size_rc * rng.random(2)).astype(int), 0, grey.shape - size_rc)
    window = tuple(slice(low, low + size) for low, size in zip(first, size_rc, strict=True))
    return grey[window], labels[window]


def draw_tasks(rng: np.random.Generator, grey: np.ndarray, labels: np.ndarray) -> list[Task]:
    """Draw the prompts of one slice: the paper's, variants of them, one lung, and no lung at all.

    Takes grey values and labels as `fit` returns them, and returns PROMPTS_PER_SLICE tasks.
    """
    masks = np.where(labels < PADDING, labels, 0)
    lungs = masks > 0
    tasks = [Task(make_prompts(masks, PromptProtocol()), lungs)]
    while len(tasks) < PROMPTS_PER_SLICE:
        kind = rng.choice(["protocol", "lungs", "one lung", "elsewhere"], p=[0.2, 0.15, 0.4, 0.25])
        if kind == "protocol":
            protocol = PromptProtocol(
                points=str(rng.choice(POINTS)),
                negative=str(rng.choice(NEGATIVES)),
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
    """A connected piece of what is outside the lungs, of soft tissue or of air; mostly a large one.

    Returns (rows, columns) bool.
    """
    outside = labels == 0
    threshold, _ = cv2.threshold(grey[labels < PADDING], 0, 255, cv2.THRESH_OTSU)
    bright = cv2.medianBlur(grey, 5) > threshold
    pieces = np.zeros(grey.shape, dtype=np.int32)
    for alike in (outside & bright, outside & ~bright):
        _, components = cv2.connectedComponents(alike.astype(np.uint8), connectivity=4)
        pieces[alike] = components[alike] + pieces.max()
    weights = np.sqrt(np.bincount(pieces[outside]))
    return pieces == rng.choice(len(weights), p=weights / weights.sum())


def _draw_clicks(
    rng: np.random.Generator, mask: np.ndarray, labels: np.ndarray, parts: np.ndarray
) -> Prompts:
    """Points in a mask, at least one in each of its parts; some outside it, and perhaps a box.

    parts: (rows, columns) bool or int, not zero where the mask is, and different in each part.
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
