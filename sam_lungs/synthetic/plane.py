"""The pixel grid of a phantom slice in patient coordinates, and painting shapes on it.

Patient coordinates, in millimetres: x toward the patient's left, y toward posterior, z toward
superior, with z = 0 at the lowest costophrenic recess and z = lung height at the apices. A shape is
a signed distance in millimetres, positive inside. A soft threshold fills its voxels, so that
borders have partial volume.

Everything on the pixel grid uses only operations that IEEE 754 rounds exactly (add, multiply,
divide, square root, compare), never sine, exponential, matrix product or floating-point filters,
which differ in the last bit between platforms. Scalars from the mathematics library and from
interpolation are rounded to six decimals.
"""

import copy
import math

import numpy as np

AIR, FAT, MUSCLE, FLUID = -1000, -100, 50, 10  # Hounsfield units
EVERYWHERE = (slice(None), slice(None))


class Grid:
    """The pixels of one axial plane, in patient coordinates.

    shape: (rows, columns). spacing_mm: (row, column) pixel size. centre_mm: the patient (x, y) at
    the middle of the grid. angle: rotation of the patient in the plane, in radians; for 0, row 0 is
    anterior and column 0 the patient's right.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        spacing_mm: tuple[float, float],
        centre_mm: tuple[float, float],
        angle: float,
    ):
        self.shape, self.spacing_mm, self.centre_mm = shape, spacing_mm, centre_mm
        self.pixel_mm = (spacing_mm[0] + spacing_mm[1]) / 2
        self.middle = (shape[0] - 1) / 2, (shape[1] - 1) / 2  # (row, column) of centre_mm
        self.cos, self.sin = round(math.cos(angle), 6), round(math.sin(angle), 6)
        self.down_mm, self.across_mm = (
            ((np.arange(size) - middle) * spacing).astype(np.float32)
            for size, middle, spacing in zip(shape, self.middle, spacing_mm, strict=True)
        )
        down, across = self.down_mm[:, None], self.across_mm[None, :]
        self.x = self.cos * across - self.sin * down + centre_mm[0]
        self.y = self.sin * across + self.cos * down + centre_mm[1]

    def crop(self, window):
        """Return the grid of a window, (row slice, column slice)."""
        part = copy.copy(self)
        part.x, part.y = self.x[window], self.y[window]
        part.down_mm, part.across_mm = self.down_mm[window[0]], self.across_mm[window[1]]
        part.shape = part.x.shape
        part.middle = self.middle[0] - window[0].start, self.middle[1] - window[1].start
        return part

    def column_row(self, x, y):
        """Return the pixel position (column, row), as floating-point numbers, of patient (x, y)."""
        x, y = x - self.centre_mm[0], y - self.centre_mm[1]
        column = (self.cos * x + self.sin * y) / self.spacing_mm[1] + self.middle[1]
        row = (self.cos * y - self.sin * x) / self.spacing_mm[0] + self.middle[0]
        return column, row

    def around(self, x, y, reach_mm):
        """Return the window (row slice, column slice) of pixels within reach of patient (x, y)."""
        window = []
        for centre, size, spacing in zip(
            self.column_row(x, y)[::-1], self.shape, self.spacing_mm, strict=True
        ):
            reach = reach_mm / spacing
            low, high = int(centre - reach), int(centre + reach) + 2
            window.append(slice(min(max(low, 0), size), min(max(high, 0), size)))
        return tuple(window)

    def noise(self, lattice, z_mm, wavelength_mm, offset):
        """Return smooth noise of about unit deviation, a quadratic B-spline on a lattice."""
        taps = [
            _spline(position / wavelength_mm + offset)
            for position in (np.array([z_mm]), self.down_mm, self.across_mm)
        ]
        (z_at, z_weight), (down_at, down_weight), (across_at, across_weight) = taps
        plane = sum(lattice[z_at[k, 0]] * (np.float32(4.2) * z_weight[k, 0]) for k in range(3))
        lines = sum(plane[down_at[k]] * down_weight[k][:, None] for k in range(3))
        return sum(np.take(lines, across_at[k], axis=1) * across_weight[k] for k in range(3))


def _spline(position):
    below = np.floor(position).astype(np.int64)
    f = (position - below).astype(np.float32)
    weights = ((1 - f) * (1 - f) / 2, 0.5 + f - f * f, f * f / 2)
    return np.stack([(below + k) % 32 for k in range(3)]), np.stack(weights)


class Plane:
    """One axial plane of a patient, painted from back to front.

    hu: the image so far, (rows, columns) float32. x, y: patient coordinates of the pixels, in mm,
    warped by smooth noise so that no organ is an exact ellipse. t: height as a fraction of the
    lung's. texture, patchy: fine and coarse smooth noise of about unit deviation.
    """

    def __init__(self, p, z_mm, grid):
        self.p, self.z, self.grid = p, z_mm, grid
        self.t = z_mm / p.lung_height_mm
        self.w, self.b = p.half_width_mm, p.half_depth_mm
        warp = [grid.noise(p.lattice, z_mm, p.warp_wavelength_mm, offset) for offset in (3.1, 17.7)]
        self.texture = grid.noise(p.lattice, z_mm, 9.0, 8.4)
        self.x = grid.x + p.warp_mm * warp[0] + 0.5 * self.texture
        self.y = grid.y + p.warp_mm * warp[1] - 0.5 * self.texture
        self.patchy = 0.7 * warp[0] + 0.9 * grid.noise(p.lattice, z_mm, 22.0, 11.3)
        self.hu = np.full(grid.shape, AIR, np.float32)
        self.spine_y = self.b * self.at((-0.3, 0.58), (0.3, 0.63), (0.7, 0.66), (1.2, 0.45))

    def crop(self, window):
        """Return the part of the plane in a window, as views: painting it paints this plane."""
        part = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(part, name, value[window])
        part.grid = self.grid.crop(window)
        return part

    def at(self, *knots):
        """Interpolate a quantity at this height between knots (fraction of lung height, value)."""
        return round(float(np.interp(self.t, *zip(*knots, strict=True))), 6)

    def soft(self, distance_mm, width_mm=1.0):
        """Return occupancies, 0 to 1, of signed distances; the border is at least a pixel wide."""
        occupancy = distance_mm * (1 / max(width_mm, self.grid.pixel_mm))
        occupancy += 0.5
        return np.clip(occupancy, 0, 1, out=occupancy)

    def paint(self, occupancy, hu, window=EVERYWHERE):
        """Fill voxels in proportion to their occupancy with a tissue of `hu` Hounsfield units."""
        self.hu[window] += occupancy * (hu - self.hu[window])

    def ellipse(self, x, y, a, b, angle=0.0):
        """Return window and signed distance of an ellipse with half axes a, b (mm)."""
        cos, sin = round(math.cos(angle), 6), round(math.sin(angle), 6)
        window = self.grid.around(x, y, max(a, b) + 2.5 * self.p.warp_mm + 12)
        dx, dy = self.x[window] - x, self.y[window] - y
        u, v = (cos * dx + sin * dy) / a, (cos * dy - sin * dx) / b
        return window, (1 - np.sqrt(u * u + v * v)) * min(a, b)

    def capsule(self, start, end, radius):
        """Return window and signed distance of a thick line between two patient (x, y)."""
        (x0, y0), (x1, y1) = start, end
        dx, dy = x1 - x0, y1 - y0
        length = math.sqrt(dx * dx + dy * dy)
        reach = length / 2 + radius + 2.5 * self.p.warp_mm + 12
        window = self.grid.around((x0 + x1) / 2, (y0 + y1) / 2, reach)
        px, py = self.x[window] - x0, self.y[window] - y0
        along = np.clip((px * dx + py * dy) / (length * length), 0, 1)
        px, py = px - along * dx, py - along * dy
        return window, radius - np.sqrt(px * px + py * py)

    def paint_shape(self, shape, hu, width_mm=1.0):
        """Fill a shape, (window, signed distance), with a tissue of `hu` Hounsfield units."""
        window, distance = shape
        self.paint(self.soft(distance, width_mm), hu, window)


def blur(image: np.ndarray) -> np.ndarray:
    """Apply a 3 x 3 binomial filter, as shifted sums in fixed order: exact on every platform."""
    padded = np.pad(image, 1, mode="edge")
    rows = padded[:-2] + padded[2:] + 2 * padded[1:-1]
    return (rows[:, :-2] + rows[:, 2:] + 2 * rows[:, 1:-1]) * np.float32(1 / 16)
