"""Prompts moved at random, and random generators that do not depend on the order of the work."""

import hashlib
import json

import numpy as np

from sam_lungs.prompts.protocols import Prompts


def rng_for(*keys: str | int | float) -> np.random.Generator:
    """Return a generator whose numbers depend on these keys only.

    keys: such as the name of the case, the slice, the object and the repeat. Their types count:
        1, 1.0 and "1" are different keys.
    """
    digest = hashlib.sha256(json.dumps(keys).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest))


def jitter(
    prompts: Prompts,
    sigma_px_rc: tuple[float, float],
    rng: np.random.Generator,
    size_rc: tuple[int, int],
) -> Prompts:
    """Return prompts with Gaussian noise on each coordinate of the points and each edge of the box.

    sigma_px_rc: standard deviations along (rows, columns) in pixels; of a distance in mm divide it
        by the spacing of rows and columns. With (0, 0) the prompts stay the same.
    size_rc: (rows, columns) of the slice, which holds the prompts.

    Coordinates are rounded to pixels. Points outside the slice are moved to its border. The edges
    of the box move independently; edges that pass each other are swapped, and the box has at
    least one pixel of the slice. The same generator gives the same directions for each sigma.
    """
    noise_rc = rng.standard_normal((len(prompts.points_rc) + 2, 2)) * sigma_px_rc
    last_rc = np.subtract(size_rc, 1)
    points_rc = np.clip(_rounded(prompts.points_rc + noise_rc[2:]), 0, last_rc)
    box_rc = prompts.box_rc
    if box_rc is not None:
        corners_rc = np.sort(_rounded(box_rc.reshape(2, 2) + noise_rc[:2]), axis=0)
        upper_left = np.clip(corners_rc[0], 0, last_rc)
        lower_right = np.clip(corners_rc[1], upper_left + 1, size_rc)
        box_rc = np.concatenate([upper_left, lower_right])
    return Prompts(points_rc, prompts.labels, box_rc)


def _rounded(coordinates: np.ndarray) -> np.ndarray:
    return np.rint(coordinates).astype(np.int64)
