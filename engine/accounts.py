"""What each request cost and why it ended: a bounded ring for `starfill top`. Counts and times only; no user text."""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

MAX_ACCOUNTS = 256
"""Requests that are remembered."""

MAX_REASON = 32
"""Characters of a client's word for why it showed nothing."""

State = Literal["queued", "prefill", "decode", "served", "aborted", "failed", "refused"]


class Running(Protocol):
    """What an account reads off a generation while it lives."""

    @property
    def prompt(self) -> Sequence[int]:
        """Its token ids."""
        ...

    @property
    def slot(self) -> int | None:
        """Its KV slot, None while it waits."""
        ...

    @property
    def reused(self) -> int:
        """Tokens that the slot held already."""
        ...

    @property
    def computed(self) -> int:
        """Tokens whose keys and values are there, those reused included."""
        ...

    @property
    def generated(self) -> Sequence[int]:
        """Ids drawn so far."""
        ...

    @property
    def discarded(self) -> int:
        """Tokens whose keys and values had to go for it."""
        ...

    @property
    def admitted_at(self) -> float | None:
        """When it got its KV slot, by the ledger's clock."""
        ...


@dataclass(slots=True)
class Account:
    """One request. Times are seconds; `document` tells documents apart and nothing else about them."""

    id: int
    document: str
    began: float
    state: State = "queued"
    prompt: int = 0
    reused: int = 0
    computed: int = 0
    discarded: int = 0
    generated: int = 0
    queued: float | None = None
    first: float | None = None
    total: float | None = None
    ended: str | None = None
    """The finish reason, or the kind of error."""
    shown: str | None = None
    """Why the client showed nothing, in its word, if it told."""


class Ledger:
    """The newest accounts. One thread's: the event loop's."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._salt = os.urandom(16)
        self._entries: deque[Entry] = deque(maxlen=MAX_ACCOUNTS)

    def open(self, request: int, document: str | None, generations: Sequence[Running]) -> Entry:
        """Begin the account of a request that was let in."""
        mark = hashlib.blake2b((document or "").encode("utf-8", "replace"), key=self._salt, digest_size=3).hexdigest()
        entry = Entry(Account(request, mark if document else "-", time.time()), generations, self._clock)
        self._entries.append(entry)
        return entry

    def shown(self, request: int, reason: str) -> bool:
        """A client tells why it showed nothing -> whether that request is remembered."""
        word = "".join(sign for sign in reason[:MAX_REASON] if sign.isascii() and (sign.isalnum() or sign in "_-"))
        for entry in reversed(self._entries):
            if entry.account.id == request:
                entry.account.shown = word
                return True
        return False

    def page(self) -> list[dict[str, Any]]:
        """All accounts, newest first."""
        return [asdict(entry.now()) for entry in reversed(self._entries)]


class Entry:
    """An account while its request lives; afterwards nothing of the request is kept but the account."""

    def __init__(self, account: Account, generations: Sequence[Running], clock: Callable[[], float]) -> None:
        self.account = account
        self._generations: Sequence[Running] = generations
        self._clock = clock
        self._began = clock()

    def progress(self) -> None:
        """A piece of the answer came."""
        if self.account.first is None:
            self.account.first = self._clock() - self._began

    def close(self, state: State, ended: str | None) -> None:
        """The request is over."""
        self._look()
        account = self.account
        account.total = self._clock() - self._began
        account.state = state
        account.ended = ended
        self._generations = ()

    def now(self) -> Account:
        """The account as it stands."""
        if self._generations:
            self._look()
            self.account.total = self._clock() - self._began
        return self.account

    def _look(self) -> None:
        account, running = self.account, self._generations
        if not running:
            return
        first = running[0]
        account.prompt = len(first.prompt)
        account.reused = first.reused
        account.computed = max(0, min(first.computed, len(first.prompt)) - first.reused)
        account.discarded = sum(each.discarded for each in running)
        if first.admitted_at is not None:
            account.queued = max(0.0, first.admitted_at - self._began)
        account.generated = sum(len(each.generated) for each in running)
        if account.generated:
            account.state = "decode"
        elif account.state == "prefill" or first.slot is not None:
            account.state = "prefill"
