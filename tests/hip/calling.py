"""The binding in a process of its own: a library keeps its failed start for the life of the process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# Calls everything once.
CALLS = """
import json, sys
from aimd._native import hip
library = hip.Hip(sys.argv[1])
told = {"path": library.path}
for name, arguments in [
    ("init", ()), ("device_count", ()), ("set_device", (0,)), ("memory", ()), ("total_memory", (0,)),
    ("pci_bus_id", (0,)), ("uuid", (0,)), ("attribute", (63, 0)), ("runtime_version", ()), ("driver_version", ()),
]:
    try:
        value = getattr(library, name)(*arguments)
        told[name] = value.decode() if isinstance(value, bytes) else value
    except hip.HipError as error:
        told[name] = [type(error).__name__, error.call, error.code, error.name, error.text]
print(json.dumps(told))
"""


def run(script: str, *arguments: object, **environment: str) -> object:
    variables = {"PYTHONPATH": str(Path(__file__).parents[2]), **environment}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
