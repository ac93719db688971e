"""The organs inside the phantom's thoracic cavity: abdomen, mediastinum, lungs, airways."""

import math

import cv2
import numpy as np

from sam_lungs.synthetic.patient import LEFT_LUNG, RIGHT_LUNG
from sam_lungs.synthetic.plane import AIR, FAT, FLUID, MUSCLE, Plane, blur

SIDES = {RIGHT_LUNG: -1, LEFT_LUNG: 1}  # the sign of x


def _rounded_minimum(a, b, radius_mm):
    """Return the intersection of two shapes, with rounded corners (a quadratic smooth minimum)."""
    overlap = np.maximum(radius_mm - np.abs(a - b), 0)
    return np.minimum(a, b) - overlap * overlap * (0.25 / radius_mm)


def paint_abdomen(plane: Plane) -> None:
    """Paint the organs under the two domes of the diaphragm: liver, stomach with gas, spleen."""
    p, w, b = plane.p, plane.w, plane.b
    plane.domes = {}
    for label, sign in SIDES.items():
        level = plane.t / p.domes[label]
        steep = p.dome_steepness
        square = 1 - level * (steep + (1 - steep) * level) if level > 0 else 1 - 10 * plane.t
        scale = math.sqrt(max(square, 0.0))
        a, d = p.dome_width * w, p.dome_depth * b
        u = (plane.x - sign * 0.5 * w) / a
        v = (plane.y + p.dome_anterior * b) / d
        plane.domes[label] = (scale - np.sqrt(u * u + v * v)) * min(a, d)
    under = np.maximum(plane.domes[RIGHT_LUNG], plane.domes[LEFT_LUNG])
    if plane.t > max(p.domes.values()):
        return
    inside = np.minimum(under, -2 - plane.wall)
    plane.paint(plane.soft(inside), MUSCLE)
    plane.paint(plane.soft(inside - 3), FAT + 12 * plane.texture)
    bowel = np.minimum(inside - 8, 18 * plane.patchy - 8)
    plane.paint(plane.soft(bowel, 2), MUSCLE - 20)
    organ = p.liver_hu + p.organ_contrast_hu
    right = np.minimum(
        inside - 3, 2 * (p.liver_edge * w - plane.x - 0.5 * plane.y) + 12 * plane.patchy
    )
    liver = np.maximum(right, np.minimum(plane.domes[RIGHT_LUNG], -2 - plane.wall) - 3)
    plane.paint(plane.soft(liver), organ + 4 * plane.texture)
    left = inside - 4
    depth = plane.at((-0.3, 1), (0.1, 1), (0.5, 0.6))
    window, spleen = plane.ellipse(
        0.72 * w, 0.42 * b, p.spleen_mm * depth, 0.7 * p.spleen_mm * depth, 0.9
    )
    plane.paint(plane.soft(np.minimum(spleen, left[window])), organ + 10, window)
    window, stomach = plane.ellipse(
        0.42 * w, -0.2 * b, p.stomach_mm * depth, 0.8 * p.stomach_mm, 0.5
    )
    stomach = np.minimum(stomach, left[window])
    plane.paint(plane.soft(stomach), MUSCLE, window)
    gas = np.minimum(
        stomach - 4, (p.stomach_gas * p.stomach_mm - 0.2 * b) - p.gravity * plane.y[window]
    )
    plane.paint(plane.soft(stomach - 4), FLUID + 15, window)
    plane.paint(plane.soft(gas), AIR, window)


# Great vessels: lowest and highest t, x / half width, y / half depth, radius / the aorta's.
VESSELS = (
    (0.42, 0.70, -0.06, -0.30, 1.25),  # ascending aorta
    (0.45, 0.85, -0.20, -0.18, 0.70),  # superior vena cava
    (0.47, 0.60, 0.14, -0.35, 1.15),  # pulmonary trunk
    (0.72, 1.30, -0.15, 0.05, 0.60),  # brachiocephalic artery
    (0.72, 1.30, 0.02, 0.10, 0.48),  # left common carotid
    (0.72, 1.30, 0.19, 0.30, 0.48),  # left subclavian
    (0.72, 1.30, -0.24, -0.10, 0.60),  # brachiocephalic veins
    (0.72, 1.30, 0.14, -0.15, 0.60),
)


