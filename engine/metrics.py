"""What `/metrics` says, in Prometheus' text form. Counts only; no user text."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from engine.worker import Worker


class Metrics(Collector):
    """The service's own histograms, beside counts read off the worker when asked."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._worker: Worker | None = None
        self._device = ""
        self.requests = Counter("starfill_requests", "Requests by how they ended", ["outcome"], registry=self._registry)
        self.first_token = Histogram(
            "starfill_time_to_first_token_seconds",
            "From the whole request to the first text",
            buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
            registry=self._registry,
        )
        self._registry.register(self)
        ProcessCollector(registry=self._registry)  # process_resident_memory_bytes, process_open_fds, CPU time

    def watch(self, worker: Worker, device: str) -> None:
        """Report this worker's counts from now on, and the memory of its device."""
        self._worker = worker
        self._device = device

    def page(self) -> bytes:
        """The text for `/metrics`."""
        return generate_latest(self._registry)

    def totals(self) -> dict[str, float]:
        """The counts of the worker alone, by their names without `starfill_`."""
        return {
            sample.name.removeprefix("starfill_"): sample.value
            for family in self.collect()
            for sample in family.samples
            if not sample.labels
        }

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
            ("kv_forks", "Prefixes that were copied from one KV slot to another", slots.forks),
            ("kv_evicted", "Cached sequences that lost their KV slot to another", slots.evicted),
            ("tokens_generated", "Tokens given out", counters.tokens_generated),
            ("tokens_regrown", "Tokens of text that was held back for healing", counters.tokens_regrown),
            ("tokens_guessed", "Tokens that went along in a pass as guesses", scheduler.guesswork.guessed),
            ("guesses_right", "Guesses that were what the model said", scheduler.guesswork.right),
            ("aborted", "Generations stopped by their reader", counters.aborted),
            ("refused", "Generations that found a queue full, or had to leave it", counters.refused),
            ("failed_passes", "Forward passes that raised", counters.failed),
            ("memory_exhausted", "Forward passes that found no memory on the device", counters.memory_exhausted),
        ):
            yield CounterMetricFamily(f"starfill_{name}", text, value=value)
        for name, text, value in (
            ("slots", "KV slots", len(slots)),
            ("slots_held", "KV slots that a generation is using", slots.held),
            ("slots_cached", "KV slots that hold ids and are free to be taken", slots.cached),
            ("slots_pinned", "KV slots that keep a shared head", slots.pinned),
            ("waiting", "Generations without a slot", scheduler.waiting),
            ("running", "Generations with a slot", scheduler.running),
        ):
            yield GaugeMetricFamily(f"starfill_{name}", text, value=value)
        memory = device_memory(self._device)
        if memory is not None:
            family = GaugeMetricFamily("starfill_device_memory_bytes", "Memory of the GPU", labels=["kind"])
            for kind, size in memory.items():
                family.add_metric([kind], size)
            yield family


def device_memory(device: str) -> dict[str, int] | None:
    """Bytes of a GPU: `used` by all, `reserved` by this process, `total`. None for a CPU, whose memory is the process'.

    May wait for the driver: not for the event loop.
    """
    torch = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda"):
        return None
    free, total = torch.cuda.mem_get_info(device)
    return {"used": total - free, "reserved": torch.cuda.memory_reserved(device), "total": total}
