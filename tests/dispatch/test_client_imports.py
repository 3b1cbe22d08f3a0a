"""What a model server pays for the client: the standard library and a handful of modules of aimd."""

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]

SCRIPT = """
import sys

class Refuse:  # everything that is not the standard library's or aimd's own source
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top != "aimd" or name.startswith("aimd._native"):
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Refuse())
before = set(sys.modules)
from PLACE import Client, AsyncClient, DispatchError
client = Client("/nowhere/dispatch.sock", patience=0.01)
try:
    client.acquire("llama")
except DispatchError as error:
    assert error.code == "dispatch_unreachable", error
AsyncClient("/nowhere/dispatch.sock")
client.close()
brought = sorted(name for name in set(sys.modules) - before if name.startswith("aimd"))
print("\\n".join(brought))
"""
ALLOWED = {"aimd", "aimd.dispatch", "aimd.dispatch.values", "aimd.errors", "aimd.rundirs", "aimd.protocol"}


def run(script):
    command = [sys.executable, "-S", "-c", script]  # -S: no site-packages either
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.mark.parametrize("place", ["aimd.dispatch", "aimd.dispatch.client"])
def test_the_client_works_without_any_other_package(place):
    brought = run(SCRIPT.replace("PLACE", place))
    others = [name for name in brought if not name.startswith("aimd.dispatch.client")]
    assert set(others) == ALLOWED | {"aimd.protocol.frames"}


def test_a_program_with_threads_does_not_pay_for_asyncio():
    assert run("import sys; from aimd.dispatch.client import Client; print('asyncio' in sys.modules)") == ["False"]


def test_every_name_is_there_in_both_places():
    import aimd.dispatch
    from aimd.dispatch import client

    for name in client.__all__:
        assert getattr(client, name) is getattr(aimd.dispatch, name)
    assert set(client.__all__) <= set(dir(client))
    with pytest.raises(AttributeError, match="Cliemt"):
        client.Cliemt  # noqa: B018
