"""The demo dataset: many views of the photographs that ship inside packages the project already needs."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from features.checksum import sha256_of
from features.datasets.base import DatasetError, Item
from features.images import decode_image
from features.paths import expanded

logger = logging.getLogger(__name__)

VIEWS = "views.json"
VIEWS_PER_PHOTO = 46

# label, module, distribution, path inside the module
_PHOTOS = [
    ("astronaut", "skimage", "scikit-image", "data/astronaut.png"),
    ("brick wall", "skimage", "scikit-image", "data/brick.png"),
    ("cameraman", "skimage", "scikit-image", "data/camera.png"),
    ("cheetah", "gradio", "gradio", "media_assets/images/cheetah1.jpg"),
    ("cheetah cub", "gradio", "gradio", "test_data/cheetah2.jpg"),
    ("cheetah running", "gradio", "gradio", "media_assets/images/cheetah.jpg"),
    ("chelsea the cat", "skimage", "scikit-image", "data/chelsea.png"),
    ("coffee", "skimage", "scikit-image", "data/coffee.png"),
    ("coins", "skimage", "scikit-image", "data/coins.png"),
    ("dahlia", "sklearn", "scikit-learn", "datasets/images/flower.jpg"),
    ("eiffel tower", "gradio", "gradio", "media_assets/images/tower.jpg"),
    ("galaxies", "skimage", "scikit-image", "data/hubble_deep_field.jpg"),
    ("grace hopper", "matplotlib", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    ("grass", "skimage", "scikit-image", "data/grass.png"),
    ("gravel", "skimage", "scikit-image", "data/gravel.png"),
    ("lion", "gradio", "gradio", "media_assets/images/lion.jpg"),
    ("moon", "skimage", "scikit-image", "data/moon.png"),
    ("motorcycle", "skimage", "scikit-image", "data/motorcycle_left.png"),
    ("retina", "skimage", "scikit-image", "data/retina.jpg"),
    ("rocket", "skimage", "scikit-image", "data/rocket.jpg"),
    ("summer palace", "sklearn", "scikit-learn", "datasets/images/china.jpg"),
    ("tissue", "skimage", "scikit-image", "data/ihc.png"),
]

_PHOTO_SIDE = 900  # pixels; larger photographs are reduced to this first, which is still three times a view
_VIEW_SIDE = 320


class Demo:
    """About 1,000 views of photographs that ship inside installed packages, made on first use, without a download.

    Every view is a crop of one photograph, perhaps flipped, rotated, blurred or in another light; ``views.json`` beside
    the images records how each was made. The photograph is the label, so the right answers of a search are known.
    """

    name = "demo"
    kind = "demo"
    location = "demo"

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = expanded(root).resolve()
        if not (self.root / VIEWS).is_file():
            if self.root.exists() and any(self.root.iterdir()):
                raise DatasetError(f"{self.root} is not the demo dataset (it has no {VIEWS}): move it away")
            try:
                make_views(self.root)
            except FileNotFoundError as error:
                raise DatasetError(str(error)) from error
        try:
            views = json.loads((self.root / VIEWS).read_text(encoding="utf-8"))["views"]
            self.items = [Item(id, self.root / view["file"], (view["label"],)) for id, view in enumerate(views)]
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{self.root / VIEWS} is damaged: remove {self.root} to make it anew") from error

    @classmethod
    def is_at(cls, root: Path) -> bool:
        """Whether a folder holds views that were made here."""
        return (root / VIEWS).is_file()


@dataclass(frozen=True)
class View:
    """How one view is made from its photograph, in this order.

    Attributes
    ----------
    rotation : float
        Degrees, counter-clockwise, about the centre; the frame keeps its size.
    crop : tuple of 4 ints
        Left, top, right, bottom in pixels of the (reduced) photograph; within what the rotation leaves filled.
    flip : bool
        Mirrored left to right.
    brightness, contrast, color : float
        Factors; 1 leaves it as it is.
    blur : float
        Radius of a Gaussian in pixels of the view; 0 is none.
    """

    rotation: float
    crop: tuple[int, int, int, int]
    flip: bool
    brightness: float
    contrast: float
    color: float
    blur: float


def make_views(root: Path, seed: int = 0) -> None:
    """Make the demo dataset in `root`, which must be empty or not there; it appears there complete.

    The same seed, packages and Pillow give the same files. A photograph that is not installed is left out.

    Raises
    ------
    FileNotFoundError
        None of the photographs is installed.
    """
    photos = [(label, path, package) for label, module, package, name in _PHOTOS if (path := _find(module, name))]
    if not photos:
        raise FileNotFoundError("none of the demo's photographs is installed: pip install -r requirements.txt")
    building = root.with_name(f".{root.name}.partial")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(partial(_make_photo, building, seed), range(len(photos)), photos))
    views = [view for _, of_photo in made for view in of_photo]
    record = {"seed": seed, "photos": [photo for photo, _ in made], "views": views}
    (building / VIEWS).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    building.replace(root)
    logger.info("made the demo dataset in %s: %d views of %d photographs", root, len(views), len(photos))


def _make_photo(
    root: Path, seed: int, number: int, found: tuple[str, Path, str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write the views of one photograph; returns what to record of it and of each view."""
    label, path, package = found
    source = {"package": package, "version": metadata.version(package), "photo": path.name}
    photo = Image.fromarray(decode_image(path))
    photo.thumbnail((_PHOTO_SIDE, _PHOTO_SIDE), Image.Resampling.LANCZOS)
    folder = root / label.replace(" ", "_")
    folder.mkdir()
    generator = np.random.default_rng([seed, number])
    views = []
    for place in range(VIEWS_PER_PHOTO):
        view = _draw(generator, photo.size) if place else _whole(photo.size)
        file = folder / f"{folder.name}_{place:02}.jpg"
        render(photo, view).save(file, quality=85)
        views.append({"file": file.relative_to(root).as_posix(), "label": label, **source, **asdict(view)})
    return {"label": label, **source, "sha256": sha256_of(path), "size": list(photo.size)}, views


