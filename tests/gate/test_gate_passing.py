"""What goes through the gate arrives as it was sent, both ways, and nothing waits for the whole of it."""

import asyncio
import gzip
import time

import aiohttp
import pytest

from aimd.dispatch.gate.settings import Address
from aimd.dispatch.gate.settings import Upstream as Target
from tests.gate.scene import scene, until

MB = 1 << 20


def played(story, *arguments):
    asyncio.run(asyncio.wait_for(story(*arguments), 60))


def test_request_and_response_arrive_whole(dispatcher):
    async def story():
        async with scene(dispatcher) as s:
            status, headers, told = await s.told(
                "/v1/chat%2Fx?q=a%20b&q=%C3%A9", "POST", data=b"body", headers={"X-Thing": "1", "Content-Type": "x/y"}
            )
            assert status == 200
            assert (told["method"], told["path"], told["body"]) == ("POST", "/v1/chat%2Fx?q=a%20b&q=%C3%A9", "body")
            sent = {name.lower(): value for name, value in told["headers"]}
            assert sent["x-thing"] == "1"
            assert sent["content-type"] == "x/y"
            assert sent["content-length"] == "4"
            assert headers["Server-Timing"].startswith("aim-wait;dur=")
        dispatcher.until_idle()
        assert dispatcher.ends() == (1, 0, 0, 0)

    played(story)


def test_hop_by_hop_fields_end_at_the_gate(dispatcher):
    async def story():
        async with scene(dispatcher) as s:
            answer = await s.raw(
                b"GET / HTTP/1.1\r\nHost: model.example\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\n"
                b"Keep-Alive: timeout=5\r\nTE: trailers\r\nProxy-Authorization: x\r\nUpgrade: h2c\r\nX-Kept: 1\r\n"
                b"X-Aim-Timeout: 3\r\nVia: 1.0 first\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n"
            )
            (_, _, sent), head = s.upstream.requests[0], answer.partition(b"\r\n\r\n")[0].lower()
            gone = ["X-Secret", "Keep-Alive", "TE", "Proxy-Authorization", "Upgrade", "X-Aim-Timeout"]
            assert [name for name in gone if name in sent] == []
            assert sent["X-Kept"] == "1"
            assert sent["Host"] == sent["X-Forwarded-Host"] == "model.example"
            assert sent["X-Forwarded-Proto"] == "http"
            assert sent["X-Forwarded-For"] == "9.9.9.9, 127.0.0.1"
            assert sent["Via"] == "1.0 first, 1.1 aimd-gate"
            assert b"x-model" not in head  # named by the model server's own Connection

    played(story)


def test_host_of_the_upstream_if_wanted(dispatcher):
    async def story():
        async with scene(dispatcher, preserve_host=False) as s:
            await s.told("/", headers={"Host": "model.example"})
            (_, _, sent) = s.upstream.requests[0]
            assert s.upstream.origin == f"http://{sent['Host']}"
            assert sent["X-Forwarded-Host"] == "model.example"

    played(story)


def test_request_ids_are_kept_or_made(dispatcher):
    async def story():
        async with scene(dispatcher) as s:
            _, headers, _ = await s.told("/", headers={"X-Request-Id": "abc-1"})
            assert headers["X-Request-Id"] == s.upstream.requests[0][2]["X-Request-Id"] == "abc-1"
            _, headers, _ = await s.told("/")
            assert headers["X-Request-Id"] == s.upstream.requests[1][2]["X-Request-Id"] != "abc-1"
            assert len(headers["X-Request-Id"]) == 32
            for strange in ("with spaces", "x" * 129):
                _, headers, _ = await s.told("/", headers={"X-Request-Id": strange})
                assert headers["X-Request-Id"] == s.upstream.requests[-1][2]["X-Request-Id"] != strange
            assert headers["Server"].startswith("Python")  # the model server's own
            _, headers, problem = await s.told("/", headers={"X-Aim-Class": "best", "X-Request-Id": "of-a-refusal"})
            assert headers["X-Request-Id"] == problem["request_id"] == "of-a-refusal"
            assert headers["Server"] == "aimd-gate"

    played(story)


