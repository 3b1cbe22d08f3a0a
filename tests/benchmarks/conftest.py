"""A table of ratios at the end of a benchmark run: each peer beside aimd, measured in the same run."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Compile a source of peers/ and give the program's path."""
    folder = tmp_path_factory.mktemp("peers")

    def compile_(name: str) -> Path:
        program = folder / Path(name).stem
        compiler = "g++" if name.endswith(".cpp") else "gcc"
        if not program.exists():
            subprocess.run([compiler, "-O3", "-march=native", "-o", program, HERE / "peers" / name], check=True)
        return program

    return compile_


def nanoseconds(bench: Any) -> float:
    """Least ns per operation, as the benchmark says it or by its number of operations a round."""
    told = bench.extra_info.get("ns_per_operation")
    return float(told) if told is not None else bench.stats.min * 1e9 / bench.extra_info["operations"]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    groups: dict[str, dict[str, float]] = defaultdict(dict)
    for bench in session.benchmarks if session is not None else ():
        if "peer" in bench.extra_info and bench.stats is not None:
            groups[bench.group or ""][bench.extra_info["peer"]] = nanoseconds(bench)
    if not groups:
        return
    write = terminalreporter.write_line
    terminalreporter.section("ratios to aimd (higher: slower than aimd), ns per operation in brackets")
    for group, peers in groups.items():
        own = peers.get("aimd")
        write(f"{group}:")
        for peer, ns in sorted(peers.items(), key=lambda item: item[1]):
            ratio = f"{ns / own:8.2f}" if own else "       -"
            write(f"  {ratio}  {peer:24} [{ns:,.1f} ns]")
