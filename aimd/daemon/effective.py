"""The configuration that counts: the node's file, with what the cluster asks of the node and was found on it."""

from __future__ import annotations

import hashlib

from aimd.config import Config
from aimd.daemon.reload import policy_of
from aimd.domain.ledger import LedgerState
from aimd.planning import effects as fx
from aimd.planning.layouts import Layout
from aimd.planning.sharing.desired import NodeSpec, with_spec

OF_CLUSTER = "cluster:"  # begins the digest of a layout that is not the file's


class Effective:
    """Makes the events that tell the control loop what counts, from either side; `config` is as at the start.

    Attributes:
        policy: the one that counts.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.policy = policy_of(config)
        self._spec = NodeSpec()
        self._rivals: tuple[str, ...] = ()
        self._digest = config.layout_digest()
        self._layout: Layout = config.modes()

    def started(self, ledger: LedgerState) -> fx.Started:
        """The first event. A layout that the cluster has asked for stays until the cluster is heard of again."""
        before = ledger.layout_digest
        if self._config.kubernetes.enabled and before is not None and before.startswith(OF_CLUSTER):
            self._digest, self._layout = before, {}
        return fx.Started(ledger, self._layout, self._digest)

    def configured(self, config: Config) -> fx.Reconfigured:
        """Another file is in force."""
        self._config = config
        return self._event()

    def in_cluster(self, spec: NodeSpec, rivals: tuple[str, ...]) -> fx.Reconfigured | None:
        """The cluster asks for this, and these other managers are there; None if nothing is different."""
        if (spec, rivals) == (self._spec, self._rivals) and self._digest == self._digest_now:
            return None
        self._spec, self._rivals = spec, rivals
        return self._event()

    @property
    def _digest_now(self) -> str:
        if self._spec.layout is None:
            return self._config.layout_digest()
        said = "\n".join(f"{gpu}={mode}" for gpu, mode in sorted(self._spec.layout.items()))
        return OF_CLUSTER + hashlib.sha256(said.encode()).hexdigest()[:16]

    def _event(self) -> fx.Reconfigured:
        layout = self._config.modes() if self._spec.layout is None else self._spec.layout
        self.policy = with_spec(policy_of(self._config), self._spec, self._rivals)
        event = fx.Reconfigured(self.policy, layout, self._digest_now, self._digest, self._layout)
        self._digest, self._layout = event.layout_digest, layout
        return event
