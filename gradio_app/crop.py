"""The picture to search, with a box on it that says which part: drawn with a mouse or a finger, or typed in pixels.

The box lives in the browser (`static/crop.js`) and travels with whatever is asked next, as ``TOKEN:x0,y0,x1,y1`` from
`READ_BOX`; the token names the picture it was drawn on. So a search can never run with the box of a moment ago.
"""

from __future__ import annotations

import gradio as gr

from gradio_app.markup import render as render_template
from gradio_app.markup import script

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the upright picture; right and bottom exclusive

# A browser-side expression: the box on the page at this very moment, or "" where there is no picture.
READ_BOX = "((c) => c ? c.dataset.token + ':' + c.dataset.box : '')(document.querySelector('.ris-crop'))"
# Browser-side functions: have the picture on the page searched, always or where the visitor wants it "as you go".
GO = "() => document.dispatchEvent(new Event('ris-go'))"
KEEP, SWAP, MISREAD = (
    f"() => document.dispatchEvent(new CustomEvent('ris-ask', {{ detail: '{event}' }}))"
    for event in ("keep", "swap", "misread")
)
CHANGED = "() => document.dispatchEvent(new Event('ris-changed'))"
# Have the picture at the address opened; empty the field, if no other address was typed meanwhile.
OPEN = "(url) => { document.dispatchEvent(new CustomEvent('ris-open', { detail: (document.ris_url = url) })); }"
OPENED = "(url) => url === document.ris_url ? '' : url"


def crop_overlay(**kwargs: object) -> gr.HTML:
    """The component. Its value is what `render` returns.

    It triggers `go` when what is on the page is to be searched, `keep` and `swap` when it is to be put aside (all with
    ``{words, weight}``, those of the field for words and the picture's beside them), `remove` when the picture is to be
    taken away, and `open` (``{url}``).
    """
    # "${value}" inserts the value as data. With "{{value}}" Gradio fills in the value first and evaluates the text as
    # a JavaScript template afterwards: a file called "${...}.jpg" would run as a program. `render` escapes its part.
    code = script("ask.js", "crop.js", "dropping.js")
    return gr.HTML(html_template="${value}", js_on_load=code, apply_default_css=False, **kwargs)  # type: ignore[arg-type]


def render(
    token: str,
    src: str,
    name: str,
    width: int,
    height: int,
    box: Box | None = None,
    *,
    then: str = "",
    weight: float = 1.0,
    foreground: bool = False,
    veil: str = "",
) -> str:
    """HTML of a picture with its crop box.

    Parameters
    ----------
    token : str
        Names this picture; comes back with the box.
    src : str
        Address (or data URI) of the picture as it will be searched, upright, at any resolution.
    name : str
        File name, shown as it is.
    width, height : int
        Size in pixels of the picture itself, which the box refers to.
    box : tuple of int, optional
        The part to search; the whole picture by default.
    then : str
        "go" has it searched as soon as it is on the page, "wait" not even as you go: the box is to be moved first.
        "found" is a picture that comes back with what was found: there is nothing left to do.
    weight : float
        How much it counts beside words.
    foreground : bool
        Whether its object is looked at.
    veil : str
        Address of what lies over the part then, clear where the object is; "" where none was found.
    """
    x0, y0, x1, y1 = box or (0, 0, width, height)
    style = (
        f"left:{100 * x0 / width:.4f}%;top:{100 * y0 / height:.4f}%;"
        f"width:{100 * (x1 - x0) / width:.4f}%;height:{100 * (y1 - y0) / height:.4f}%"
    )
    edges = (("Left", x0, 0, width - 1), ("Top", y0, 0, height - 1), ("Right", x1, 1, width), ("Bottom", y1, 1, height))
    return render_template(
        "crop.html",
        box=box,
        token=token,
        src=src,
        name=name,
        width=width,
        height=height,
        style=style,
        then=then,
        weight=weight,
        foreground=foreground,
        veil=veil,
        part=f"{x1 - x0} × {y1 - y0} of {width} × {height} px" if box else f"{width} × {height} px",
        edges=[dict(zip(("title", "value", "low", "high"), edge, strict=True)) for edge in edges],
    )


def parse_box(text: str, token: str, width: int, height: int) -> Box | None:
    """Read what `READ_BOX` sent.

    Parameters
    ----------
    text : str
        ``TOKEN:x0,y0,x1,y1``.
    token, width, height
        Of the picture the server holds. A box drawn on another picture means nothing on this one.

    Returns
    -------
    tuple of int, or None
        The box, clipped to the picture; None for the whole picture.
    """
    drawn_on, _, numbers = text.partition(":")
    try:
        x0, y0, x1, y1 = (int(number) for number in numbers.split(","))
    except ValueError:
        return None
    return clipped((x0, y0, x1, y1), width, height) if drawn_on == token else None


def clipped(box: Box, width: int, height: int) -> Box | None:
    """The piece of a box that lies on a picture; None where that is nothing, or the whole picture."""
    x0, y0, x1, y1 = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    if x0 >= x1 or y0 >= y1 or (x0, y0, x1, y1) == (0, 0, width, height):
        return None
    return x0, y0, x1, y1