def render(photo: Image.Image, view: View) -> Image.Image:
    """Make a view (RGB, at most 320 pixels a side) of a photograph."""
    image = photo.rotate(view.rotation, Image.Resampling.BICUBIC) if view.rotation else photo
    image = image.crop(view.crop)
    image.thumbnail((_VIEW_SIDE, _VIEW_SIDE), Image.Resampling.LANCZOS)
    if view.flip:
        image = ImageOps.mirror(image)
    for kind, factor in (
        (ImageEnhance.Brightness, view.brightness),
        (ImageEnhance.Contrast, view.contrast),
        (ImageEnhance.Color, view.color),
    ):
        if factor != 1:
            image = kind(image).enhance(factor)
    return image.filter(ImageFilter.GaussianBlur(view.blur)) if view.blur else image


def _find(module: str, name: str) -> Path | None:
    spec = importlib.util.find_spec(module)  # finds the folder without importing what is in it
    folders = (spec.submodule_search_locations if spec else None) or []
    return next((path for folder in folders if (path := Path(folder, name)).is_file()), None)


def _whole(size: tuple[int, int]) -> View:
    return View(0.0, (0, 0, *size), False, 1.0, 1.0, 1.0, 0.0)


def _draw(generator: np.random.Generator, size: tuple[int, int]) -> View:
    """Draw a view at random; each change but the crop is made to some of the views only."""

    def sometimes(chance: float, low: float, high: float, otherwise: float) -> float:
        value = round(float(generator.uniform(low, high)), 3)
        return value if generator.random() < chance else otherwise

    rotation = sometimes(0.35, -20, 20, 0.0)
    width, height = _filled(size, math.radians(rotation))
    share = math.sqrt(generator.uniform(0.25, 1.0))  # of each side, so 25 to 100 % of the area
    stretch = math.exp(generator.uniform(-0.2, 0.2))
    crop_width = int(width * min(1.0, share * stretch))
    crop_height = int(height * min(1.0, share / stretch))
    left = (size[0] - width) / 2 + generator.uniform(0, width - crop_width)
    top = (size[1] - height) / 2 + generator.uniform(0, height - crop_height)
    return View(
        rotation=rotation,
        crop=(int(left), int(top), int(left) + crop_width, int(top) + crop_height),
        flip=bool(generator.random() < 0.5),
        brightness=sometimes(0.5, 0.6, 1.4, 1.0),
        contrast=sometimes(0.4, 0.6, 1.4, 1.0),
        color=sometimes(0.4, 0.2, 1.6, 1.0),
        blur=sometimes(0.2, 0.5, 2.0, 0.0),
    )


def _filled(size: tuple[int, int], angle: float) -> tuple[int, int]:
    """Size of a rectangle of the same shape, about the centre, that stays inside the picture rotated by `angle`.

    Its corners (+-sw/2, +-sh/2) turned back by the angle must lie within the picture, which bounds the scale s.
    """
    width, height = size
    cos, sin = math.cos(angle), abs(math.sin(angle))
    scale = min(width / (width * cos + height * sin), height / (height * cos + width * sin))
    return int(width * scale), int(height * scale)
