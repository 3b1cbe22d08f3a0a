"""Whatever happens to a crowd of requests in whatever order, at the end nothing is held and nobody waits."""

import asyncio
import contextlib
import tempfile
from pathlib import Path

import aiohttp
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.gate.dispatcher import Dispatcher
from tests.gate.scene import scene, until

REQUESTS = [
    ("GET", "/sleep?s=0.02"),
    ("GET", "/status/500"),
    ("HEAD", "/sleep?s=0"),
    ("POST", "/abort"),
    ("GET", "/short"),
    ("GET", "/sleep?s=9"),  # longer than the gate waits for the model server
    ("GET", "/flood?mb=4"),
    ("POST", "/upload"),
]
WAITS = [{}, {"X-Aim-Timeout": "0.03"}, {"X-Aim-Timeout": "0"}, {"X-Aim-Class": "low"}]
CLIENT_ERRORS = aiohttp.ClientError, asyncio.TimeoutError, ConnectionError

requests = st.tuples(
    st.sampled_from(REQUESTS),
    st.sampled_from(WAITS),
    st.floats(0, 0.2),  # when it begins
    st.none() | st.floats(0, 0.2),  # after how long its client gives up
)
outages = st.none() | st.tuples(st.floats(0, 0.2), st.floats(0, 0.2), st.booleans())


async def request(s, what, headers, begin, end):
    (method, path) = what
    data = bytes(300_000) if method == "POST" else None
    await asyncio.sleep(begin)
    with contextlib.suppress(*CLIENT_ERRORS):
        timeout = aiohttp.ClientTimeout(total=end or 20)
        async with s.ask(path, method, headers=headers, data=data, timeout=timeout) as response:
            await response.read()


async def outage(dispatcher, begin, pause, forgetful):
    await asyncio.sleep(begin)
    await asyncio.to_thread(dispatcher.stop)
    if forgetful:
        dispatcher.forget_leases()
    await asyncio.sleep(pause)
    await asyncio.to_thread(dispatcher.start)


async def story(dispatcher, crowd, away, policy):
    async with scene(dispatcher, upstream_seconds=0.3, patience=0.15, fail_open=policy) as s:
        doing = [request(s, *each) for each in crowd]
        if away is not None:
            doing.append(outage(dispatcher, *away))
        await asyncio.gather(*doing)
        await until(lambda: not s.gate.exchanges, 5)
        await asyncio.to_thread(dispatcher.until_idle)
        await until(lambda: s.upstream.inside == 0, 12)
        status, _, _ = await s.told("/status/200")
        assert status == 200
        await asyncio.to_thread(dispatcher.until_idle)


@pytest.mark.timeout(300)
@settings(
    max_examples=25,
    suppress_health_check=list(HealthCheck),
    phases=[
        Phase.explicit,
        Phase.reuse,
        Phase.generate,
    ],  # no shrinking: a history that fails waits for what never comes
)
@given(st.lists(requests, min_size=1, max_size=12), outages, st.booleans())
def test_nothing_is_held_at_the_end(crowd, away, policy):
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder, Dispatcher(Path(folder)) as dispatcher:
        asyncio.run(asyncio.wait_for(story(dispatcher, crowd, away, policy), 60))
