"""The layers and doors of the architecture hold, and each of the contracts can break."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomli

PROJECT = Path(__file__).parents[2]
CONTRACTS = tomli.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]

# One import that is allowed and one or more that are not, by contract: (contract, importer, imported).
ALLOWED = [
    ("aimd.__main__", "aimd.cli"),
    ("aimd.cli", "aimd.ctl"),
    ("aimd.ctl", "aimd.doctor"),
    ("aimd.daemon", "aimd.adapters"),
    ("aimd.adapters.uevents", "aimd.ports"),
    ("aimd.rundirs", "aimd.errors"),
    ("aimd.planning", "dataclasses"),
    ("aimd.ctl", "http.client"),
    ("aimd.protocol", "msgspec"),
    ("aimd.adapters.uevents", "pyroute2.netlink.uevent"),
    ("aimd.adapters.kube.watch", "kubernetes"),
    ("aimd.adapters.kube", "kubernetes.client"),
    ("aimd.adapters.hip.helper", "subprocess"),
    ("aimd.adapters.dra.plugin", "grpc"),
    ("aimd.adapters.dra.plugin", "google"),
    ("aimd.dispatch.gate", "aiohttp.web"),
    ("aimd.dispatch.gate.server", "aiohttp.web"),
    ("aimd.ctl.gating", "aimd.dispatch.gate.server"),
    *(
        ("aimd.dispatch.client", name)
        for name in ("aimd.dispatch.values", "aimd.errors", "aimd.rundirs", "asyncio", "socket")
    ),
    ("aimd.cli", "aimd.replay.command"),
    ("aimd.replay", "aimd.dispatch"),
    ("aimd.replay.plot", "matplotlib.figure"),
    ("aimd.adapters.http.server", "aiohttp"),
    ("aimd.config", "tomli"),
    ("aimd.cli", "aimd.sim.commands"),
    ("aimd.daemon.simulation", "aimd.sim.node"),
    ("aimd.daemon", "aimd.daemon.simulation"),
]
FORBIDDEN = [
    ("layers", "aimd.domain", "aimd.ports"),
    ("layers", "aimd.planning", "aimd.daemon"),
    ("layers", "aimd.planning", "aimd.protocol"),
    ("layers", "aimd.config", "aimd.ports"),
    ("layers", "aimd.adapters", "aimd.sim"),
    ("layers", "aimd.dispatch", "aimd.adapters"),
    ("layers", "aimd.doctor", "aimd.adapters"),
    ("layers", "aimd.doctor", "aimd.ctl"),
    ("layers", "aimd.adapters", "aimd.daemon"),
    ("layers", "aimd.ports", "aimd.adapters"),
    ("layers", "aimd.rundirs", "aimd.domain"),
    ("layers", "aimd.errors", "aimd.rundirs"),
    ("layers", "aimd._native", "aimd.errors"),
    ("layers", "aimd.daemon", "aimd.cli"),
    ("layers", "aimd.daemon", "aimd.replay"),
    ("layers", "aimd.replay", "aimd.daemon"),
    ("adapters", "aimd.adapters", "aimd.planning"),
    ("adapters", "aimd.adapters", "aimd.config"),
    *(("pure", "aimd.domain", name) for name in ("asyncio", "datetime", "logging", "os", "pathlib")),
    *(("pure", "aimd.planning", name) for name in ("random", "socket", "subprocess", "threading", "time")),
    ("pure", "aimd.protocol", "time"),
    ("values", "aimd.domain", "msgspec"),
    *(("aimctl", "aimd.ctl", name) for name in ("aiohttp", "asyncio", "kubernetes", "aimd.daemon", "aimd.adapters")),
    ("aimctl", "aimd.ctl.gating", "aiohttp"),
    *(
        ("dispatch-client", "aimd.dispatch.client", name)
        for name in ("aimd.dispatch.core", "aimd.protocol.messages", "aimd._native", "msgspec", "aiohttp")
    ),
    ("door-aiohttp", "aimd.daemon", "aiohttp"),
    ("door-grpc", "aimd.adapters", "grpc"),
    ("door-grpc", "aimd.adapters.kube", "google"),
    ("door-kubernetes", "aimd.daemon", "kubernetes"),
    ("door-matplotlib", "aimd.replay", "matplotlib"),
    ("door-mfusepy", "aimd.sim", "mfusepy"),
    ("door-prometheus_client", "aimd.daemon", "prometheus_client"),
    ("door-pyroute2", "aimd.adapters", "pyroute2"),
    ("door-sdnotify", "aimd.daemon", "sdnotify"),
    ("door-subprocess", "aimd.daemon", "subprocess"),
    ("door-tomli", "aimd.cli", "tomli"),
    ("simulator", "aimd.daemon", "aimd.sim"),
    ("simulator", "aimd.ctl", "aimd.sim.commands"),
    ("simulator", "aimd.daemon.loop", "aimd.sim.node"),
]
MODULES = "__main__ cli ctl daemon replay adapters sim doctor dispatch ports ports_cluster ports_dra planning protocol config domain rundirs mistakes exits errors _native"
SUBMODULES = "adapters.uevents adapters.kube adapters.kube.watch adapters.hip adapters.hip.helper adapters.http adapters.http.server adapters.dra adapters.dra.plugin dispatch.client dispatch.core dispatch.face dispatch.gate dispatch.gate.server ctl.gating dispatch.policy dispatch.queue dispatch.reference dispatch.server dispatch.values protocol.messages replay.command replay.plot daemon.simulation daemon.loop sim.commands sim.node"


def lint(directory, *contracts):
    """The report on the aimd package in this directory, under the contracts of its pyproject.toml, and whether all hold."""
    program = """
