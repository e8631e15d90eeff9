"""The files by which the service is deployed say what the service means."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from service.node.config import Settings, unknown_settings

ROOT = Path(__file__).resolve().parents[2]
LONGEST_STOP = 53
"""Seconds, with a ZAP_SHUTDOWN_GRACE of 30 (docs/open-ends.md)."""


def documents(name: str) -> list[Any]:
    return list(YAML(typ="safe").load_all(ROOT / name))


@pytest.fixture(scope="module")
def compose() -> Any:
    (document,) = documents("docker-compose.yml")
    return document["services"]["zap-service"]


@pytest.fixture(scope="module")
def pod() -> Any:
    deployment, _, _ = documents("deploy/kubernetes.yml")
    return deployment["spec"]["template"]["spec"]


def test_what_they_set_are_settings(compose: Any, pod: Any) -> None:
    names = [*compose["environment"], *(one["name"] for one in pod["containers"][0]["env"])]
    assert len(names) > 5
    assert unknown_settings(names) == []


def test_a_stop_has_the_time_it_takes(compose: Any, pod: Any) -> None:
    assert Settings.model_fields["shutdown_grace"].default == 30
    assert int(compose["stop_grace_period"].removesuffix("s")) > LONGEST_STOP
    assert pod["terminationGracePeriodSeconds"] > LONGEST_STOP


def test_kubernetes_finds_what_the_image_serves(pod: Any) -> None:
    _, service, _ = documents("deploy/kubernetes.yml")
    container = pod["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 50051, "nodes": 50052, "http": 9464}
    assert f"EXPOSE {' '.join(map(str, ports.values()))}" in (ROOT / "Dockerfile").read_text()
    assert service["spec"]["ports"][0]["targetPort"] in ports
    assert {container[probe]["grpc"]["port"] for probe in ("startupProbe", "readinessProbe")} == {ports["grpc"]}
    assert container["livenessProbe"]["httpGet"]["port"] in ports


def test_neither_needs_a_disk_or_a_right(compose: Any, pod: Any) -> None:
    assert (compose["read_only"], compose["cap_drop"], "volumes" in compose) == (True, ["ALL"], False)
    security = pod["containers"][0]["securityContext"]
    assert security == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["securityContext"]["runAsUser"] == 10001
    assert "volumes" not in pod
