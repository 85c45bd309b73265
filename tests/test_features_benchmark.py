"""The benchmark of the encoders measures what it says, and says what it could not measure."""

import pytest
from PIL import Image

from features import EncoderError
from features.benchmark import benchmark
from features.datasets import ImageFolder
from features.extract import main

pytestmark = pytest.mark.slow


@pytest.fixture
def photographs(tmp_path):
    for number in range(5):
        picture = Image.effect_mandelbrot((300 + number, 200), (-3, -2.5, 2, 2.5), 20 + 10 * number)
        picture.convert("RGB").save(tmp_path / f"{number}.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    return ImageFolder(tmp_path)


def rows(text: str) -> list[dict[str, str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_both_ways_are_timed_and_compared(photographs, capsys):
    arguments = ["--benchmark", "--data", str(photographs.root), "--encoder", "efficientnet-lite0", "--limit", "6"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    (row,) = rows(out)
    assert (row["encoder"], row["runtime"]) == ("efficientnet-lite0", "openvino float32")
    plain, ours = float(row["plain ms/image"]), float(row["ours ms/image"])
    assert float(row["ratio"]) == pytest.approx(plain / ours, rel=0.05)
    assert float(row["ours images/s"]) == pytest.approx(1000 / ours, rel=0.05)
    assert float(row["cosine"]) > 0.999
    assert float(row["from pixels, ms"]) > 0
    assert "5 images" in out  # the broken one is left out
    assert "torch 2." in out
    assert "threads" in out


def test_what_is_not_here_is_named(photographs, monkeypatch):
    def missing(name, **options):
        raise EncoderError(f"pip install {name}")

    monkeypatch.setattr("features.benchmark.create_encoder", missing)
    text = benchmark(photographs.items, ["efficientnet-lite2"])
    assert rows(text) == []
    assert "efficientnet-lite2 was not measured: pip install efficientnet-lite2" in text


def test_resnet50_without_its_weights_is_measured_with_others(photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    text = benchmark(photographs.items, ["resnet50"], limit=2)
    assert rows(text)[0]["encoder"] == "resnet50"
    assert "resnet50 with weights made by a seed" in text
