"""Points sampled from the reference masks: Dice as a function of the number of points."""

from collections.abc import Callable

import numpy as np

from sam_lungs.prompts.clicks import depths
from sam_lungs.prompts.protocols import PROTOCOLS, Prompts
from sam_lungs.prompts.rules import make_prompts


def random_points(region: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n different pixels of a region, all equally probable."""
    pixels_rc = np.argwhere(region)
    return pixels_rc[rng.permutation(len(pixels_rc))[:n]]


def spread_points(region: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n pixels of a region that are spread evenly over its inside.

    Farthest point sampling (Eldar et al. 1997, doi 10.1109/83.623193), in which also the edge of
    the region counts as sampled: each point is the pixel with the largest Euclidean distance in
    pixels to the nearest earlier point or pixel outside, so the first one is the most interior.
    Without the edge the points would lie on it, where nobody clicks. Of equal distances, the first
    pixel in row-major order is taken. `rng` is not used.
    """
    pixels_rc, distances = np.argwhere(region), depths(region)[region]
    points_rc = pixels_rc[:0]
    while len(points_rc) < min(n, len(pixels_rc)):
        point_rc = pixels_rc[np.argmax(distances)]
        points_rc = np.concatenate([points_rc, [point_rc]])
        to_point = np.sqrt(((pixels_rc - point_rc) ** 2).sum(axis=1))
        distances = np.minimum(distances, to_point)
    return points_rc


RULES: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "random": random_points,
    "spread": spread_points,
}


def sample_points(
    masks: np.ndarray,
    n: int,
    rule: str,
    rng: np.random.Generator,
    objects: str,
    margin_px: int,
) -> list[Prompts]:
    """Return the prompts of one slice with n positive points per label and n negative ones.

    masks: (rows, columns) integer labels, 0 for background; at least one pixel is not background.
    rule: of `RULES`. The first points for a larger n are those for a smaller one, with the same
        state of `rng`.
    objects: `apart`: prompts for each label, in the order of the labels; `together`: one set of
        prompts, the points of the labels in their order.
    margin_px: negative points lie in the bounding box of the prompted labels, enlarged by this on
        each side, and outside all labels. micro-sam (micro_sam/prompt_generators.py) samples so
        too, but keeps a distance from the object.

    A region with fewer than n pixels gives all of them. Positive points come first. The box is the
    bounding box of the prompted labels, as in the paper.
    """
    sample = RULES[rule]
    labels = np.unique(masks[masks != 0])
    prompted = [[label] for label in labels] if objects == "apart" else [labels]
    sampled = []
    for of_labels in prompted:
        shown = np.where(np.isin(masks, of_labels), masks, 0)
        box = make_prompts(shown, PROTOCOLS["box_only"])
        positives = [sample(masks == label, n, rng) for label in of_labels]
        negatives = sample(surroundings(masks != 0, box.box_rc, margin_px), n, rng)
        points_rc = np.concatenate([*positives, negatives])
        is_positive = np.arange(len(points_rc)) < len(points_rc) - len(negatives)
        sampled.append(Prompts(points_rc, is_positive.astype(np.int64), box.box_rc))
    return sampled


def surroundings(mask: np.ndarray, box_rc: np.ndarray, margin_px: int) -> np.ndarray:
    """Return the pixels, (rows, columns) bool, in a box and margin, and outside a mask."""
    top, left, bottom, right = box_rc
    around = np.zeros_like(mask)
    around[
        max(top - margin_px, 0) : bottom + margin_px, max(left - margin_px, 0) : right + margin_px
    ] = True
    return around & ~mask
