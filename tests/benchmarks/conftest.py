"""Compiles the peers that are programs, and writes the tables of a benchmark run: all numbers are of the same run."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.aims import MEASURED, Growth, Results, aims, growths, ratios

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Compile a source of peers/ and give the path of the program, or of the library if `shared`."""
    folder = tmp_path_factory.mktemp("peers")

    def compile_(name: str, *, shared: bool = False) -> Path:
        program = (folder / Path(name).stem).with_suffix(".so" if shared else "")
        compiler = "g++" if name.endswith(".cpp") else "gcc"
        if not program.exists():
            flags = ("-O3", "-march=native", *(("-shared", "-fPIC") if shared else ()))
            subprocess.run([compiler, *flags, "-o", program, HERE / "peers" / name], check=True)
        return program

    return compile_


def nanoseconds(bench: Any) -> float:
    """Least ns per operation, as the benchmark says it or by its number of operations a round."""
    told = bench.extra_info.get("ns_per_operation")
    return float(told) if told is not None else bench.stats.min * 1e9 / bench.extra_info["operations"]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    results: Results = defaultdict(dict)
    measured: dict[str, float] = {}
    growth: Growth = defaultdict(lambda: defaultdict(dict))
    for bench in session.benchmarks if session is not None else ():
        info = bench.extra_info
        measured.update(info.get("measured", {}))
        for group, row in info.get("rows", {}).items():
            results[group].update(row)
        if "peer" in info and bench.stats is not None:
            results[bench.group or ""][info["peer"]] = nanoseconds(bench)
            if "size" in info:
                growth[info["kind"]][info["peer"]][info["size"]] = nanoseconds(bench)
    tables = {
        "ratios to aimd (higher: slower than aimd), ns per operation in brackets": ratios(results),
        **({"growth: times slower with the most entries than with the fewest": growths(growth)} if growth else {}),
        "aims": aims({**results, MEASURED: measured}),
    }
    for title, lines in tables.items() if results else ():
        terminalreporter.section(title)
        for line in lines:
            terminalreporter.write_line(line)
