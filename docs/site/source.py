"""Gather what the site is built of: `python docs/site/source.py`, and then mkdocs (see `make docs`).

The site mirrors the checkout, so that a link between two files is right in both. What is linked to and is no page, such
as a source file, is there as it is; a folder that is linked to is left to whoever reads the checkout.
"""

import re
import shutil
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "build" / "docs-source"
LEFT_OUT = {"build", "collections", "datasets", "tests", "weights"}
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s:]+)\)")


def main() -> None:
    shutil.rmtree(SOURCE, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    folders = (path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in LEFT_OUT)
    for folder in sorted(name for name in folders if name == ".ci" or not name.startswith(".")):
        leave_out = shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc", ".ipynb_checkpoints", "templates", "static")
        shutil.copytree(ROOT / folder, SOURCE / folder, ignore=leave_out)
    for file in (*ROOT.glob("*.md"), *ROOT.glob("requirements*.txt"), ROOT / "LICENSE"):
        shutil.copy2(file, SOURCE / file.name)
    for page in SOURCE.rglob("*.md"):
        text = LINK.sub(partial(_without_folder, page), page.read_text(encoding="utf-8"))
        page.write_text(text, encoding="utf-8")


def _without_folder(page: Path, link: re.Match[str]) -> str:
    return link[1] if (page.parent / link[2]).is_dir() else link[0]


if __name__ == "__main__":
    main()
