"""The turns of workers themselves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.turns import BIG, group_of, turn


def test_who_shares_the_room_is_there_together_and_who_wants_it_alone_is(tmp_path: Path) -> None:
    inside: list[str] = []
    seen: list[tuple[str, ...]] = []
    both = threading.Barrier(2, timeout=20)

    def shared() -> None:
        with turn(tmp_path, alone=False):
            inside.append("shared")
            both.wait()
            inside.remove("shared")

    def alone() -> None:
        with turn(tmp_path, alone=True):
            inside.append("alone")
            time.sleep(0.05)
            seen.append(tuple(inside))
            inside.remove("alone")

    threads = [threading.Thread(target=target) for target in (shared, shared)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    threads = [threading.Thread(target=alone) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [("alone",)] * 3


def test_who_waits_for_the_room_is_let_in_before_those_who_come_later(tmp_path: Path) -> None:
    order: list[str] = []

    def enter(name: str, *, alone: bool) -> threading.Thread:
        def run() -> None:
            with turn(tmp_path, alone=alone):
                order.append(name)

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(0.1)
        return thread

    with turn(tmp_path, alone=False):
        threads = [enter("alone", alone=True), enter("later", alone=False)]
        assert order == []
    for thread in threads:
        thread.join(30)
    assert order == ["alone", "later"]


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/systemd/test_service.py::test_it[a/b]", "big"),
        ("tests/unit/planning/test_claims.py::test_it", "tests/unit/planning/test_claims.py"),
    ],
)
def test_what_shares_something_big_is_one_group(nodeid: str, group: str) -> None:
    assert group_of(nodeid) == group


def test_a_run_by_workers_has_each_file_in_one(tmp_path: Path) -> None:
    lines = "import os\nimport pytest\n@pytest.mark.parametrize('n', range(6))\ndef test_it(n):\n    print('in', os.getpid())\n"
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_xdist_make_scheduler\n")
    for name in ("test_a.py", "test_b.py"):
        (tmp_path / name).write_text(lines)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "2",
        "-rP",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        str(tmp_path),
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    told = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True).stdout
    assert "12 passed" in told
    assert len(set(re.findall(r"^in (\d+)$", told, re.MULTILINE))) == 2
    files = re.findall(r"_+ test_it\[\d\] _+.*?^in (\d+)$", told, re.MULTILINE | re.DOTALL)
    assert sorted(files.count(pid) for pid in set(files)) == [6, 6]


def test_what_takes_minutes_begins_first(tmp_path: Path) -> None:
    """Its folders have fewer tests than the file beside them."""
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_xdist_make_scheduler\n")
    many = "import pytest\n@pytest.mark.parametrize('n', range(6))\ndef test_it(n):\n    pass\n"
    for name in ("a", "b"):
        (tmp_path / f"test_{name}.py").write_text(many)
    for folder in BIG:
        (tmp_path / "tests" / folder).mkdir(parents=True)
        (tmp_path / "tests" / folder / f"test_{folder}.py").write_text("def test_it():\n    pass\n")
    command = (sys.executable, "-m", "pytest", "-n", "1", "-v", "-p", "no:cacheprovider", "-c", "/dev/null")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    told = subprocess.run(
        [*command, str(tmp_path)], cwd=tmp_path, env=environment, capture_output=True, text=True
    ).stdout
    assert "15 passed" in told
    done = re.findall(r"PASSED \S*test_(\w+)\.py", told)
    assert sorted(done[: len(BIG)]) == sorted(BIG)
