"""Models by name: which there are, where they are, how they come here.

`locate` is all that a server or engine needs, and imports nothing heavy. The rest is `starfill models`: `known` (what the
family published), `shelf` and `record` (what is on disk, and where it came from), `catalogue` and `memory` (all of them, on
this machine), `licences`, `hub`, `explaining`, `staging` and `pulling` (the only code of starfill that reaches the network),
`conversion` (pickles, in a child that can do nothing else), `commands` and `views`.
"""

from __future__ import annotations

from engine.models.locate import STARTER, STARTER_ID, ModelSource, locate

__all__ = ["STARTER", "STARTER_ID", "ModelSource", "locate"]
