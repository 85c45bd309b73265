"""Models by name: downloaded once, from a hub that runs here, checked, gone on with, and never run as code."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from tiny_models import require_code

from features.encoders import EncoderError
from features.encoders.hub import find_model, is_here, load_model

ROOT = Path(__file__).resolve().parent.parent
COMMIT = "a" * 40
WEIGHTS = save({"x": np.zeros(6_000_000, np.float32)})

FIND = """
import sys
from features.encoders import EncoderError
from features.encoders.hub import find_model, is_here
try:
    print("here", is_here(sys.argv[1]))
    found = find_model(sys.argv[1], "name that FOLDER.")
    print("found", found.folder, found.argument, found.sha256)
except EncoderError as error:
    print("error", error)
"""


class Hub(ThreadingHTTPServer):
    """A hub with one model.

    Attributes
    ----------
    asked : list of str
        Method and path of each request, with its range.
    breaks : int or None
        After so many bytes of the weights the connection is cut, once.
    """

    def __init__(self, files):
        self.files, self.asked, self.breaks = files, [], None
        self.lies = b""
        super().__init__(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET(with_body=False)

    def do_GET(self, with_body=True):
        hub, path = self.server, self.path.partition("?")[0]
        hub.asked.append(f"{self.command} {path} {self.headers.get('Range') or ''}".strip())
        if re.fullmatch(r"/api/models/some/clip(/revision/\w+)?", path):
            return self._json({"id": "some/clip", "sha": COMMIT, "siblings": [{"rfilename": n} for n in hub.files]})
        if path.startswith("/api/models/some/clip/tree/"):
            return self._json([self._entry(name) for name in hub.files])
        name = path.rpartition("/")[2]
        if not path.startswith("/some/clip/resolve/") or name not in hub.files:
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, with_body)
        content = hub.files[name]
        headers = {"ETag": f'"{self._entry(name)["oid"]}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if name == "model.safetensors":
            headers["X-Linked-Etag"] = f'"{hashlib.sha256(content).hexdigest()}"'
            headers["X-Linked-Size"] = str(len(content))
            content = hub.lies or content
        begin = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        if with_body and name == "model.safetensors" and hub.breaks is not None:
            broken, hub.breaks = content[begin : hub.breaks], None
            self._send(200, content, headers, with_body=False)
            self.wfile.write(broken)
            self.wfile.flush()
            self.close_connection = True
            return None
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        return self._send(206 if begin else 200, content[begin:], headers, with_body)

    def _entry(self, name):
        content = self.server.files[name]
        sha = hashlib.sha256(content).hexdigest()
        entry = {"type": "file", "path": name, "size": len(content), "oid": sha[:40]}
        return {**entry, "lfs": {"oid": sha, "size": len(content), "pointerSize": 1}} if name[0] == "m" else entry

    def _json(self, answer):
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"}, True)

    def _send(self, status, content, headers, with_body):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)


@pytest.fixture
def hub():
    served = Hub({"config.json": b'{"model_type": "clip"}', "model.safetensors": WEIGHTS, "pytorch_model.bin": b"no"})
    yield served
    served.shutdown()
    served.server_close()


@pytest.fixture
def ask(hub, tmp_path):
    """Asks in a process of its own, whose hub is ours; returns its lines and what it said on stderr."""

    def ask(model="some/clip", **environment):
        settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
        alone = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        done = subprocess.run(
            [sys.executable, "-c", FIND, model],
            env={**alone, **settings, **environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines(), done.stderr

    return ask


def test_what_is_named_is_downloaded_once_and_found_again_without_a_network(hub, ask):
    (here, found), said = ask()
    assert here == "here False"
    word, folder, argument, digest = found.split()
    assert (word, argument, digest) == ("found", f"some/clip@{COMMIT}", hashlib.sha256(WEIGHTS).hexdigest())
    assert sorted(path.name for path in Path(folder).iterdir()) == ["config.json", "model.safetensors"]
    assert not any("pytorch_model.bin" in line for line in hub.asked), "no pickle is fetched"
    assert "100%" in said, "its progress is shown"
    hub.asked.clear()
    for model in ("some/clip", f"some/clip@{COMMIT}"):
        assert ask(model)[0] == ["here True", found]
    assert hub.asked == []


def test_a_download_that_breaks_off_goes_on_where_it_stopped(hub, ask):
    hub.breaks = 15_000_000  # its client reads ten million bytes at a time
    ask()
    (_, found), _ = ask()
    assert found.startswith("found")
    assert any(re.search(r"^GET .*model.safetensors bytes=\d{5,}-", line) for line in hub.asked), hub.asked


def test_what_was_damaged_on_the_way_is_found_out(hub, ask):
    hub.lies = WEIGHTS[:-4] + b"\1\1\1\1"
    (_, said), _ = ask()
    assert re.search(r"is damaged: its SHA-256 is \w{64}, its name says \w{64}. Remove it and run the same", said)


@pytest.mark.parametrize("model", ["some/clip", "some/other"])
def test_without_a_network_it_says_the_way_out(ask, model):
    (_, said), _ = ask(model, HF_ENDPOINT="http://127.0.0.1:9")
    assert said.startswith(f"error {model} cannot be downloaded")
    assert f"run hf download {model} --local-dir FOLDER on another machine, and name that FOLDER" in said


def test_a_model_without_safetensors_is_refused(hub, ask):
    del hub.files["model.safetensors"]
    (_, said), _ = ask()
    assert "has no model.safetensors: models are read from safetensors alone" in said


def folder_of(path, **files):
    path.mkdir()
    for name, content in {"config": b"{}", **files}.items():
        (path / (name if "." in name else f"{name}.json")).write_bytes(content)
    return path


def test_a_folder_is_taken_as_it_is_and_several_files_have_one_sum(tmp_path):
    whole = folder_of(tmp_path / "whole", **{"model.safetensors": WEIGHTS})
    found = find_model(whole, "")
    assert (found.folder, found.argument, found.sha256) == (whole, str(whole), hashlib.sha256(WEIGHTS).hexdigest())
    assert is_here(whole)
    parts = {"model-1-of-2.safetensors": b"one", "model-2-of-2.safetensors": b"two"}
    index = json.dumps({"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}).encode()
    spread = folder_of(tmp_path / "spread", **parts, **{"model.safetensors.index.json": index})
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in parts.items())
    assert find_model(spread, "").sha256 == hashlib.sha256(sums.encode()).hexdigest()
    (spread / "model-2-of-2.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"lacks model-2-of-2\.safetensors"):
        find_model(spread, "")


@pytest.mark.parametrize(
    "index", [b"{", b"[]", b'{"weight_map": {"a": "../x.safetensors"}}', b'{"weight_map": {"a": 1}}']
)
def test_an_index_of_weights_that_makes_no_sense_is_a_sentence(tmp_path, index):
    folder = folder_of(tmp_path / "x", **{"model.safetensors.index.json": index})
    with pytest.raises(EncoderError, match=r"index\.json cannot be read"):
        find_model(folder, "")


@pytest.mark.parametrize("name", ["clip", "a/b/c", "", "a b/c", "https://x/y", "-/-", "some\0/x"])
def test_what_is_neither_folder_nor_name_is_a_sentence(name):
    for ask in (is_here, partial(find_model, way_out="")):
        with pytest.raises(EncoderError, match=r"is no folder, nor a name on the hub|is no name on the hub|no config"):
            ask(name)


def test_code_of_a_model_is_never_run(tmp_path):
    with pytest.raises(EncoderError, match=r"would run code of its own, and none is ever run here.*--file TABLE"):
        load_model("AutoModel", find_model(require_code(tmp_path / "moon"), ""))
