"""What the numbers should come to, and the tables at the end of a run: ratios, growth, aims met or missed.

A result is nanoseconds per operation by group and peer. An aim that this run did not measure says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

Results = dict[str, dict[str, float]]
MEASURED = "measured"  # a group that holds ratios, medians of many rounds, by what they are of
Growth = dict[str, dict[str, dict[int, float]]]


@dataclass(frozen=True)
class Aim:
    """A number that is at most `limit` (or at least, where larger is better)."""

    text: str
    value: Callable[[Results], float]
    limit: float
    unit: str = "ns"
    at_least: bool = False

    def line(self, results: Results) -> str:
        try:
            value = self.value(results)
        except (KeyError, ValueError):  # no such group or peer, none of several
            return f"  {'not measured':14}{self.text}"
        met = value >= self.limit if self.at_least else value <= self.limit
        digits = 1 if value >= 10 else 2
        sign = ">=" if self.at_least else "<="
        return f"  {'met' if met else 'MISSED':14}{self.text}: {value:,.{digits}f} {self.unit} (aim {sign} {self.limit:,g})"


def of(group: str, peer: str = "aimd") -> Callable[[Results], float]:
    return lambda results: results[group][peer]


def worst(group: str) -> Callable[[Results], float]:
    """The slowest of aimd's own rows of all groups whose name begins so."""
    return lambda results: max(
        ns
        for name, peers in results.items()
        if name.startswith(group)
        for peer, ns in peers.items()
        if peer.startswith("aimd")
    )


def ratio(group: str, peer: str) -> Callable[[Results], float]:
    return lambda results: results[group][peer] / results[group]["aimd"]


AIMS = (
    Aim("PriorityQueue pop+push at 10,000 from Python", of("pop+push at 10,000"), 150),
    Aim("the same beside heapq", ratio("pop+push at 10,000", "heapq"), 3.5, "times as fast", at_least=True),
    Aim("PriorityQueue cancel+push at 10,000", of("cancel+push at 10,000"), 500),
    Aim("full cycle on one thread from C, whatever waits (1M/s)", worst("full cycle"), 1000),
    Aim("record in a sketch, from C", of("sketch record", "aimd, from C"), 15),
    Aim("release to the next grant, whatever waits", worst("release to next grant"), 1000),
    Aim("longest step of a snapshot, 64 partitions x 16 models", of("snapshot: longest step"), 5000),
    Aim("1 % of 100k expire, beside a scan in Python", ratio("1% of 100k expire, whole call", "scan in Python"), 1, "times as fast", at_least=True),
    Aim("10 % of 100k expire, beside a scan in Python", ratio("10% of 100k expire, whole call", "scan in Python"), 1, "times as fast", at_least=True),
    Aim("ACQUIRE to GRANTED, p50, beside a C echo", of(MEASURED, "round trip, p50, beside C epoll echo"), 1.25, "times"),
    Aim("the same, p99.9, while others hold the GIL", of(MEASURED, "round trip under load, p99.9, beside C epoll echo"), 2, "times"),
    Aim("freed slot to waiting client, p50", of("freed slot to waiting client, p50"), 15_000),
    Aim("cycles by messages of a C echo, 16 under way", of(MEASURED, "pipelined, 16 under way: cycles by messages of C epoll echo"), 0.5, "", at_least=True),
    Aim("cycles by messages of a C echo, 64 under way", of(MEASURED, "pipelined, 64 under way: cycles by messages of C epoll echo"), 0.5, "", at_least=True),
    Aim("cycles by messages of a C echo, 256 under way", of(MEASURED, "pipelined, 256 under way: cycles by messages of C epoll echo"), 0.5, "", at_least=True),
    Aim("cycles by messages of a C echo, 16 under way, two processors", of(MEASURED, "pipelined, 16 under way, two processors: cycles by messages of C epoll echo"), 0.5, "", at_least=True),
    Aim("cycles by messages of a C echo, 64 under way, two processors", of(MEASURED, "pipelined, 64 under way, two processors: cycles by messages of C epoll echo"), 0.5, "", at_least=True),
    Aim("cycles by messages of a C echo, 256 under way, two processors", of(MEASURED, "pipelined, 256 under way, two processors: cycles by messages of C epoll echo"), 0.5, "", at_least=True),
    Aim("page of 3,000 series, beside generate_latest", ratio("page of 3000 series", "generate_latest"), 5, "times as fast", at_least=True),
    Aim("a request's p99.9 with a scrape every 100 ms, beside none", of(MEASURED, "request, p99.9, with a scrape every 100 ms"), 1.5, "times"),
    Aim("a scrape's p50 with 1,500 half-open connections, beside none", of(MEASURED, "scrape, p50, beside 1,500 half-open connections"), 1.5, "times"),
)  # fmt: skip


def ratios(results: Results) -> Iterator[str]:
    """Each peer beside aimd, the fastest first."""
    for group, peers in results.items():
        own = peers.get("aimd")
        yield f"{group}:"
        for peer, ns in sorted(peers.items(), key=lambda item: item[1]):
            beside = f"{ns / own:8.2f}" if own else "       -"
            yield f"  {beside}  {peer:28} [{ns:,.1f} ns]"


def growths(found: Growth) -> Iterator[str]:
    """How many times slower an operation becomes from the least to the largest number of entries."""
    for kind, peers in found.items():
        grown = {peer: sizes for peer, sizes in peers.items() if len(sizes) > 1}
        for peer, sizes in sorted(grown.items(), key=lambda item: item[1][max(item[1])] / item[1][min(item[1])]):
            least, most = min(sizes), max(sizes)
            times = sizes[most] / sizes[least]
            yield f"  {times:8.2f}  {peer:28} {kind}, {least:,} -> {most:,} [{sizes[least]:,.0f} -> {sizes[most]:,.0f} ns]"


def aims(results: Results) -> Iterator[str]:
    return (aim.line(results) for aim in AIMS)
