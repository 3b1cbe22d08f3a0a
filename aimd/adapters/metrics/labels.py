"""Names of models as labels: a bounded number of them, however many models come and go."""

from __future__ import annotations

from collections.abc import Iterable

MOST_MODELS = 256
OTHER = "other"


class ModelLabels:
    """Gives the first models a label of their own, and all beyond the label `other`.

    Who has a label keeps it as long as its claim; then it is free for the next one that was without. A model that is
    called `other` never has one of its own.

    Attributes:
        overflows: how often a model got none when it came.
    """

    def __init__(self, most: int = MOST_MODELS) -> None:
        self._most = most
        self._own: dict[str, None] = {}
        self._without: dict[str, None] = {}
        self.overflows = 0

    def keep(self, models: Iterable[str]) -> None:
        """These are all models that there are now, the oldest first."""
        present = dict.fromkeys(models)
        self._own = {model: None for model in self._own if model in present}
        before, self._without = self._without, {}
        for model in present:
            if model in self._own:
                continue
            if model != OTHER and len(self._own) < self._most:
                self._own[model] = None
                continue
            self._without[model] = None
            self.overflows += model not in before

    def of(self, model: str) -> str:
        return model if model in self._own else OTHER
