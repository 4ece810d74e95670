"""Code that a model wrote as an edit: for the one version that it was written for, to be confirmed where the editor can."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lsprotocol import types

_ANNOTATION = "starfill"


@dataclass(frozen=True, slots=True)
class EditingClient:
    """What a client can do with edits, by its raw capabilities."""

    applies: bool = False
    versioned: bool = False
    confirms: bool = False

    @classmethod
    def of(cls, client: Mapping[str, Any]) -> EditingClient:
        """By the raw params of `initialize`."""
        workspace = _field(_field(client, "capabilities"), "workspace")
        edit = _field(workspace, "workspaceEdit")
        return cls(
            applies=_field(workspace, "applyEdit") is True,
            versioned=_field(edit, "documentChanges") is True,
            confirms=isinstance(_field(edit, "changeAnnotationSupport"), Mapping),
        )


def workspace_edit(
    client: EditingClient, uri: str, version: int, where: types.Range, text: str, label: str
) -> types.WorkspaceEdit:
    """`text` in place of a range of one document."""
    if not client.versioned:
        return types.WorkspaceEdit(changes={uri: [types.TextEdit(where, text)]})
    document = types.OptionalVersionedTextDocumentIdentifier(uri=uri, version=version)
    if not client.confirms:
        return types.WorkspaceEdit(document_changes=[types.TextDocumentEdit(document, [types.TextEdit(where, text)])])
    edit = types.AnnotatedTextEdit(annotation_id=_ANNOTATION, range=where, new_text=text)
    return types.WorkspaceEdit(
        document_changes=[types.TextDocumentEdit(document, [edit])],
        change_annotations={
            _ANNOTATION: types.ChangeAnnotation(label=label, needs_confirmation=True, description="written by a model")
        },
    )


def _field(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else None
