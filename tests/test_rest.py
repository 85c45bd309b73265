"""REST: what is searched and read, what is refused, and that no file of the server is opened by name."""

import base64
import concurrent.futures
import io
import json
import threading

import numpy as np
import pytest
from fastapi.testclient import TestClient
from meanings import ColourEncoder
from PIL import Image
from rest_collection import colours
from waiting import until

from features.collection import edits
from features.collection.said import Maker, Words
from gradio_app.library import Library
from gradio_app.remote_image import RemoteImageError
from gradio_app.routes.api.problems import MEDIA_TYPE
from gradio_app.routes.api.requests import MAX_JSON, RateLimit
from gradio_app.routes.api.service import create_api
from search.build import sync_collection
from search.engine import SearchEngine

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def engine(tmp_path_factory, monkeypatch_module):
    return colours(tmp_path_factory.mktemp("rest"), monkeypatch_module)


@pytest.fixture(scope="module")
def client(engine):
    return TestClient(create_api(Library([engine]), limit=RateLimit(0)))


def picture(colour=(200, 40, 40), size=(8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def search(client, status=200, **question):
    reply = client.post("/api/v1/search", json=question)
    assert reply.status_code == status, reply.text
    return reply.json() if status == 200 else refused(reply, status)


def refused(reply, status) -> str:
    """The sentence of a problem."""
    said = reply.json()
    assert (reply.status_code, reply.headers["content-type"]) == (status, MEDIA_TYPE)
    assert {"type", "title", "status", "detail"} <= said.keys()
    assert said["status"] == status
    assert reply.headers["x-request-id"]
    return said["detail"]


def ids(answer) -> list[int]:
    return [hit["id"] for hit in answer["hits"]]


class TestSearch:
    def test_a_picture_of_the_collection_finds_its_like(self, client, engine):
        answer = search(client, parts=[{"image": {"id": 5}}], k=3)
        assert ids(answer) == list(engine.search(engine.store.items[5].path, k=3).ids)
        hit = answer["hits"][0]
        assert (hit["rank"], hit["labels"], hit["path"][:2]) == (1, ["b"], "b/")
        assert hit["similarity"] == pytest.approx(engine.search(engine.store.items[5].path, k=3)[0].similarity)
        assert answer["own_id"] == 5
        assert answer["counts"] == {"shown": 3, "matching": 12, "pictures": 12}
        assert client.get(hit["links"]["thumbnail"]).headers["content-type"] == "image/jpeg"
        assert client.get(hit["links"]["original"]).content == engine.store.items[hit["id"]].path.read_bytes()

    def test_words_are_read_as_those_of_the_search_box(self, client, engine):
        answer = search(client, collection="c", q="crimson -cerulean label:a|c", k=5)
        assert ids(answer) == list(engine.search("crimson -cerulean label:a|c", k=5).ids)
        assert [part["said"] for part in answer["parts"]] == ["crimson", "cerulean"]
        assert sum(answer["hits"][0]["shares"]) == pytest.approx(answer["hits"][0]["score"])
        assert answer["counts"] == {"shown": 5, "matching": 8, "pictures": 12}

    def test_all_ways_to_ask_go_together(self, client, engine):
        content = picture()
        form = {"q": "crimson", "filter": json.dumps({"label": ["a", "b"]}), "weight": "2", "k": "4"}
        reply = client.post("/api/v1/search", files={"image": ("me.png", content)}, data=form)
        assert reply.status_code == 200, reply.text
        answer = reply.json()
        assert [part["weight"] for part in answer["parts"]] == [1, 2]
        assert {label for hit in answer["hits"] for label in hit["labels"]} <= {"a", "b"}
        assert answer["hits"][0]["labels"] == ["a"]

    def test_a_picture_sent_is_the_same_as_form_and_as_base64(self, client):
        content = picture((30, 160, 60))
        form = client.post("/api/v1/search", files={"image": ("me.png", content)}).json()
        encoded = search(client, parts=[{"image": {"bytes": base64.b64encode(content).decode()}}])
        assert ids(form) == ids(encoded)
        assert len(form["hits"]) == 12
        assert form["own_id"] is None

    def test_a_picture_that_the_collection_holds_is_known_by_its_content(self, client, engine):
        content = engine.store.items[2].path.read_bytes()
        answer = client.post("/api/v1/search", files={"image": ("x.png", content)}).json()
        assert answer["own_id"] == 2
        assert 2 not in ids(answer)

    def test_a_crop_is_that_piece(self, client, engine):
        pixels = np.zeros((8, 16, 3), np.uint8)
        pixels[:, :8], pixels[:, 8:] = (200, 40, 40), (40, 40, 200)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        form = {"crop": "[8, 0, 16, 8]", "k": "4"}
        answer = client.post("/api/v1/search", files={"image": ("x.png", buffer.getvalue())}, data=form).json()
        assert {hit["labels"][0] for hit in answer["hits"]} == {"c"}

    def test_a_filter_alone_gives_what_it_lets_through(self, client):
        assert ids(search(client, filter={"or": [{"label": "b"}, {"name": {"prefix": "00"}}]})) == [0, 4, 5, 6, 7, 8]

    def test_options_go_to_the_index(self, client):
        assert (
            len(search(client, parts=[{"image": {"id": 0}}], options={"engine": "exact", "cutoff": 0.9})["hits"]) == 3
        )

    def test_stages_are_timed_and_counted(self, client):
        timings = client.post("/api/v1/search", files={"image": ("me.png", picture())}).json()["timings_ms"]
        assert min(timings[stage] for stage in ("decode", "encode", "search")) > 0
        written = client.get("/metrics").text
        assert 'ris_stage_seconds_count{stage="decode"}' in written
        assert 'ris_stage_seconds_count{stage="fetch"} 0.0' in written
        assert 'status="200"' in written


class TestPages:
    def test_pages_of_hits_bring_each_once(self, client):
        question = {"q": "crimson", "parts": [{"image": {"id": 9}}]}
        whole = ids(search(client, **question, k=12))
        answer, seen = search(client, **question, k=5), []
        while True:
            seen += ids(answer)
            assert answer["hits"][-1]["rank"] == answer["counts"]["shown"] == len(seen)
            if answer["cursor"] is None:
                break
            answer = search(client, **question, k=5, cursor=answer["cursor"])
        assert seen == whole

    def test_a_cursor_belongs_to_its_question(self, client):
        cursor = search(client, q="crimson", k=2)["cursor"]
        assert "another question" in search(client, 422, q="viridian", k=2, cursor=cursor)
        for bad in ("", "x", "????", base64.urlsafe_b64encode(b"[1]").decode(), "é"):
            assert "none that was given" in search(client, 422, q="crimson", cursor=bad)

    def test_pages_of_pictures_go_on_after_the_last(self, client):
        seen, cursor = [], None
        while True:
            asked = {"limit": 3, "filter": '{"label": ["b", "c"]}', **({"cursor": cursor} if cursor else {})}
            page = client.get("/api/v1/collections/c/images", params=asked).json()
            seen += [image["id"] for image in page["images"]]
            assert page["matching"] == 8
            if (cursor := page["cursor"]) is None:
                break
        assert seen == list(range(4, 12))

    def test_a_cursor_is_gone_once_the_collection_has_changed(self, tmp_path, monkeypatch):
        library = Library([colours(tmp_path, monkeypatch)])
        client = TestClient(create_api(library, limit=RateLimit(0)))
        asked = {"parts": [{"image": {"id": 1}}], "k": 2}
        cursor = search(client, **asked)["cursor"]
        page = client.get("/api/v1/collections/c/images", params={"limit": 3}).json()
        assert ids(search(client, **asked, cursor=cursor))
        (tmp_path / "images/a/03.png").unlink()
        (tmp_path / "images/new.png").write_bytes(picture())
        sync_collection(library["c"].folder, encoder=ColourEncoder(), progress=False)
        library.put(SearchEngine.open(library["c"].folder))
        assert "has changed" in search(client, 410, **asked, cursor=cursor)
        rest = client.get("/api/v1/collections/c/images", params={"limit": 20, "cursor": page["cursor"]}).json()
        assert [image["id"] for image in rest["images"]] == [4, 5, 6, 7, 8, 9, 10, 11, 12], (
            "nothing twice or passed over"
        )


class TestRead:
    def test_collections_say_what_they_can_be_asked(self, client):
        (short,) = client.get("/api/v1/collections").json()["collections"]
        assert (short["name"], short["pictures"]) == ("c", 12)
        whole = client.get(short["link"]).json()
        assert whole["labels"] == {"a": 4, "b": 4, "c": 4}
        assert whole["spaces"][:2] == ["visual", "concepts"]
        assert client.get(whole["images"]).json()["matching"] == 12

    def test_a_picture_tells_who_says_what(self, tmp_path, monkeypatch):
        engine = colours(tmp_path, monkeypatch)
        store = engine.store
        store.annotations.put(
            Maker("model", "m"), "1", [(store.records([0])[0], Words({}, {"sea": 0.5}, {"rating": 4}))]
        )
        edits.add_caption(store.annotations, [0], "A boat")
        client = TestClient(create_api(Library([engine])))
        image = client.get("/api/v1/collections/c/images/0").json()
        assert image["captions"] == [{"source": "person", "maker": "", "certainty": None, "text": "A boat"}]
        assert image["tags"] == [{"source": "model", "maker": "m", "certainty": 0.5, "tag": "sea"}]
        assert [(field["name"], field["value"]) for field in image["fields"]] == [("rating", 4)]
        assert (image["path"], image["labels"], image["favourite"]) == ("a/00.png", ["a"], False)
        assert image["sha256"].startswith(image["content"])
        assert (image["width"], image["height"]) == (8, 8)

    @pytest.mark.parametrize(
        "path",
        ["collections/other", "collections/c/images/12", "collections/c/images/12/view", "nothing", "collections/", ""],
    )
    def test_what_is_not_there_is_a_problem(self, client, path):
        refused(client.get(f"/api/v1/{path}"), 404)

    @pytest.mark.parametrize(
        ("path", "said"),
        [
            ("collections/c/images?limt=3", "takes no parameter 'limt'; it takes filter, limit, cursor."),
            (
                "collections/c/images?limit=3&%C2%B2=",
                "takes no parameter '\N{SUPERSCRIPT TWO}'; it takes filter, limit, cursor.",
            ),
            ("collections?limit=3", "takes no parameter 'limit'; it takes none."),
        ],
    )
    def test_a_parameter_that_is_not_known_is_named(self, client, path, said):
        assert said in refused(client.get(f"/api/v1/{path}"), 422)

    def test_no_path_of_the_server_is_told(self, client, engine):
        whole = client.get("/api/v1/collections").text + client.get("/api/v1/collections/c/images/0").text
        assert str(engine.store.manifest["root"]) not in whole + json.dumps(search(client, q="crimson"))

    def test_health_says_nothing_and_readiness_wants_a_collection(self, client):
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").json() == {"status": "ready"}
        refused(TestClient(create_api(Library())).get("/readyz"), 503)


class TestRefused:
    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b"", "no JSON"),
            (b"{", "no JSON"),
            (b'{"k": NaN}', "has no NaN"),
            (b'{"k": 1e999}', "too large"),
            (b'{"k": 1' + b"0" * 5000 + b"}", "at most 18 digits"),
            (b'{"q": "a", "q": "b"}', "says 'q' twice"),
            (b'{"filter": ' + b'{"not": ' * 100 + b"{}" + b"}" * 101, "nested deeper"),
            (b"[" * 100_000, "nested deeper"),
            (b'{"q": "\\ud800"}', "half a character"),
            (b'{"q": "\xff"}', "UTF-8"),
        ],
    )
    def test_json_that_can_be_read_in_no_way_or_two(self, client, body, said):
        assert said in refused(client.post("/api/v1/search", content=body, headers=JSON), 400)

    @pytest.mark.parametrize(
        ("question", "said"),
        [
            ({}, "nothing to search for"),
            ({"q": "boat^nan"}, "finite number"),
            ({"parts": [{"image": {"id": 99}}]}, "no picture 99"),
            ({"parts": [{"image": {"bytes": "????"}}]}, "base64"),
            ({"parts": [{"image": {"bytes": "AAAA"}}]}, "image"),
            ({"parts": [{"image": {"id": 0}, "crop": [0, 0, 99, 99]}]}, "does not lie inside"),
            ({"parts": [{"image": {}}]}, "exactly one"),
            ({"parts": [{"text": "a", "tag": "b"}]}, "Extra inputs"),
            ({"filter": {"colour": "red"}}, "colour"),
            ({"filter": {"label": "z"}}, "bears the label"),
            ({"k": 0, "q": "a"}, "greater than or equal to 1"),
            ({"k": "5", "q": "a"}, "integer"),
            ({"q": "a", "other": 1}, "Extra inputs"),
            ({"parts": [{"text": "a"}] * 101}, "at most 100"),
            ({"options": {"neighbourhood": 2}, "q": "a"}, "less than or equal to 1"),
        ],
    )
    def test_what_makes_no_sense_is_a_sentence(self, client, question, said):
        assert said in search(client, 422, **question)

    def test_no_file_of_the_server_is_opened_by_its_name(self, client, engine):
        path = str(engine.store.items[0].path)
        assert "address of a picture on the web" in search(client, 422, q=f'image:"{path}"')
        assert "Extra inputs" in search(client, 422, parts=[{"image": {"file": path}}])
        assert "pattern" in search(client, 422, parts=[{"image": {"url": f"file://{path}"}}])
        answer = search(client, q=f'"{path}"')
        assert answer["own_id"] is None, "a text that names a file is a text"

    def test_other_kinds_of_bodies_and_ways(self, client):
        assert "application/json" in refused(client.post("/api/v1/search", content=b"q=a"), 415)
        assert "as the file" in refused(client.post("/api/v1/search", files={"other": b"x"}), 422)
        assert "twice" in refused(
            client.post("/api/v1/search", files=[("image", b"x"), ("q", (None, "a")), ("q", (None, "b"))]), 422
        )
        reply = client.put("/api/v1/search", json={})
        refused(reply, 405)
        assert reply.headers["allow"] == "POST"

    def test_bodies_are_bounded_whatever_they_say(self, client):
        def endless():
            for _ in range(MAX_JSON // 2**16 + 2):
                yield b" " * 2**16

        large = {**JSON, "content-length": str(MAX_JSON + 1)}
        refused(client.post("/api/v1/search", content=b"", headers=large), 413)
        refused(client.post("/api/v1/search", content=endless(), headers=JSON), 413)

    def test_too_many_requests_are_told_when_to_come_again(self, engine):
        now = [0.0]
        client = TestClient(create_api(Library([engine]), limit=RateLimit(2, 3, lambda: now[0])))
        for _ in range(3):
            assert client.get("/api/v1/collections").status_code == 200
        reply = client.get("/api/v1/collections")
        refused(reply, 429)
        assert reply.headers["retry-after"] == "1"
        assert client.get("/healthz").status_code == 200
        now[0] = 0.5
        assert client.get("/api/v1/collections").status_code == 200

    def test_another_site_cannot_have_a_browser_ask(self, client):
        refused(client.get("/api/v1/collections", headers={"sec-fetch-site": "cross-site"}), 403)
        refused(client.get("/api/v1/collections", headers={"origin": "https://evil.example"}), 403)
        reply = client.options("/api/v1/search", headers={"access-control-request-method": "POST"})
        assert reply.status_code == 405
        assert "access-control-allow-origin" not in client.get("/api/v1/collections").headers


class TestFetched:
    def test_a_picture_at_an_address_goes_through_the_one_who_fetches(self, engine):
        asked = []

        def fetch(url):
            asked.append(url)
            if "private" in url:
                raise RemoteImageError("private is not on the public internet, so it is not opened.")
            return picture((40, 40, 200))

        client = TestClient(create_api(Library([engine]), fetch=fetch))
        answer = search(client, parts=[{"image": {"url": "https://example.org/a.png"}}], k=4)
        assert {hit["labels"][0] for hit in answer["hits"]} == {"c"}
        assert answer["timings_ms"]["fetch"] > 0
        assert {hit["labels"][0] for hit in search(client, q="image:https://example.org/b.png", k=4)["hits"]} == {"c"}
        assert "public internet" in search(client, 422, q="image:http://private/a.png")
        assert len(asked) == 3
        many = [{"image": {"url": f"https://example.org/{i}"}} for i in range(4)]
        assert "at most 3 pictures from the web" in search(client, 422, parts=many)
        assert len(asked) == 3, "nothing is fetched of a question that is refused"

    def test_addresses_of_this_computer_are_refused(self, client):
        for url in ("http://127.0.0.1:1/a.png", "http://[::1]/", "http://169.254.169.254/latest"):
            said = search(client, 422, parts=[{"image": {"url": url}}])
            assert said.startswith(f"{url} cannot be searched with")
            assert "public internet" in said


def test_a_search_that_takes_long_holds_up_nobody(engine):
    going, may_end = threading.Event(), threading.Event()

    def fetch(url):
        going.set()
        assert may_end.wait(300)
        return picture()

    with (
        TestClient(create_api(Library([engine]), fetch=fetch)) as client,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        slow = pool.submit(search, client, parts=[{"image": {"url": "https://example.org/"}}])
        until(going.is_set, "the fetch")
        assert search(client, parts=[{"image": {"id": 0}}])["hits"], "on the same event loop"
        assert not slow.done()
        may_end.set()
        assert slow.result()["hits"]


def test_requests_are_known_by_an_id(client, caplog):
    with caplog.at_level("INFO", "gradio_app.routes.api.requests"):
        for path in ("/api/v1/nothing", "/healthz"):  # of which the second is asked too often to be logged
            assert client.get(path, headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
        made = client.get("/api/v1/collections", headers={"x-request-id": 'x"\n'.strip()}).headers["x-request-id"]
    logged = [json.loads(record.getMessage()) for record in caplog.records if record.name.endswith("api.requests")]
    assert [(line["request_id"], line["path"], line["status"]) for line in logged] == [
        ("mine-1", "/api/v1/nothing", 404),
        (made, "/api/v1/collections", 200),
    ]


def test_what_breaks_inside_is_a_problem_without_its_inside(engine, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("secret")

    monkeypatch.setattr("gradio_app.routes.api.search._query", broken)
    reply = TestClient(create_api(Library([engine]))).post("/api/v1/search", json={"q": "a"})
    assert "log says more" in refused(reply, 500)
    assert "secret" not in reply.text
