"""Deliberate faults in the native server, each built and shown to be caught: `pytest -m campaign` with this file.

A fault replaces one text that occurs once. The same build without a fault must pass first, or nothing would be shown.
"""

import pytest

from tests.dispatch.builds import build, copy_sources, run_tests

FRAMES = {
    "a size of no frame": ("receiving.pxi", "or size > MOST_FRAME or size % 8:\n            snprintf", "or size > MOST_FRAME:\n            snprintf"),
    "sizes are not compared": ("receiving.pxi", "elif frame.size < expected or (frame.size != expected and frame.kind != OPEN_FRAME):", "elif False:"),
    "anything before HELLO": ("receiving.pxi", "elif (frame.kind == HELLO_FRAME) != (peer.state == NEW):", "elif frame.kind != HELLO_FRAME and peer.state == NEW:"),
    "the rest of a frame is dropped": ("receiving.pxi", "        peer.partial = <uint16_t>left\n", "        peer.partial = 0\n"),
    "reserved bytes are not looked at": ("receiving.pxi", "or not all_zero(frame.reserved, 7)", "or False"),
    "frames after a fault are carried out": ("receiving.pxi", "while left >= sizeof(Head) and listens(peer):", "while left >= sizeof(Head):"),
    "an unknown handle is used": ("receiving.pxi", "    if place >= peer.handles:", "    if False:"),
    "an old handle means its successor": ("receiving.pxi", "handle.number != frame.head.word or handle.epoch", "handle.epoch"),
    "revalidated for nothing": ("receiving.pxi", " or handle.epoch != server.epoch", ""),
    "any class for everyone": ("receiving.pxi", "].highest = handle.highest", "].highest = 0"),
    "the cap of a user": ("receiving.pxi", ">= server.most_waiting:", "> server.most_waiting:"),
    "opens without end": ("receiving.pxi", "    if peer.asking >= OPENS:", "    if False:"),
    "a full ring of questions": ("receiving.pxi", "- load(&server.answered) >= QUESTIONS:", "- load(&server.answered) > QUESTIONS:"),
    "an unread error": ("system.pxi", "        if recv(fd, unread, sizeof(unread), MSG_DONTWAIT) <= 0:\n            break\n", "        break\n"),
}  # fmt: skip

ANSWERS = {
    "QUIET is not heard": ("telling.pxi", "            if not server.quiet:\n                tell_number", "            if True:\n                tell_number"),
    "a revoked lease is not told": ("telling.pxi", "    elif bond.peer != NONE and", "    elif False and"),
    "the predecessor's answers": ("mail.pxi", "peer.generation != verdict.generation or peer.state", "peer.state"),
    "answers are counted twice": ("mail.pxi", " or peer.asking == 0:", ":"),
    "what is cancelled stays charged": ("telling.pxi", "    server.users[peer.user].waiting += waiting - peer.counted\n", "    server.users[peer.user].waiting += max(waiting, peer.counted) - peer.counted\n"),
    "woken once and never again": ("loop.pxi", "    server.wakes_at = NEVER_AGAIN\n    if core_next", "    if core_next"),
    "not woken for what is due earlier": ("loop.pxi", "    if due >= server.wakes_at:", "    if server.wakes_at != NEVER_AGAIN:"),
    "expired ones stay charged": ("telling.pxi", "    put(server, number, &frame, sizeof(Ended))\n    recount(server, number)\n", "    put(server, number, &frame, sizeof(Ended))\n"),
}  # fmt: skip

UNREAD = {
    "no back-pressure": ("output.pxi", "peer.paused = unsent(peer) > PAUSE_BYTES", "peer.paused = 0"),
    "read no more": ("output.pxi", "    if <bint>peer.paused != paused or (peer.stuck", "    if False and (peer.stuck"),
    "endless patience": ("loop.pxi", "now - server.peers[number].stuck_since >= server.patience", "False"),
    "honest ones are given up": ("output.pxi", "                fresh = chunk_squeeze(server)\n", "                fresh = NONE\n"),
    "undelivered grants stay": ("callers.pxi", "        undelivered_release(server, number)\n", ""),
    "delivered although failed": ("callers.pxi", "        waiting_cancel(server, number)\n", ""),
}  # fmt: skip

