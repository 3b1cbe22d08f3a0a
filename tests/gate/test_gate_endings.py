"""However a request ends, its lease is given back, and as what."""

import asyncio
import contextlib

import aiohttp
import pytest

from aimd.dispatch.gate.settings import Upstream as Target
from tests.gate.scene import scene, until
from tests.gate.test_gate_passing import MB, played
from tests.gate.test_gate_refusals import check, with_all_slots_taken

CLIENT_ENDS = aiohttp.ClientError, asyncio.TimeoutError, ConnectionError


async def cancelled(task):
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def test_client_that_goes_while_the_model_server_works(dispatcher):
    async def story():
        async with scene(dispatcher) as s:
            (one, two) = await with_all_slots_taken(s)
            await cancelled(one)
            await until(lambda: s.upstream.aborted == 1)
            dispatcher.until(lambda: dispatcher.running() == 1)
            s.upstream.go.set()
            assert (await two)[0] == 200
            assert await s.counted('aim_gate_cut_total{reason="client_gone"}') == 1
        dispatcher.until_idle()
        assert dispatcher.ends() == (2, 0, 0, 0)  # that it is not wanted any more is nobody's failure

    played(story)


def test_client_that_goes_in_the_middle_of_a_stream(dispatcher):
    async def story():
        async with scene(dispatcher) as s:
            async with s.ask("/steps") as response:
                s.upstream.steps.put_nowait(1)
                await response.content.readuntil(b"\n\n")
                response.close()
            await until(lambda: s.upstream.aborted == 1)
        dispatcher.until_idle()
        assert dispatcher.ends() == (1, 0, 0, 0)

    played(story)


