"""Prometheus metrics of the server."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from vop.server.clip_cache import ClipCache
from vop.server.libraries import Libraries
from vop.server.rate_limiter import ConcurrencyLimiter, UploadLimiter

_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ENCODE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_METHODS = frozenset({"GET", "HEAD", "POST"})


class Metrics:
    """Counters of the server's work, in their own registry."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        request = ("route", "method")
        self._requests = Counter(
            "vop_http_requests", "Requests, by route.", (*request, "status"), registry=self._registry
        )
        self._request_seconds = Histogram(
            "vop_http_request_duration_seconds",
            "Time until the response began, by route.",
            request,
            buckets=_REQUEST_SECONDS,
            registry=self._registry,
        )
        self._searches = Counter(
            "vop_searches", "Searches, by view and by kind of query.", ("view", "query"), registry=self._registry
        )
        self._encoded = Counter(
            "vop_encoded_queries", "Queries that a model has encoded.", ("kind",), registry=self._registry
        )
        self._encode_seconds = Histogram(
            "vop_encode_duration_seconds",
            "Time of a forward pass, which may encode several queries.",
            ("kind",),
            buckets=_ENCODE_SECONDS,
            registry=self._registry,
        )

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts a request. `route` is the path's template, which keeps the number of label values small."""
        method = method if method in _METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._request_seconds.labels(route, method).observe(seconds)

    def search(self, view: str, query: str) -> None:
        """Counts a search by "sentences", by a "segment" or by a "file"."""
        self._searches.labels(view, query).inc()

    def encoded(self, kind: str, number: int, seconds: float) -> None:
        """Counts a forward pass; see `vop.server.encoding.OnEncoded`."""
        self._encoded.labels(kind).inc(number)
        self._encode_seconds.labels(kind).observe(seconds)

    def watch(
        self, libraries: Libraries, requests: ConcurrencyLimiter, uploads: UploadLimiter, clips: ClipCache
    ) -> None:
        """Add metrics whose values are read from these objects at each scrape."""
        self._registry.register(_Figures(libraries, requests, uploads, clips))

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format. Reads the libraries, which may be slow."""
        return generate_latest(self._registry)


class _Figures(Collector):
    def __init__(
        self, libraries: Libraries, requests: ConcurrencyLimiter, uploads: UploadLimiter, clips: ClipCache
    ) -> None:
        self._libraries, self._requests, self._uploads, self._clips = libraries, requests, uploads, clips

    def collect(self) -> Iterator[Metric]:
        yield _gauge("vop_requests_in_progress", "Requests in progress or waiting.", self._requests.active)
        yield _gauge("vop_requests_limit", "Limit of requests in progress or waiting.", self._requests.limit)
        yield _gauge("vop_uploads_in_progress", "Files that are being received.", self._uploads.active)
        clips = CounterMetricFamily("vop_clip_cache_requests", "Requests for clips.", labels=("result",))
        clips.add_metric(["hit"], self._clips.hits)
        clips.add_metric(["miss"], self._clips.misses)
        yield clips
        yield _gauge("vop_clip_cache_bytes", "Size of the clips in the cache.", self._clips.total_bytes)
        yield from self._library_figures()

    def _library_figures(self) -> Iterator[Metric]:
        readable = GaugeMetricFamily("vop_library_readable", "1 if the library can be read.", labels=("library",))
        figures = {
            "segments": GaugeMetricFamily("vop_library_segments", "Segments in the library.", labels=("library",)),
            "videos": GaugeMetricFamily("vop_library_videos", "Videos in the library.", labels=("library",)),
            "failures": GaugeMetricFamily("vop_library_failures", "Files not indexed completely.", labels=("library",)),
        }
        for name, served in self._libraries.by_name.items():
            status = served.status()
            readable.add_metric([name], status.error is None)
            if status.error is None:
                for figure, family in figures.items():
                    family.add_metric([name], getattr(status.library, figure))
        yield readable
        yield from figures.values()


def _gauge(name: str, description: str, value: float) -> Metric:
    return GaugeMetricFamily(name, description, value=value)
