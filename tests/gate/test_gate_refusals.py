"""What the gate answers itself: with which status, why, and when to come again."""

import asyncio
import time

import pytest

from aimd.dispatch.values import Outcome
from tests.gate.scene import scene, until
from tests.gate.test_gate_passing import played

PROBLEM = "application/problem+json"


def check(told, status, code, retry=None):
    found, headers, problem = told
    assert (found, problem.get("code")) == (status, code), problem
    assert headers["Content-Type"] == PROBLEM
    assert problem["status"] == status
    assert headers["X-Request-Id"] == problem["request_id"]
    assert (headers.get("Retry-After"), "retry_after" in problem) == (retry, retry is not None)
    return problem


async def with_all_slots_taken(s, slots=2):
    holding = [asyncio.create_task(s.told("/hold")) for _ in range(slots)]
    await until(lambda: s.upstream.inside == slots)
    return holding


def test_contention_is_429(make_dispatcher):
    async def story(dispatcher):
        async with scene(dispatcher) as s:
            holding = await with_all_slots_taken(s)
            check(await s.told(headers={"X-Aim-Timeout": "0.05"}), 429, "expired", "1")
            check(await s.told(headers={"X-Aim-Timeout": "0"}), 429, "would_block", "1")
            late = {"X-Aim-Complete-Within": "2", "X-Aim-Est-Service": "1.95"}
            check(await s.told(headers=late), 429, "expired", "1")
            by = {"X-Aim-Complete-By": f"{time.time() + 0.05}"}
            check(await s.told(headers=by), 429, "expired", "1")
            check(await s.told(headers={"X-Aim-Complete-By": "1e9"}), 429, "deadline_passed", "1")
            waiting = asyncio.create_task(s.told())
            await until(lambda: dispatcher.waiting() == 1)
            problem = check(await s.told(), 429, "queue_full_model", "1")
            assert problem["model"] == "llama"
            assert "queue is full" in problem["detail"]
            s.upstream.go.set()
            assert (await waiting)[0] == 200
            assert await s.counted('aim_gate_requests_total{class="default",outcome="queue_full_model"}') == 1
            assert await s.counted('aim_gate_responses_total{code="429"}') == 6
            await asyncio.gather(*holding)
        dispatcher.until_idle()

    played(story, make_dispatcher(queue_cap=1))


def test_what_aimd_is_not_ready_for_is_503(dispatcher):
    async def story():
        async with scene(dispatcher) as s:
            dispatcher.server.drain(0, draining=True)
            check(await s.told(), 503, "draining", "5")
            dispatcher.server.drain(0, draining=False)
            assert (await s.told())[0] == 200
            holding = await with_all_slots_taken(s)
            waiting = asyncio.create_task(s.told())
            await until(lambda: dispatcher.waiting() == 1)
            dispatcher.denied["llama"] = Outcome.UNKNOWN_PARTITION, "it is nowhere now"
            dispatcher.server.remove(0)
            problem = check(await waiting, 503, "unknown_partition", "5")
            assert "it is nowhere now" in problem["detail"]
            s.upstream.go.set()
            await asyncio.gather(*holding)
        async with scene(dispatcher, model="other") as s:
            check(await s.told(), 503, "unknown_model", "5")

    played(story)


