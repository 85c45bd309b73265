"""What several test files share: a real collection, made once a session by the real command."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from PIL import Image

# What takes long to make is kept in the user's cache folder, even where a test moves the home.
os.environ.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")  # a busy machine is no failure


LONG = (
    "test_browser",
    "test_encoders",
    "test_browser_explain",
    "test_create_index",
    "index_search",
    "runtime_experiments",
    "test_browser_address",
    "test_instructions",
    "test_browser_words",
    "test_browser_said",
    "test_train",
    "test_jobs",
    "test_atomic",
    "test_benchmark",
    "test_app",
    "test_captioner",
    "test_jit",
    "test_rq",
)
"""Files and notebooks that take longest. Where processes share the tests out, they are taken first, so that none is
left last; the second needs no demo collection, which takes the first a while to make."""


SLOW = frozenset(Path(__file__).with_name("slow.txt").read_text(encoding="utf-8").splitlines())
"""Tests measured to take long, by `tests/processor_times.py`."""


def pytest_collection(session):
    """Import Gradio quickly in processes that share the tests out: each of them reads all tests."""
    if hasattr(session.config, "workerinput"):
        import gradio_app.quick_start  # noqa: F401


@pytest.hookimpl(tryfirst=True)  # before the tests are chosen by their marks
def pytest_collection_modifyitems(config, items):
    """Mark as slow whatever takes long, or waits for the making of the real collection, or for a training."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())  # a notebook has none
        if not {"demo_collection", "trained"}.isdisjoint(fixtures) or item.nodeid.partition("[")[0] in SLOW:
            item.add_marker("slow")
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(autouse=True)
def folder_of_uploads():
    """The command of the page names one in the environment, where no other test is to find it."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    yield
    os.environ.pop("GRADIO_TEMP_DIR", None)
    if before is not None:
        os.environ["GRADIO_TEMP_DIR"] = before


@pytest.fixture(scope="session")
def testdata():
    """The folder of real data that IVFPQ_TEST_DATA names; only tests marked `realdata` ask for it."""
    folder = os.environ.get("IVFPQ_TEST_DATA")
    if not folder:
        pytest.skip("IVFPQ_TEST_DATA names no folder with the real Caltech101")
    return Path(folder)


@pytest.fixture(scope="session")
def demo_made(tmp_path_factory):
    """A folder with the demo dataset and its collection, made once for all processes that share the tests out.

    IVFPQ_TEST_DEMO names one where these sources have just made it, as CI does.
    """
    if made := os.environ.get("IVFPQ_TEST_DEMO"):
        return Path(made).resolve(strict=True)
    from features.datasets import open_dataset
    from gradio_app.create_index import main

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "demo"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            making = tmp_path_factory.mktemp("demo")
            open_dataset("demo", datasets_dir=making / "datasets")
            making.rename(folder)
            before = Path.cwd()
            os.chdir(folder)
            try:
                assert main(["--data", "demo", "--encoder", "efficientnet-lite0", "--limit", "340"]) == 0
            finally:
                os.chdir(before)
    return folder


@pytest.fixture(scope="session")
def workspace(demo_made, tmp_path_factory):
    """A folder with `datasets/demo` in it, as the project's root would have; run commands from there."""
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "datasets").symlink_to(demo_made / "datasets")
    return folder


@pytest.fixture(scope="session")
def demo_collection(demo_made, workspace):
    """`collections/demo` with about 340 of the demo's views and both engines' IVF100,PQ8."""
    return shutil.copytree(demo_made / "collections", workspace / "collections") / "demo"


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory):
    """Twelve small pictures in two labelled subfolders, and one file that is no picture for all its name."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for label, hue in (("warm", (200, 60, 20)), ("cold", (20, 60, 200))):
        (folder / label).mkdir()
        for i in range(6):
            noise = rng.integers(-20, 20, (48, 64, 3))
            pixels = np.clip(np.array(hue) + noise + 5 * i, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i}.png")
    (folder / "warm" / "broken.jpg").write_bytes(b"not a picture")
    return folder
