"""The page that shows how a search works, over numbers that were written down: a folder that opens from disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explainer"
FILES = ("index.html", "explainer.css", "draw.js", "steps.js", "explainer.js")
SIDE, COLUMNS = 96, 12  # pixels of a thumbnail, and how many stand side by side in the one picture of them all
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def write_page(folder: Path, data: dict[str, Any], thumbnails: Sequence[Image.Image]) -> None:
    """Write the page, its numbers and its pictures into a folder, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    if folder.resolve() != PAGE:
        for name in FILES:
            shutil.copyfile(PAGE / name, folder / name)
    sprite(thumbnails).save(folder / "pictures.webp", quality=74, method=6)
    write_numbers(folder, data)


def write_numbers(folder: Path, data: dict[str, Any]) -> None:
    """Write `data.js`: a script, because a page that is opened from disk may read no other file."""
    (folder / "data.js").write_text(script(data), encoding="utf-8")


def script(data: dict[str, Any]) -> str:
    """The text of `data.js`."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("</", "<\\/")
    return f"window.EXPLAINER={text};\n"


def read_numbers(folder: Path) -> dict[str, Any]:
    """What `write_numbers` wrote."""
    text = (folder / "data.js").read_text(encoding="utf-8")
    numbers: dict[str, Any] = json.loads(text.removeprefix("window.EXPLAINER=").removesuffix(";\n"))
    return numbers


def sprite(thumbnails: Sequence[Image.Image]) -> Image.Image:
    """All thumbnails in one picture, row after row."""
    sheet = Image.new("RGB", (COLUMNS * SIDE, -(-len(thumbnails) // COLUMNS) * SIDE))
    for number, thumbnail in enumerate(thumbnails):
        place = (number % COLUMNS * SIDE, number // COLUMNS * SIDE)
        sheet.paste(ImageOps.fit(thumbnail.convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS), place)
    return sheet


def places(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Points on a plane, 0 to 1 each way, that keep neighbours among vectors (n, d) together: (n, 2)."""
    from sklearn.manifold import TSNE

    perplexity = max(2.0, min(24.0, (len(x) - 1) / 4))
    flat = TSNE(2, perplexity=perplexity, init="pca", random_state=0, n_jobs=1).fit_transform(x).astype(np.float64)
    low, high = flat.min(axis=0), flat.max(axis=0)
    return (flat - low) / np.maximum(high - low, 1e-9)


def rounded(points: NDArray[Any], digits: int = 4) -> Any:
    """Numbers as JSON has them, no longer than a screen can show."""
    return np.round(np.asarray(points, np.float64), digits).tolist()


def written(numbers: Sequence[int]) -> str:
    """Small numbers, one character each."""
    return "".join(DIGITS[number] for number in numbers)


def means_of(points: NDArray[np.float64], numbers: NDArray[np.int64], count: int) -> Any:
    """Where the middle of each cell's points is on the plane; None for a cell of none."""
    return [rounded(points[numbers == n].mean(axis=0)) if (numbers == n).any() else None for n in range(count)]