def test_class_is_what_policy_allows(make_dispatcher):
    async def story(dispatcher):
        async with scene(dispatcher) as s:
            check(await s.told(headers={"X-Aim-Class": "high"}), 403, "unauthorised")
            assert (await s.told(headers={"X-Aim-Class": "LOW"}))[0] == 200
            assert (await s.told())[0] == 200
            assert [sum(dispatcher.model().outcomes[klass][:1]) for klass in range(3)] == [0, 1, 1]
            assert s.upstream.requests[0][2].get("X-Aim-Class") is None
        async with scene(dispatcher, highest="low") as s:
            problem = check(await s.told(headers={"X-Aim-Class": "medium"}), 403, "unauthorised")
            assert "--highest" in problem["detail"]
            assert (await s.told(headers={"X-Aim-Class": "low"}))[0] == 200
        dispatcher.denied["llama"] = Outcome.UNAUTHORISED, "uid 7 may not use it"
        async with scene(dispatcher) as s:
            assert "uid 7 may not use it" in check(await s.told(), 403, "unauthorised")["detail"]

    played(story, make_dispatcher(highest=1))


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Aim-Class": "best"},
        {"X-Aim-Timeout": "soon"},
        {"X-Aim-Timeout": "-1"},
        {"X-Aim-Timeout": "nan"},
        {"X-Aim-Timeout": "inf"},
        {"X-Aim-Complete-By": "tomorrow"},
        {"X-Aim-Est-Service": "1"},
        {"X-Aim-Est-Service": "1", "X-Aim-Timeout": "1"},
        {"X-Aim-Timeout": "1", "X-Aim-Complete-Within": "1"},
        {"X-Aim-Complete-By": "1", "X-Aim-Complete-Within": "1"},
    ],
)
def test_wrong_fields_are_400(dispatcher, headers):
    async def story():
        async with scene(dispatcher) as s:
            problem = check(await s.told(headers=headers), 400, "bad_aim_field")
            assert next(iter(headers)) in problem["detail"]
            assert s.upstream.requests == []
            assert sum(map(sum, dispatcher.model().outcomes)) == 0

    played(story)


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (
            (
                "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ),
            501,
            "websocket_refused",
        ),
        ("CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n", 501, "connect_refused"),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400, "bad_target"),
        ("GET http://elsewhere/ HTTP/1.1\r\nHost: elsewhere\r\nConnection: close\r\n\r\n", 400, "bad_target"),
        ("GET / HTTP/1.1\r\nHost: x\r\nExpect: a-miracle\r\n\r\n", 417, "bad_expect"),
        ("no HTTP at all\r\n\r\n", 400, "malformed_http"),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: " + "y" * 20000 + "\r\n\r\n", 400, "malformed_http"),
        ("GET / HTTP/1.1\r\nHost: x\r\n" + "X: y\r\n" * 200 + "\r\n", 400, "malformed_http"),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
            400,
            "malformed_http",
        ),
    ],
)
def test_what_is_no_plain_request_is_refused(dispatcher, request_, status, code):
    async def story():
        async with scene(dispatcher) as s:
            head, _, body = (await s.raw(request_.encode())).partition(b"\r\n\r\n")
            assert head.split()[1] == str(status).encode()
            assert f'"code": "{code}"'.encode() in body
            assert s.upstream.requests == []
            assert sum(map(sum, dispatcher.model().outcomes)) == 0

    played(story)


def test_a_malformed_body_is_the_clients_fault(dispatcher):
    """aiohttp's parser tells nobody who reads the body, so that it looks like one that does not go on."""

    async def story():
        async with scene(dispatcher, client_seconds=0.3) as s:
            answer = await s.raw(b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
            assert answer.split()[1] == b"400"
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
            writer.write(b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
            await until(lambda: s.upstream.got == 1)
            writer.write(b"zz\r\n")
            answer = await asyncio.wait_for(reader.read(), 5)
            assert answer.startswith(b"HTTP/1.1 408 ")
            writer.close()
        dispatcher.until_idle()
        assert dispatcher.ends() == (1, 0, 0, 0)

    played(story)


def test_free_paths_need_no_lease(dispatcher):
    async def story():
        async with scene(dispatcher, free=("/health", "/public/*")) as s:
            holding = await with_all_slots_taken(s)
            for path in ("/health", "/health?verbose", "/public/a/b"):
                assert (await s.told(path))[0] == 200
            check(await s.told("/healthy", headers={"X-Aim-Timeout": "0"}), 429, "would_block", "1")
            s.upstream.go.set()
            await asyncio.gather(*holding)
            assert await s.counted('aim_gate_requests_total{class="none",outcome="free"}') == 3

    played(story)


def test_own_pages(dispatcher):
    async def story():
        async with scene(dispatcher) as s:
            holding = await with_all_slots_taken(s)
            status, _, health = await s.told("/.aim/healthz")
            assert (status, health["status"], health["aimd"], health["requests_running"]) == (200, "ok", "reachable", 2)
            check(await s.told("/.aim/metrics", "POST"), 405, "method")
            check(await s.told("/.aim/other"), 404, "not_found")
            _, headers, text = await s.told("/.aim/metrics")
            assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
            lines = text.decode().splitlines()
            assert "aim_gate_requests_running 2" in lines
            assert 'aim_gate_requests_total{class="medium",outcome="granted"} 2' in lines
            assert len(lines) == len(set(lines))
            for line in lines:
                if not line.startswith("#"):
                    float(line.rsplit(" ", 1)[1])
            s.upstream.go.set()
            await asyncio.gather(*holding)
        dispatcher.stop()
        async with scene(dispatcher) as s:
            status, _, health = await s.told("/.aim/healthz")
            assert (status, health["aimd"]) == (200, "unreachable")  # restarting the gate would not bring aimd back

    played(story)


def test_connections_are_bounded(dispatcher):
    async def story():
        async with scene(dispatcher, connections=2) as s:
            kept = [await asyncio.open_connection("127.0.0.1", s.port) for _ in range(2)]
            await asyncio.sleep(0.05)
            answer = await s.raw(b"")
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b'"code": "gate_full"' in answer
            assert b"Retry-After: 1" in answer
            for _, writer in kept:
                writer.close()
            await asyncio.sleep(0.05)
            assert (await s.told())[0] == 200
            assert await s.counted("aim_gate_connections_refused_total") == 1

    played(story)
