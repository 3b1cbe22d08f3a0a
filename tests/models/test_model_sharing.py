"""HIGH keeps its latency objective while LOW floods the partition that they share, and without aimd it does not."""

import asyncio
import json
import tempfile
from pathlib import Path

import aiohttp
import pytest

from tests.models.sharing import OBJECTIVE, gates, measured, server


@pytest.mark.timeout(240)
def test_high_keeps_its_objective_with_aimd_alone(packages):
    """Wide ratios: the processors are shared with whatever else runs here."""
    alone, without, gated = measured(4)
    objective = OBJECTIVE * alone.quantile(0.5)
    assert without.kept(objective) < 0.2, (alone, without)
    assert gated.kept(objective) > 0.6, (alone, gated)
    assert gated.quantile(0.5) < without.quantile(0.5) / 3, (without, gated)
    assert gated.low_answers / gated.seconds > 0.25 * without.low_answers / without.seconds  # LOW goes on, too


@pytest.mark.timeout(120)
def test_a_stream_of_embeddings_through_the_gate_is_that_of_the_server(packages):
    texts = ["That is a happy person", "That is a happy dog", "Today is a sunny day"]

    async def streamed(origin):
        async with aiohttp.ClientSession() as client:
            async with client.post(f"{origin}/embed/stream", json={"texts": texts}) as response:
                assert response.content_type == "text/event-stream"
                events = (await response.text()).split("\n\n")
            async with client.post(f"{origin}/embed", json={"texts": texts}) as response:
                vectors = (await response.json())["embeddings"]
        return [json.loads(event.removeprefix("data: ")) for event in events if event], vectors

    with (
        tempfile.TemporaryDirectory(prefix="aimd-") as folder,
        server(packages) as direct,
        gates(Path(folder), direct) as gated,
    ):
        for origin in gated:
            events, vectors = asyncio.run(streamed(origin))
            assert events == vectors == asyncio.run(streamed(direct[0]))[1]
            happy = sum(a * b for a, b in zip(events[0], events[1], strict=True))
            assert happy == pytest.approx(0.695, abs=5e-4)
