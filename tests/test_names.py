"""Names of files that are not UTF-8: they are shown with question marks in diamonds, and everything works."""

import json
import os

import httpx
import pytest
from fakes import FakeEngine
from PIL import Image

from gradio_app.app import build_app
from gradio_app.markup import printable, render
from gradio_app.routes.pictures import picture_url
from gradio_app.tabs.search.views import label_options, labels_chosen

ODD = os.fsdecode(b"caf\xe9 <b>.png")
SHOWN = "caf\N{REPLACEMENT CHARACTER} <b>.png"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("späť 猫.png", "späť 猫.png"),
        (ODD, SHOWN),
        ("a\ud800b", "a\N{REPLACEMENT CHARACTER}b"),
        (os.fsdecode(b"\xff\xfe"), "\N{REPLACEMENT CHARACTER}" * 2),
        ("", ""),
    ],
)
def test_what_can_be_sent(text, shown):
    assert printable(text) == shown


def test_templates_print_and_escape_what_comes_from_outside():
    assert render("note.html", text=f"{ODD} & ${{x}}") == (
        '<p class="ris-note">caf\N{REPLACEMENT CHARACTER} &lt;b&gt;.png &amp; ${x}</p>'
    )


@pytest.fixture
def engine(tmp_path):
    pictures = {}
    for name, label in ((ODD, os.fsdecode(b"\xe9t\xe9")), ("plain.png", "plain")):
        path = tmp_path / name
        try:
            Image.new("RGB", (40, 30), (len(pictures) * 90, 0, 0)).save(path, "PNG")
        except OSError:
            pytest.skip("this file system takes no such name")
        pictures[path] = label
    return FakeEngine("odd", pictures)


def test_a_label_that_is_not_utf_8_can_be_chosen(engine):
    options = label_options(engine)
    json.dumps(options["choices"], ensure_ascii=False).encode()
    shown = [value for _, value in options["choices"]]
    assert labels_chosen(engine, shown) == tuple(engine.labels)


def test_the_page_starts_and_serves_such_pictures(engine, tmp_path):
    page = build_app([engine], manage=tmp_path / "collections")
    page.launch(prevent_thread_lock=True, quiet=True)
    try:
        with httpx.Client(base_url=page.local_url, trust_env=False, timeout=120) as client:
            assert client.get("/").status_code == 200
            assert SHOWN.replace("<", "&lt;").replace(">", "&gt;") in json.dumps(
                client.get("/config").json(), ensure_ascii=False
            )
            for size in ("thumb", "view", "original"):
                reply = client.get(picture_url(engine, 0, size))
                assert reply.status_code == 200, size
            assert reply.content == (tmp_path / ODD).read_bytes()
            assert "filename*=utf-8''caf%EF%BF%BD" in reply.headers["content-disposition"]

            events = {
                (page.blocks[target].elem_id, event): number
                for number, fn in page.fns.items()
                for target, event in fn.targets
                if target is not None
            }

            def send(name, data, **extra):
                body = {"fn_index": events[name], "data": data, "session_hash": "s", **extra}
                reply = client.post("/gradio_api/run/predict", json=body)
                assert reply.status_code == 200, reply.text
                return reply.json()["data"]

            send(("ris-examples", "pick"), [None], event_data={"collection": "odd", "id": 0})
            sent = [None, "", "odd", 5, "ivfpq", 1, False, [], "", "score", 0.5]
            _, status, last, *_ = send(("ris-picture", "go"), sent)
            assert "1 nearest" in status
            assert "caf\N{REPLACEMENT CHARACTER}" in last
            results, *_ = send(("ris-labels", "input"), [None, [printable(os.fsdecode(b"\xe9t\xe9"))], "score"])
            assert "plain.png" not in results
    finally:
        page.close()
