"""Every touch of Gradio's inside: what it does, and that Gradio still needs it.

A test called `..._still...` tries plain Gradio. When it fails, Gradio does by itself what is done in `gradio_seam`, and
that piece may go.
"""

import asyncio
import inspect
import json
import math
import re
import socket
import time
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest
from fakes import reds
from fastapi import FastAPI
from fastapi.testclient import TestClient
from gradio import http_server, networking
from gradio.routes import App
from gradio.state_holder import StateHolder
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

from gradio_app import gradio_seam
from gradio_app.app import build_app
from gradio_app.gradio_seam import (
    FairSessions,
    GuardedApp,
    Visitors,
    check_values,
    is_plain,
    is_text,
    names_remote_file,
    patience,
    sorry,
    with_own_card,
)

SEEN_IN = "6.31.0"


def test_gradio_is_the_one_that_was_looked_into():
    """A newer Gradio: run this file, read what fails, and put the number of its version here."""
    assert gr.__version__ == SEEN_IN


# Errors


def test_errors_still_show_html():
    assert gr.Error("<b>x</b>").message == "<b>x</b>"
    assert sorry("<b>x</b> \udcff").message == "&lt;b&gt;x&lt;/b&gt; \N{REPLACEMENT CHARACTER}"
    assert sorry("x").print_exception is False


# The page's head


def test_a_page_still_says_that_it_is_gradios():
    with gr.Blocks(title="Mine") as blocks:
        gr.HTML("x")
    page = TestClient(gr.mount_gradio_app(FastAPI(), blocks, path="/")).get("/").content
    assert b'property="og:title" content="Gradio"' in page
    card = "<title>Mine</title>"
    ours = with_own_card(page, card)
    assert ours.count(b"<title>") == 1
    assert not re.search(rb"<meta[^>]*(og:|twitter:)", ours)
    assert b'href="/manifest.json"' not in ours
    assert with_own_card(page, "") == page
    assert with_own_card(b"<html><head><title>Another page</title></head></html>", card).count(b"<title>") == 1


# Values


@pytest.mark.parametrize(
    ("make", "good", "bad"),
    [
        (lambda: gr.Textbox(), ["", "x", None], [5, True, [], {}, "\ud800", "a\0b", "x" * 10_001]),
        (lambda: gr.Slider(1, 5), [1, 2.5, 10**9, -1, None], [True, "1", [], {}, math.inf, math.nan, 10**400]),
        (lambda: gr.Checkbox(), [True, False], [None, 0, "true", []]),
        (lambda: gr.Radio(["a"]), ["a", "other", None], [1, ["a"], {}, "\udc80"]),
        (lambda: gr.Dropdown(["a"]), ["a", "other", None], [1, ["a"], {"a": 1}]),
        (
            lambda: gr.Dropdown(["a"], multiselect=True),
            [[], ["a"], None],
            ["a", [1], [["a"]], ["\ud800"], 1001 * ["a"]],
        ),
        (lambda: gr.CheckboxGroup(["a"]), [[], ["a"], None], ["a", {}, [None]]),
        (
            lambda: gr.Image(),
            [{"path": "x"}, None],
            ["x", {}, {"path": 5}, {"path": "\ud800"}, {"path": "", "a": math.nan}],
        ),
        (lambda: gr.State(), [object(), "\ud800"], []),
    ],
)
def test_values_that_a_component_never_has_are_refused_in_a_sentence(make, good, bad):
    component = make()
    for value in good:
        check_values([component], [value])
    for value in bad:
        with pytest.raises(gr.Error, match="Reload the page") as refused:
            check_values([component], [value])
        assert refused.value.print_exception is False


def test_too_few_and_too_many_values_are_refused():
    for values in ([], ["a", "b"]):
        with pytest.raises(gr.Error, match="do not agree"):
            check_values([gr.Textbox()], values)


def test_what_is_plain():
    deep = []
    for _ in range(30):
        deep = [deep]
    assert is_plain({"a": [1, 2.5, "x", None, True]})
    for odd in (math.nan, [math.inf], {"a": "\ud800"}, {"\ud800": 1}, deep, object()):
        assert not is_plain(odd)
    assert is_text("späť 猫")
    assert not is_text("\0")


def test_gradio_still_fetches_what_is_shaped_like_a_remote_file():
    assert "is_http_url_like" in inspect.getsource(gr.processing_utils)
    assert names_remote_file([None, {"a": [{"path": " http://x/a.png"}]}])
    assert not names_remote_file([{"path": "/tmp/a.png", "url": None}, "http://x/", None])


ODD = [
    None,
    True,
    -1,
    0,
    10**400,
    1e308,
    "",
    "x",
    "\ud800",
    "a\0b",
    "x" * 20_000,
    [],
    [[]],
    [None],
    ["x"] * 2000,
    {},
    {"path": "/etc/passwd"},
    {"path": 5},
    {"a": {"b": {"c": []}}},
    "NaN",
]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reds")
    page = build_app([reds(folder)], manage=folder / "collections")
    page.launch(prevent_thread_lock=True, quiet=True)
    yield page
    page.close()