PROCESSES = {
    "dead processes are not seen": ("callers.pxi", "    core_exited(server.core, clock_now(), number)\n", ""),
    "the time of the turn's begin": ("callers.pxi", "core_exited(server.core, clock_now(), number)", "core_exited(server.core, clock_now() - 200000, number)"),
    "connections of the dead stay": ("callers.pxi", "    while caller.peers != NONE:\n        peer_close(server, caller.peers)\n", "    while False:\n        pass\n"),
    "last words are not heard": ("callers.pxi", "    last_words(server, number)\n    peer.state = CLOSED", "    peer.state = CLOSED"),
    "last words of the dead are not heard": ("callers.pxi", "        last_words(server, peer)\n", "        pass\n"),
    "the dead are let in": ("callers.pxi", "started[0] > 0 and not readable(pidfd) and", "pidfd >= 0 and"),
    "one process for all": ("receiving.pxi", "core_open(server.core, peer.caller, 0)", "core_open(server.core, 0, 0)"),
    "callers are never forgotten": ("callers.pxi", "    if caller.used and caller.peers == NONE and caller.leases == 0:", "    if False:"),
    "the group of the last connection": ("receiving.pxi", "question.gid = peer.gid", "question.gid = server.peers[caller.peers].gid"),
    "connections without end": ("callers.pxi", "server.users[user].peers >= server.most_peers:", "False:"),
    "copies of closed sockets are watched": ("callers.pxi", "    epoll_ctl(server.epoll, EPOLL_CTL_DEL, peer.fd, NULL)\n", ""),
    "copies of closed sockets keep them open": ("system.pxi", "    shutdown(fd, SHUT_RDWR)\n", ""),
    "spinning at the door": ("loop.pxi", "            listen_later(server, now)\n        elif", "            pass\n        elif"),
}  # fmt: skip

LEASE_FILE = {
    "a grant is not written down": ("telling.pxi", "    mirror_grant(server, slot, event.lease, peer.caller, event.partition, event.model, event.detail, lease.started,\n                 lease.deadline)\n", ""),
    "an end is not written down": ("telling.pxi", "    mirror_end(server, slot)\n", ""),
    "a renewal is not written down": ("telling.pxi", "            server.mirror[event.lease & ((1 << SLOT_BITS) - 1)].deadline = event.when\n", ""),
    "restored leases are not written down": ("mail.pxi", "        mirror_grant(server, slot, spec.id, caller, spec.partition, spec.model, spec.klass, spec.started,\n                     spec.deadline)\n", ""),
    "any process of that pid": ("mail.pxi", "<uint64_t>started == one.started and", ""),
    "bounds are not looked at": ("mail.pxi", "    if not lease_fits(server.core, &spec):", "    if False:"),
    "dead for want of descriptors": ("mail.pxi", "return 0 if errno == ESRCH or errno == EINVAL else -errno", "return 0"),
    "the wrong memory is unmapped": ("loop.pxi", "            if is_peer(server, number):\n                hang_up", "            if True:\n                hang_up"),
}  # fmt: skip

# Which tests are to catch them.
GROUPS = (
    (FRAMES, ("errors", "conversation")),
    (ANSWERS, ("conversation", "errors")),
    (UNREAD, ("processes",)),
    (PROCESSES, ("processes", "churn", "errors", "restart")),
    (LEASE_FILE, ("restart",)),
)
FAULTS = {name: (tests, *fault) for faults, tests in GROUPS for name, fault in faults.items()}
ALL = ("conversation", "errors", "processes", "restart", "churn")

ENDS_OF_PYTEST = (2, 3, 4, 5)  # it could not collect, failed itself, was called wrongly, found no test


def files(names):
    return [f"tests/dispatch_service/test_server_{name}.py" for name in names]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Sources whose build passes the tests that are to catch the faults."""
    tree = tmp_path_factory.mktemp("faults")
    copy_sources(tree)
    build(tree, CFLAGS="-O0")
    result = run_tests(tree, "-o", "timeout=60", *files(ALL))
    assert result.returncode == 0, f"the faultless build fails:\n{result.stdout[-3000:]}{result.stderr[-3000:]}"
    return tree


@pytest.mark.campaign
@pytest.mark.timeout(0)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_server_is_caught(tree, fault):
    tests, name, old, new = FAULTS[fault]
    source = tree / "native" / name
    text = source.read_text()
    assert text.count(old) == 1, f"the fault's text occurs {text.count(old)} times in {name}"
    source.write_text(text.replace(old, new))
    try:
        build(tree, CFLAGS="-O0")
        result = run_tests(tree, "-o", "timeout=20", *files(tests))
        assert result.returncode not in ENDS_OF_PYTEST, result.stdout[-3000:] + result.stderr[-3000:]
        print(next((line for line in result.stdout.splitlines() if line.startswith("FAILED")), "it crashed"))
        assert result.returncode != 0
    finally:
        source.write_text(text)
