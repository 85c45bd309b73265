"""What `make docs` would refuse, found without building: links, pictures, symbols, names without a word on them."""

import ast
import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest
import yaml

import ivfpq

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "docs" / "site"
TABLE = (ROOT / "docs" / "FORMULAS.md").read_text(encoding="utf-8")
GUIDES = sorted(ROOT.glob("docs/guides/*.md"))
# Of the names in `ivfpq.__all__` that are found when they are asked for, where they are.
ELSEWHERE = {"from_faiss": "faiss_convert", "to_faiss": "faiss_convert", "IVFPQTransformer": "neighbors"}


class Lenient(yaml.SafeLoader):
    """mkdocs.yml without what its tags name."""


Lenient.add_multi_constructor("", lambda loader, suffix, node: None)


def nav_files(entry):
    if isinstance(entry, str):
        return [entry]
    return [file for part in (entry.values() if isinstance(entry, dict) else entry) for file in nav_files(part)]


def resolved(symbol):
    """What a dotted name stands for: the longest module, and what is in it."""
    parts = symbol.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise AssertionError(f"no module of {symbol}")


def test_every_symbol_of_the_table_is_there_and_its_picture_too():
    rows = re.findall(r"\| `(ivfpq[\w.]+)` \| \[[^\]]+\]\(([^)]+)\) \|", TABLE)
    assert len(rows) == TABLE.count("\n| ") - 1 >= 15  # every row of the table but its head
    page = (ROOT / "docs" / "explainer" / "index.html").read_text(encoding="utf-8")
    for symbol, picture in rows:
        assert callable(resolved(symbol)), symbol
        file, _, anchor = picture.partition("#")
        assert (ROOT / "docs" / file).is_file(), picture
        assert not anchor or f'id="{anchor}"' in page, picture


def test_the_library_page_names_all_that_is_public():
    named = set(re.findall(r"^::: ivfpq\.(.+)$", (ROOT / "docs" / "API.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert named == {f"{ELSEWHERE[name]}.{name}" if name in ELSEWHERE else name for name in ivfpq.__all__}


def test_all_that_is_public_is_documented():
    bare = []
    for name in ivfpq.__all__:
        thing = resolved(f"ivfpq.{ELSEWHERE[name]}.{name}" if name in ELSEWHERE else f"ivfpq.{name}")
        bare += [name] * (not inspect.getdoc(thing))
        if inspect.isclass(thing) and not issubclass(thing, Exception):
            members = {key: inspect.getattr_static(thing, key) for key in dir(thing) if not key.startswith("_")}
            kinds = (property, staticmethod, classmethod)
            own = {
                key: value for key, value in members.items() if inspect.isfunction(value) or isinstance(value, kinds)
            }
            bare += [f"{name}.{key}" for key in own if not inspect.getdoc(getattr(thing, key))]
    known = [name for name in bare if not name.endswith((".count", ".index"))]  # those of a named tuple
    assert known == []


def test_every_page_of_the_site_is_there():
    site = yaml.load((SITE / "mkdocs.yml").read_text(encoding="utf-8"), Lenient)
    files = nav_files(site["nav"])
    assert [file for file in files if not (ROOT / file).is_file()] == []
    guides = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "guides").glob("*.md")}
    assert guides <= set(files)
    assert {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")} <= set(files)
    assert {path.relative_to(ROOT).as_posix() for path in ROOT.glob("notebooks/*.ipynb")} <= set(files)


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_what_a_guide_links_to_is_there(path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
        assert target.startswith("https:") or (path.parent / target).exists(), target


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_what_a_guide_names_in_the_code_is_there(path):
    """By the sources: what they import would take a while to load."""
    for symbol in re.findall(r"`((?:features|search|gradio_app)\.[\w.]+)`", path.read_text(encoding="utf-8")):
        module, _, name = symbol.rpartition(".")
        base = ROOT / module.replace(".", "/")
        source = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        defined = [node.name for node in ast.parse(source.read_text(encoding="utf-8")).body if hasattr(node, "name")]
        assert name in defined, symbol


def test_the_site_is_gathered_without_what_is_no_page(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("site_source", SITE / "source.py")
    source = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(source)
    root = tmp_path / "checkout"
    for name in ("docs", "build", ".git", "tests"):
        (root / name).mkdir(parents=True)
        (root / name / "page.md").write_text("[the folder](../docs) and [the file](page.md)", encoding="utf-8")
    (root / "LICENSE").write_text("MIT", encoding="utf-8")
    monkeypatch.setattr(source, "ROOT", root)
    monkeypatch.setattr(source, "SOURCE", root / "build" / "docs-source")
    source.main()
    gathered = root / "build" / "docs-source"
    assert {path.name for path in gathered.iterdir()} == {"docs", "LICENSE"}
    assert (gathered / "docs" / "page.md").read_text(encoding="utf-8") == "the folder and [the file](page.md)"
