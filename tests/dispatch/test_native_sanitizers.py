"""The native tests on a build with AddressSanitizer and UBSan: `pytest -m campaign` with this file."""

import shutil

import pytest

from tests.dispatch.builds import build, copy_sources, run_tests, runtime_library

TESTS = (
    "test_native_lockstep.py::test_seeded_lives",
    "test_native_large.py",
    "test_native_expiry.py",
    "test_native_core.py",
    "test_native_reentrancy.py",
    "test_core_ranges.py",
    "test_native_sketch.py",
    "test_queue_order.py",
    "test_queue_objects.py",
)


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_no_sanitizer_complains(tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("the sanitizers' runtime is gcc's")
    copy_sources(tmp_path)
    build(tmp_path, AIMD_SANITIZE="1")
    result = run_tests(
        tmp_path,
        "-o",
        "timeout=0",
        "-k",
        "not memory and not allocated",  # with a sanitizer the process has its own ideas of both
        *(f"tests/dispatch/{name}" for name in TESTS),
        LD_PRELOAD=runtime_library("libasan.so"),
        ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1",  # the interpreter keeps much until its end
        PYTHONMALLOC="malloc",
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
    assert "passed" in result.stdout


FAULTS = {
    "a heap of the queue too short": ("heapkey.pxi", "(capacity + 3) * sizeof", "(capacity - 8) * sizeof"),
    "an array of the core too short": ("memory.pxi", "carve(&carver, requests * 4)", "carve(&carver, requests * 2)"),
}


@pytest.mark.campaign
@pytest.mark.timeout(0)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen_by_the_sanitizer(tmp_path, fault):
    """The build is really instrumented, and within the core's one mapping, too."""
    copy_sources(tmp_path)
    name, old, new = FAULTS[fault]
    source = tmp_path / "native" / name
    text = source.read_text()
    assert text.count(old) == 1
    source.write_text(text.replace(old, new))
    build(tmp_path, AIMD_SANITIZE="1")
    result = run_tests(
        tmp_path,
        "-s",  # the sanitizer speaks last, when pytest cannot hand on any more what it caught
        "tests/dispatch/test_queue_order.py",
        "tests/dispatch/test_native_large.py",
        LD_PRELOAD=runtime_library("libasan.so"),
        ASAN_OPTIONS="detect_leaks=0",
        PYTHONMALLOC="malloc",
    )
    assert result.returncode != 0
    assert "ERROR: AddressSanitizer" in result.stdout + result.stderr