import sys
from importlinter.cli import lint_imports
sys.exit(lint_imports(limit_to_contracts=tuple(sys.argv[1:]), no_cache=True))
"""
    result = subprocess.run(
        [sys.executable, "-c", program, *contracts],
        cwd=directory,
        env={**os.environ, "COLUMNS": "250"},
        capture_output=True,
        text=True,
    )
    return result.stdout + result.stderr, result.returncode == 0


def throw_away_package(directory, imports):
    """A package aimd with the architecture's modules, which have these imports and no others."""
    shutil.copy(PROJECT / "pyproject.toml", directory)
    (directory / "aimd").mkdir()
    (directory / "aimd/__init__.py").touch()
    for name in f"{MODULES} {SUBMODULES}".split():
        package = directory / "aimd" / name.replace(".", "/")
        package.mkdir()
        (package / "__init__.py").touch()
    for importer, imported in imports:
        with (directory / importer.replace(".", "/") / "__init__.py").open("a") as module:
            module.write(f"import {imported}\n")
    return directory


def test_aimd_keeps_the_contracts():
    report, kept = lint(PROJECT)
    assert kept, report


def test_contracts_allow_what_the_architecture_allows(tmp_path):
    report, kept = lint(throw_away_package(tmp_path, ALLOWED))
    assert kept, report


@pytest.mark.parametrize(("contract", "importer", "imported"), FORBIDDEN)
def test_contract_breaks(tmp_path, contract, importer, imported):
    report, kept = lint(throw_away_package(tmp_path, [(importer, imported)]), contract)
    assert not kept, report
    assert f"{importer} -> {imported} (l.1)" in report


def test_every_contract_is_shown_to_break():
    assert {contract["id"] for contract in CONTRACTS} == {contract for contract, _, _ in FORBIDDEN}


def test_module_without_a_layer_is_refused(tmp_path):
    package = throw_away_package(tmp_path, [])
    (package / "aimd/misc.py").touch()
    report, kept = lint(package, "layers")
    assert not kept
    assert "misc" in report


@pytest.mark.parametrize(
    ("compiled", "doors"), [("aimd._native.hip", ["adapters/hip"]), ("aimd._native.", ["adapters/hip", "dispatch"])]
)
def test_compiled_modules_have_their_doors(compiled, doors):
    """The linter reads sources only, so that it does not see them."""
    users = [path for path in (PROJECT / "aimd").rglob("*.py") if compiled in path.read_text()]
    names = {path.relative_to(PROJECT / "aimd").as_posix() for path in users}
    assert [name for name in names if not name.startswith(tuple(doors))] == []
