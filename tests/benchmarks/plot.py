"""Plot of ns per operation over the number of entries, from a --benchmark-json file of test_queue.py.

python -m tests.benchmarks.plot build/queue.json tests/benchmarks/queue.png
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

Series = dict[str, dict[int, float]]


def series(path: Path) -> dict[str, Series]:
    """ns per operation by kind, peer and size."""
    found: dict[str, Series] = defaultdict(lambda: defaultdict(dict))
    for bench in json.loads(path.read_text())["benchmarks"]:
        info = bench["extra_info"]
        told = info.get("ns_per_operation")
        ns = told if told is not None else bench["stats"]["min"] * 1e9 / info["operations"]
        found[info["kind"]][info["peer"]][info["size"]] = ns
    return found


def draw(kinds: dict[str, Series], target: Path) -> None:
    """One panel a kind, logarithmic in both directions; aimd in front."""
    figure, axes = plt.subplots(1, len(kinds), figsize=(6.2 * len(kinds), 4.8), squeeze=False)
    for axis, (kind, peers) in zip(axes[0], kinds.items(), strict=True):
        for peer, points in sorted(peers.items(), key=lambda item: -max(item[1].values())):
            own = peer == "aimd"
            sizes = sorted(points)
            style = {"linewidth": 2.8, "color": "black", "zorder": 5} if own else {"linewidth": 1.3}
            axis.plot(sizes, [points[size] for size in sizes], marker="o", markersize=4, label=peer, **style)
        axis.set(xscale="log", yscale="log", title=kind, xlabel="entries", ylabel="ns per operation")
        axis.grid(visible=True, which="major", alpha=0.3)
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    draw(series(Path(sys.argv[1])), Path(sys.argv[2]))
