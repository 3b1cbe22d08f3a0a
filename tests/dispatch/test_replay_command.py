"""`aimd replay` as a user runs it: table, JSON, plot, refusals; and the Azure traces where they are at hand."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from aimd.cli import main
from aimd.replay.report import CLASSES, _percent
from tests.conftest import shared_data_folder
from tests.dispatch.traces import made_up, write

TRACES = shared_data_folder() / "traces"
NAMES = [TRACES / f"AzureLLMInferenceTrace_{name}.csv" for name in ("conv", "code")]
LOADS = (0.8, 1.0, 1.3, 2.0)


def replay(*arguments):
    return CliRunner().invoke(main, ["replay", *map(str, arguments)])


def in_own_process(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


@pytest.fixture
def trace(tmp_path):
    return made_up(tmp_path / "day.csv", 400)


def test_table_states_what_it_rests_on(trace):
    done = replay(trace, "--slots", 4, "--mix", "d*=10/20/70", "--seed", 7, "--load", 1, "--load", 2)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == f"trace: {trace}: 400 requests in 154 s"
    assert lines[1:6] == [
        "cost (declared, not measured): 0.12 ms per context token + 12 ms per generated token",
        "load: arrivals are spaced so that this is LOAD times what 4 slots can serve until the last one",
        "classes (drawn where the trace has none), % high/medium/low: d* 10/20/70, others 25/50/25",
        "deadlines (likewise): budget 2/6/30 s x one of {1, 1, 3} + 2 x service time",
        "seeds: 7; the numbers are over all of them",
    ]
    assert "POLICY           LOAD 1   LOAD 2" in lines
    assert "POLICY           LOAD    HIGH   MEDIUM     LOW   GAP-HIGH   GAP-MEDIUM   GAP-LOW" in lines
    assert done.stderr == "replaying 400 requests 16 times ...\n"


def test_json_has_the_same_and_the_same_again(trace):
    first, second = (replay(trace, "-o", "json", "--policy", "edf", "--policy", "aimd").stdout for _ in range(2))
    assert first == second
    told = json.loads(first)
    assert told["assumptions"]["seeds"] == [1, 2, 3]
    assert told["trace"]["models"] == ["day"]
    assert [(result["load"], result["policy"]) for result in told["results"]] == [
        (load, name) for load in LOADS for name in ("edf", "aimd")
    ]
    for result in told["results"]:
        classes = result["classes"].values()
        assert sum(each["requests"] for each in classes) == 3 * 400
        assert all(each["met"] + each["late"] + each["expired"] == each["requests"] for each in classes)


def test_seeds_are_counted_together_and_their_spread_is_told(trace):
    arguments = (trace, "-o", "json", "--policy", "edf", "--load", 1.3, "--slots", 4)
    together, *each = [
        json.loads(replay(*arguments, *(word for seed in seeds for word in ("--seed", seed))).stdout)["results"][0]
        for seeds in ((1, 2, 3), (1,), (2,), (3,))
    ]
    percents = [result["met_percent"] for result in each]
    assert together["met_percent_spread"] == max(percents) - min(percents) > 0
    assert together["met_percent"] == pytest.approx(sum(percents) / 3)
    gaps = [result["classes"]["low"]["longest_gap"] for result in each]
    assert together["classes"]["low"]["longest_gap"] == max(gaps)


@pytest.mark.parametrize(("value", "shown"), [(100.0, "100.0"), (99.97, "99.9"), (0.04, "0.0"), (None, "-")])
def test_percentage_of_100_means_all(value, shown):
    assert _percent(value) == shown


def test_class_without_requests_has_no_percentage(trace):
    arguments = (trace, "--mix", "day=0/100/0", "--load", 1, "--policy", "edf")
    (result,) = json.loads(replay(*arguments, "-o", "json").stdout)["results"]
    assert result["classes"]["high"]["met_percent"] is None
    assert replay(*arguments).stdout.splitlines()[-1].split()[2::2] == [
        "-",
        "-",
        str(result["classes"]["medium"]["longest_gap"]),
    ]


@pytest.mark.parametrize("end", ["png", "svg", "pdf"])
def test_plot(trace, tmp_path, end):
    pytest.importorskip("matplotlib")
    target = tmp_path / f"replay.{end}"
    done = replay(trace, "--plot", target, "--load", 1, "--load", 2, "--seed", 1)
    assert done.exit_code == 0, done.output
    assert target.stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--plot", "x.jpeg"), "error: plot x.jpeg ends in no known format, expected one of .pdf, .png, .svg"),
        (("--plot", "/no/where/x.png"), "error: plot /no/where/x.png cannot be written: /no/where is no folder"),
        (("--mix", "night=0/0/100"), "error: mix night matches no model, expected a pattern for one of day"),
        (("--mix", "day=0/0/99"), "'day=0/0/99', expected a pattern and percentages that come to 100"),
        (("--budget", "2/6"), "'2/6', expected three numbers from 0 to 1e+06 such as 2/6/30"),
        (("--budget", "2/6/nan"), "'2/6/nan', expected three numbers"),
        (("--load", "nan"), "nan, expected a number"),
        (("--output-ms", "nan"), "nan, expected a number"),
        (("--prompt-ms", "0", "--output-ms", "0"), "the trace has no tokens"),
    ],
)
def test_refusals_are_usage_errors_of_one_sentence(trace, arguments, said):
    done = replay(trace, *arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_bad_row_is_told_before_anything_is_replayed(tmp_path):
    done = replay(write(tmp_path / "a.csv", "1,1,1", "2,x,1"))
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: trace {tmp_path}/a.csv, line 3, column ContextTokens: is 'x', expected a whole number from 0 to 1000000000\n"
    )


def test_plot_without_matplotlib_says_what_to_install(trace, tmp_path):
    program = (
        "import sys; sys.modules['matplotlib'] = None; from aimd.cli import main; "
        f"main(['replay', {str(trace)!r}, '--plot', {str(tmp_path / 'x.png')!r}])"
    )
    done = in_own_process(program)
    assert done.returncode == 2
    assert done.stderr == (
        "error: matplotlib is not installed, expected it for a plot\nhint: pip install 'aimd[dev]', or matplotlib alone\n"
    )


def test_matplotlib_is_loaded_for_a_plot_only(trace):
    program = (
        "import sys; from aimd.cli import main; "
        f"main(['replay', {str(trace)!r}, '--load', '1', '--seed', '1'], standalone_mode=False); "
        "sys.exit('matplotlib' in sys.modules)"
    )
    done = in_own_process(program)
    assert done.returncode == 0, done.stderr


def azure(*arguments):
    """Percent of all by (policy, load), and the results by the same key, of the Azure traces."""
    if not all(path.exists() for path in NAMES):
        pytest.skip(f"no Azure LLM 2023 traces in {TRACES} (AIMD_SHARED_DATA names the folder above it)")
    done = replay(*NAMES, "--mix", "*_code=0/0/100", "-o", "json", *arguments)
    assert done.exit_code == 0, done.output
    results = {(result["policy"], result["load"]): result for result in json.loads(done.stdout)["results"]}
    return {key: result["met_percent"] for key, result in results.items()}, results


def assert_order_of_the_design(percent):
    """Worst to best at each load; `class-start-by` is what the design measured, `aimd` the rule that came of it."""
    worst_to_best = {
        0.8: ["prototype", "class-fifo", "aimd"],
        1.0: ["prototype", "edf", "class-edf", "class-fifo", "aimd"],
        1.3: ["edf", "prototype", "class-edf", "class-fifo", "aimd"],
        2.0: ["edf", "prototype", "class-edf", "class-fifo", "aimd"],
    }
    for load, names in worst_to_best.items():
        percents = [percent[name, load] for name in names]
        assert percents == sorted(set(percents)), (load, names, percents)
        assert percent["aimd", load] == pytest.approx(percent["class-start-by", load], abs=1)
    assert all(percent[name, 0.8] > 99.95 for name in ("edf", "class-edf", "class-start-by", "aimd"))


def assert_high_is_kept_and_low_not_starved(results):
    for load in LOADS:
        classes = results["aimd", load]["classes"]
        assert classes["high"]["met"] == classes["high"]["requests"]
        assert classes["low"]["longest_gap"] <= 15
        assert classes["medium"]["longest_gap"] <= 8
    assert results["class-start-by", 2.0]["classes"]["low"]["longest_gap"] > 10_000


def test_azure_traces_keep_the_order_of_the_design():
    chosen = ("prototype", "class-fifo", "class-edf", "edf", "class-start-by", "aimd")
    percent, results = azure("--seed", 2, *(word for name in chosen for word in ("--policy", name)))
    assert_order_of_the_design(percent)
    assert_high_is_kept_and_low_not_starved(results)


@pytest.mark.campaign
def test_azure_traces_come_to_the_numbers_of_the_design():
    """The documented command: the numbers of the design's table within two points, gaps as it has them."""
    percent, results = azure()
    assert_order_of_the_design(percent)
    assert_high_is_kept_and_low_not_starved(results)
    table = {
        "prototype": (98.7, 53.9, 50.3, None),
        "class-fifo": (99.3, 89.3, 60.9, 29.8),
        "class-edf": (100, 88.7, 56.7, 21.1),
        "edf": (100, 74.9, 11.7, 2.6),
        "class-start-by": (100, 92.3, 63.5, 38.8),
    }
    for name, numbers in table.items():
        for load, number in zip(LOADS, numbers, strict=True):
            assert number is None or percent[name, load] == pytest.approx(number, abs=1)
    shares = [results["aimd", 2.0]["classes"][name]["met_percent"] for name in CLASSES]
    assert shares == pytest.approx([100, 55, 7], abs=1)
