"""Random parameters of one phantom patient: body, lungs, vessels, disease."""

from types import SimpleNamespace

import numpy as np

LEFT_LUNG, RIGHT_LUNG = 1, 2  # as in the dataset, Zenodo record 3757476

# Uniform distributions.
RANGES = {
    "half_width_mm": (112, 152),  # of the thoracic cavity
    "depth_ratio": (0.60, 0.80),  # anteroposterior over transverse
    "squareness": (0.0, 0.5),  # of the cavity's outline: 0 ellipse, 1 superellipse of power 4
    "lobes": (0.0, 0.12),  # extent of the lungs beside the spine
    "body_squareness": (0.1, 0.8),
    "lung_height_mm": (190, 300),
    "muscle_mm": (5, 20),
    "warp_mm": (1.5, 6),
    "warp_wavelength_mm": (55, 120),
    "right_dome": (0.28, 0.48),  # heights of the diaphragm, as a fraction of the lung's
    "left_dome_lower": (-0.04, 0.08),
    "dome_steepness": (0.2, 1.0),
    "dome_width": (0.56, 0.68),
    "dome_depth": (0.95, 1.15),
    "dome_anterior": (0.12, 0.38),
    "heart_mm": (52, 76),
    "heart_aspect": (0.68, 0.88),
    "heart_x": (0.10, 0.24),
    "heart_y": (-0.42, -0.24),
    "heart_height": (0.30, 0.40),
    "heart_angle": (0.2, 0.9),
    "mediastinum_mm": (24, 36),
    "mediastinum_shift_mm": (-8, 8),
    "junction_mm": (1.0, 6),  # half the distance between the lungs at the midline
    "spine_mm": (16, 22),
    "vertebra_mm": (20, 28),
    "vessel_scale": (0.75, 1.3),
    "trachea_mm": (6.5, 11),
    "rib_spacing_mm": (25, 36),
    "rib_slope_mm": (70, 130),
    "rib_phase": (0, 1),
    "lung_hu": (-915, -785),
    "gravity_hu": (10, 110),
    "bone_scale": (0.6, 1.25),
    "liver_hu": (35, 75),
    "liver_edge": (-0.05, 0.65),
    "stomach_mm": (15, 52),
    "stomach_gas": (-1.0, 0.6),
    "spleen_mm": (35, 60),
    "sheet_mm": (4, 25),  # distance of a sheet or cable from the skin
    "table_curve": (0.0, 0.0022),
    "table_gap_mm": (0, 12),
    "table_thickness_mm": (18, 60),
    "table_hu": (-700, 250),
}
# Probabilities.
CHANCES = {
    "contrast": 0.35,
    "breasts": 0.4,
    "arms_down": 0.15,
    "no_table": 0.12,
    "sheet": 0.35,
    "prone": 0.08,
    "diseased": 0.6,
    "emphysema": 0.15,
    "effusion_right": 0.1,
    "effusion_left": 0.1,
    "pneumothorax": 0.03,
    "raised_right_dome": 0.06,
    "raised_left_dome": 0.06,
}


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw from [low, high), with operations that round the same on every platform."""
    return low + (high - low) * rng.random()


def draw_patient(rng: np.random.Generator) -> SimpleNamespace:
    """Draw one patient: `RANGES`, `CHANCES`, and parameters derived from them.

    Lengths are in mm, densities in Hounsfield units. `vessels` has a row (x0, y0, z0, x1, y1, z1,
    radius) per segment of the vessel tree, in mm, thinnest first. `lesions` has a row (x, y, z,
    radius x, radius y, radius z, Hounsfield units, strength from 0 to 1) per lesion.
    """
    patient = SimpleNamespace(**{name: uniform(rng, *limits) for name, limits in RANGES.items()})
    for name, chance in CHANCES.items():
        setattr(patient, name, rng.random() < chance)
    p = patient
    p.lattice = (2 * rng.random((32, 32, 32)) - 1).astype(np.float32)
    p.half_depth_mm = p.half_width_mm * p.depth_ratio
    p.fat_mm = 4 + 38 * rng.random() * rng.random()
    p.blood_hu = uniform(rng, 110, 330) if p.contrast else uniform(rng, 30, 50)
    p.organ_contrast_hu = uniform(rng, 20, 60) if p.contrast else 0.0
    p.back_mm = p.half_depth_mm + p.muscle_mm + 0.8 * p.fat_mm + 14  # the posterior skin's y
    p.body_width_mm = 2 * (p.half_width_mm + p.fat_mm + p.muscle_mm + 12)
    p.body_depth_mm = 2 * (p.half_depth_mm + 0.8 * p.fat_mm + 14)
    p.gravity = -1 if p.prone else 1
    p.domes = {
        RIGHT_LUNG: p.right_dome + 0.14 * p.raised_right_dome,
        LEFT_LUNG: p.right_dome - p.left_dome_lower + 0.18 * p.raised_left_dome,
    }
    p.apices = {side: uniform(rng, 0.95, 1.03) for side in (RIGHT_LUNG, LEFT_LUNG)}
    p.effusion = {
        RIGHT_LUNG: uniform(rng, 0.25, 0.9) if p.effusion_right else 0.0,
        LEFT_LUNG: uniform(rng, 0.25, 0.9) if p.effusion_left else 0.0,
    }
    p.collapsed_side = RIGHT_LUNG if rng.random() < 0.5 else LEFT_LUNG
    p.pneumothorax_mm = uniform(rng, 6, 35) if p.pneumothorax else 0.0
    p.fissures = {
        side: (uniform(rng, 0.5, 1.1), uniform(rng, -0.2, 0.25), uniform(rng, 20, 160))
        for side in (RIGHT_LUNG, LEFT_LUNG)
    }
    trees = [_draw_vessels(rng, p, side) for side in (-1, 1)]
    vessels = np.concatenate(trees)
    p.vessels = vessels[np.argsort(vessels[:, 6], kind="stable")]
    p.lesions = _draw_lesions(rng, p)
    return patient


def _draw_vessels(rng: np.random.Generator, p: SimpleNamespace, side: int) -> np.ndarray:
    """Grow a tree from the hilum: branches to points all over the lung, then twigs."""
    w, b, h = p.half_width_mm, p.half_depth_mm, p.lung_height_mm
    nodes = np.array([[side * 0.27 * w, 0.2 * b, 0.53 * h]])
    segments = []

    def grow(starts, ends, radius_mm):
        count = len(ends)
        gaps = ends - starts
        lengths = np.sqrt(gaps[:, 0] ** 2 + gaps[:, 1] ** 2 + gaps[:, 2] ** 2)[:, None]
        middles = (starts + ends) / 2 + (rng.random((count, 3)) - 0.5) * 0.4 * lengths
        radii = radius_mm * p.vessel_scale * (0.7 + 0.6 * rng.random((count, 1)))
        segments.append(np.concatenate([starts, middles, radii], axis=1))
        segments.append(np.concatenate([middles, ends, 0.8 * radii], axis=1))
        return np.concatenate([nodes, middles, ends])

    # A generation: number of points, reach (1 = the whole lung), radius in mm.
    for count, reach, radius_mm in (
        (4, 0.4, 3.6),
        (14, 0.65, 2.4),
        (50, 0.85, 1.5),
        (220, 1.0, 0.85),
    ):
        spread = np.array([0.47 * w, 0.95 * b, 0.55 * h]) * reach
        centre = np.array([side * 0.52 * w, 0.05 * b, 0.48 * h])
        ends = centre + (2 * rng.random((count, 3)) - 1) * spread
        gaps = ends[:, None] - nodes[None]  # (ends, nodes, 3)
        squares = gaps * gaps
        nearest = np.argmin(squares[..., 0] + squares[..., 1] + squares[..., 2], axis=1)
        nodes = grow(nodes[nearest], ends, radius_mm)
    for count, reach_mm, radius_mm in ((1600, 24, 0.55), (4500, 16, 0.34)):
        starts = nodes[rng.integers(len(nodes) // 8, len(nodes), count)]
        nodes = grow(starts, starts + (2 * rng.random((count, 3)) - 1) * reach_mm, radius_mm)
    return np.concatenate(segments)


def _draw_lesions(rng: np.random.Generator, p: SimpleNamespace) -> np.ndarray:
    """Draw ground glass, consolidation (mostly subpleural, posterior, basal) and bullae."""
    lesions = []
    extent = uniform(rng, 0.6, 1.4)
    for _ in range(rng.integers(1, 14) if p.diseased else 0):
        side = 1 if rng.random() < 0.5 else -1
        centre = (
            side * p.half_width_mm * uniform(rng, 0.35, 0.95),
            p.half_depth_mm * uniform(rng, -0.7, 0.95),
            p.lung_height_mm * uniform(rng, 0.0, 0.85),
        )
        radii = [extent * uniform(rng, 8, 45) for _ in range(3)]
        solid = rng.random() < 0.3
        hu = uniform(rng, -80, 60) if solid else uniform(rng, -700, -350)
        lesions.append((*centre, *radii, hu, uniform(rng, 0.6, 1.0)))
    for _ in range(rng.integers(5, 40) if p.emphysema else 0):
        side = 1 if rng.random() < 0.5 else -1
        centre = (
            side * p.half_width_mm * uniform(rng, 0.2, 0.95),
            p.half_depth_mm * uniform(rng, -0.8, 0.9),
            p.lung_height_mm * uniform(rng, 0.3, 1.0),
        )
        radius = uniform(rng, 3, 16)
        lesions.append((*centre, radius, radius, radius, uniform(rng, -1000, -950), 1.0))
    return np.array(lesions).reshape(-1, 8)