def bodies(page):
    """Every listener with every odd value in every place, and as the data of its event; the rest as on the page."""
    for number, fn in page.fns.items():
        if fn.fn is None or inspect.isasyncgenfunction(fn.fn):
            continue
        usual = [None if isinstance(block, gr.State) else block.value for block in fn.inputs]
        for odd in ODD:
            yield number, [odd] * len(usual), odd
            for place in range(len(usual)):
                yield number, [*usual[:place], odd, *usual[place + 1 :]], {"collection": "reds", "id": odd, "page": odd}


def test_odd_values_to_any_listener_are_answered_without_a_traceback(served, capfd):
    """Through the function that both ways of asking (at once, and through the queue) call."""
    app = served.app
    told = 0

    async def ask_all():
        nonlocal told
        for number, data, event in bodies(served):
            fn = served.fns[number]
            state = app.state_holder["odd"]
            try:
                await served.process_api(
                    fn,
                    list(data),
                    state=state,
                    event_data=gr.EventData(None, event),
                    request=SimpleNamespace(headers={}, app=app),
                )
            except gr.Error as error:
                assert error.print_exception is False
                json.dumps(error.message, ensure_ascii=False).encode()
                told += 1

    asyncio.run(ask_all())
    assert told > 1000
    assert "Traceback" not in capfd.readouterr().err


# Sessions


def sessions_of(holder, **options):
    blocks = SimpleNamespace(state_session_capacity=20, default_config=SimpleNamespace(blocks={}), blocks={}, **options)
    holder.set_blocks(blocks)
    return holder


def come(visitors, holder, session, address, cookie=""):
    """A request; returns the cookie that it is given, if it opens the page."""
    scope = {"headers": [(b"cookie", cookie.encode())]}
    given = visitors.enter(scope, address)
    holder[session]
    return (given or "").partition(";")[0] or cookie


def test_one_visitor_still_pushes_out_everybody_elses_session():
    holder = sessions_of(StateHolder())
    for session in ["mine", *map(str, range(20))]:
        holder[session]
    assert "mine" not in holder


def test_who_takes_most_makes_room():
    holder, visitors = sessions_of(FairSessions()), Visitors()
    cookie = come(visitors, holder, "first", "10.0.0.1")
    come(visitors, holder, "mine", "10.0.0.1", cookie)  # the same address as the stranger's: the cookie tells
    for number in range(520):
        scope = {"headers": []}
        visitors.recognise(scope, "10.0.0.1")
        holder[f"s{number}"]
    assert "mine" in holder
    assert len(holder.session_data) == len(holder.time_last_used) == 20
    assert "s519" in holder
    assert len(holder._visitors) == len(holder._last) == 20


def test_who_came_once_makes_room_before_who_came_back():
    holder, visitors = sessions_of(FairSessions()), Visitors()
    for session in ["mine", "mine", *map(str, range(520))]:  # no cookies, all from one address
        visitors.recognise({"headers": []}, "10.0.0.1")
        holder[session]
    assert "mine" in holder


def test_a_forged_cookie_is_nobodys():
    visitors = Visitors()
    real = visitors.enter({"headers": []}, "a").partition(";")[0]
    for forged in (f"{real[:-1]}x", "ris-visitor=.", "ris-visitor=a.b", "ris-visitor=\xff.\xff", Visitors().COOKIE):
        assert not visitors.recognise({"headers": [(b"cookie", forged.encode("latin-1"))]}, "a")
    assert visitors.recognise({"headers": [(b"cookie", real.encode())]}, "a")


# The server


def test_gradio_still_waits_five_seconds_for_its_server():
    source = inspect.getsource(http_server.Server.run_in_thread)
    assert "> 5" in source
    assert "timeout=3" in inspect.getsource(networking.url_ok)


@pytest.mark.slow
def test_a_server_that_starts_late_is_waited_for(monkeypatch):
    real = gradio_seam._PatientServer.run

    def run(self, *args):
        time.sleep(6)  # longer than Gradio waits
        real(self, *args)

    monkeypatch.setattr(gradio_seam._PatientServer, "run", run)
    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.HTML("late")
    with patience():
        blocks.launch(prevent_thread_lock=True, quiet=True)
    try:
        assert httpx.get(blocks.local_url, trust_env=False, timeout=120).status_code == 200
    finally:
        blocks.close()
    assert http_server.Server is not gradio_seam._PatientServer


def test_a_port_that_is_taken_is_not_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as taken, gr.Blocks(analytics_enabled=False) as blocks:
        gr.HTML("never")
        with patience(), pytest.raises(OSError, match="Cannot find empty port"):
            blocks.launch(prevent_thread_lock=True, quiet=True, server_port=taken.getsockname()[1])


def test_middleware_that_is_handed_to_gradio_still_lies_inside_its_own():
    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.HTML("x")
    seen = []

    def note(app):
        async def around(scope, receive, send):
            seen.append(scope.get("method"))
            await app(scope, receive, send)

        return around

    plain = App.create_app(blocks, app_kwargs={"middleware": [Middleware(note)]})
    preflight = {"Origin": "http://localhost:1", "Access-Control-Request-Method": "POST"}
    TestClient(plain).options("/", headers=preflight)
    assert "OPTIONS" not in seen
    guarded = App.create_app(blocks, app=GuardedApp(note))
    TestClient(guarded).options("/", headers=preflight)
    assert "OPTIONS" in seen


def test_around_a_guarded_app_is_everything():
    app = GuardedApp(lambda inner: PlainTextResponse("mine"))
    assert TestClient(app).get("/anything").text == "mine"
