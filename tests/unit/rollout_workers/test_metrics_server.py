"""An engine's metrics keep their colons, whatever format Prometheus would rather have."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY, Counter

from rayzero.rollout_workers.metrics_server import serve_metrics
from tests.system import LOOPBACKS


@pytest.fixture
def counted() -> Iterator[None]:
    counter = Counter("vllm:generation_tokens", "Tokens", ["engine"])
    counter.labels(engine="0").inc(7)
    yield
    REGISTRY.unregister(counter)


@pytest.mark.parametrize("host", LOOPBACKS)
@pytest.mark.parametrize("accept", ["application/openmetrics-text;version=1.0.0", "text/plain;version=0.0.4", "*/*"])
def test_names_are_those_of_vllms_dashboards(counted: None, accept: str, host: str) -> None:
    request = urllib.request.Request(f"http://{serve_metrics(host)}/metrics", headers={"accept": accept})
    with urllib.request.urlopen(request, timeout=10) as response:
        assert 'vllm:generation_tokens_total{engine="0"} 7.0' in response.read().decode()