@pytest.mark.parametrize("body", [None, 4 * MB])
def test_client_that_goes_while_it_waits(dispatcher, body):
    """With a body, nothing of its connection is read meanwhile, and its end shows itself to a poll alone."""

    async def story():
        async with scene(dispatcher) as s:
            holding = await with_all_slots_taken(s)
            _, writer = await asyncio.open_connection("127.0.0.1", s.port)
            writer.write(f"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: {body or 0}\r\n\r\n".encode())
            writer.write(bytes((body or 0) * 5 // 32))  # more than aiohttp reads ahead (512 KiB), and what buffers hold
            await until(lambda: dispatcher.waiting() == 1)
            writer.close()
            await until(lambda: dispatcher.waiting() == 0, 3)
            s.upstream.go.set()
            await asyncio.gather(*holding)
            assert len(s.upstream.requests) == 2
            assert await s.counted('aim_gate_cut_total{reason="client_gone"}') == 1

    played(story)


def test_client_that_sends_nothing_more(dispatcher):
    async def story():
        async with scene(dispatcher, client_seconds=0.3) as s:
            answer = await s.raw(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"client_stalled" in answer
            await until(lambda: s.upstream.inside == 0)
        dispatcher.until_idle()
        assert dispatcher.ends() == (1, 0, 0, 0)

    played(story)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHos", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_client_that_does_not_ask_is_let_go(dispatcher, sent):
    """Nothing sent, a part of a head, and nothing after an answer."""

    async def story():
        async with scene(dispatcher, idle_seconds=0.3) as s:
            answer = await s.raw(sent)
            assert bool(answer) == sent.endswith(b"\r\n\r\n")

    played(story)


def test_client_that_takes_nothing_more(dispatcher):
    async def story():
        async with scene(dispatcher, client_seconds=0.3) as s:
            _, writer = await asyncio.open_connection("127.0.0.1", s.port, limit=1024)
            writer.write(b"GET /flood?mb=200 HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: s.upstream.inside == 1)
            await until(lambda: s.upstream.inside == 0)
            dispatcher.until_idle()
            assert dispatcher.ends() == (1, 0, 0, 0)
            assert await s.counted('aim_gate_cut_total{reason="client_stalled"}') == 1
            writer.transport.abort()

    played(story)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/abort", 502, "upstream_closed"), ("/sleep?s=5", 504, "upstream_timeout"), ("/status/500", 500, None)],
)
def test_failures_of_the_model_server(dispatcher, path, status, code):
    async def story():
        async with scene(dispatcher, upstream_seconds=0.3) as s:
            told = await s.told(path, "POST")
            if code is None:
                assert told[0] == status
            else:
                check(told, status, code)
            assert await s.counted(f'aim_gate_upstream_failures_total{{reason="{code or "status"}"}}') == 1
            assert (await s.told("/status/404"))[0] == 404
        dispatcher.until_idle()
        assert dispatcher.ends() == (1, 1, 0, 0)

    played(story)


def test_model_server_that_is_not_there(dispatcher):
    async def story():
        async with scene(dispatcher) as s:
            await s.upstream.runner.cleanup()
            problem = check(await s.told(), 502, "upstream_unreachable")
            assert s.upstream.origin in problem["detail"]
            check(await s.told("/", "PUT", data=b"body"), 502, "upstream_unreachable")
        dispatcher.until_idle()
        assert dispatcher.ends() == (0, 2, 0, 0)

    played(story)


@pytest.mark.parametrize("how", ["chunked", "length", "close"])
def test_answer_that_breaks_off_is_seen_to(dispatcher, how):
    async def story():
        async with scene(dispatcher) as s:
            if how == "close":  # to HTTP/1.0 the end of the connection is the end of the body: only a reset tells
                s.upstream.steps.put_nowait(1)
                reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
                writer.write(b"GET /steps HTTP/1.0\r\n\r\n")
                await reader.readuntil(b"data: 1\n\n")
                s.upstream.steps.put_nowait(ValueError("broken"))
                with pytest.raises(ConnectionResetError):
                    await reader.read()
                writer.close()
            else:
                s.upstream.steps.put_nowait(ValueError("broken"))
                with pytest.raises(aiohttp.ClientPayloadError):
                    await s.told("/steps" if how == "chunked" else "/short")
            assert await s.counted('aim_gate_cut_total{reason="upstream_closed"}') == 1
        dispatcher.until_idle()
        assert dispatcher.ends() == (0, 1, 0, 0)

    played(story)


def test_body_is_not_sent_twice(dispatcher):
    """A model server that closes a kept connection on its second request: a body that has gone cannot go again."""
    heads, bodies = [], []

    async def answer_once(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):
            for number in range(2):
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                bodies.append(await reader.readexactly(5))
                if number == 0:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def story():
        async with await asyncio.start_server(answer_once, "127.0.0.1", 0) as server:
            target = Target(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            async with scene(dispatcher, upstream=target) as s:
                assert (await s.told("/", "PUT", data=b"12345"))[0] == 200
                check(await s.told("/", "PUT", data=b"12345"), 502, "upstream_closed")
            assert len(heads) == len(bodies) == 2
        dispatcher.until_idle()
        assert dispatcher.ends() == (1, 1, 0, 0)

    played(story)


def test_leases_of_long_streams_are_renewed(make_dispatcher):
    async def story(dispatcher):
        async with scene(dispatcher) as s, s.ask("/steps") as response:
            for number in range(8):
                s.upstream.steps.put_nowait(number)
                await response.content.readuntil(b"\n\n")
                await asyncio.sleep(0.2)
            s.upstream.steps.put_nowait(None)
            await response.read()
        dispatcher.until_idle()
        assert dispatcher.ends() == (1, 0, 0, 0)

    played(story, make_dispatcher(lease_max=0.5))


@pytest.mark.parametrize("keep", [False, True])
def test_lease_that_is_taken_back(make_dispatcher, keep):
    """Another model is owed the slot, so that the renewal of this one is refused until its life is over."""

    async def story(dispatcher):
        async with scene(dispatcher, keep_lost=keep) as s, scene(dispatcher, model="owed") as other:
            streaming = asyncio.create_task(s.told("/steps"))
            await until(lambda: s.upstream.inside == 1)
            owed = asyncio.create_task(other.told("/hold"))
            await until(lambda: other.upstream.inside == 1, 5)  # after the end of the first one's life
            if keep:
                await asyncio.sleep(0.6)
                s.upstream.steps.put_nowait(None)
                assert (await streaming)[0] == 200
            else:
                with pytest.raises(aiohttp.ClientPayloadError):
                    await streaming
                await until(lambda: s.upstream.inside == 0)
                assert await s.counted('aim_gate_cut_total{reason="lease_lost"}') == 1
            assert await s.counted("aim_gate_lost_leases_total") == 1
            other.upstream.go.set()
            await owed
        assert dispatcher.ends() == (0, 0, 1, 0)

    played(story, make_dispatcher(models=("llama", "owed"), guarantees={"owed": 1}, slots=1, lease_max=0.6))


def test_lost_before_the_first_byte_is_503(make_dispatcher):
    async def story(dispatcher):
        async with scene(dispatcher) as s, scene(dispatcher, model="owed") as other:
            first = asyncio.create_task(s.told("/hold"))
            await until(lambda: s.upstream.inside == 1)
            owed = asyncio.create_task(other.told("/hold"))
            check(await first, 503, "lease_lost", "1")
            other.upstream.go.set()
            await owed

    played(story, make_dispatcher(models=("llama", "owed"), guarantees={"owed": 1}, slots=1, lease_max=0.6))
