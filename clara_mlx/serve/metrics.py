"""Figures for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

#: What `Metrics.page` is.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The gateway's figures, in a registry of its own; labels have few values each."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"clara_{name}", what, labels, registry=registry)

        self.requests = counter("requests", "HTTP requests.", "route", "status")
        self.tokens = counter(
            "prompt_tokens", "Tokens of prompts: in, sent, cached as expected, as reported.", "what"
        )
        self.completion_tokens = counter("completion_tokens", "Tokens that came back.")
        self.compactions = counter("compactions", "Times that old turns became blocks.")
        self.memory_calls = counter("memory_calls", "Calls of the memory's tools.", "tool", "by")
        self.fallbacks = counter("fallbacks", "Answers of the fallback.", "reason")
        self.coalesced = counter("coalesced", "Requests that shared another one's answer.")
        self.broken_calls = counter("unreadable_calls", "Tool calls the server could not read.")
        self.memory_errors = counter("memory_errors", "Requests sent without the memory's help.")
        self.seconds = Histogram(
            "clara_prepare_seconds",
            "Seconds from a chat request to its being sent on.",
            registry=registry,
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2, 10),
        )
        self.running = Gauge("clara_answers_running", "Answers under way.", registry=registry)
        self.breaker = Gauge(
            "clara_breaker_open", "1 while the reasoner is left alone.", registry=registry
        )
        self.pending = Gauge(
            "clara_memory_pending", "Contents that wait for compression.", registry=registry
        )

    def page(self) -> bytes:
        """All figures in Prometheus's text format."""
        return generate_latest(self._registry)
