"""The next click of a simulated interactive user, who knows the reference mask.

The user clicks in the middle of the largest wrong region. The pixels that are missing and those
that are too many form separate regions, 8-connected. The middle is the pixel with the largest
Euclidean distance to the nearest pixel outside the region; pixels beyond the image border are
outside, so the border counts as an edge.

The published rules differ:
- RITM (Sofiiuk et al. 2021, arXiv 2102.06583; isegm/inference/clicker.py), SAM (Kirillov et al.
  2023, arXiv 2304.02643, appendix D.1) and SAM 2 (sam2/modeling/sam2_utils.py) do not look at
  areas: they click at the largest distance over all wrong pixels. In RITM and SAM 2 the border
  counts as an edge, and the click is negative if missing pixels and pixels that are too many reach
  the same distance. RITM does not click a pixel again.
- The CVPR 2025 challenge (JunMa11/CVPR-MedSegFMCompetition, CVPR25_iter_eval.py) takes the largest
  region of wrong pixels of both kinds together, 26-connected, and one of its deepest voxels at
  random. The border counts as an edge.
- RadioActive (arXiv 2411.07885; radioa/prompts/interactive_prompter.py) chooses positive or
  negative at random, in proportion to the wrong voxels. A positive click is in the centre of the
  largest region, a negative prompt is a scribble.
- micro-sam (micro_sam/prompt_generators.py) draws a positive and a negative point at random from
  the wrong pixels in each step.

Followed here: the largest region as in the challenge, regions of one kind and no pixel clicked
again as in RITM, the middle as in both. No tie is decided at random, see `next_click`.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from sam_lungs.prompts.protocols import Prompts

NO_CLICKS = np.empty((0, 2), dtype=np.int64)
# Neighbours in (kind, row, column): 8-connected within a kind of wrong pixels.
WITHIN_A_KIND = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])


class Click(NamedTuple):
    """A click: point_rc (row, column); label 1 for positive and 0 for negative."""

    point_rc: tuple[int, int]
    label: int


def next_click(
    reference: np.ndarray, predicted: np.ndarray, clicked_rc: np.ndarray = NO_CLICKS
) -> Click | None:
    """Return the click in the middle of the largest wrong region, or None if no pixel is left.

    reference, predicted: (rows, columns) bool.
    clicked_rc: (clicks, 2) int, (row, column) of earlier clicks, which are not clicked again; a
        region without other pixels is passed over.

    Of equally large regions, one of missing pixels is taken before one of pixels that are too many,
    then the one whose first pixel not yet clicked comes first in row-major order. Of pixels with
    equal distance to the edge, the first in row-major order is taken.
    """
    wrong = np.stack([reference & ~predicted, predicted & ~reference])
    free = wrong.copy()
    free[:, clicked_rc[:, 0], clicked_rc[:, 1]] = False
    if not free.any():
        return None
    regions, _ = ndimage.label(wrong, WITHIN_A_KIND)
    areas, region_of = np.bincount(regions[wrong]), regions[free]
    largest = region_of[np.argmax(areas[region_of])]
    pixels = np.argwhere(free)[region_of == largest]
    kind = pixels[0, 0]
    distances = depths(regions[kind] == largest)[pixels[:, 1], pixels[:, 2]]
    _, row, column = pixels[np.argmax(distances)].tolist()
    return Click((row, column), int(kind == 0))


def depths(region: np.ndarray) -> np.ndarray:
    """Return the Euclidean distance in pixels to the nearest pixel outside a region.

    region: (rows, columns) bool. Pixels beyond the image border are outside. The distances of
    pixels outside are 0.
    """
    distances = np.zeros(region.shape)
    for box in ndimage.find_objects(region.astype(np.int8)):  # one, or none if it is empty
        distances[box] = ndimage.distance_transform_edt(np.pad(region[box], 1))[1:-1, 1:-1]
    return distances


def add_click(prompts: Prompts, click: Click) -> Prompts:
    """Return prompts with one more point, the last."""
    return replace(
        prompts,
        points_rc=np.concatenate([prompts.points_rc, [click.point_rc]]),
        labels=np.append(prompts.labels, click.label),
    )


def first_prompt(prompts: Prompts) -> Prompts:
    """Return what an interactive user starts with: the first positive point, or else the box."""
    first = np.flatnonzero(prompts.labels == 1)[:1]
    box_rc = None if len(first) else prompts.box_rc
    return Prompts(prompts.points_rc[first], prompts.labels[first], box_rc)
