"""A little of the use that `benchmarks.soak` makes of a collection: nothing is lost when its server is killed.

IVFPQ_SOAK_KILLS says how often it is; once if it does not.
"""

import os
import sys
from pathlib import Path

from rest_collection import colours

from benchmarks.soak import NAME, serve, soak, told_memory

SERVER = """
import sys
from pathlib import Path
import uvicorn
from meanings import ColourEncoder, WordSentences
from rest_collection import sync_here
import search.spaces
import gradio_app.routes.api.service as service
from features.encoders import share_encoder
from gradio_app.library import Library
from gradio_app.routes.api.requests import RateLimit
from search.engine import SearchEngine
search.spaces.sentence_encoder = WordSentences
share_encoder(ColourEncoder())
folder, port = Path(sys.argv[1]), int(sys.argv[2])
library = Library([SearchEngine.open(folder / "soak")])
service.sync_by = lambda jobs: sync_here(library)
app = service.create_api(library, folder=folder, limit=RateLimit(0))
uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")
"""


def test_nothing_is_lost_in_a_little_use(tmp_path, monkeypatch):
    colours(tmp_path, monkeypatch, name=NAME, is_own=True)
    places = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

    def start(folder):
        return serve([sys.executable, "-c", SERVER, str(folder), "{port}"], {"PYTHONPATH": os.pathsep.join(places)})

    kills = int(os.environ.get("IVFPQ_SOAK_KILLS", "1"))
    soaked = soak(tmp_path / "collections", start, enough=lambda done: done["kills"] >= kills, actions=12)
    assert soaked.faults == []
    assert soaked.done["kills"] == kills
    assert soaked.done.total() > 2 * kills


def test_memory_is_told_of_servers_that_lived_short_and_long():
    assert told_memory([]) == []
    lives = [(1, 3.0), (90, 9.0), (2, 5.0), (50, 7.0), (91, 9.0), (40, 7.0)]
    assert told_memory(lives) == [
        "memory after 1 to 2 actions: 4 MiB (median of 2 servers)",
        "memory after 40 to 50 actions: 7 MiB (median of 2 servers)",
        "memory after 90 to 91 actions: 9 MiB (median of 2 servers)",
    ]
