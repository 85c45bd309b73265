"""What a collection is called: the name of its folder, for every command the same."""

from __future__ import annotations

import re


def collection_name(name: str) -> str:
    """A name that is safe as a folder: letters, digits, dot, dash and underscore, not starting with a dot.

    Raises
    ------
    ValueError
        Nothing of the name is left.
    """
    safe = re.sub(r"[^\w.-]+", "-", name.strip()).strip("-.")
    if not safe:
        raise ValueError(f"{name!r} gives no usable collection name: pass --name")
    return safe
