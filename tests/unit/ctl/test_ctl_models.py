"""Models and `aimctl top`: tables and description as golden text, orders, narrow terminals, lines, the live screen."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from aimd.ctl.describe import describe
from aimd.ctl.model_columns import latency, rate, span
from aimd.ctl.top_rows import COLUMNS, ORDERS, columns_of, fitting, rows_of, summary
from aimd.protocol.messages import to_builtins
from aimd.protocol.models import ModelListMessage
from tests.fakes.api import FakeApi, Raw, World
from tests.unit.ctl import samples
from tests.unit.ctl.test_ctl_process import command, environment

MODELS = """\
NAME    QOS    PARTITIONS   RUNNING   WAITING   GRANTS/S   REJECTED/S   QUEUE-P99   TOTAL-P99   GOOD      BURN-1H   ALERT
llama   high   1            3/16      2         12.5       0.25         1.50 s      90.0 s      90.91 %   9.09      ticket
bert    low    0            -         -         -          -            -           -           -         -         -
"""

WIDE_HEADER = """\
NAME    STATE     QOS    PARTITIONS   GUARANTEE   LIMIT   WEIGHT   RUNNING   WAITING   WAITING-HIGH   WAITING-MEDIUM   WAITING-LOW   GRANTS/S   REJECTED/S   QUEUE-P50   QUEUE-P95   QUEUE-P99   TOTAL-P50   TOTAL-P95   TOTAL-P99   GRANTED   GOOD      BURN-1H   ALERT
"""

DESCRIBED = """\
Name:                llama
State:               placed
QoS class:           high
Replicas:            2
Guarantee:           4 slots
Limit:               all slots
Weight:              2
SLO latency:         0.25 s
SLO objective:       0.99
SLO throughput:      -
Counted since:       2023-11-14T22:13:20Z
Running:             3/16 slots
Waiting:             2
Grants:              12.5/s
Rejected:            0.25/s
Outcomes:            granted 120, expired 4
Ends of leases:      ok 115, failed 2
Good and bad:        110 and 11
Latency objective:   missed, 90.91 % good in the last hour
Throughput:          no objective
Alert:               ticket
Burn rates of the error budget:
  WINDOWS        LONG   SHORT   THRESHOLD   SEVERITY   FIRING
  1 h & 5 min    9.09   -       14.4        page       no
  6 h & 30 min   9.09   8       6           page       yes
  1 d & 2 h      9.09   8       3           ticket     yes
  3 d & 6 h      9.09   8       1           ticket     yes
Classes:
  CLASS   RUNNING   WAITING   GRANTS/S   REJECTED/S   GRANTED   GOOD   BAD
  high    3         2         12.5       0.25         120       110    11
Latencies of the last minute:
  CLASS   STAGE     COUNT   P50       P95       P99
  high    queue     100     1.50 ms   250 ms    1.50 s
  high    service   90      50.0 ms   60.0 ms   70.0 ms
  high    total     90      60.0 ms   300 ms    90.0 s
Partitions:
  PARTITION   REPLICAS   GUARANTEE   LIMIT   RUNNING   WAITING   GRANTS/S   REJECTED/S   QUEUE-P99   TOTAL-P99   BURN-1H
  gpu0/0      2          8           all     3/16      2         12.5       0.25         1.50 s      90.0 s      9.09
