"""The page's HTML out of the templates in `templates/`, with everything that comes from outside escaped."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import BaseLoader, Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent / "static"


def printable(text: str) -> str:
    """Text that can be sent: bytes of a file name that are not UTF-8 become question marks in a diamond."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # As os.fsdecode hands bytes over; any other half of a character stood for nothing to begin with.
        halves = re.sub("[\ud800-\udc7f\udd00-\udfff]", "\N{REPLACEMENT CHARACTER}", text)
        return halves.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text


def script(*names: str) -> str:
    """Files of `static/`, one after another."""
    return "".join((STATIC / name).read_text(encoding="utf-8") for name in names)


def render(template: str, /, **values: Any) -> str:
    """HTML of a template.

    Parameters
    ----------
    template : str
        Its path below `templates/`.
    """
    return _environment.get_template(template).render(**values)


def _finalize(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


class _UnbrokenLines(FileSystemLoader):
    """Line breaks in a template are for who reads it: between tags they are no part of the page, elsewhere a space."""

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        source, name, uptodate = super().get_source(environment, template)
        source = re.sub(r"(?<=[>}])\s*\n\s*(?=[<{])", "", source.strip())
        return re.sub(r"\s*\n\s*", " ", source), name, uptodate


def environment(loader: BaseLoader | None = None) -> Environment:
    """Jinja2 as the page uses it."""
    return Environment(
        loader=loader or _UnbrokenLines(TEMPLATES), autoescape=True, undefined=StrictUndefined, finalize=_finalize
    )


_environment = environment()
