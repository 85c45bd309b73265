"""What the notebooks share: the collection they open, rows of its pictures, and how plots look."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
from IPython.display import Image, Markdown, display
from matplotlib.figure import Figure

from benchmarks.report import COLOURS
from features.collection.manifest import MANIFEST
from features.collection.store import FeatureStore
from features.images import decode_image

ROOT = Path(__file__).resolve().parent.parent
DEMO = "demo"

COLORS = list(COLOURS.values())
RIGHT, WRONG, PLAIN = COLORS[2], COLORS[1], "#9a9aa2"

warnings.filterwarnings("ignore", message="IProgress not found")  # of tqdm: no notebook shows a progress bar
plt.rcParams.update(
    {
        "axes.grid": True,
        "axes.prop_cycle": plt.cycler(color=COLORS),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": "medium",
        "figure.constrained_layout.use": True,
        "figure.dpi": 80,
        "figure.figsize": (7, 3.2),
        "grid.alpha": 0.3,
        "legend.frameon": False,
        "savefig.dpi": 80,
    }
)


def open_collection(name: str) -> FeatureStore:
    """Open ``collections/<name>``, or the embedded demo collection where that was not made, and say what is in it.

    Raises
    ------
    features.collection.store.StoreError
        Neither is there, or what is there is damaged.
    """
    folders = ROOT / "collections"
    if not (folders / name / MANIFEST).is_file():
        print(f"There is no collection {name!r} here (README.md says how to make it): this is the demo collection.")
        name = DEMO
    store = FeatureStore.open(folders / name)
    manifest = store.manifest
    print(
        f"{name}: {len(store.ids):,} images, {len(store.labels())} labels, "
        f"{manifest['encoder']['name']}, d = {manifest['dim']}, {manifest['dtype']}, {manifest['metric']}"
    )
    return store


def thumbnail(picture: Path | np.ndarray, side: int) -> np.ndarray:
    """A picture file, or uint8 (h, w, 3), no larger than `side` pixels either way."""
    pixels = picture if isinstance(picture, np.ndarray) else decode_image(picture, min_side=side)
    picture = PIL.Image.fromarray(pixels)
    picture.thumbnail((side, side))
    return np.asarray(picture)


def picture_rows(
    store: FeatureStore,
    rows: Sequence[Sequence[int | np.ndarray]],
    *,
    titles: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    colors: Sequence[Sequence[str]] = (),
    side: int = 72,
) -> None:
    """Show pictures of a collection in rows, as one small JPEG.

    Parameters
    ----------
    rows : sequences of ids, or of pictures themselves, uint8 (h, w, 3)
        A negative id leaves its place empty.
    titles : one for each row, at its left
    captions, colors : as `rows`
        A line below each picture, and the colour of the frame around it.
    side : int
        Pixels of a picture's longer side.
    """
    wide, high = 1.12, 1.4 if captions else 1.12  # of a place, in sides of a picture
    margin = 1.6 if titles else 0.0
    columns = max(map(len, rows))
    size = (margin + wide * columns, high * len(rows))
    dots = 100
    figure = Figure(figsize=(size[0] * side / dots, size[1] * side / dots), layout="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    for row, pictures in enumerate(rows):
        if titles:
            axes.text(0.05, row * high + 0.5, titles[row], va="center", fontsize=7.5, wrap=False)
        for column, one in enumerate(pictures):
            if not isinstance(one, np.ndarray) and one < 0:
                continue
            picture = thumbnail(one if isinstance(one, np.ndarray) else store.items[one].path, side)
            h, w = picture.shape[0] / side, picture.shape[1] / side
            x, y = margin + wide * (column + 0.5), high * row + wide / 2
            axes.imshow(picture, extent=(x - w / 2, x + w / 2, y + h / 2, y - h / 2), aspect="auto", zorder=1)
            if colors:
                frame = plt.Rectangle((x - w / 2, y - h / 2), w, h, fill=False, lw=2.5, ec=colors[row][column])
                axes.add_patch(frame)
            if captions:
                axes.text(x, y + 0.56, shorten(captions[row][column]), ha="center", va="top", fontsize=6.5)
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0))  # each picture has moved them
    show_jpeg(figure, dpi=dots)


def shorten(text: str) -> str:
    """A caption that fits below a picture."""
    return text if len(text) <= 15 else f"{text[:14]}…"


def show_jpeg(figure: Figure, *, dpi: int = 90) -> None:
    """Show a figure of photographs, or of thousands of points, as JPEG: it takes a fraction of a PNG's bytes."""
    data = io.BytesIO()
    figure.savefig(data, format="jpeg", dpi=dpi, pil_kwargs={"quality": 65, "optimize": True})
    plt.close(figure)
    display(Image(data.getvalue(), format="jpeg"))


def keep_for_docs(figure: Figure, file: str, store: FeatureStore) -> None:
    """Write a figure into ``docs/``, if it is one of Caltech101: the documentation shows no other."""
    if store.manifest["dataset"] == "caltech101":
        figure.savefig(ROOT / "docs" / file, dpi=100, pil_kwargs={"optimize": True, "quality": 85})


def show_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Show a table; columns that begin with a number are set to the right."""
    sides = ["---:" if str(cell)[:1].isdigit() else "---" for cell in rows[0]]
    lines = [header, sides, *([_text(cell) for cell in row] for row in rows)]
    display(Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines)))


def _text(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:.3f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
