"""Arming and spending the faults of a simulated node."""

from __future__ import annotations

from aimd.sim.state import FaultKind, SimFault, SimState


def spend(state: SimState, kind: FaultKind, address: str) -> SimFault | None:
    """The armed fault of this kind on this GPU, counted down, or None."""
    for fault in state.faults:
        if fault.kind is kind and fault.gpu in (None, address):
            if fault.remaining is not None:
                fault.remaining -= 1
                if fault.remaining <= 0:
                    state.faults.remove(fault)
            return fault
    return None


def armed(state: SimState, kind: FaultKind, address: str) -> SimFault | None:
    """The fault, without counting it down: for conditions that last until they are cleared."""
    return next((fault for fault in state.faults if fault.kind is kind and fault.gpu in (None, address)), None)