def paint_mediastinum(plane: Plane) -> np.ndarray:
    """Paint heart, great vessels, oesophagus and hila; return the signed distance (mm) of all."""
    p, w, b, t = plane.p, plane.w, plane.b, plane.t
    shift, blood, aorta = p.mediastinum_shift_mm, p.blood_hu, p.mediastinum_mm * 0.42
    front = plane.spine_y - p.spine_mm
    above = []  # organs above the diaphragm: (shape, fat around it in mm, Hounsfield units)
    behind = []  # organs that continue behind it

    def fat(x, y, a, d):
        if min(a, d) > 3:
            above.append((plane.ellipse(x + shift, y, a, d), 0, FAT))

    def tube(organs, hu, x, y, radius, stretch=1.0):
        organs.append((plane.ellipse(x + shift, y, radius * stretch, radius), 2, hu))

    fat(
        0,
        0.15 * b,
        p.mediastinum_mm * plane.at((0, 0.9), (0.25, 0.75), (0.45, 0.5), (0.6, 0.85), (0.8, 1)),
        b * plane.at((0, 0.5), (0.4, 0.6), (0.6, 0.62), (0.8, 0.5), (1.2, 0.4)),
    )
    sulcus = plane.at((0.1, 46), (0.35, 22), (0.5, 0))
    fat(0, plane.sternum_y, 1.3 * sulcus, sulcus)
    fat(0, -0.15 * b, plane.at((0.15, 0.3 * w), (0.35, 0)), 0.9 * b)  # between the domes
    behind.append((plane.ellipse(0, plane.spine_y + 14, 1.45 * p.spine_mm, 35), 0, MUSCLE))
    rise = (t - p.heart_height) * p.lung_height_mm / (1.05 * p.heart_mm)
    size = p.heart_mm * math.sqrt(max(1 - rise * rise, 0))
    if size > 6:
        x, y = p.heart_x * w, p.heart_y * b
        heart = plane.ellipse(x + shift, y, size, size * p.heart_aspect, p.heart_angle)
        above.append((heart, 5, MUSCLE + 0.3 * (blood - 40)))
        for dx, dy, part in ((-0.35, -0.15, 0.34), (0.3, 0.1, 0.32), (-0.1, 0.3, 0.29)):
            tube(above, blood, x + dx * size, y + dy * size, part * size, 1.25)
    for lowest, highest, x, y, radius in VESSELS:
        if lowest < t < highest:
            tube(above, blood, x * w, y * b, radius * aorta)
    if 0.47 < t < 0.6:
        right = plane.capsule((shift, -0.2 * b), (-0.35 * w + shift, 0.05 * b), 0.7 * aorta)
        above.append((right, 2, blood))
    if t < 0.7:
        tube(behind, blood, 0.13 * w, front + 4, aorta)
    if 0.66 < t < 0.74:
        arch = plane.capsule((shift - 8, -0.2 * b), (0.13 * w + shift, front), aorta)
        above.append((arch, 2, blood))
    if t < 0.3:
        tube(behind, blood, -0.17 * w, 0.05 * b, aorta)  # inferior vena cava
    tube(behind, MUSCLE - 5, 3, front - 7, 6, 1.5)  # oesophagus
    bulk = plane.at((0.4, 0), (0.46, 11), (0.58, 13), (0.66, 0))
    for sign in SIDES.values() if bulk > 3 else ():
        x = sign * (0.29 * w + 4)
        fat(x, 0.25 * b, 1.4 * bulk, bulk)
        tube(above, blood, x + 3, 0.23 * b - 5, 0.6 * bulk)
        tube(above, blood, x - 3, 0.29 * b + 4, 0.5 * bulk)

    mediastinum = np.full(plane.grid.shape, -1e3, np.float32)
    cavity = -plane.wall
    domes = np.maximum(plane.domes[RIGHT_LUNG], plane.domes[LEFT_LUNG])
    for organs, limit in ((above, np.minimum(cavity, -domes)), (behind, cavity)):
        for (window, distance), around, hu in organs:
            mediastinum[window] = np.maximum(mediastinum[window], distance + around)
            inside = np.minimum(distance, limit[window])
            plane.paint(plane.soft(inside), hu + 5 * plane.texture[window], window)
    return mediastinum + 0.8 * plane.patchy


