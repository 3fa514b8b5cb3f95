"""Views of handwritten digits: scikit-learn's 8x8 `load_digits` images placed on a 32x32 canvas.

Every view is one digit under a random rotation, scale, shift, contrast, background and noise, so that some views are
easy and some are hard: that spread is what makes early exits worth having. Digits are split once, by a fixed seed,
into training and held-out digits; the views that the project ships come from held-out digits only.

scikit-learn is needed to make views (extra `train`), not to load the shipped ones.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = [
    "DIGITS",
    "HELD_OUT_DIGITS",
    "SPLIT_SEED",
    "VIEW_PIXELS",
    "ViewRecipe",
    "Views",
    "held_out_views",
    "load_digit_images",
    "make_views",
    "split_digits",
]

DIGITS = 1797  # images in scikit-learn's load_digits
HELD_OUT_DIGITS = 512  # digits never trained on, nor used to calibrate the quantisation
SPLIT_SEED = 20220913  # of the split into training and held-out digits
VIEWS_SEED = 13443  # of the shipped held-out views
VIEW_PIXELS = 32  # height and width of a view
SOURCE_PIXELS = 8  # height and width of a scikit-learn digit


@dataclass(frozen=True)
class ViewRecipe:
    """How much a view may differ from its digit; each (low, high) pair is a uniform range.

    rotation_degrees, shift_pixels: the range is symmetric, -x to +x. scale: canvas pixels per source pixel.
    contrast: ink over background, as a share of the full range. background: level of the empty canvas, same unit.
    noise: standard deviation of the Gaussian noise of one view, same unit.
    """

    rotation_degrees: float = 20.0
    scale: tuple[float, float] = (2.0, 3.4)
    shift_pixels: float = 3.0
    contrast: tuple[float, float] = (0.25, 0.85)
    background: tuple[float, float] = (0.0, 0.2)
    noise: tuple[float, float] = (0.02, 0.24)


@dataclass(frozen=True)
class Views:
    """Labelled views: images uint8 [N, 32, 32, 1], labels uint8 [N], digits uint16 [N] (index in load_digits).

    A uint8 image x is the int8 model input x - 128.
    """

    images: np.ndarray
    labels: np.ndarray
    digits: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def model_inputs(self) -> np.ndarray:
        """int8 [N, 32, 32, 1], as the shipped model takes them."""
        return (self.images.astype(np.int16) - 128).astype(np.int8)

    def save(self, path: Path | str) -> None:
        """Write a compressed .npz with the arrays x, y and digit."""
        np.savez_compressed(path, x=self.images, y=self.labels, digit=self.digits)

    @classmethod
    def load(cls, path: Path | str) -> "Views":
        """Read a file that `save` wrote. Raises ValueError if an array is missing or has another shape."""
        with np.load(path) as arrays:
            missing = {"x", "y", "digit"} - set(arrays.files)
            if missing:
                raise ValueError(f"{path}: views file lacks {', '.join(sorted(missing))}")
            views = cls(arrays["x"], arrays["y"], arrays["digit"])
        count = len(views.labels)
        shape = (count, VIEW_PIXELS, VIEW_PIXELS, 1)
        if views.images.shape != shape or views.images.dtype != np.uint8 or views.digits.shape != (count,):
            raise ValueError(f"{path}: x must be uint8 {shape} and digit [{count}], to match y")
        return views


def load_digit_images() -> tuple[np.ndarray, np.ndarray]:
    """Images float32 [1797, 8, 8] in 0..1 and labels uint8 [1797] of scikit-learn's load_digits."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("making views needs scikit-learn: pip install 'fluidnpu[train]'") from error
    bunch = load_digits()
    return (bunch.images / 16.0).astype(np.float32), bunch.target.astype(np.uint8)


def split_digits() -> tuple[np.ndarray, np.ndarray]:
    """Indices into load_digits: (training [1285], held out [512]), each sorted; the same on every machine."""
    order = np.random.default_rng(SPLIT_SEED).permutation(DIGITS)
    return np.sort(order[HELD_OUT_DIGITS:]), np.sort(order[:HELD_OUT_DIGITS])


def make_views(images: np.ndarray, rng: np.random.Generator, recipe: ViewRecipe | None = None) -> np.ndarray:
    """One random view per image: float [N, 8, 8] in 0..1 to uint8 [N, 32, 32, 1].

    Each canvas pixel is mapped back to the source by the inverse of the view's rotation, scale and shift, and read by
    bilinear interpolation; outside the source there is no ink.
    """
    recipe = recipe or ViewRecipe()
    count = len(images)

    def draw(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, (count, 1, 1))

    angle = np.radians(draw(-recipe.rotation_degrees, recipe.rotation_degrees))
    scale = draw(*recipe.scale)
    shift_y = draw(-recipe.shift_pixels, recipe.shift_pixels)
    shift_x = draw(-recipe.shift_pixels, recipe.shift_pixels)
    contrast = draw(*recipe.contrast)
    background = draw(*recipe.background)
    noise = draw(*recipe.noise)

    axis = np.arange(VIEW_PIXELS) - (VIEW_PIXELS - 1) / 2
    y = axis[None, :, None] - shift_y
    x = axis[None, None, :] - shift_x
    centre = (SOURCE_PIXELS - 1) / 2
    source_y = (np.cos(angle) * y - np.sin(angle) * x) / scale + centre
    source_x = (np.sin(angle) * y + np.cos(angle) * x) / scale + centre

    # One pixel of empty border on each side, so that clipping the coordinates reads "no ink".
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    last = SOURCE_PIXELS + 1
    source_y = np.clip(source_y + 1, 0, last - 1e-6)
    source_x = np.clip(source_x + 1, 0, last - 1e-6)
    top, left = source_y.astype(np.intp), source_x.astype(np.intp)
    down, right = source_y - top, source_x - left
    view = np.arange(count)[:, None, None]
    ink = (1 - down) * ((1 - right) * padded[view, top, left] + right * padded[view, top, left + 1])
    ink += down * ((1 - right) * padded[view, top + 1, left] + right * padded[view, top + 1, left + 1])

    level = background + contrast * ink + noise * rng.standard_normal(ink.shape)
    return np.clip(np.rint(255 * level), 0, 255).astype(np.uint8)[..., None]


def held_out_views(per_digit: int = 4) -> Views:
    """The held-out views that models/digits_views.npz ships: `per_digit` of each held-out digit, fixed seed.

    Digits alternate (0, 1, ... 511, 0, 1, ...), so every prefix of 512 views shows each held-out digit once.
    """
    images, labels = load_digit_images()
    digits = np.tile(split_digits()[1], per_digit)
    views = make_views(images[digits], np.random.default_rng(VIEWS_SEED))
    return Views(views, labels[digits], digits.astype(np.uint16))
