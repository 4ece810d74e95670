"""The settings that are in force, and all that goes by them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lsp_server.attribution.attributor import Attributor
from lsp_server.calibration import LEAST_IN_PROSE
from lsp_server.completer import Completer
from lsp_server.features.acceptance import Acceptance
from lsp_server.features.confidence import Confidence
from lsp_server.features.neighbours import Neighbours
from lsp_server.features.status import Status
from lsp_server.privacy.admission import Admission
from lsp_server.settings import LiveSettings, names_another_engine
from lsp_server.state.policy import Policy


class InForce:
    """One session's. Nothing goes by them before `settle` is called for the first time."""

    def __init__(
        self,
        settings: LiveSettings,
        completer: Completer,
        admission: Admission,
        status: Status,
        acceptance: Acceptance,
        confidence: Confidence,
        neighbours: Neighbours,
        attributor: Attributor,
        change_engine: Callable[[], None],
    ) -> None:
        """`change_engine` is called when the settings name another engine than before."""
        self._settings = settings
        self._completer = completer
        self._admission = admission
        self._status = status
        self._acceptance = acceptance
        self._confidence = confidence
        self._neighbours = neighbours
        self._attributor = attributor
        self._change_engine = change_engine
        self._settled = settings.current

    def settle(self, roots: Iterable[str] | None = None) -> None:
        """Settings changed, or the workspace's folders did: let everything go by them."""
        settings, roots = self._settings.current, None if roots is None else tuple(roots)
        self._admission.configure(settings, roots)
        self._neighbours.configure(settings.context, roots)
        self._attributor.configure(settings)
        model = f"{settings.engine} {settings.model} {settings.dtype}"
        self._acceptance.enabled = settings.statistics
        self._confidence.configure(enabled=settings.statistics, model=model)
        self._completer.configure(
            max_tokens=settings.max_tokens,
            policy=Policy(speculate=settings.speculate),
            scope=model,
        )
        self._require()
        before, self._settled = self._settled, settings
        if names_another_engine(before, settings):
            self._change_engine()
        self._status.settled()
        self.tell_notices()

    def renew(self) -> None:
        """Before a completion: let it go by the user's own file as it is now, and by what was learned of confidence."""
        self.refresh()
        self._require()
        self.tell_notices()

    def refresh(self) -> None:
        """Let everything go by the user's own file, should it have changed."""
        if self._settings.refresh():
            self.settle()

    def tell_notices(self) -> None:
        """Tell the user what is wrong with their settings, once each."""
        for notice in self._settings.take_notices():
            self._status.tell(f"starfill: {notice.text}", error=False)

    def _require(self) -> None:
        wanted = self._settings.current.min_confidence
        if wanted == "auto":
            self._completer.require(self._confidence.least(), LEAST_IN_PROSE)
        else:
            self._completer.require(wanted, wanted)
