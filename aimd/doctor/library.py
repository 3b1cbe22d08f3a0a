"""Whether libamdhip64 is where the loader looks, and what a probe by HIP that brought nothing means.

The library is not loaded: that is the business of the daemon's helper, and a library that crashes would end this
process. What is found is what the loader would take in the environment of this process, which need not be the daemon's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from aimd.doctor.facts import LibraryFacts
from aimd.doctor.finding import FAIL, OK, WARN, Finding
from aimd.domain.probe import ProbeState

SONAMES = ("libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5", "libamdhip64.so")
CACHE = "etc/ld.so.cache"
_CACHED = re.compile(rb"\0(/[^\0]+/(libamdhip64\.so(?:\.[0-9]+)?))(?=\0)")
_INSTALLED = ("opt/rocm/lib", "opt/rocm-*/lib", "opt/rocm/core-*/lib")

HINTS = {
    ProbeState.NO_LIBRARY: 'install ROCm\'s HIP runtime, name its file (hip_library), or set memory_probe = "off"',
    ProbeState.WRONG_LIBRARY: "name another file (hip_library), or install what it needs",
    ProbeState.NO_DEVICE: "the daemon must be allowed /dev/kfd and the render nodes (char 226:* rw); dmesg may tell more",
    ProbeState.FAILED: "the message is HIP's own; rocminfo on this node should show the same",
    ProbeState.TIMED_OUT: "a GPU in reset can do that: dmesg; the helper was ended, models are not concerned",
    ProbeState.CRASHED: "the helper alone has died; library and driver should be of one ROCm release",
    ProbeState.IMPLAUSIBLE: "nothing of it is used; library and driver should be of one ROCm release",
}
_FAILURES = (ProbeState.WRONG_LIBRARY, ProbeState.FAILED, ProbeState.CRASHED, ProbeState.IMPLAUSIBLE)


def find_library(environ: Mapping[str, str], root: Path = Path("/")) -> LibraryFacts:
    """Look as the loader does for each name in turn: LD_LIBRARY_PATH, then its cache; `root` is where files are."""
    folders = [folder for folder in environ.get("LD_LIBRARY_PATH", "").split(":") if folder.startswith("/")]
    cached = _cached(root / CACHE)
    looked = (*folders, f"/{CACHE}")
    for soname in SONAMES:
        named = [f"{folder.rstrip('/')}/{soname}" for folder in folders]
        for path in (*named, *cached.get(soname, ())):
            if (root / path.lstrip("/")).exists():
                return LibraryFacts(path, looked)
    return LibraryFacts(None, looked, next(_elsewhere(root), None))


def _cached(path: Path) -> dict[str, list[str]]:
    """The paths by soname in the loader's cache, whose strings end with a NUL each (ld.so.cache has no other form)."""
    try:
        content = path.read_bytes()
    except OSError:
        return {}
    found: dict[str, list[str]] = {}
    for match in _CACHED.finditer(content):
        found.setdefault(match[2].decode(), []).append(match[1].decode("utf-8", "surrogateescape"))
    return found


def _elsewhere(root: Path) -> Iterator[str]:
    for folder in _INSTALLED:
        for path in sorted(root.glob(f"{folder}/libamdhip64.so*")):
            yield f"/{path.relative_to(root)}"


def library_findings(library: LibraryFacts | None) -> Iterable[Finding]:
    """Whether HIP could be asked; none where that was not looked at."""
    if library is None:
        return
    if library.path is not None:
        yield Finding(OK, "HIP library", library.path)
        return
    message = f"libamdhip64 (.so.7, .so.6, .so.5, .so) is not in {', '.join(library.looked)}"
    if library.elsewhere is not None:
        hint = f'it is in {library.elsewhere}: set hip_library = "{library.elsewhere}"'
    else:
        hint = "free memory is told by KFD's counters alone; " + HINTS[ProbeState.NO_LIBRARY]
    yield Finding(WARN, "HIP library", message, hint)


def probe_finding(gpu: str, state: str, message: str | None = None) -> Finding:
    """What the daemon's last probe of a GPU means; a state that is not known here is told as it is."""
    try:
        known = ProbeState(state)
    except ValueError:
        return Finding(WARN, gpu, f"memory by HIP: {state}")
    told = f": {message}" if message else ""
    if known in (ProbeState.READ, ProbeState.OFF, ProbeState.HELD, ProbeState.MOVED):
        return Finding(OK, gpu, f"memory by HIP: {known}{told}")
    result = FAIL if known in _FAILURES else WARN
    return Finding(result, gpu, f"memory by HIP: {known}{told}", HINTS[known])
