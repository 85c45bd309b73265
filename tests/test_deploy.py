"""What can be checked of deploy/ without running containers."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"


def test_every_service_is_pinned_watched_and_keeps_its_data():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    volumes = []
    for name, service in compose["services"].items():
        assert re.search(r":[vR]?[\w.-]*\d[\w.-]*$", service["image"]), name
        assert name == "app" or service["healthcheck"]["test"], name
        assert service["restart"] == "unless-stopped"
        volumes += [volume.partition(":")[0] for volume in service["volumes"]]
        for needed, how in service.get("depends_on", {}).items():
            assert needed in compose["services"]
            assert how == {"condition": "service_healthy"}
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert compose["services"]["app"]["read_only"]
    assert {volume for volume in volumes if not volume.startswith("$")} == set(compose["volumes"])


def test_the_image_has_what_the_application_needs():
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    assert "USER 10001" in lines
    assert any(line.startswith("HEALTHCHECK") for line in lines)
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    copied = {word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]}
    for source in copied:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored
    optional = [
        line.partition("#")[0].strip() for line in (ROOT / "requirements-optional.txt").read_text().splitlines()
    ]
    pinned = [
        line for line in (DEPLOY / "requirements-databases.txt").read_text().splitlines() if not line.startswith("#")
    ]
    assert set(pinned) <= set(optional)
