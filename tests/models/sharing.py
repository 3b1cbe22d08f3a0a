"""Two models on one partition: what LOW's flood does to HIGH, with the gates between and without.

Both are all-MiniLM-L6-v2, in a server that computes two requests at a time on this machine's processors, which stand for
the partition; each has a gate of its own. `python -m tests.models.sharing` measures for a minute, writes the table into README and draws the figure.
"""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.e2e.programs import AIMCTL, ROOT, Daemon
from tests.models.packages import model_packages
from tests.models.server import MODELS

README, FIGURE = ROOT / "README.md", ROOT / "tests" / "models" / "sharing.png"
BEGIN, END = "<!-- sharing: python -m tests.models.sharing -->\n", "<!-- /sharing -->\n"

SLOTS = 2
FLOOD = 64  # requests of LOW at any time
PAUSE = 0.1  # s between an answer to HIGH and its next request
OBJECTIVE = 12  # times the latency that HIGH has alone (median)
SENTENCE = "Each of the models that share a partition has requests of its own, and some of them cannot wait. "
HIGH_BODY = {"texts": [SENTENCE]}
LOW_BODY = {"texts": [SENTENCE]}
CONFIG = f"[placement]\nslots_per_partition = {SLOTS}\n"


@dataclass
class Served:
    """LOW answers within the seconds measured, and HIGH's latencies, in seconds."""

    latencies: list
    low_answers: int
    seconds: float

    def quantile(self, part):
        return sorted(self.latencies)[min(len(self.latencies) - 1, int(part * len(self.latencies)))]

    def kept(self, objective):
        return sum(latency <= objective for latency in self.latencies) / len(self.latencies)


@contextlib.contextmanager
def process(command, environment, line, output):
    """A program, and what follows in its first line of output after it is ready."""
    options = {"stdout" if output == 1 else "stderr": subprocess.PIPE}
    started = subprocess.Popen(command, env=environment, text=True, **options)
    try:
        said = (started.stdout if output == 1 else started.stderr).readline()
        found = re.search(line, said)
        assert found, said
        yield found.group()
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
        (started.stdout if output == 1 else started.stderr).close()


@contextlib.contextmanager
def server(packages):
    """A model server; where HIGH's model is and where LOW's."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OPENBLAS_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [sys.executable, "-m", "tests.models.server", "--packages", str(packages)]
    with process(command, environment, r"http://\S+", 1) as origin:
        yield [f"{origin}/{name}" for name in MODELS]


@contextlib.contextmanager
def gates(folder, origins):
    """A whole daemon with a claim for each model on its one partition, and a gate before each model."""
    config = folder / "aimd.toml"
    config.write_text(CONFIG)
    daemon = Daemon(folder, "mi300x:1", "--config", str(config))
    daemon.start()
    try:
        for model, qos in zip(MODELS, ("high", "low"), strict=True):
            result = daemon.aimctl("claim", model, "--memory", "1", "--qos", qos, "--partition", "gpu0/0")
            assert result.returncode == 0, result.stderr
        environment = {**daemon.environment, "AIMD_DISPATCH_SOCKET": str(daemon.runtime / "dispatch.sock")}
        with contextlib.ExitStack() as stack:
            found = []
            for model, origin in zip(MODELS, origins, strict=True):
                options = ("--model", model, "--upstream", origin, "--listen", "127.0.0.1:0")
                found.append(stack.enter_context(process([*AIMCTL, "gate", *options], environment, r"http://\S+", 2)))
            yield found
    finally:
        daemon.close()


async def load(high, low, seconds, *, flood):
    """Ask HIGH again and again, while LOW has `flood` requests under way."""
    latencies, answers, ends = [], 0, time.monotonic() + seconds
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:

        async def ask(origin, body):
            async with client.post(origin + "/embed", json=body) as response:
                assert response.status == 200, await response.text()
                await response.read()

        async def patient():
            nonlocal answers
            while True:
                await ask(low, LOW_BODY)
                answers += 1

        flooding = [asyncio.create_task(patient()) for _ in range(flood)]
        if flood:
            await asyncio.sleep(1)  # until as many are under way
        began, answers = time.monotonic(), 0
        while time.monotonic() < ends or len(latencies) < 5:
            asked = time.monotonic()
            await ask(high, HIGH_BODY)
            latencies.append(time.monotonic() - asked)
            await asyncio.sleep(PAUSE)
        result = Served(latencies, answers, time.monotonic() - began)
        assert not [each for each in flooding if each.done()], "LOW got an error"
        for each in flooding:
            each.cancel()
        await asyncio.gather(*flooding, return_exceptions=True)
    return result


def measured(seconds):
    """HIGH alone, with LOW's flood and no aimd, and with both gates; in this order."""
    packages = model_packages()
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder, server(packages) as direct:
        asyncio.run(load(*direct, 1.0, flood=2))  # warm
        alone = asyncio.run(load(*direct, seconds / 2, flood=0))
        without = asyncio.run(load(*direct, seconds, flood=FLOOD))
        with gates(Path(folder), direct) as gated:
            shared = asyncio.run(load(*gated, seconds, flood=FLOOD))
        after = asyncio.run(load(*direct, seconds / 2, flood=0))  # the machine may be another one by now
    alone.latencies += after.latencies
    return alone, without, shared


def table(alone, without, gated):
    objective = OBJECTIVE * alone.quantile(0.5)
    rows = [
        f"| | HIGH p50, ms | p95 | p99 | within {objective * 1e3:.0f} ms | LOW answers/s |",
        "|---|---|---|---|---|---|",
    ]
    for name, run in (
        ("HIGH alone", alone),
        (f"LOW floods ({FLOOD} at a time), no aimd", without),
        ("**the same behind two gates**", gated),
    ):
        parts = " | ".join(f"{run.quantile(part) * 1e3:.0f}" for part in (0.5, 0.95, 0.99))
        low = f"{run.low_answers / run.seconds:.0f}" if run.low_answers else "-"
        rows.append(f"| {name} | {parts} | {run.kept(objective):.0%} | {low} |")
    return "\n".join(rows) + "\n"


def draw(alone, without, gated):
    """How many of HIGH's requests took at most so long."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.add_subplot()
    for name, run in (("HIGH alone", alone), ("LOW floods, no aimd", without), ("LOW floods, two gates", gated)):
        ordered = sorted(run.latencies)
        shares = [100 * (index + 1) / len(ordered) for index in range(len(ordered))]
        axes.step([1e3 * latency for latency in ordered], shares, where="post", label=name)
    axes.axvline(1e3 * OBJECTIVE * alone.quantile(0.5), color="grey", linestyle=":", label="objective")
    axes.set(xscale="log", xlabel="latency of HIGH, ms", ylabel="% of its requests", ylim=(0, 101))
    figure.legend(loc="outside upper center", ncols=4)
    figure.savefig(FIGURE, dpi=120)


def main():
    runs = measured(20)
    head, _, rest = README.read_text().partition(BEGIN)
    _, mark, tail = rest.partition(END)
    assert mark, f"README has no {BEGIN!r} ... {END!r}"
    README.write_text(head + BEGIN + "\n" + table(*runs) + "\n" + END + tail)
    draw(*runs)
    print(table(*runs))


if __name__ == "__main__":
    main()