@pytest.mark.parametrize("status", [200, 204, 301, 304, 404, 418, 500, 503])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_statuses_pass(dispatcher, status, method):
    async def story():
        async with scene(dispatcher) as s:
            async with s.ask(f"/status/{status}", method, allow_redirects=False) as response:
                assert response.status == status
                assert await response.read() == (b"" if method == "HEAD" or status in (204, 304) else b"as told")
                if method == "HEAD" and status not in (204, 304):
                    assert response.headers["Content-Length"] == "7"
            assert (await s.told("/"))[0] == 200  # on the same connection
        dispatcher.until_idle()
        assert dispatcher.ends() == ((1, 1, 0, 0) if status >= 500 else (2, 0, 0, 0))

    played(story)


def test_compressed_bodies_are_not_touched(dispatcher):
    async def story():
        packed = gzip.compress(b"x" * 1000, mtime=0)
        async with scene(dispatcher) as s:
            _, _, told = await s.told("/", "PUT", data=packed, headers={"Content-Encoding": "gzip"})
            assert told["body"].encode("latin-1") == packed
            assert ["Content-Encoding", "gzip"] in told["headers"]

    played(story)


def test_events_pass_one_by_one(dispatcher):
    async def story():
        async with scene(dispatcher) as s, s.ask("/steps") as response:  # its head is here before the first event
            assert response.content_type == "text/event-stream"
            for number in range(20):
                s.upstream.steps.put_nowait(number)
                line = await asyncio.wait_for(response.content.readuntil(b"\n\n"), 2)
                assert line == f"data: {number}\n\n".encode()
            s.upstream.steps.put_nowait(None)
            assert await response.content.read() == b""

    played(story)


def test_a_body_is_passed_on_while_it_comes(dispatcher):
    async def story():
        async with scene(dispatcher) as s:
            more = asyncio.Event()

            async def pieces():
                yield b"a" * 1000
                await more.wait()
                yield b"b" * 1000

            asking = asyncio.create_task(s.told("/upload", "POST", data=pieces()))
            await until(lambda: s.upstream.got == 1000)
            more.set()
            assert (await asking)[2] == b"2000"

    played(story)


def test_nobody_is_read_faster_than_the_other_side_takes_it(dispatcher):
    """64 MB either way, into sides that do not read: what left the sender is what buffers of sockets hold."""

    async def story():
        async with scene(dispatcher) as s:
            sent = 0

            async def pieces():
                nonlocal sent
                for _ in range(64):
                    yield bytes(MB)
                    sent += MB

            asking = asyncio.create_task(s.told("/upload?wait", "POST", data=pieces()))
            await until(lambda: s.upstream.inside == 1)
            await asyncio.sleep(0.5)
            assert sent < 24 * MB
            s.upstream.go.set()
            assert int((await asking)[2]) == 64 * MB

            s.upstream.got = 0
            async with s.ask("/flood?mb=64") as response:
                await asyncio.sleep(0.5)
                assert s.upstream.got < 24 * MB
                assert len(await response.read()) == 64 * MB

    played(story)


def test_continue_is_said_when_there_is_a_lease_and_not_before(make_dispatcher):
    async def story(dispatcher):
        async with scene(dispatcher) as s:
            holding = asyncio.create_task(s.told("/hold"))
            await until(lambda: s.upstream.inside == 1)
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
            writer.write(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.3)
            s.upstream.go.set()
            assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"12345")
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
            assert "Expect" not in s.upstream.requests[1][2]
            await holding
            writer.close()

    played(story, make_dispatcher(slots=1))


def test_chunks_and_old_clients(dispatcher):
    async def story():
        async with scene(dispatcher) as s:
            answer = await s.raw(
                b"POST /upload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
            )
            assert answer.endswith(b"\r\n\r\n5")
            answer = await s.raw(b"GET /flood?mb=1 HTTP/1.0\r\n\r\n")
            head, _, body = answer.partition(b"\r\n\r\n")
            assert b"chunked" not in head.lower()
            assert len(body) == MB

    played(story)


