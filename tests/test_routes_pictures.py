"""The picture routes: what they serve, to whom, and what nobody gets."""

import io
import os
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest
from fakes import FakeEngine
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from gradio_app.routes.pictures import THUMB_SIDE, VIEW_SIDE, picture_routes, picture_url
from gradio_app.session import QueryPicture

NAMES = ["a.jpg", 'quo"te;.png', "späť 猫.png", "turned.jpg", "broken.jpg", "small.png"]


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (3000, 1000), (250, 0, 0)).save(tmp_path / NAMES[0])
    Image.new("RGBA", (400, 300), (0, 250, 0, 128)).save(tmp_path / NAMES[1])
    Image.new("L", (300, 600), 99).save(tmp_path / NAMES[2])
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side: upright after a quarter turn
    Image.new("RGB", (400, 200)).save(tmp_path / NAMES[3], exif=exif)
    (tmp_path / NAMES[4]).write_bytes(b"not a picture")
    Image.new("RGB", (10, 20)).save(tmp_path / NAMES[5])
    return tmp_path


@pytest.fixture
def engine(folder):
    return FakeEngine("odd náme & <b>?#", {folder / name: "label" for name in NAMES})


def serve(*engines: FakeEngine, **login) -> TestClient:
    """The routes on an app that has the attributes of Gradio's."""
    app = FastAPI(routes=picture_routes({engine.name: engine for engine in engines}))
    app.auth, app.auth_dependency, app.cookie_id, app.tokens = None, None, "id", {}
    for name, value in login.items():
        setattr(app, name, value)
    return TestClient(app)


@pytest.fixture
def client(engine):
    return serve(engine)


def picture(response) -> Image.Image:
    assert response.status_code == 200, response.text
    return Image.open(io.BytesIO(response.content))


@pytest.mark.parametrize(
    ("image_id", "size"), [(0, (256, 85)), (1, (256, 192)), (2, (128, 256)), (3, (128, 256)), (5, (10, 20))]
)
def test_thumbnails(client, engine, image_id, size):
    response = client.get(picture_url(engine, image_id, "thumb"))
    thumb = picture(response)
    assert (thumb.format, thumb.mode, thumb.size) == ("JPEG", "RGB", size)
    assert max(thumb.size) <= THUMB_SIDE
    assert response.headers["content-type"] == "image/jpeg"
    assert response.headers["cache-control"] == "private, max-age=604800"
    assert response.headers["x-content-type-options"] == "nosniff"


def test_large_view(client, engine):
    assert picture(client.get(picture_url(engine, 0, "view"))).size == (VIEW_SIDE, 533)
    assert picture(client.get(picture_url(engine, 5, "view"))).size == (10, 20)  # never enlarged


@pytest.mark.parametrize("image_id", range(len(NAMES)))
def test_original_is_the_file_itself_as_a_download(client, engine, folder, image_id):
    response = client.get(picture_url(engine, image_id, "original"))
    assert response.content == (folder / NAMES[image_id]).read_bytes()
    disposition = response.headers["content-disposition"]
    assert disposition.startswith("attachment; ")
    assert disposition.isascii()
    assert disposition.count('"') in (0, 2)  # a quote in a name cannot end the name
    assert response.headers["x-content-type-options"] == "nosniff"


def test_unicode_name_survives_the_download(client, engine):
    disposition = client.get(picture_url(engine, 2, "original")).headers["content-disposition"]
    assert disposition == "attachment; filename*=utf-8''sp%C3%A4%C5%A5%20%E7%8C%AB.png"


def test_damaged_picture_has_no_thumbnail(client, engine):
    for size in ("thumb", "view"):
        assert client.get(picture_url(engine, 4, size)).status_code == 404


def test_vanished_file(client, engine, folder):
    (folder / NAMES[0]).unlink()
    for size in ("thumb", "view", "original"):
        assert client.get(picture_url(engine, 0, size)).status_code == 404


def test_replaced_file_is_shown_as_it_is_now(client, engine, folder):
    before = client.get(picture_url(engine, 5, "thumb")).content
    Image.new("RGB", (30, 20), (1, 2, 3)).save(folder / NAMES[5])
    after = client.get(picture_url(engine, 5, "thumb")).content
    assert before != after


def test_rebuilt_collection_has_other_addresses(engine):
    before = picture_url(engine, 0, "thumb")
    engine.store.manifest = {**engine.store.manifest, "created": 2}
    assert picture_url(engine, 0, "thumb") != before


