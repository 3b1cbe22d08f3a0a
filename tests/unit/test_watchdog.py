"""The watchdog is fed while both paths turn, and no longer when one of them hangs."""

import asyncio

import pytest

from aimd.daemon.watchdog import Watchdog

PERIOD = 0.4


class Turning:
    """A path that turns when it is asked to, until it hangs."""

    def __init__(self):
        self.beats = 0.0
        self.hangs = False

    def ask_beat(self):
        self.beats += not self.hangs


def feeds(*, hanging=None):
    """How often the manager was told, in five periods, and how often after one path hung."""
    paths = {"control loop": Turning(), "dispatch thread": Turning()}
    fed = []

    async def live():
        watching = asyncio.create_task(Watchdog(paths, PERIOD, lambda: fed.append(1)).run())
        await asyncio.sleep(5 * PERIOD)
        before = len(fed)
        if hanging:
            paths[hanging].hangs = True
        await asyncio.sleep(PERIOD / 2)
        between = len(fed)
        await asyncio.sleep(5 * PERIOD)
        watching.cancel()
        return before, len(fed) - between

    return asyncio.run(live())


@pytest.mark.alone
def test_a_daemon_that_turns_is_fed_within_each_period():
    before, after = feeds()
    assert before >= 5
    assert after >= 5


@pytest.mark.parametrize("hanging", ["control loop", "dispatch thread"])
def test_a_path_that_hangs_is_not_covered_up_by_the_other(hanging, caplog):
    before, after = feeds(hanging=hanging)
    assert before >= 5
    assert after == 0
    assert caplog.text.count(f"the {hanging} does not turn") == 1
