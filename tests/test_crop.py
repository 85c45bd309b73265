"""The crop overlay: what it renders is inert, and what the browser sends back is read with suspicion."""

from html.parser import HTMLParser

import pytest

from gradio_app.crop import parse_box, render


class Tags(HTMLParser):
    """Every element with its attributes, as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.found if name == tag]


@pytest.mark.parametrize(
    ("sent", "box"),
    [
        ("t:10,20,30,40", (10, 20, 30, 40)),
        ("t:0,0,200,100", None),  # the whole picture is no crop
        ("t:-5,-5,500,50", (0, 0, 200, 50)),  # clipped to the picture
        ("t:199,99,200,100", (199, 99, 200, 100)),  # one pixel
        ("t:30,20,10,40", None),  # inside out
        ("t:300,20,310,40", None),  # beside the picture
        ("other:10,20,30,40", None),  # drawn on another picture
        ("t:10,20,30", None),
        ("t:10,20,30,40,50", None),
        ("t:1.5,2,3,4", None),
        ("t:nan,inf,3,4", None),
        ("t:a,b,c,d", None),
        ("t", None),
        ("", None),
    ],
)
def test_box_is_read(sent, box):
    assert parse_box(sent, "t", 200, 100) == box


def test_rendered_box_comes_back_as_it_went():
    crop = Tags(render("t", "data:,", "a.jpg", 640, 480, (64, 48, 320, 240))).found[0][1]
    assert parse_box(f"{crop['data-token']}:{crop['data-box']}", "t", 640, 480) == (64, 48, 320, 240)
    assert "ris-is-cropped" in crop["class"].split()


def test_box_lies_where_it_should():
    box = next(
        attrs
        for attrs in Tags(render("t", "data:,", "a.jpg", 640, 480, (64, 48, 320, 240))).of("div")
        if attrs["class"] == "ris-box"
    )
    assert box["style"] == "left:10.0000%;top:10.0000%;width:40.0000%;height:40.0000%"


def test_whole_picture_is_not_marked_as_cropped():
    assert "ris-is-cropped" not in render("t", "data:,", "a.jpg", 640, 480)


def test_number_fields_are_named_and_bounded():
    inputs = Tags(render("t", "data:,", "a.jpg", 640, 480, (1, 2, 3, 4))).of("input")
    fields = [each for each in inputs if each["type"] == "number"]
    assert [(f["value"], f["min"], f["max"]) for f in fields] == [
        ("1", "0", "639"),
        ("2", "0", "479"),
        ("3", "1", "640"),
        ("4", "1", "480"),
    ]
    assert [f["aria-label"].split()[0] for f in fields] == ["Left", "Top", "Right", "Bottom"]


def test_name_with_markup_is_inert():
    name = "\"><img src=x onerror=alert(1)><script>alert(2)</script>'"
    tags = Tags(render("t", "data:,", name, 10, 10))
    assert not tags.of("script")
    (image,) = tags.of("img")
    assert image["alt"] == f"To search: {name}"
    assert not any(attribute.startswith("on") for _, attrs in tags.found for attribute in attrs)
