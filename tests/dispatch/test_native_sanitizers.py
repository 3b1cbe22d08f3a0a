"""The native tests on a build with AddressSanitizer and UBSan: `pytest -m campaign` with this file."""

import shutil

import pytest

from tests.dispatch.builds import build, copy_sources, run_tests, runtime_library

TESTS = (
    "test_native_lockstep.py::test_seeded_lives",
    "test_native_large.py",
    "test_native_expiry.py",
    "test_native_core.py",
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


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_a_fault_is_seen_by_the_sanitizer(tmp_path):
    """The build is really instrumented: a node behind the heap's end is noticed."""
    copy_sources(tmp_path)
    source = tmp_path / "native" / "heapkey.pxi"
    text = source.read_text()
    assert "(capacity + 3) * sizeof" in text
    source.write_text(text.replace("(capacity + 3) * sizeof", "(capacity - 8) * sizeof"))
    build(tmp_path, AIMD_SANITIZE="1")
    result = run_tests(
        tmp_path,
        "tests/dispatch/test_queue_order.py",
        LD_PRELOAD=runtime_library("libasan.so"),
        ASAN_OPTIONS="detect_leaks=0",
        PYTHONMALLOC="malloc",
    )
    assert result.returncode != 0
    assert "heap-buffer-overflow" in result.stdout + result.stderr