def paint_lungs(plane: Plane, mediastinum: np.ndarray) -> np.ndarray:
    """Paint parenchyma, fissures, vessels, disease, pleural fluid and gas; return the labels."""
    p, w, b = plane.p, plane.w, plane.b
    labels = np.zeros(plane.grid.shape, np.uint8)
    inside = _rounded_minimum(-1.5 - plane.wall, -1 - mediastinum, 14)
    lungs = np.full(plane.grid.shape, -1e3, np.float32)
    for label, sign in SIDES.items():
        apex = math.sqrt(max(p.apices[label] - plane.t, 0.0))
        beyond = max(plane.t - p.apices[label], 0.0) * p.lung_height_mm
        middle = (
            sign * (plane.x - p.mediastinum_shift_mm - 0.04 * w)
            - p.junction_mm
            + 2 * plane.patchy * sign
        )
        dx, dy = plane.x - sign * 0.44 * w, plane.y - 0.25 * b
        tip = 1.9 * w * apex - np.sqrt(dx * dx + dy * dy) - beyond
        cavity = np.minimum(np.minimum(inside, middle), np.minimum(tip, -1 - plane.domes[label]))
        lung = cavity
        if p.effusion[label]:
            level = b * (1.15 - p.effusion[label] * plane.at((0, 1), (0.4, 0.75), (0.9, 0)))
            lung = np.minimum(
                lung, level - p.gravity * plane.y + 0.0015 * dx * dx + 2 * plane.patchy
            )
            plane.paint(plane.soft(cavity), FLUID + 4 * plane.texture)
        if p.pneumothorax_mm and label == p.collapsed_side:
            gap = p.pneumothorax_mm * (1 - 0.6 * p.gravity * plane.s)
            lung = np.minimum(lung, -plane.wall - gap)
            plane.paint(plane.soft(np.minimum(cavity, 1 - lung)), AIR)
        labels[lung > 0.3 * plane.patchy] = label
        np.maximum(lungs, lung, out=lungs)
    if not labels.any():
        return labels
    parenchyma = p.lung_hu + p.gravity_hu * (p.gravity * plane.y / b) + 14 * plane.texture
    parenchyma += 20 * plane.patchy
    for label, sign in SIDES.items():
        slope, bend, offset = p.fissures[label]
        fissure = plane.y * slope + bend * plane.x * sign - (plane.z - offset)
        fissure = np.abs(fissure) / math.sqrt(1 + slope * slope)
        parenchyma += np.clip(1.6 - fissure, 0, 1) * (sign * plane.x > 0) * 110
    vessel, wall, lumen = _draw_tree(plane)
    parenchyma += wall * 350
    parenchyma += lumen * (AIR + 60 - parenchyma)
    parenchyma += vessel * (0.85 * p.blood_hu - parenchyma)
    for x, y, z, rx, ry, rz, hu, strength in p.lesions.tolist():
        rise = (plane.z - z) / rz
        if abs(rise) < 1:
            window = plane.grid.around(x, y, 1.3 * max(rx, ry) + 20)
            u, v = (plane.x[window] - x) / rx, (plane.y[window] - y) / ry
            density = 1 - np.sqrt(u * u + v * v + rise * rise)
            if hu > -900:
                density += 0.35 * plane.patchy[window] + 0.25 * plane.texture[window]
            density = np.clip(density * 2.5, 0, 1) * strength
            density *= density * (3 - 2 * density)
            here = parenchyma[window]
            here += density * (np.maximum(hu, here) - here if hu > -900 else hu - here)
    # Pleura and partial volume separate lung from chest wall.
    plane.paint(plane.soft(lungs + 0.5), parenchyma)
    return labels


