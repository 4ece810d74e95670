"""One action from the command to the reply: admitted, asked, streamed, and shown as an edit to accept or as text."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from lsprotocol import types

from engine.instruct import Form
from lsp_server.actions.answers import as_code, as_text
from lsp_server.actions.asking import Asker, Said
from lsp_server.actions.continuing import continued
from lsp_server.actions.edits import EditingClient, workspace_edit
from lsp_server.actions.following import Model
from lsp_server.actions.menu import MenuClient, entries
from lsp_server.actions.prompts import lay_out
from lsp_server.actions.runs import Answer, Run
from lsp_server.actions.selection import Selection, select
from lsp_server.actions.tasks import Task, instruction_for
from lsp_server.actions.wanted import Wanted
from lsp_server.attribution.attributor import Attributor
from lsp_server.attribution.origin import sentence
from lsp_server.engines import Engine
from lsp_server.features.documents import Document, Documents
from lsp_server.features.status import Progress, Status
from lsp_server.messages import ANSWER
from lsp_server.privacy.admission import Admission
from lsp_server.privacy.uris import local_path
from lsp_server.reasons import Reason
from lsp_server.rules.languages import Language, by_id
from lsp_server.settings import LiveSettings
from lsp_server.state.streams import reason_of

_PATIENCE = 0.5
"""Seconds for which a menu that somebody opened waits for the engine to say which model it has. What is not known by then is
offered: whoever chooses it hears more.
"""

_SILENT = frozenset({Reason.CANCELLED, Reason.SUPERSEDED})
"""Reasons that need no words: whoever asked knows."""


class Editor(Protocol):
    """What an action needs of the editor."""

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification."""
        ...

    def inform(self, text: str) -> None:
        """Show a text."""
        ...

    async def apply(self, edit: types.WorkspaceEdit, label: str) -> bool:
        """Have an edit applied -> whether it was."""
        ...

    def working(self, title: str, token: str | int | None, cancel: Callable[[], None]) -> Progress | None:
        """A progress display with a way to cancel, if the editor has such; under its own token, if it named one."""
        ...


