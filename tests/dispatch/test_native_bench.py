"""Arguments of the measuring module: what is out of its range is refused before any memory is touched."""

import pytest

from aimd._native.bench import bench_cycle, bench_decision, bench_expiry, bench_life, bench_sketch, bench_snapshot

GOOD = {
    bench_cycle: {"n": 10, "waiting": 3, "models": 2, "rounds": 1},
    bench_decision: {"n": 10, "waiting": 3, "models": 2},
    bench_expiry: {"waiting": 100, "fraction": 0.5},
    bench_snapshot: {"partitions": 2, "models": 2, "rounds": 1, "blocks": 4},
    bench_sketch: {"n": 10, "rounds": 1},
    bench_life: {"n": 10, "seed": 1, "requests": 40},
}
ARGUMENTS = [(call, name) for call, arguments in GOOD.items() for name in arguments]
FROM_NOTHING = ("n", "seed", "waiting")


@pytest.mark.parametrize(("call", "name"), ARGUMENTS, ids=lambda value: getattr(value, "__name__", value))
def test_an_argument_out_of_its_range_is_refused(call, name):
    wrong = [-1, 1 << 31, 1 << 40, 1 << 70]
    if name == "fraction":
        wrong = [-0.1, 1.1, float("nan"), float("inf")]
    elif name not in FROM_NOTHING:
        wrong.append(0)
    for value in wrong:
        with pytest.raises(ValueError, match=rf"^{name} is "):
            call(**{**GOOD[call], name: value})
    call(**GOOD[call])


def test_more_models_than_a_core_has_are_refused():
    with pytest.raises(ValueError, match="4096 models in all are expected at most"):
        bench_snapshot(1024, 64, 1)


def test_what_is_asked_for_is_measured():
    assert bench_expiry(1000, 0.25)[1] == 250
    assert bench_expiry(1000, 0.0)[1] == 0
    assert len(bench_decision(100, 5)) == 100
    told = bench_snapshot(2, 3, 2)
    assert told["steps"] > 0
    assert told["step"] <= told["step_most"]
