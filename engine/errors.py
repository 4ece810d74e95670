"""Every error that the engine raises on purpose: a small closed family.

Each carries a sentence for a person that names the file, field or setting and the remedy. None carries user text.
"""

from __future__ import annotations


class StarfillError(Exception):
    """Base of the family; `str(error)` is ready to be shown."""


class RequestError(StarfillError):
    """A request that cannot be served as sent: HTTP 4xx in the form of OpenAI's error object."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status
        self.kind = kind

    def body(self) -> dict[str, dict[str, str | None]]:
        """The error object of the wire: `{"error": {"message", "type", "param", "code"}}`."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


class Overloaded(RequestError):
    """A queue is full: HTTP 429. The remedy is to wait `retry_after` seconds; nothing was generated."""

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message, code="overloaded", status=429, kind="overloaded_error")
        self.retry_after = retry_after


class EngineFault(StarfillError):
    """A forward pass failed; the requests in it end with this, the engine goes on."""


class DeviceMemoryExhausted(EngineFault):
    """A forward pass found no memory on the device; nothing that was computed before is lost."""


class CheckpointError(StarfillError):
    """A model directory that is missing, broken or not of a supported form; names the file and the reason."""


class PickleRefused(CheckpointError):
    """A pickled checkpoint that was read to the point where it is wrong: it will never be converted, here or elsewhere."""


class DeviceError(StarfillError):
    """A device, dtype or memory setting that this machine cannot meet."""


class EngineUnavailable(StarfillError):
    """No engine answers: it could not be started, it died, or the connection broke in mid-answer."""


class EngineAbsent(EngineUnavailable):
    """Nobody listens there, or somebody about to leave: nothing was computed, so the request may be sent again."""


class EngineLoading(EngineUnavailable):
    """The engine is there but its model is not loaded yet."""


class EngineRefused(EngineUnavailable):
    """The engine answered that it cannot: a forward pass failed, or there is no memory. It lives on."""


class EngineSilent(EngineUnavailable):
    """Somebody listens there but says nothing: stopped, hanging, or very busy."""


class EngineHung(EngineUnavailable):
    """The engine said nothing for longer than it may; it is ended and another one started."""


class EndpointTaken(StarfillError):
    """Another process listens where this engine was to."""


class HubError(StarfillError):
    """A model that cannot be downloaded: no access, no network, a wrong sum, no room. What was here is unchanged."""
