"""What `from aimd.dispatch import ...` gives: every name, with its type, and only what was asked for."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import aimd.dispatch
import aimd.dispatch.face

PROJECT = Path(__file__).parents[2]

CONSUMER = """
from aimd.dispatch import DispatchCore, Event, Limits, NativeCore, Reference, canonical

def play(core: DispatchCore) -> list[Event]:
    return canonical(core.advance(1))

play(NativeCore(Limits()))
play(Reference(Limits(), generation=2))
reveal_type(queue.pop())
"""


def readme_example():
    """The Python block of README's chapter about the queue."""
    chapter = (PROJECT / "README.md").read_text().split("## Dispatch core and PriorityQueue")[1]
    return chapter.split("```python\n")[1].split("```")[0]


def type_check(path, source):
    path.write_text(source)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={path.parent}", str(path)]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)


@pytest.mark.timeout(300)  # mypy reads the standard library's stubs anew
def test_a_strict_consumer_sees_the_types(tmp_path):
    result = type_check(tmp_path / "consumer.py", readme_example() + CONSUMER)
    assert result.returncode == 0, result.stdout + result.stderr
    assert 'Revealed type is "builtins.str"' in result.stdout or 'Revealed type is "str"' in result.stdout
    result = type_check(tmp_path / "consumer.py", "from aimd.dispatch import PriorityQueu\n")
    assert 'has no attribute "PriorityQueu"' in result.stdout


def test_the_example_of_the_readme_runs():
    exec(compile(readme_example(), "README.md", "exec"), {})


def test_the_fuzz_of_the_contract_runs():
    example = textwrap.dedent(aimd.dispatch.face.__doc__.split("both cores in lock step:\n")[1])
    exec(compile(example, "face.py", "exec"), {})


def test_every_exported_name_is_there():
    for name in aimd.dispatch.__all__:
        assert getattr(aimd.dispatch, name) is not None
    assert set(aimd.dispatch.__all__) <= set(dir(aimd.dispatch))
    with pytest.raises(AttributeError, match="PriorityQueu"):
        aimd.dispatch.PriorityQueu  # noqa: B018


def test_the_queue_does_not_bring_the_core():
    script = "import sys, aimd.dispatch as d; d.PriorityQueue; print('aimd._native.core' in sys.modules)"
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout == "False\n"
