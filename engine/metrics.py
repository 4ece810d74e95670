"""What `/metrics` says, in Prometheus' text form. Counts only; no user text."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from engine.worker import Worker


class Metrics(Collector):
    """The service's own histograms, beside counts read off the worker when asked."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._worker: Worker | None = None
        self.requests = Counter("starfill_requests", "Requests by how they ended", ["outcome"], registry=self._registry)
        self.first_token = Histogram(
            "starfill_time_to_first_token_seconds",
            "From the whole request to the first text",
            buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
            registry=self._registry,
        )
        self._registry.register(self)

    def watch(self, worker: Worker) -> None:
        """Report this worker's counts from now on."""
        self._worker = worker

    def page(self) -> bytes:
        """The text for `/metrics`."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        if self._worker is None:
            return
        counters, scheduler = self._worker.counters, self._worker.scheduler
        slots = scheduler.slots
        for name, text, value in (
            ("forward_calls", "Forward passes", counters.forward_calls),
            ("prompt_tokens_computed", "Prompt tokens that went through the model", scheduler.prompt_tokens_computed),
            ("prompt_tokens_cached", "Prompt tokens found in a KV slot", scheduler.prompt_tokens_cached),
            ("kv_tokens_thrown_away", "Tokens whose keys and values were overwritten", slots.thrown_away),
            ("tokens_generated", "Tokens given out", counters.tokens_generated),
            ("aborted", "Generations stopped by their reader", counters.aborted),
            ("failed_passes", "Forward passes that raised", counters.failed),
        ):
            yield CounterMetricFamily(f"starfill_{name}", text, value=value)
        for name, text, value in (
            ("slots", "KV slots", len(slots)),
            ("slots_held", "KV slots that a generation is using", slots.held),
            ("slots_cached", "KV slots that hold ids and are free to be taken", slots.cached),
            ("waiting", "Generations without a slot", scheduler.waiting),
            ("running", "Generations with a slot", scheduler.running),
        ):
            yield GaugeMetricFamily(f"starfill_{name}", text, value=value)
