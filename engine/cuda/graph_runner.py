"""Short passes by captured graphs; everything else by the runner that it stands before.

A pass runs on fixed buffers, operation by operation until its graph is there: the same launches, so the same bits.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from engine.cuda.ahead import Ahead
from engine.cuda.buckets import Bucket, Drawn, bucket_of, drawn_of, expected, is_plain
from engine.cuda.graphs import Device, Outputs
from engine.cuda.places import Place
from engine.overflow import sound
from engine.runner import TorchRunner, make_copies, told_of_memory
from engine.step import Sample, Step

log = logging.getLogger(__name__)

_USES = 3
"""Passes of one kind after which its graph is captured though somebody waits: it will be needed again."""

Read = Callable[[], tuple[list[int], list[float]]]

Pass = Callable[[Place, Tensor], Outputs]
"""What a pass does with its place and the KV memory; see `passes.once`."""


@dataclass(slots=True)
class _Recorded:
    replay: Callable[[], None]
    outputs: Outputs


class GraphRunner:
    """See `step.Runner`. `replays`, `launched` count short passes with a graph and without one."""

    def __init__(self, eager: TorchRunner, work: Pass, vocabulary: int, device: Device) -> None:
        self._eager = eager
        self._work = work
        self._vocabulary = vocabulary
        self._device = device
        self._places: dict[Bucket, Place] = {}
        self._recorded: dict[Bucket, _Recorded] = {}
        self._uses: Counter[Bucket] = Counter()
        self._records = True
        self._wanted = deque(expected(eager.window))
        self._ahead = Ahead()
        self._pending: tuple[Bucket, Read] | None = None
        self.replays = self.launched = 0

    @property
    def slots(self) -> int:
        """KV slots there are."""
        return self._eager.slots

    @property
    def window(self) -> int:
        """Positions in one slot."""
        return self._eager.window

    @property
    def free_rows(self) -> int:
        """See `step.Runner`."""
        return self._eager.free_rows

    @property
    def ahead(self) -> Ahead:
        """How well the step after the last one is foreseen."""
        return self._ahead

    @property
    def captured(self) -> int:
        """Kinds of passes that have a graph."""
        return len(self._recorded)

    def keep_slots(self, slots: Sequence[int], lengths: Sequence[int]) -> None:
        """See `step.Runner`. Graphs know where the memory was, so they go with it, once nothing runs any more."""
        try:
            self._eager.keep_slots(slots, lengths)
        finally:
            self._forget_ahead()
            self._recorded.clear()
            self._places.clear()
            self._uses.clear()
            self._wanted = deque(expected(self.window) if self._records else ())

    def run(self, step: Step) -> list[Sample]:
        """See `step.Runner`."""
        bucket = bucket_of(step, self.window)
        if bucket is None:
            self._forget_ahead()
            return self._eager.run(step)
        with told_of_memory(self._eager.device, len(step.ids)):
            return self._run(step, bucket)

    def idle(self) -> bool:
        """Capture the graph that is likeliest to be asked for next -> whether there may be more to do."""
        while self._wanted:
            bucket = self._wanted.popleft()
            if bucket not in self._recorded:
                self._forget_ahead()  # it is not waited for, and its place may be this one
                self._record(bucket)
                return True
        return False

    @torch.inference_mode()
    def _run(self, step: Step, bucket: Bucket) -> list[Sample]:
        continued = self._ahead.continues(step)
        pending, self._pending = self._pending, None
        answers = drawn_of(step)
        if continued and pending is not None and pending[0] == bucket:
            read = pending[1]
            self._ahead.used += 1
        else:
            read = self._begin(step, bucket, answers)
        if bucket.follows and bucket in self._recorded and self._ahead.worth_it(continued, bucket.reach):
            self._ahead.begun += 1
            self._pending = (bucket, self._launch(bucket))
        # Drawn answers come in the order of the draws, others in that of the rows.
        at = range(len(answers)) if bucket.drawn else [answer.row for answer in answers]
        try:
            ids, logprobs = read()
            samples = sound([Sample(ids[n], logprobs[n]) for n in at], self._eager.kv.dtype)
        except BaseException:
            self._forget_ahead()  # what was begun goes on from what was not answered
            raise
        if is_plain(step):
            self._ahead.answered(step, [sample.id for sample in samples])
        else:
            self._ahead.forget()
        return samples

    def _forget_ahead(self) -> None:
        """What was begun ahead is of no use any more, whatever comes next."""
        self._pending = None
        self._ahead.forget()

    def _begin(self, step: Step, bucket: Bucket, answers: Sequence[Drawn]) -> Read:
        """Fill the bucket's place and start its pass."""
        make_copies(self._eager.kv, step.copies)
        self._uses[bucket] += 1
        if self._records and bucket not in self._recorded:
            if self._uses[bucket] == _USES:
                self._record(bucket)
            elif bucket not in self._wanted:
                self._wanted.appendleft(bucket)
        allowed = [each for each, span in zip(step.allowed, step.spans, strict=True) for _ in range(span.length)]
        self._place(bucket).fill(step.spans, step.ids, answers, allowed)
        return self._launch(bucket)

    def _launch(self, bucket: Bucket) -> Read:
        """One pass over what the bucket's place holds, and its answers on their way."""
        recorded, place = self._recorded.get(bucket), self._place(bucket)
        if recorded is None:
            self.launched += 1
            return place.fetch(self._work(place, self._eager.kv))
        self.replays += 1
        recorded.replay()
        return place.fetch(recorded.outputs)

    @torch.inference_mode()
    def _record(self, bucket: Bucket) -> None:
        """Capture a bucket's pass over an empty step, which writes nothing that anybody relies on."""
        place = self._place(bucket)
        place.fill((), (), (), ())
        try:
            replay, outputs = self._device.record(partial(self._work, place, self._eager.kv))
        except RuntimeError as error:
            # After a capture that could not be ended torch makes no other: all passes without a graph are launched.
            self._records = False
            self._wanted.clear()
            log.warning(
                "no graph for passes of %d rows, and no more graphs: %s", bucket.rows, str(error).partition("\n")[0]
            )
            return
        self._recorded[bucket] = _Recorded(replay, outputs)

    def _place(self, bucket: Bucket) -> Place:
        if bucket not in self._places:
            self._places[bucket] = Place(bucket, self._vocabulary, self._device)
        return self._places[bucket]
