"""Where libamdhip64 is, and what its failures mean."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from aimd._native import hip
from aimd.doctor.facts import LibraryFacts
from aimd.doctor.finding import FAIL, OK, WARN
from aimd.doctor.library import HINTS, SONAMES, find_library, library_findings, probe_finding
from aimd.domain.probe import ProbeState


def put(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def cache(root: Path, *paths: str) -> None:
    """A loader's cache that names these files; of its form the strings alone count here."""
    (root / "etc").mkdir(exist_ok=True)
    names = [f"{Path(path).name}\0{path}" for path in paths]
    (root / "etc/ld.so.cache").write_bytes(b"glibc-ld.so.cache1.1\0" + "\0".join(names).encode() + b"\0")


def test_the_names_are_the_binding_s() -> None:
    assert SONAMES == hip.SONAMES


def test_it_is_found_as_the_loader_finds_it(tmp_path: Path) -> None:
    put(tmp_path, "usr/lib/libamdhip64.so.5", "a/libamdhip64.so.6", "b/libamdhip64.so.7", "usr/lib/libamdhip64.so.7")
    cache(tmp_path, "/usr/lib/libamdhip64.so.5", "/usr/lib/libamdhip64.so.7", "/usr/lib/libc.so.6")
    assert find_library({}, tmp_path).path == "/usr/lib/libamdhip64.so.7"
    assert find_library({"LD_LIBRARY_PATH": "/a:/b/"}, tmp_path).path == "/b/libamdhip64.so.7", (
        "by name, then by folder"
    )
    (tmp_path / "usr/lib/libamdhip64.so.7").unlink()
    assert find_library({"LD_LIBRARY_PATH": "/a"}, tmp_path).path == "/a/libamdhip64.so.6"
    assert find_library({}, tmp_path).path == "/usr/lib/libamdhip64.so.5", "what the cache names may be gone"


def test_where_it_was_looked_for_and_where_it_is_instead(tmp_path: Path) -> None:
    assert find_library({}, tmp_path) == LibraryFacts(None, ("/etc/ld.so.cache",))
    put(tmp_path, "opt/rocm-7.2.0/lib/libamdhip64.so.7")
    found = find_library({"LD_LIBRARY_PATH": "/x:relative:"}, tmp_path)
    assert found == LibraryFacts(None, ("/x", "/etc/ld.so.cache"), "/opt/rocm-7.2.0/lib/libamdhip64.so.7")


def test_the_cache_of_this_machine_has_the_form_that_is_expected(tmp_path: Path) -> None:
    """A cache that the system's own ldconfig has made of a library called so."""
    ldconfig, compiler = shutil.which("ldconfig", path=f"{os.environ['PATH']}:/sbin:/usr/sbin"), shutil.which("cc")
    if ldconfig is None or compiler is None:
        pytest.skip("ldconfig or cc is not there")
    put(tmp_path, "etc/ld.so.conf", "lib/x")
    library = tmp_path / "lib" / "libamdhip64.so.6"
    command = [compiler, "-shared", "-x", "c", "/dev/null", "-Wl,-soname,libamdhip64.so.6", "-o", str(library)]
    subprocess.run(command, check=True)
    (tmp_path / "etc/ld.so.conf").write_text(f"{tmp_path}/lib\n")
    made = [ldconfig, "-X", "-f", str(tmp_path / "etc/ld.so.conf"), "-C", str(tmp_path / "etc/ld.so.cache")]
    subprocess.run(made, check=True)
    (tmp_path / str(library).lstrip("/")).parent.mkdir(parents=True)
    shutil.copy(library, tmp_path / str(library).lstrip("/"))
    assert find_library({}, tmp_path).path == str(library)


def test_findings() -> None:
    assert list(library_findings(None)) == []
    [found] = library_findings(LibraryFacts("/lib/libamdhip64.so.6", ("/etc/ld.so.cache",)))
    assert found == (OK, "HIP library", "/lib/libamdhip64.so.6", None)
    [found] = library_findings(LibraryFacts(None, ("/x", "/etc/ld.so.cache"), "/opt/rocm/lib/libamdhip64.so"))
    assert found.result == WARN
    assert found.message == "libamdhip64 (.so.7, .so.6, .so.5, .so) is not in /x, /etc/ld.so.cache"
    assert found.hint.endswith('set hip_library = "/opt/rocm/lib/libamdhip64.so"')
    [found] = library_findings(LibraryFacts(None, ("/etc/ld.so.cache",)))
    assert found.hint.startswith("free memory is told by KFD's counters alone; install")


FINE = {ProbeState.READ, ProbeState.OFF, ProbeState.HELD, ProbeState.MOVED}


@pytest.mark.parametrize("state", ProbeState)
def test_every_state_of_a_probe_has_a_finding(state: ProbeState) -> None:
    found = probe_finding("gpu0", state.value, "why")
    assert found.check == "gpu0"
    assert found.message == f"memory by HIP: {state}: why"
    assert (found.result == OK) == (state in FINE)
    assert (found.hint is None) == (state in FINE) == (state not in HINTS)


def test_worse_and_less_bad_states() -> None:
    assert probe_finding("gpu0", "crashed").result == FAIL
    assert probe_finding("gpu0", "no-library").result == WARN
    assert probe_finding("gpu0", "of a later aimd")[:3] == (WARN, "gpu0", "memory by HIP: of a later aimd")
