"""Learning rate over a run: warm-up, stable, decay (WSD), by the share of the run that has passed.

The share comes from the clock for a run of so many seconds, from the step for a run of so many steps; only the latter can be
repeated exactly. Hu et al. 2024 (MiniCPM); Hägele et al. 2024 for decays that reach zero.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """Shares of the run; what is neither warm-up nor decay is stable."""

    warm_up: float = 0.02
    decay: float = 0.5
    floor: float = 0.0

    def factor(self, share: float) -> float:
        """What to multiply the peak rate with when `share` of the run (0 to 1) has passed."""
        if share < self.warm_up:
            return max(share, 0.02 * self.warm_up) / self.warm_up
        start = 1.0 - self.decay
        if self.decay <= 0.0 or share <= start:
            return 1.0
        return max(self.floor, 1.0 - (1.0 - self.floor) * min(1.0, (share - start) / self.decay))


@dataclass(slots=True)
class Budget:
    """How long a run lasts: by steps where given, else by seconds."""

    seconds: float
    steps: int = 0

    def share(self, elapsed: float, step: int) -> float:
        """How much of the run has passed."""
        return step / self.steps if self.steps else elapsed / self.seconds