def test_path_of_the_upstream_goes_before(dispatcher):
    async def story():
        async with scene(dispatcher) as s:
            target = Target(s.upstream.origin, "/base")
            async with scene(dispatcher, upstream=target) as other:
                assert (await other.told("/x?y"))[2]["path"] == "/base/x?y"
            assert s.upstream.requests[0][1] == "/base/x?y"

    played(story)


def test_it_costs_little(dispatcher):
    """A hundred requests one after the other; a wide bound, since what is slow is a whole poll or timer."""

    async def story():
        async with scene(dispatcher) as s:
            await s.told("/status/200")
            began = time.monotonic()
            for _ in range(100):
                await s.told("/status/200")
            assert time.monotonic() - began < 4
            assert await s.counted('aim_gate_first_byte_seconds_count{class="medium"}') == 101

    played(story)


def test_unix_sockets_on_both_sides(dispatcher, tmp_path):
    async def story():
        path = str(tmp_path / "gate.sock")
        async with scene(dispatcher) as s:
            inner = (Address(path=path),)
            async with scene(dispatcher, listen=inner, upstream=Target(s.upstream.origin)) as _:
                target = Target("http://localhost", path=path)
                async with scene(dispatcher, upstream=target) as outer:
                    status, _, told = await outer.told("/through-two", headers={"Host": "h"})
                    assert (status, told["path"]) == (200, "/through-two")
                    forwarded = dict(told["headers"])["X-Forwarded-For"]
                    assert forwarded == "127.0.0.1"  # a Unix socket's peer has no address to add
        assert not (tmp_path / "gate.sock").exists()

    played(story)


def test_class_of_the_field_decides_who_goes_next(make_dispatcher):
    async def story(dispatcher):
        async with scene(dispatcher) as s:
            holding = asyncio.create_task(s.told("/hold"))
            await until(lambda: s.upstream.inside == 1)
            waiting = []
            for number, klass in enumerate(["low", "low", "medium", "high"]):
                waiting.append(asyncio.create_task(s.told(f"/{klass}/{number}", headers={"X-Aim-Class": klass})))
                await until(lambda number=number: dispatcher.waiting() == number + 1)
            s.upstream.go.set()
            await asyncio.gather(holding, *waiting)
            assert [path for _, path, _ in s.upstream.requests] == ["/hold", "/high/3", "/medium/2", "/low/0", "/low/1"]

    played(story, make_dispatcher(slots=1))


def test_earliest_deadline_goes_first(make_dispatcher):
    async def story(dispatcher):
        async with scene(dispatcher) as s:
            holding = asyncio.create_task(s.told("/hold"))
            await until(lambda: s.upstream.inside == 1)
            fields = [
                {"X-Aim-Timeout": "30"},
                {"X-Aim-Complete-Within": "40", "X-Aim-Est-Service": "20"},
                {"X-Aim-Complete-By": str(time.time() + 10)},
            ]
            waiting = []
            for number, headers in enumerate(fields):
                waiting.append(asyncio.create_task(s.told(f"/{number}", headers=headers)))
                await until(lambda number=number: dispatcher.waiting() == number + 1)
            s.upstream.go.set()
            await asyncio.gather(holding, *waiting)
            assert [path for _, path, _ in s.upstream.requests] == ["/hold", "/2", "/1", "/0"]

    played(story, make_dispatcher(slots=1))


def test_cookies_and_redirects_are_the_clients_own(dispatcher):
    async def story():
        async with scene(dispatcher) as s:
            jar = aiohttp.DummyCookieJar()
            async with aiohttp.ClientSession(cookie_jar=jar) as client:
                async with client.get(s.origin + "/status/302", allow_redirects=False) as response:
                    assert response.status == 302
                async with client.get(s.origin + "/", headers={"Cookie": "a=1; b=2"}) as response:
                    told = await response.json(content_type=None)
                    assert ["Cookie", "a=1; b=2"] in told["headers"]
                async with client.get(s.origin + "/") as response:
                    assert "Cookie" not in dict((await response.json(content_type=None))["headers"])

    played(story)