"""

DESCRIBED_UNREAD = """\
Name:             bert
State:            pending
QoS class:        low
Replicas:         1
Guarantee:        0 slots
Limit:            5 slots
Weight:           1
SLO latency:      -
SLO objective:    -
SLO throughput:   -
Counted since:    not yet: nothing was read of it so far
Partitions: none
"""


def answer(*models) -> dict:
    return to_builtins(ModelListMessage(models=list(models), window_seconds=60.0, sample=7))


def names(found) -> list[str]:
    return [each["name"] for each in found]


def test_a_table_of_models(aimctl) -> None:
    assert aimctl("get", "models").stdout == MODELS
    assert aimctl("get", "models", "-o", "wide").stdout.startswith(WIDE_HEADER)


def test_a_model_described(aimctl) -> None:
    assert aimctl("describe", "model", "llama").stdout == DESCRIBED
    assert aimctl("describe", "model", "bert").stdout == DESCRIBED_UNREAD


def test_a_model_that_nobody_has_used() -> None:
    idle = samples.traffic()
    idle = msgspec.structs.replace(idle, whole=samples.IDLE, high=samples.IDLE)
    told = describe("model", to_builtins(msgspec.structs.replace(samples.model(), traffic=idle)))
    assert "Running:             0/16 slots\n" in told
    assert "Outcomes:            none\n" in told
    assert "Classes: none was used\n" in told


@pytest.mark.parametrize(
    ("released", "expected"),
    [(None, "missed, nothing waited for half a minute"), (12.25, "missed, 12.2 releases/s while something waited")],
)
def test_a_floor_of_throughput(released, expected) -> None:
    slo = msgspec.structs.replace(samples.model().slo, throughput_floor=20.0)
    found = msgspec.structs.replace(samples.compliance(), throughput="missed", released_per_second=released)
    told = describe("model", to_builtins(msgspec.structs.replace(samples.model(), slo=slo, compliance=found)))
    assert f"Throughput:          {expected}\n" in told


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "-"),
        (0.0, "0.00 us"),
        (4.2e-5, "42.0 us"),
        (0.00154321, "1.54 ms"),
        (0.25, "250 ms"),
        (1.0, "1.00 s"),
        (90.0, "90.0 s"),
        (3600.0, "3600 s"),
    ],
)
def test_latencies(seconds, expected) -> None:
    assert latency("p50")({"p50": seconds}) == expected


def test_rates_and_windows() -> None:
    assert [rate("r")({"r": amount}) for amount in (None, 0, 0.25, 12.34, 1062.4)] == [
        "-",
        "0.00",
        "0.25",
        "12.3",
        "1062.4",
    ]
    assert [span("s")({"s": seconds}) for seconds in (300, 3600, 259200, 90)] == ["5 min", "1 h", "3 d", "90 s"]


# -- top ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_orders(order) -> None:
    """The largest first, what is unknown last; among equals by name."""
    small, large, same = samples.model("small"), samples.model("large", scale=3), samples.model("alike")
    found = names(rows_of(answer(small, samples.unread_model(), large, same), order, partitions=False))
    by_flow = ["large", "alike", "small", "bert"]
    expected = {"name": ["alike", "bert", "large", "small"]}
    equal = ["alike", "large", "small", "bert"]
    expected |= dict.fromkeys(("queue", "latency", "burn"), equal)
    assert found == expected.get(order, by_flow)


def test_keys_of_orders_are_one_each() -> None:
    keys = [each.key for each in ORDERS.values()]
    assert len({*keys, "q", "p"}) == len(keys) + 2


def test_a_row_for_each_partition() -> None:
    rows = rows_of(answer(samples.model("b"), samples.unread_model(), samples.model("a")), "name", partitions=True)
    assert [(each["name"], each["qos"], each["partition_name"]) for each in rows] == [
        ("a", "high", "gpu0/0"),
        ("b", "high", "gpu0/0"),
    ]
    cells = [column.cell(rows[0]) for column in columns_of(partitions=True)]
    assert cells[:6] == ["a", "gpu0/0", "high", "3/16", "2", "2/0/0"]


@pytest.mark.parametrize("width", [1, 20, 80, 100, 132, 500])
def test_columns_fit(width) -> None:
    rows = rows_of(answer(samples.model(), samples.unread_model()), "name", partitions=False)
    shown = fitting(COLUMNS, rows, width)
    widths = [max(len(column.header), *(len(column.cell(each)) for each in rows)) for column in COLUMNS]
    assert shown == COLUMNS[: len(shown)]
    assert len(shown) == 1 or sum(widths[: len(shown)]) + 2 * (len(shown) - 1) <= width
    if len(shown) < len(COLUMNS):
        assert sum(widths[: len(shown) + 1]) + 2 * len(shown) > width


def test_all_in_one_line() -> None:
    told = summary(answer(samples.model("a"), samples.model("b", scale=2), samples.unread_model()))
    assert told == "3 models, 9 running, 6 waiting, 37.5 grants/s, 0.75 rejected/s"
    assert summary(answer()) == "0 models, 0 running, 0 waiting, 0.00 grants/s, 0.00 rejected/s"


def test_without_a_terminal_top_is_one_table(aimctl, world: World) -> None:
    world.models = [samples.unread_model(), samples.model()]
    result = aimctl("top")
    assert result.exit_code == 0
    header, first, second = result.stdout.splitlines()
    assert header.split()[:4] == ["MODEL", "QOS", "RUNNING", "WAITING"]
    assert [first.split()[0], second.split()[0]] == ["llama", "bert"]
    assert len(world.requests) == 1
    assert aimctl("top", "--once", "--sort", "name").stdout.splitlines()[1].startswith("bert")
    assert "gpu0/0" in aimctl("top", "--partitions").stdout


def test_one_line_of_json(aimctl) -> None:
    result = aimctl("top", "-o", "json", "--once")
    assert json.loads(result.stdout)["sample"] == 7
    assert len(result.stdout.splitlines()) == 1


@pytest.mark.parametrize("arguments", [("--sort", "weather"), ("-o", "yaml"), ("--interval", "0")])
def test_usage(aimctl, arguments) -> None:
    assert aimctl("top", *arguments).exit_code == 2


def test_lines_of_json_until_interrupted(api: FakeApi, socket_path: Path) -> None:
    process = subprocess.Popen(
        command("--socket", str(socket_path), "top", "-o", "json", "--interval", "0.2"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = [json.loads(process.stdout.readline()) for _ in range(3)]
    assert [names(line["models"]) for line in lines] == [["llama", "bert"]] * 3
    process.send_signal(signal.SIGINT)
    _, trouble = process.communicate(timeout=30)
    assert (process.returncode, trouble) == (130, "")


# -- on a terminal -----------------------------------------------------------------------------------------------

SCREEN, NO_SCREEN, NO_CURSOR, CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25l", "\x1b[?25h"


@dataclass
class Seat:
    """A person at a terminal, who has started a command there."""

    process: subprocess.Popen
    terminal: int
    theirs: int
    shown: str = ""

    def until(self, word: str, *, after: int = 0, seconds: float = 20) -> int:
        """Wait until the word is on the terminal after a place; returns the place behind it."""
        deadline = time.monotonic() + seconds
        while word not in self.shown[after:]:
            left = deadline - time.monotonic()
            assert left > 0, f"{word!r} is not shown: {self.shown[after:]!r}"
            if select.select([self.terminal], [], [], left)[0]:
                self.shown += os.read(self.terminal, 65536).decode()
        return self.shown.index(word, after) + len(word)

    def type(self, keys: str) -> int:
        place = len(self.shown)
        os.write(self.terminal, keys.encode())
        return place

    def ended(self) -> int:
        while self.process.poll() is None:
            if select.select([self.terminal], [], [], 0.05)[0]:
                self.shown += os.read(self.terminal, 65536).decode()
        while select.select([self.terminal], [], [], 0)[0]:
            self.shown += os.read(self.terminal, 65536).decode()
        return self.process.returncode

    @property
    def settings(self) -> list:
        return termios.tcgetattr(self.theirs)


@contextlib.contextmanager
def seated(*arguments: str, lines: int = 24, columns: int = 100) -> Iterator[Seat]:
    terminal, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))
    process = subprocess.Popen(
        ["setsid", "--ctty", *command(*arguments)],  # Ctrl-C is a signal of the controlling terminal
        env=environment(TERM="xterm"),
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
    )
    try:
        yield Seat(process, terminal, theirs)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
        os.close(terminal)
        os.close(theirs)


def top(socket_path: Path, *more: str) -> tuple[str, ...]:
    return ("--socket", str(socket_path), "top", "--interval", "0.2", *more)


@pytest.mark.parametrize(
    ("how", "code"),
    [("q", 0), ("\x04", 0), ("\x03", 130), (signal.SIGTERM, 143)],
    ids=["q", "ctrl-d", "ctrl-c", "term"],
)
def test_the_terminal_is_as_it_was_however_it_ends(api: FakeApi, socket_path: Path, how, code) -> None:
    with seated(*top(socket_path)) as seat:
        before = seat.settings
        seat.until("llama")
        assert seat.settings != before, "keys come one by one"
        seat.until("q quit")
        if isinstance(how, str):
            seat.type(how)
        else:
            seat.process.send_signal(how)
        assert seat.ended() == code
        assert seat.process.stderr.read() == b""
        assert seat.settings == before
        assert seat.shown.count(SCREEN) == seat.shown.count(NO_SCREEN) == 1
        assert seat.shown.index(SCREEN) < seat.shown.index("llama") < seat.shown.index(NO_SCREEN)
        assert seat.shown.rindex(NO_CURSOR) < seat.shown.rindex(CURSOR)


def test_it_goes_on_and_keys_change_it(api: FakeApi, world: World, socket_path: Path) -> None:
    with seated(*top(socket_path), columns=160) as seat:
        place = seat.until("2 models, 3 running, 2 waiting, 12.5 grants/s, 0.25 rejected/s, of the last 60.0 s")
        seat.until("sorted by waiting", after=place)
        world.models = [samples.model(scale=4), samples.unread_model()]
        seat.until("2 models, 12 running", after=place)
        seat.until("sorted by burn", after=seat.type("b"))
        place = seat.until("gpu0/0", after=seat.type("p"))
        assert "PARTITION" in seat.shown[:place]
        seat.type("q")
        assert seat.ended() == 0


def test_more_models_than_lines(api: FakeApi, world: World, socket_path: Path) -> None:
    world.models = [samples.model(f"model{number:02}") for number in range(30)]
    with seated(*top(socket_path, "--sort", "name"), lines=14) as seat:
        seat.until("... 21 more")
        assert "model08" in seat.shown
        assert "model09" not in seat.shown
        seat.type("q")
        assert seat.ended() == 0


def test_a_daemon_that_goes_away_is_told_and_waited_for(api: FakeApi, world: World, socket_path: Path) -> None:
    with seated(*top(socket_path)) as seat:
        seat.until("llama")
        world.overrides["GET /v1/models"] = Raw(http=False)
        place = seat.until("as it was: aimd at")
        del world.overrides["GET /v1/models"]
        seat.until("sorted by waiting", after=place)
        seat.type("q")
        assert seat.ended() == 0


def test_no_daemon_from_the_beginning_is_an_error_and_no_screen(socket_path: Path) -> None:
    with seated(*top(socket_path)) as seat:
        assert seat.ended() == 3
        assert SCREEN not in seat.shown
        assert seat.process.stderr.read().startswith(b"error: no aimd answers")


def test_a_dumb_terminal_gets_one_table(api: FakeApi, socket_path: Path) -> None:
    ours, theirs = pty.openpty()
    result = subprocess.run(command(*top(socket_path)), env=environment(TERM="dumb"), stdout=theirs, timeout=60)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    assert result.returncode == 0
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 3
