"""A parametric chest: `render` draws one axial plane of a patient on any pixel grid."""

import math
from types import SimpleNamespace

import cv2
import numpy as np

from sam_lungs.synthetic.organs import paint_abdomen, paint_airways, paint_lungs, paint_mediastinum
from sam_lungs.synthetic.patient import LEFT_LUNG, RIGHT_LUNG
from sam_lungs.synthetic.plane import EVERYWHERE, FAT, MUSCLE, Grid, Plane

MARROW, CORTEX = 180, 850  # Hounsfield units
SPECK_MM2 = 25


def render(patient: SimpleNamespace, z_mm: float, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Draw one axial plane of a patient.

    z_mm: height of the plane above the lowest costophrenic recess.

    Returns the noiseless image, (rows, columns) float32 Hounsfield units, and the lung masks, uint8
    of the same shape: 0 background, 1 left lung, 2 right lung. As in masks drawn by radiologists,
    the lungs include disease and peripheral vessels, and exclude trachea, main bronchi, hila,
    pleural effusion, and regions below 25 mm2.
    """
    plane = Plane(patient, z_mm, grid)
    paint_body(plane)
    labels = np.zeros(grid.shape, np.uint8)
    window = _bounds(plane.wall < 3)
    cavity = plane.crop(window)
    paint_abdomen(cavity)
    mediastinum = paint_mediastinum(cavity)
    labels[window] = paint_lungs(cavity, mediastinum)
    paint_airways(cavity, labels[window])
    _clear_specks(labels[window], SPECK_MM2 / (grid.spacing_mm[0] * grid.spacing_mm[1]))
    paint_bones(plane)
    paint_surroundings(plane)
    return plane.hu, labels


def _clear_specks(labels, pixels):
    """Clear regions of fewer pixels, which radiologists would not draw."""
    for label in (RIGHT_LUNG, LEFT_LUNG):
        _, parts, measures, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8))
        small = measures[:, cv2.CC_STAT_AREA] < pixels
        small[0] = False  # the background
        labels[small[parts]] = 0


def _bounds(mask):
    """Return the smallest window, (row slice, column slice), that contains a mask."""
    sides = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return tuple(slice(int(side[0]), int(side[-1]) + 1) for side in sides)


def paint_body(plane: Plane) -> None:
    """Paint skin, fat and muscle; set the outline of the thoracic cavity."""
    p, w, b = plane.p, plane.w, plane.b
    a = w * plane.at(
        (-0.3, 0.94),
        (0, 0.97),
        (0.25, 1),
        (0.5, 0.96),
        (0.7, 0.85),
        (0.85, 0.67),
        (1, 0.42),
        (1.2, 0.3),
    )
    d = b * plane.at(
        (-0.3, 1), (0.3, 1), (0.55, 0.92), (0.75, 0.74), (0.9, 0.56), (1, 0.42), (1.2, 0.35)
    )
    centre_y = b * plane.at((0.3, 0), (0.55, 0.05), (0.8, 0.16), (1.0, 0.26))
    dx, dy = plane.x, plane.y - centre_y
    r = np.sqrt(dx * dx + dy * dy) + np.float32(1e-3)
    c, s = dx / r, dy / r
    cc, ss = c * c, s * s

    def outline(half_width, half_depth, squareness):
        u, v = cc / (half_width * half_width), ss / (half_depth * half_depth)
        round_, square = 1 / np.sqrt(u + v), 1 / np.sqrt(np.sqrt(u * u + v * v))
        return round_ + squareness * (square - round_)

    cavity = outline(a, d, p.squareness) * (1 + 4 * p.lobes * cc * ss * s)
    plane.s, plane.wall = s, r - cavity  # sine of the angle; depth outside the cavity
    plane.sternum_y = centre_y - d - 8
    body_a = w * plane.at((0, 1), (0.5, 1), (0.7, 1.04), (0.85, 1.18), (1, 1.22), (1.15, 1.0))
    body_a += p.fat_mm + p.muscle_mm + 12
    body_d = (
        b * plane.at((0, 1), (0.4, 1), (0.7, 0.93), (1, 0.76), (1.2, 0.62)) + 0.8 * p.fat_mm + 14
    )
    shift = p.back_mm - body_d - centre_y
    body = outline(body_a, body_d, p.body_squareness) + shift * s
    body = np.maximum(body, cavity + (9 + 0.5 * p.fat_mm))
    plane.skin = np.minimum(body - r, (p.back_mm - 5) - plane.y)
    if p.breasts:
        size = p.fat_mm * 0.5 + 24
        height = plane.at((0.1, 0), (0.35, 1), (0.5, 1), (0.75, 0))
        for sign in (-1, 1) if height > 0.1 else ():
            window, distance = plane.ellipse(
                sign * 0.55 * w,
                centre_y - b - 0.4 * p.fat_mm - 8,
                size * 1.8 * height,
                size * height,
                0.2 * sign,
            )
            plane.skin[window] = np.maximum(plane.skin[window], distance)
    plane.paint(plane.soft(plane.skin), MUSCLE - 20)
    fat = FAT + 12 * plane.texture
    plane.paint(plane.soft(plane.skin - 2), fat)
    if p.breasts:
        gland = np.minimum(plane.skin - 8, -centre_y - 0.95 * b - plane.y) + 6 * plane.patchy - 6
        plane.paint(plane.soft(gland, 4) * 0.7, 20)
    girdle = plane.at((0.5, 0), (0.8, 0.7), (1, 1))
    muscle = p.muscle_mm * (1.15 + 0.5 * (cc - ss) + 0.5 * s + 0.35 * plane.patchy)
    muscle += girdle * (12 + 55 * cc * ss + 30 * cc) + 8
    muscle = np.minimum(muscle - plane.wall, plane.skin - 3)
    stripes = np.abs(plane.wall - 9 - 6 * plane.patchy) - 1.5
    tissue = MUSCLE + 10 * plane.texture
    plane.paint(plane.soft(np.minimum(muscle, stripes), 1.5), tissue)
    plane.paint(plane.soft(10 - plane.wall), tissue - 10)
    for sign in (-1, 1):
        shape = plane.ellipse(sign * 0.24 * w, plane.spine_y + 34, 0.2 * w, 19, 0.3 * sign)
        plane.paint_shape(shape, MUSCLE + 5, 2)
    plane.paint(plane.soft(-plane.wall), fat)


def paint_bones(plane: Plane) -> None:
    """Paint vertebra, ribs with cartilage, sternum, scapulae, clavicles and arms."""
    p, w, b, t = plane.p, plane.w, plane.b, plane.t
    scale = p.bone_scale
    cortex, marrow = CORTEX * scale, (MARROW + 40 * plane.texture) * scale

    def bone(shape, shell=2.0):
        window, distance = shape
        plane.paint(plane.soft(distance), cortex, window)
        plane.paint(plane.soft(distance - shell, 1.5), marrow[window], window)

    # Ribs slope down toward anterior, so a plane cuts each rib in a short arc.
    front = (1 - plane.s) / 2
    phase = (plane.z + p.rib_slope_mm * front) / p.rib_spacing_mm + p.rib_phase
    rise = (phase - np.floor(phase + 0.5)) * p.rib_spacing_mm
    depth = (plane.wall - 5.5) / 4.0
    rib = (1 - np.sqrt(depth * depth + rise * rise / 49)) * 4
    rib = np.minimum(rib, np.abs(plane.x) - 0.22 * w)
    cartilage = plane.soft(60 * (front - 0.86)) if t < 0.75 else 0.0
    plane.paint(plane.soft(rib), cortex + cartilage * (110 - cortex))
    plane.paint(plane.soft(rib - 1.6, 1.5), marrow + cartilage * (70 - marrow))
    if 0.22 < t < 0.88:
        y = plane.sternum_y
        bone(plane.ellipse(0, y, 19 * plane.at((0.2, 0.5), (0.5, 0.8), (0.85, 1.5)), 6.5), 1.2)
    y, size = plane.spine_y, p.spine_mm * plane.at((0, 1.1), (0.6, 0.9), (1.2, 0.75))
    phase = plane.z / p.vertebra_mm + p.rib_phase
    level = phase - math.floor(phase)  # 0 .. 0.2 is the disc
    body = plane.ellipse(0, y, size * 1.12, size * 0.88)
    if level < 0.2:
        plane.paint_shape(body, 85)
    else:
        bone(body)
    bone(plane.ellipse(0, y + size + 6, 15, 12))
    plane.paint_shape(plane.ellipse(0, y + size + 5, 9.5, 8), 25)
    if level < 0.55:
        for sign in (-1, 1):
            bone(plane.capsule((sign * 12, y + size + 8), (sign * 34, y + size + 15), 4.5))
            bone(plane.ellipse(sign * 16, y + size + 8, 7, 6))
    bone(plane.capsule((0, y + size + 15), (0, y + size + plane.at((0, 36), (1, 28))), 3.2), 1.5)
    if t > 0.4:
        plate = 2.5 + 2 * plane.patchy.clip(-0.5, 1) - np.abs(plane.wall - 15 - 8 * (plane.s - 0.5))
        ends = np.minimum(plane.s - 0.12, plane.at((0.4, 0.4), (0.6, 0.8), (1, 0.85)) - plane.s)
        bone((EVERYWHERE, np.minimum(plate, 80 * ends)), 1.3)
    if t > 0.72:
        for sign in (-1, 1):
            spine = (sign * 0.8 * w, 0.45 * b + 14), (sign * 1.15 * w, 0.35 * b)
            bone(plane.capsule(*spine, 5))
    if t > 0.82:
        for sign in (-1, 1):
            bone(plane.capsule((sign * 25, -0.35 * b), (sign * 0.75 * w, -0.25 * b), 6))
            bone(plane.ellipse(sign * 1.15 * w, 0.1 * b, 23, 22), 2)
    if p.arms_down and t < 0.85:
        x = 1.1 * w + p.fat_mm + p.muscle_mm + 65
        for sign in (-1, 1):
            for grow, hu in ((46, 20), (44, FAT), (38, MUSCLE)):
                plane.paint_shape(plane.ellipse(sign * x, 0.3 * b, grow, grow * 1.1), hu)
            bone(plane.ellipse(sign * x, 0.3 * b, 12, 11), 4)


def paint_surroundings(plane: Plane) -> None:
    """Paint the table under the patient (above a prone one), and a sheet or cable beside."""
    p = plane.p
    if p.sheet:
        fold = np.abs(plane.skin + p.sheet_mm * (1.2 + 0.5 * plane.patchy)) - 0.8
        plane.paint(plane.soft(np.minimum(-fold, p.sheet_mm * plane.s - plane.x)) * 0.3, FAT)
    if p.no_table:
        return
    x, y = plane.grid.x, plane.grid.y * p.gravity
    surface = y - (p.back_mm + 3 + p.table_gap_mm) + p.table_curve * x * x
    lower = surface - p.table_thickness_mm - 0.4 * p.table_curve * x * x
    outside = np.minimum(-plane.skin, 240 - np.abs(x))
    plane.paint(plane.soft(np.minimum(np.minimum(surface, -lower), outside)), -930)
    for shell in (surface, lower):
        plane.paint(plane.soft(np.minimum(1.5 - np.abs(shell), outside)), p.table_hu)
