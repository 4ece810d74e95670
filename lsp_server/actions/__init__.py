"""Code actions for models that follow instructions: explain, fix, document, write tests, rewrite as told.

`tasks` says what can be asked, `selection` of which code, `prompts` and `dialogue` in which words; `asking` streams the
answer, `answers` reads it, `edits` makes it an edit; `desk` ties one action together, `menu` lists them for the editor.
"""

from __future__ import annotations