@pytest.mark.parametrize(
    "path",
    [
        "pictures/none/0/thumb",
        "pictures/c/-1/thumb",
        "pictures/c/6/thumb",
        "pictures/c/99999999999999999999/original",
        "pictures/c/0.5/thumb",
        "pictures/c/0/other",
        "pictures/c/..%2f..%2fetc%2fpasswd/original",
        "pictures/c/0/..%2f..%2f..%2fetc%2fpasswd",
        "pictures/..%2f..%2f/0/original",
        "pictures/c/%2fetc%2fpasswd/original",
        "pictures/c/0%00/original",
        "pictures//0/original",
    ],
)
def test_nothing_else_can_be_reached(folder, path):
    client = serve(FakeEngine("c", {folder / name: "" for name in NAMES}))
    response = client.get(path)
    assert response.status_code in (404, 422)
    assert b"root:" not in response.content


def test_collections_do_not_mix(folder):
    one = FakeEngine("one", {folder / NAMES[0]: ""})
    two = FakeEngine("two", {folder / NAMES[5]: "", folder / NAMES[0]: ""})
    client = serve(one, two)
    assert picture(client.get(picture_url(one, 0, "thumb"))).size == (256, 85)
    assert picture(client.get(picture_url(two, 0, "thumb"))).size == (10, 20)
    assert client.get(picture_url(two, 1, "thumb").replace("two", "one")).status_code == 404


class TestLogin:
    """Gradio keeps who has logged in by cookie; both of its cookie names count (the plain one without HTTPS)."""

    @pytest.mark.parametrize("size", ["thumb", "view", "original"])
    def test_strangers_are_refused(self, engine, size):
        client = serve(engine, auth={"user": "pass"}, tokens={"secret": "user"})
        url = picture_url(engine, 0, size)
        assert client.get(url).status_code == 401
        for cookie in ("access-token-id=guess", "access-token-id=", "access-token-other=secret", "secret=secret"):
            assert client.get(url, headers={"cookie": cookie}).status_code == 401
        for cookie in ("access-token-id=secret", "access-token-unsecure-id=secret"):
            assert client.get(url, headers={"cookie": cookie}).status_code == 200

    def test_what_exists_is_not_told_to_strangers(self, engine):
        client = serve(engine, auth={"user": "pass"})
        assert client.get("pictures/none/0/thumb").status_code == 401

    def test_dependency_decides_if_there_is_one(self, engine):
        url = picture_url(engine, 0, "thumb")

        async def later(request):
            return request.headers.get("x-user")

        for dependency in (lambda request: request.headers.get("x-user"), later):
            client = serve(engine, auth_dependency=dependency)
            assert client.get(url).status_code == 401
            assert client.get(url, headers={"x-user": "me"}).status_code == 200


def test_urls_are_relative_and_escaped(engine):
    url = picture_url(engine, 3, "view")
    assert not url.startswith("/")
    assert url.startswith("pictures/odd%20n%C3%A1me%20%26%20%3Cb%3E%3F%23/3/view?v=")
    assert not Path(url).is_absolute()


class TestOnlyPicturesOfTheCollection:
    """Whatever lies in its folder under a picture's name."""

    @pytest.fixture
    def odd(self, tmp_path):
        root, outside = tmp_path / "root", tmp_path / "outside.png"
        root.mkdir()
        outside.write_bytes(b"the secret")
        (root / "out.png").symlink_to(outside)
        (root / "device.png").symlink_to("/dev/zero")
        os.mkfifo(root / "pipe.png")
        (root / "folder.png").mkdir()
        Image.new("RGB", (30, 20), (9, 9, 9)).save(root / "good.png")
        (root / "within.png").symlink_to(root / "good.png")
        names = ("out.png", "device.png", "pipe.png", "folder.png", "good.png", "within.png")
        engine = FakeEngine("odd", {root / name: "" for name in names})
        engine.store.manifest["root"] = str(root)
        return engine

    @pytest.mark.parametrize("size", ["thumb", "view", "original"])
    def test_nothing_else_is_sent(self, odd, size):
        client = serve(odd)
        for image_id in range(4):
            reply = client.get(picture_url(odd, image_id, size))
            assert reply.status_code == 404, image_id
            assert b"secret" not in reply.content
        for image_id in (4, 5):
            assert client.get(picture_url(odd, image_id, size)).status_code == 200

    @pytest.mark.parametrize("size", ["thumb", "view", "original"])
    def test_nor_one_that_is_marked_damaged(self, odd, size):
        odd.store.items[4] = replace(odd.store.items[4], error="damaged (it says)")
        assert serve(odd).get(picture_url(odd, 4, size)).status_code == 404

    def test_links_lead_out_where_the_owner_asked_for_it(self, odd, tmp_path):
        odd.store.manifest["source"] = {"follow_links": True}
        assert serve(odd).get(picture_url(odd, 0, "original")).content == b"the secret"

    def test_nor_is_one_searched_with(self, odd):
        with pytest.raises(gr.Error, match="cannot be read"):
            QueryPicture.of(odd, 0)
        assert QueryPicture.of(odd, 5).width == 30
