"""The examples of docs/REST.md do what they say; curl itself is not needed."""

import io
import re
import shlex
from pathlib import Path

from fastapi.testclient import TestClient
from PIL import Image
from rest_collection import colours, sync_here

from gradio_app.library import Library
from gradio_app.routes.api.keys import KeyStore
from gradio_app.routes.api.service import create_api

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "REST.md"


def examples():
    for block in re.findall(r"^```bash\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()


def sent(client, line):
    """What curl would send."""
    words = shlex.split(line)
    assert words[:2] == ["curl", "-s"]
    method, url, headers, body, form, files = "GET", "", {}, None, {}, {}
    rest = iter(words[2:])
    for word in rest:
        if word == "-X":
            method = next(rest)
        elif word == "-H":
            name, _, value = next(rest).partition(": ")
            headers[name] = value
        elif word == "-d":
            method, body = "POST" if method == "GET" else method, next(rest)
        elif word == "-F":
            method = "POST"
            name, _, value = next(rest).partition("=")
            if value.startswith("@"):
                buffer = io.BytesIO()
                Image.new("RGB", (12, 8), (len(files), 90, 200)).save(buffer, "JPEG")
                files[name] = (value[1:], buffer.getvalue())
            else:
                form[name] = value
        else:
            url = word.removeprefix("http://127.0.0.1:7860")
    return client.request(method, url, headers=headers, content=body, data=form or None, files=files or None)


def test_every_example_is_answered(tmp_path, monkeypatch):
    engine = colours(tmp_path, monkeypatch, name="demo")
    library, folder = Library([engine]), engine.folder.parent
    monkeypatch.setattr("gradio_app.routes.api.service.sync_by", lambda jobs: sync_here(library))
    client, key = TestClient(create_api(library, folder=folder)), KeyStore(folder).make("docs", ("read", "write"))
    lines = list(examples())
    assert len(lines) >= 6
    for line in lines:
        reply = sent(client, line.replace("$KEY", key))
        assert reply.is_success, (line, reply.text)
