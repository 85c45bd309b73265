"""API keys: only their hashes are kept, they open what their scopes say, and a revoked one opens nothing at once."""

import threading

import pytest
from fakes import reds
from fastapi.testclient import TestClient
from test_rest import refused

from features.collection.errors import StoreError
from gradio_app import api_keys
from gradio_app.library import Library
from gradio_app.routes.api.keys import FILE, KeyStore
from gradio_app.routes.api.requests import RateLimit
from gradio_app.routes.api.service import create_api


@pytest.fixture
def store(tmp_path):
    return KeyStore(tmp_path)


@pytest.fixture
def client(tmp_path):
    (tmp_path / "pictures").mkdir()
    app = create_api(Library([reds(tmp_path / "pictures")]), folder=tmp_path, limit=RateLimit(0))
    return TestClient(app)


def ask(client, key, path="/healthz"):
    return client.get(path, headers={"authorization": f"Bearer {key}"})


def test_only_hashes_are_kept(store):
    text = store.make(" nightly  job ", ("write", "read"))
    (key,) = store.listed()
    assert (key.name, key.scopes) == ("nightly job", ("read", "write"))
    assert text.split("_")[2] not in store.path.read_text()
    assert key.id == text.split("_")[1]
    assert store.find(text) == key == KeyStore(store.path.parent).find(text)
    for wrong in (
        "",
        "x",
        text[:-1],
        text + "x",
        text.replace("ris", "RIS"),
        text.replace(key.id, "0" * 8),
        "ris__é\0",
    ):
        assert store.find(wrong) is None


def test_a_revoked_key_opens_nothing_at_once(store, client):
    text = store.make("a", ("read",))
    other = store.make("b", ("read",))
    assert ask(client, text, "/metrics").status_code == 200
    KeyStore(store.path.parent).revoke(text.split("_")[1])
    refused(ask(client, text, "/metrics"), 401)
    assert ask(client, other, "/metrics").status_code == 200
    with pytest.raises(StoreError, match="there is no key"):
        store.revoke(text.split("_")[1])


def test_a_wrong_key_is_not_the_same_as_none(client):
    assert client.get("/metrics").status_code == 200, "whoever sees the page reads"
    reply = ask(client, "ris_00000000_x", "/metrics")
    assert "This key is none" in refused(reply, 401)
    assert reply.headers["www-authenticate"] == "Bearer"


def test_what_a_route_takes_is_told_to_who_may_ask_it(store, client):
    reading, both = store.make("r", ("read",)), store.make("b", ("read", "write"))
    refused(ask(client, reading, "/api/v1/jobs?x=1"), 403)
    assert "it takes limit" in refused(ask(client, both, "/api/v1/jobs?x=1"), 422)


def test_a_key_opens_what_its_scopes_say(store, client):
    writing = store.make("w", ("write",))
    assert "does not open reading" in refused(ask(client, writing, "/api/v1/collections"), 403)


def test_a_program_with_a_key_is_no_browser_of_another_site(store, client):
    text = store.make("a", ("read",))
    assert client.get("/metrics", headers={"origin": "https://evil.example"}).status_code == 403
    headers = {"origin": "https://mine.example", "authorization": f"Bearer {text}"}
    assert client.get("/metrics", headers=headers).status_code == 200, "no site can have a browser send a key"


def test_what_makes_no_sense_is_refused(store):
    for name, scopes in (("", ("read",)), ("x" * 81, ("read",)), ("a", ()), ("a", ("admin",)), ("a\x1b[1m", ("read",))):
        with pytest.raises(StoreError):
            store.make(name, scopes)
    assert not store.path.exists()
    store.path.write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        store.make("a", ("read",))
    assert store.path.read_text() == "{"


def test_keys_made_at_the_same_time_are_all_there(store):
    threads = [threading.Thread(target=KeyStore(store.path.parent).make, args=(str(i), ("read",))) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key.name for key in store.listed()) == [str(i) for i in range(8)]


def test_the_command_makes_lists_and_revokes(tmp_path, capsys):
    where = ["--collections", str(tmp_path)]
    assert api_keys.main([*where, "make", "a job", "--scope", "read", "write"]) == 0
    text = capsys.readouterr().out.strip()
    assert KeyStore(tmp_path).find(text).name == "a job"
    assert api_keys.main([*where, "list"]) == 0
    listed = capsys.readouterr().out
    assert "read,write" in listed
    assert text not in listed
    assert api_keys.main([*where, "revoke", text.split("_")[1]]) == 0
    assert KeyStore(tmp_path).listed() == []
    with pytest.raises(SystemExit):
        api_keys.main([*where, "revoke", "x"])
    assert "there is no key x" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
