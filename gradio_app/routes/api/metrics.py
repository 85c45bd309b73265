"""What Prometheus reads: how many requests, how long they took, and how long each stage of a search."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from gradio_app.routes.api.models import Timings

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
# From the dot product of one query with a small index to a picture from a slow server, in seconds.
_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0)


class Metrics:
    """The counts of one server. Safe to use from many threads."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "ris_requests", "Requests by route and status", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "ris_request_seconds", "From request to answer", ("route",), registry=self._registry, buckets=_BUCKETS
        )
        self._stages = Histogram(
            "ris_stage_seconds", "Each stage of a search", ("stage",), registry=self._registry, buckets=_BUCKETS
        )
        for stage in Timings.model_fields:  # there from the beginning, so that a rate can be computed
            self._stages.labels(stage)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; of an unknown address the route is "none", as there is no end of these."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def search(self, timings: Timings) -> None:
        """Count the stages of a search that took any time."""
        for stage, milliseconds in timings:
            if milliseconds > 0:
                self._stages.labels(stage).observe(milliseconds / 1e3)

    def written(self) -> bytes:
        return generate_latest(self._registry)