class ActionDesk:
    """One session's."""

    def __init__(
        self,
        editor: Editor,
        settings: LiveSettings,
        documents: Documents,
        admission: Admission,
        status: Status,
        attributor: Attributor,
        engine: Callable[[], Engine],
        refresh: Callable[[], None],
        client: Mapping[str, Any],
    ) -> None:
        """`refresh` is called before settings are looked at; `client` are the raw params of `initialize`."""
        self._editor = editor
        self._settings = settings
        self._documents = documents
        self._admission = admission
        self._status = status
        self._attributor = attributor
        self._engine = engine
        self._refresh = refresh
        self._menu = MenuClient.of(client)
        self._edits = EditingClient.of(client)
        self._answers_wanted = _wants_answers(client)
        self._model = Model()
        self._asker = Asker(status.loading)
        self._running: dict[str, Run] = {}

    async def offered(self, params: types.CodeActionParams) -> list[types.CodeAction | types.Command]:
        """The code actions there."""
        document = self._documents.get(params.text_document.uri)
        settings = self._settings.current
        if document is None or settings.actions == "off":
            return []
        if self._refusal(document, params.range) is not None:
            return []
        version, revision = document.buffer.version, document.revision
        engine, automatic = self._engine(), params.context.trigger_kind == types.CodeActionTriggerKind.Automatic
        following = self._model.known(engine) if automatic else await self._model.learn(engine, _PATIENCE)
        if document.revision != revision or self._documents.get(document.uri) is not document:
            return []  # the range is of a text that is gone
        unknown = following is None and not automatic
        follows = settings.actions == "on" or unknown or (following is not None and following.form is not None)
        return entries(self._menu, params, version, follows=follows)

    async def learn(self) -> None:
        """Ask the engine, which is ready now, which model it has."""
        await self._model.learn(self._engine())

    async def perform(self, wanted: Wanted, token: str | int | None = None) -> dict[str, Any]:
        """Carry one out -> the command's reply. Cancelling this call stops the model. A newer one for the same document
        ends this one. `token` is the client's own for its progress display.
        """
        self._refresh()
        run = Run(wanted)
        if (former := self._running.get(wanted.uri)) is not None:
            former.stop(Reason.SUPERSEDED)
        self._running[wanted.uri] = run
        display = self._editor.working(f"starfill: {wanted.task.label}", token, lambda: run.stop(Reason.CANCELLED))
        self._status.began()
        if display is not None:
            display.begin("reading")
        answer = Answer(reason=Reason.CANCELLED)
        try:
            answer = await self._answered(run, display)
        finally:
            self._status.ended(None)
            if self._running.get(wanted.uri) is run:
                del self._running[wanted.uri]
            if display is not None:
                display.end("done" if answer.reason is None else "nothing")
        self._tell(wanted, answer)
        following = self._model.known(self._engine())
        return answer.reply(wanted.task, self._model.id, following.terms if following is not None else None)

    async def aclose(self) -> None:
        """End all that is under way; each is answered."""
        running = list(self._running.values())
        for run in running:
            run.stop(Reason.CANCELLED)
        await asyncio.gather(*(run.work for run in running if run.work is not None), return_exceptions=True)

    # -- one action --------------------------------------------------------------------------------------------------

    async def _answered(self, run: Run, display: Progress | None) -> Answer:
        wanted, settings = run.wanted, self._settings.current
        if settings.actions == "off":
            return Answer(reason=Reason.ACTIONS_OFF)
        document = self._documents.get(wanted.uri)
        if document is None:
            return Answer(reason=Reason.NOT_OPEN)
        if (reason := self._refusal(document, wanted.where)) is not None:
            return Answer(reason=reason)
        if wanted.version is not None and wanted.version != document.buffer.version:
            return Answer(reason=Reason.OUTDATED)
        start, end = document.at(wanted.where.start), document.at(wanted.where.end)
        language = by_id(document.buffer.language)
        selection = select(document.buffer, start, end, language, widen=wanted.task is not Task.REWRITE)
        if not selection.code.strip() and wanted.task is not Task.REWRITE:
            return Answer(reason=Reason.NOTHING_TO_ADD)
        heard = self._listener(run, document, selection, display)
        work = run.begin(self._asked(wanted, selection, language, heard))
        try:
            said = await asyncio.shield(work)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if run.stopped is None or (current is not None and current.cancelling()):
                run.stop(Reason.CANCELLED)
                raise
            return Answer(reason=run.stopped)
        except Exception as error:
            if (known := reason_of(error)) is None:
                raise
            if getattr(error, "code", None) == "context_length_exceeded":
                return Answer(reason=Reason.TOO_LONG)
            return Answer(reason=known[0], detail=known[1])
        if said is None:
            return Answer(reason=Reason.NO_INSTRUCTIONS)
        origins = self._attributor.origins("", said.text, local_path(wanted.uri) or "", known=selection.code)
        if origins and self._attributor.withholds:
            return Answer(reason=Reason.VERBATIM, detail=sentence(origins), said=said, origins=origins)
        if wanted.task.edits:
            return replace(await self._edited(wanted, document, selection, said), origins=origins)
        text = as_text(said.text)
        return Answer(text, said.cut if text or said.cut else Reason.NOTHING_TO_ADD, said=said, origins=origins)

    async def _asked(
        self, wanted: Wanted, selection: Selection, language: Language, heard: Callable[[str], None]
    ) -> Said | None:
        """What the model says, as code where code was asked for; None if it does not follow instructions."""
        engine, settings = self._engine(), self._settings.current
        await engine.ready(invoked=True, progress=self._status.loading)
        following = await self._model.ask(engine)
        form = following.form or (Form.ASSISTANT if settings.actions == "on" else None)
        if form is None:
            return None
        if following.terms is not None:
            self._status.tell(f"starfill: {following.terms}", error=False)
        # Half of a small window is the question's.
        most = min(settings.action_tokens, (engine.window or 2 * settings.action_tokens) // 2)
        if form is Form.ASSISTANT and not selection.code:
            return await continued(engine, wanted, selection, language, most, heard)
        problems = tuple(f"line {each.line - selection.start.line + 1}: {each.message}" for each in wanted.problems)
        named = "" if language.id == "plaintext" else language.id
        instruction = wanted.instruction or instruction_for(wanted.task, named, problems)
        edits = wanted.task.edits
        prompt = lay_out(form, instruction, selection.code, language, edits=edits)
        said = await self._asker.ask(engine, prompt, selection.around, most, heard, loops=not edits)
        if not edits:
            return said
        return replace(said, text=as_code(said.text, selection.code, language, opened=prompt.opened))

    async def _edited(self, wanted: Wanted, document: Document, selection: Selection, said: Said) -> Answer:
        """The code as an edit, if it is whole and belongs to the text as it is now."""
        text = selection.indented(said.text)
        if not text.strip():
            return Answer("", said.cut or Reason.NOTHING_TO_ADD, said=said)
        if said.cut is not None or said.finish_reason == "length":
            return Answer(text, said.cut or Reason.CUT_OFF, said=said)
        if said.text == selection.code:
            return Answer(text, Reason.DUPLICATE, said=said)
        if document.buffer.version != selection.version or self._documents.get(wanted.uri) is not document:
            return Answer(text, Reason.OUTDATED, said=said)
        if not self._edits.applies:
            return Answer(text, Reason.NOT_APPLIED, said=said, applied=False)
        where = types.Range(document.lsp(selection.start), document.lsp(selection.end))
        new = text.replace("\n", document.buffer.end_of_line)
        label = f"starfill: {wanted.task.label}"
        edit = workspace_edit(self._edits, wanted.uri, selection.version, where, new, label)
        applied = await self._editor.apply(edit, label)
        return Answer(text, None if applied else Reason.NOT_APPLIED, said=said, applied=applied)

    def _refusal(self, document: Document, where: types.Range) -> Reason | None:
        return self._admission.refusal(document.uri, document.buffer, document.at(where.start), invoked=True)

    # -- what the user sees ------------------------------------------------------------------------------------------

    def _listener(
        self, run: Run, document: Document, selection: Selection, display: Progress | None
    ) -> Callable[[str], None]:
        lines = 0

        def heard(text: str) -> None:
            nonlocal lines
            if run.wanted.task.edits and document.buffer.version != selection.version:
                run.stop(Reason.OUTDATED)
                return
            if display is not None and text.count("\n") + 1 > lines:
                lines = text.count("\n") + 1
                display.report(f"{lines} line{'s' if lines > 1 else ''}")
            if not self._attributor.withholds:
                self._notify(run.wanted, text, done=False)

        return heard

    def _tell(self, wanted: Wanted, answer: Answer) -> None:
        if self._answers_wanted:
            self._notify(wanted, answer.text, done=True, reason=answer.reason)
            return
        if answer.reason is not None and answer.reason not in _SILENT:
            self._editor.inform(f"starfill: {answer.reason.text}")
        if answer.text and (not wanted.task.edits or answer.reason in (Reason.OUTDATED, Reason.NOT_APPLIED)):
            self._editor.inform(answer.text)

    def _notify(self, wanted: Wanted, text: str, *, done: bool, reason: Reason | None = None) -> None:
        if self._answers_wanted:
            said = {"id": wanted.id, "task": wanted.task, "uri": wanted.uri, "text": text, "done": done}
            self._editor.notify(ANSWER, said if reason is None else {**said, "reason": reason, "message": reason.text})


def _wants_answers(client: Mapping[str, Any]) -> bool:
    options = client.get("initializationOptions")
    ours = options.get("starfill", options) if isinstance(options, Mapping) else None
    return isinstance(ours, Mapping) and ours.get("answers") is True
