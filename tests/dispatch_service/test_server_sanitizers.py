"""The server's tests on a build with AddressSanitizer and UBSan: `pytest -m campaign` with this file."""

import shutil

import pytest

from tests.dispatch.builds import build, copy_sources, run_tests, runtime_library

TESTS = ("conversation", "errors", "processes", "restart", "fuzz", "churn")
# Address space is what the sanitizer itself takes; a limit of it is no use with it.
LEFT_OUT = "not descriptors"


def run_sanitized(tree):
    build(tree, AIMD_SANITIZE="1")
    return run_tests(
        tree,
        "-s",
        "-o",
        "timeout=0",
        "-k",
        LEFT_OUT,
        *(f"tests/dispatch_service/test_server_{name}.py" for name in TESTS),
        LD_PRELOAD=runtime_library("libasan.so"),
        ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1",
        PYTHONMALLOC="malloc",
    )


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_no_sanitizer_complains(tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("the sanitizers' runtime is gcc's")
    copy_sources(tmp_path)
    result = run_sanitized(tmp_path)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
    assert "passed" in result.stdout


FAULTS = {
    "a buffer too short": (
        "receiving.pxi",
        "cdef char buffer[MOST_FRAME + READ_BYTES]\n    cdef char* at = buffer",
        "cdef char buffer[READ_BYTES - 8]\n    cdef char* at = buffer",
    ),
    "an array of the one mapping too short": ("loop.pxi", "QUESTIONS * sizeof(Question)", "sizeof(Question)"),
}


@pytest.mark.campaign
@pytest.mark.timeout(0)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen_by_the_sanitizer(tmp_path, fault):
    copy_sources(tmp_path)
    name, right, wrong = FAULTS[fault]
    source = tmp_path / "native" / name
    text = source.read_text()
    assert text.count(right) == 1
    source.write_text(text.replace(right, wrong))
    result = run_sanitized(tmp_path)
    assert result.returncode != 0
    assert "ERROR: AddressSanitizer" in result.stdout + result.stderr
