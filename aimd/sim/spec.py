"""How a simulated node is named on a command line, `mi300x:8`, and where its state and its socket are by default."""

from __future__ import annotations

from pathlib import Path

from aimd.errors import InvalidInputError
from aimd.sim.node import SimulatedNode
from aimd.sim.state import SimState, new_state

DEFAULT_PROFILE = "7.2"
SWITCH_SECONDS = 0.25  # of a compute mode switch; the real duration is not documented
LOAD_SECONDS = 0.1  # of a driver load, per GPU; a real one takes many seconds
STATE_FILE = "sim.json"  # in the state directory
SOCKET_FILE = "sim.sock"  # in the runtime directory


def parse_spec(spec: str, profile: str = DEFAULT_PROFILE) -> SimState:
    """A new node for MODEL:COUNT with a driver profile (sim.hardware.PROFILES); raises InvalidInputError."""
    model, _, count = spec.partition(":")
    if not (count.isascii() and count.isdigit()):
        raise InvalidInputError(f"simulated node {spec!r} is not understood, expected MODEL:COUNT like mi300x:8")
    try:
        return new_state(model.lower(), int(count), profile, switch_seconds=SWITCH_SECONDS, load_seconds=LOAD_SECONDS)
    except ValueError as cause:
        raise InvalidInputError(str(cause)) from cause


def open_node(fresh: SimState, path: Path | None) -> SimulatedNode:
    """The node whose state the file keeps (None = in memory alone), the fresh one if there is none.

    Raises:
        InvalidInputError: the file cannot be used.
        ConflictError: it holds a node of another model, number of GPUs or driver.
    """
    if path is None:
        return SimulatedNode(fresh)
    try:
        return SimulatedNode.open(path, fresh)
    except ValueError as cause:
        raise InvalidInputError(
            f"state file {path} does not hold a simulated node ({cause}), expected what an earlier simulation wrote",
            hint="remove it to begin with a new node",
        ) from cause
    except OSError as cause:
        raise InvalidInputError(
            f"state file {path} cannot be used ({cause.strerror}), expected a file in a writable directory"
        ) from cause