def _draw_tree(plane):
    """Return occupancies, 0 to 1, of the vessels, and of the bronchi's walls and lumina."""
    grid, p = plane.grid, plane.p
    start, end, radius = p.vessels[:, :3], p.vessels[:, 3:6], p.vessels[:, 6]
    low, high = np.minimum(start[:, 2], end[:, 2]), np.maximum(start[:, 2], end[:, 2])
    slab = radius + 0.3
    near = (low < plane.z + slab) & (high > plane.z - slab)
    start, end, radius, slab = start[near], end[near], radius[near], slab[near]
    rise = end[:, 2] - start[:, 2]
    rise = np.where(np.abs(rise) < 1e-3, 1e-3, rise)
    ends = []
    for shift in (-slab, slab):
        along = np.clip((plane.z + shift - start[:, 2]) / rise, 0, 1)
        x, y = (start[:, k] + along * (end[:, k] - start[:, k]) for k in (0, 1))
        ends.append(np.stack(grid.column_row(x, y), axis=1))
    pictures = np.zeros((3, *grid.shape), np.uint8)
    fraction = 16  # cv2 draws at sixteenths of a pixel, in integers
    (starts, stops) = ((np.floor(fraction * e + 0.5)).astype(int).tolist() for e in ends)
    for q0, q1, r in zip(starts, stops, radius.tolist(), strict=True):
        width = 2 * r / grid.pixel_mm
        shade = int(255 * min(1, width))
        _line(pictures[0], q0, q1, shade, width)
        if r > 1.3:
            aside = int(fraction * (1.5 * r / grid.pixel_mm + 1))
            q0, q1 = [q0[0] + aside, q0[1]], [q1[0] + aside, q1[1]]
            _line(pictures[1], q0, q1, 255, 0.8 * width + 1)
            _line(pictures[2], q0, q1, 255, 0.5 * width)
    return [blur(picture.astype(np.float32)) * np.float32(1 / 255) for picture in pictures]


def _line(picture, start, end, shade, width):
    cv2.line(picture, start, end, shade, max(1, int(width)), cv2.LINE_AA, 4)


def paint_airways(plane: Plane, labels: np.ndarray) -> None:
    """Paint trachea and main bronchi, and clear them from the labels."""
    p, w, b, t = plane.p, plane.w, plane.b, plane.t
    shift, r = p.mediastinum_shift_mm, p.trachea_mm
    y = plane.at((0.5, 0.3 * b), (0.62, 0.22 * b), (1.0, 0.12 * b), (1.2, 0.0))
    shapes = []
    if t > 0.61:
        shapes.append(plane.ellipse(shift - 2, y, r, 0.95 * r))
    elif t > 0.48:
        out = plane.at((0.48, 1.0), (0.52, 0.85), (0.58, 0.4), (0.61, 0.15))
        for sign in SIDES.values():
            x, radius = sign * out * 0.3 * w + shift, r * (0.85 - 0.25 * out)
            shapes.append(plane.ellipse(x, y, 1.5 * radius, radius, 0.3 * sign))
    for window, distance in shapes:
        labels[window][distance > -2] = 0
        plane.paint(plane.soft(distance + 1.5), MUSCLE - 10, window)
        plane.paint(plane.soft(distance), AIR + 10, window)
