"""What the documents tell people to type is typed here: every command and every piece of Python in them.

A command is a line of a `sh` block, or a piece of inline code that begins as one (see STARTS). Each must be one of
WAYS, which run it, on tiny data, or, where it takes minutes or a network, hand its words to the parser that would read
them. A command of no way fails: add one.
"""

import argparse
import importlib
import io
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import httpx
import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image
from test_data_download import Server
from waiting import MINUTES, until

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/*.md"), *ROOT.glob("docs/guides/*.md"), *ROOT.glob("notebooks/*.ipynb")]
)
STARTS = ("make", "python", "python3", "pip", "./data_download.sh")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


# --- reading --------------------------------------------------------------------------------------------------------


def text_of(path):
    """A Markdown file, or the Markdown of a notebook."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def pieces(text):
    """What there is to run, in order: ("python", code) or ("sh", one command)."""
    found = [(match.start(), match[1], match[2]) for match in FENCED.finditer(text)]
    rest = FENCED.sub(lambda match: " " * len(match[0]), text)
    for match in INLINE.finditer(rest):
        words = match[1].split()
        if words[0] in STARTS and (len(words) > 1 or "/" in words[0]):
            found.append((match.start(), "sh", match[1].replace("\n", " ")))
    for _, language, content in sorted(found):
        if language == "python":
            yield "python", content
        elif language == "sh":
            for line in content.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                while words:
                    end = words.index("&&") if "&&" in words else len(words)
                    yield "sh", shlex.join(words[:end])
                    words = words[end + 1 :]


# --- the ways -------------------------------------------------------------------------------------------------------


class Parsed(Exception):  # noqa: N818 (it is no error)
    """A command line was understood."""


def module_of(words):
    """The module that `python -m NAME ...` or `python FILE ...` runs, and its arguments."""
    if words[1] == "-m":
        module = importlib.import_module(words[2])
        return importlib.import_module(f"{words[2]}.__main__") if hasattr(module, "__path__") else module, words[3:]
    return importlib.import_module(words[1].removesuffix(".py").replace("/", ".")), words[2:]


def parses(words, project):
    """Its own parser reads it, and that is all. Named without any argument, it is asked for help."""
    module, arguments = module_of(words)
    parse = argparse.ArgumentParser.parse_args

    def stop_then(self, given=None, namespace=None):
        parse(self, given, namespace)
        raise Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop_then)
        with pytest.raises((Parsed, SystemExit)) as stopped:
            module.main(arguments or ["--help"])
    asked_for_help = arguments in ([], ["--help"])
    assert stopped.type is Parsed or (asked_for_help and stopped.value.code == 0), "its own parser refuses it"


def runs(words, project):
    """The program itself, in this process, from the project's folder."""
    for name in {"caltech", "voc"} & set(words):
        type_in(f"./data_download.sh {name}", project)
    module, arguments = module_of(words)
    assert module.main([os.path.expanduser(word) for word in arguments]) == 0  # noqa: PTH111


def serves(words, project):
    """The app, as it is started, until it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = words[1:] if words[1] == "-m" else [str(ROOT / words[1]), *words[2:]]
    command = [sys.executable, *program, "--port", str(port)]
    server = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        page = until(lambda: answer_of(server, f"http://127.0.0.1:{port}/"), "the first answer")
        assert page.status_code == 200
        assert "gradio" in page.text
    finally:
        server.kill()
        server.communicate()


def answer_of(server, url):
    """What the app answers; None as long as it does not yet."""
    assert server.poll() is None, server.stdout.read()
    try:
        return httpx.get(url, timeout=60 * MINUTES, trust_env=False)
    except httpx.TransportError:
        return None


def downloads(words, project):
    """The script, with a server on this machine in place of the official ones."""
    server = Server({"/caltech": caltech_archive(), "/voc": voc_archive()})
    try:
        urls = {"CALTECH101_URL": server.url("/caltech"), "VOC2012_URL": server.url("/voc")}
        subprocess.run([str(project / words[0]), *words[1:]], env={**os.environ, **urls}, check=True)
    finally:
        server.shutdown()
        server.server_close()


def collects(words, project):
    """pytest finds the tests and stops there: they are being run already."""
    named = any((ROOT / word).exists() for word in words[3:])
    command = [
        *words[1:],
        *([] if named else ["tests/test_checks.py"]),
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


def lints(words, project):
    """ruff takes a moment."""
    subprocess.run([sys.executable, *words[1:]], cwd=ROOT, check=True)


def is_run_by_ci(words, project):
    """mypy takes a minute; the script that CI runs has it."""
    assert re.search(r"^make .*\btypecheck\b", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


def installs(words, project):
    """Nothing is fetched here; it is the library itself, with extras it has, or one of requirements-optional.txt."""
    assert words[1] == "install"
    lines = (line.partition("#")[0] for line in (ROOT / "requirements-optional.txt").read_text().splitlines())
    optional = {Requirement(line).name for line in lines if line.strip()}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words[2:]:
        if word == "--no-deps":
            continue
        itself = re.fullmatch(r"\.(?:\[(.*)\])?", word)
        assert set((itself[1] or "numba").split(",")) <= extras.keys() if itself else Requirement(word).name in optional


def makes(words, project):
    """What make would do, which it says itself, is run in one of these ways."""
    # What our own make was given it hands on in the environment.
    ours = ("MAKE", "MFLAGS", "ARGS")
    alone = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(["make", "-n", *words[1:]], cwd=project, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    for line in done.stdout.splitlines():
        if not line.startswith(("ls collections/", "awk ", "echo ", "rm ", "find ")):
            type_in(line.replace(".venv/bin/python", "python", 1), project)


def builds_the_site(words, project):
    """In an environment of its own, which is not made here: test_site looks at what the site is built of."""
    files = [word for word in words if word.startswith(("docs/", "requirements"))]
    assert [file for file in files if not (ROOT / file).is_file()] == []


WAYS = (
    (r"make( |$)", makes),
    (r"\./data_download\.sh (caltech|voc|all)$", downloads),
    (r"(\S+ -m venv|touch) \.venv-docs|(NO_MKDOCS_2_WARNING=1 )?\.venv-docs/bin/", builds_the_site),
    (r"pip install ", installs),
    (r"python (gradio_app/|-m gradio_app\.)app(\.py)?$", serves),
    (r"python (gradio_app/|-m gradio_app\.)create_index(\.py)? --data ('?~/Pictures'?|caltech|voc)( --sync)?$", runs),
    (r"python -m features\.extract --data '?~/Pictures'?( --sync)?$", runs),
    (r"python -m features\.evaluate collections/(demo|Pictures)$", runs),
    (r"python (gradio_app/|-m gradio_app\.)(app|create_index)\b", parses),
    (r"python -m features\.(extract|evaluate|train)", parses),  # other encoders, weights, minutes of training
    (r"python -m features\.download", parses),  # test_download runs it
    (r"python -m gradio_app\.load_test", parses),
    (r"python -m gradio_app\.api_keys\b", parses),  # test_rest_keys runs it
    (r"python -m ivfpq\.benchmark", parses),  # minutes; test_benchmark runs each study on little
    (r"python -m search ", parses),  # test_words runs it
    (r"python -m search\.explain ", parses),  # test_explainer runs it
    (r"python -m benchmarks\.explainer", parses),  # minutes; test_explainer looks at what it wrote
    (r"python -m search\.duplicates ", parses),  # test_duplicates runs it
    (r"python -m benchmarks\.duplicates", parses),  # minutes; test_benchmark_duplicates runs its parts
    (r"python -m search\.doctor ", parses),  # test_doctor runs it
    (r"python -m search\.annotate ", parses),  # test_annotate runs it
    (r"python -m benchmarks\.background", parses),  # minutes; test_benchmark_background runs it on little
    (r"python -m benchmarks\.(tags|annotations)", parses),  # minutes
    (r"python -m benchmarks\.browsing", parses),  # minutes; test_benchmark_browsing runs it on little
    (r"python -m benchmarks\.download", parses),  # minutes; test_download runs it on little
    (r"python -m benchmarks\.mixed", parses),  # minutes; test_benchmark_mixed runs its parts
    (r"python -m benchmarks\.weak", parses),  # minutes; test_strength runs it on little
    (r"python -m benchmarks\.appending", parses),  # minutes; test_append runs it on little
    (r"python -m benchmarks\.stores", parses),  # minutes; test_backends runs it on little
    (r"python -m benchmarks\.soak", parses),  # minutes; test_soak runs it for a moment
    (r"python -m benchmarks\.words", parses),  # minutes; test_benchmark_words runs its parts
    (r"python -m benchmarks\.picture_map", parses),  # minutes; test_benchmark_picture_map runs it on little
    (r"python -m benchmarks\.pictures", parses),  # minutes; test_benchmark_pictures runs it on little
    (r"python -m benchmarks\.results", parses),  # half an hour; test_results runs each part on little
    (r"python -m pytest", collects),
    (r"python -m benchmarks\.feedback", parses),  # minutes; test_benchmark_feedback runs its parts
    (r"python -m benchmarks\.text_index", parses),  # minutes; test_benchmark_text_index runs its parts
    (r"python -m ruff", lints),
    (r"python -m mypy", is_run_by_ci),
)


def type_in(command, project):
    """Run a command in the first way that fits, each only once."""
    way = next((way for pattern, way in WAYS if re.match(pattern, command)), None)
    if way is None:
        pytest.fail(f"no way is known to run {command!r}: add one to WAYS")
    if (command, project) not in DONE:
        DONE.add((command, project))
        try:
            way(shlex.split(command), project)
        except Exception as error:
            raise AssertionError(f"{command!r} does not do: {error}") from error


DONE = set()


# --- a project to type into -----------------------------------------------------------------------------------------


def jpeg(seed):
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


def archive(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def caltech_archive():
    names = [f"101_ObjectCategories/{label}/image_{i:04}.jpg" for label in ("ant", "bee") for i in range(1, 7)]
    return archive({name: jpeg(seed) for seed, name in enumerate(names)})


def voc_archive():
    files = {}
    for i in range(6):
        objects = f"<object><name>{'cat' if i % 2 else 'dog'}</name></object>"
        files[f"VOCdevkit/VOC2012/JPEGImages/2007_{i:06}.jpg"] = jpeg(100 + i)
        files[f"VOCdevkit/VOC2012/Annotations/2007_{i:06}.xml"] = f"<annotation>{objects}</annotation>".encode()
    return archive(files)


@pytest.fixture(scope="module")
def project(tmp_path_factory, demo_collection, picture_folder):
    """A folder as the project's own is, installed, with a demo collection, a picture, and pictures at home."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("Makefile", "data_download.sh", *(path.name for path in ROOT.glob("requirements*.txt"))):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv").mkdir()
    for stamp in (".installed", ".installed-dev", ".installed-bench"):  # in this order: the first is the oldest
        (folder / ".venv" / stamp).touch()
    (folder / "datasets").mkdir()
    (folder / "collections").mkdir()
    (folder / "collections" / "demo").symlink_to(demo_collection)
    (folder / "photo.jpg").write_bytes(jpeg(7))
    shutil.copytree(picture_folder, folder / "home" / "Pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HOME", str(folder / "home"))
        yield folder


# --- tests ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
class TestEveryDocument:
    def test_what_it_says_to_type_can_be_typed(self, path, project):
        rng = np.random.default_rng(0)
        names = {"x": rng.standard_normal((512, 2048)), "queries": rng.standard_normal((2, 2048))}
        for language, piece in pieces(text_of(path)):
            if language == "python":
                exec(compile(piece, str(path), "exec"), dict(names))
            else:
                type_in(piece, project)

    def test_what_it_links_to_is_there(self, path):
        targets = [target for target in LINK.findall(text_of(path)) if "://" not in target]
        assert [target for target in targets if not (path.parent / target).exists()] == []


def test_commands_are_found_wherever_they_stand():
    text = "\n".join(
        [
            "Type `make app`, or `make index",
            'ARGS="--data demo"`; `make` alone and `index.add` are no commands.',
            "```sh",
            "pip install a  # why",
            "./data_download.sh caltech && python -m x \\",
            "  --y 'a b'",
            "```",
            "```python",
            "D, I = 1, 2",
            "```",
            "```mermaid",
            "make nothing of this",
            "```",
        ]
    )
    assert list(pieces(text)) == [
        ("sh", "make app"),
        ("sh", "make index 'ARGS=--data demo'"),
        ("sh", "pip install a"),
        ("sh", "./data_download.sh caltech"),
        ("sh", "python -m x --y 'a b'"),
        ("python", "D, I = 1, 2\n"),
    ]


@pytest.mark.parametrize(
    "command",
    [
        "make coffee",
        'make index ARGS="--dataset demo"',
        "python -m features.train --data caltech",
        "python -m ivfpq.benchmark --study everything",
        "pip install a-package-of-no-use-here",
        "curl something",
    ],
)
def test_a_command_that_cannot_be_typed_is_noticed(command, project, capfd):
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        type_in(command, project)
