"""The helper: asks HIP once for the memory of the devices that it may see, writes one line of JSON, and ends.

A program of its own, not a module to import: it is started isolated (-I -S) and takes nothing of the daemon but where
the package is, the daemon's pid, when to give up, and the library. Its answer is JSON of `answer.Answered` or
`answer.Failed`, on the standard output that it was started with; what HIP prints goes to standard error.
"""

from __future__ import annotations

import os
import sys
import time

MOST_DEVICES = 512  # that are asked for, whatever the library counts
ABOUT_ALL = ("hipInit", "hipGetDeviceCount")  # calls that concern no device in particular


def main(root: str, parent: str, seconds: str, library: str) -> int:
    """Answer; the exit code is 0 whenever there is an answer."""
    answer = os.dup(1)
    os.dup2(2, 1)
    sys.path.insert(0, root)
    from aimd._native import hip  # noqa: PLC0415 - the path is known only now

    if not hip.guard(int(parent), int(seconds)):
        return 1
    try:
        said = ask(library or None)
    except hip.LibraryAbsentError as error:
        said = failure("no-library", error)
    except hip.LibraryError as error:
        said = failure("wrong-library", error)
    except hip.HipError as error:
        no_device = isinstance(error, hip.NoDeviceError) and error.call in ABOUT_ALL
        said = failure("no-device" if no_device else "failed", error)
    os.write(answer, said.encode() + b"\n")
    return 0


def ask(library: str | None) -> str:
    """What there is to say; raises the errors of aimd._native.hip."""
    from aimd._native import hip  # noqa: PLC0415

    loaded = hip.Hip(library)
    began = time.perf_counter()
    loaded.init()
    initialised = time.perf_counter() - began
    devices = []
    for number in range(min(loaded.device_count(), MOST_DEVICES)):
        loaded.set_device(number)
        free, total = loaded.memory()
        devices.append(f'{{"bus_id":{quoted(loaded.pci_bus_id(number))},"free":{free},"total":{total}}}')
    told = f'"library":{quoted(loaded.path)},"runtime":{loaded.runtime_version()},"init_seconds":{initialised:.6f}'
    return f'{{{told},"devices":[{",".join(devices)}]}}'


def failure(state: str, error: Exception) -> str:
    return f'{{"failure":{quoted(state)},"message":{quoted(str(error))}}}'


def quoted(text: str) -> str:
    """A string of JSON. Importing json would take as long as all the rest of this program."""
    return f'"{"".join(map(escaped, text))}"'


def escaped(character: str) -> str:
    """A letter or digit as it is, others by their number; what would need two numbers is not worth it."""
    plain = character.isascii() and character.isalnum()
    return character if plain else f"\\u{ord(character) if character < chr(0xD800) else 0x3F:04x}"


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # the library's own handlers of the exit would only take time
