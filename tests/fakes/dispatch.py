"""A dispatch service at which nobody waits."""

from __future__ import annotations


class IdleDispatch:
    """ports.Dispatch without requests; `drained` says which GPUs are closed."""

    def __init__(self) -> None:
        self.drained: set[str] = set()

    @property
    def problems(self) -> tuple[str, ...]:
        return ()

    async def drain(self, gpu: str, until: float) -> tuple[int, ...]:
        self.drained.add(gpu)
        return ()

    def undrain(self, gpu: str) -> None:
        self.drained.discard(gpu)
