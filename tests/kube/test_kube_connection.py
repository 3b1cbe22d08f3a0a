"""Who asks, and how often: kubeconfig, token files, a pod's service account, credentials that end, statistics."""

import json
import threading
from functools import partial
from pathlib import Path

import pytest

from aimd.adapters.kube import access, resources
from aimd.adapters.kube.connection import Connection
from aimd.errors import ConfigError, DeniedError, UnauthenticatedError, UnreachableError
from tests.fakes.kube_api import NODES, PODS, SERVICES
from tests.kube.conftest import QUICK
from tests.systemd.machine import until


def ask(connection):
    return connection.ask("list", resources.pods())


def test_a_token_file_is_read_for_every_request(api, connect, tmp_path):
    """Tokens of service accounts are replaced before their hour is over."""
    token = tmp_path / "token"
    token.write_text("first\n")
    connection = connect(token)
    ask(connection)
    token.write_text("second")
    ask(connection)
    assert [request.token for request in api.requests] == ["first", "second"]


def test_a_token_file_beside_the_kubeconfig(api, connect, tmp_path):
    (tmp_path / "token").write_text("near")
    ask(connect(Path("token")))
    assert api.requests[0].token == "near"


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_token_file_without_a_token(api, connect, tmp_path, content):
    token = tmp_path / "token"
    token.write_text("first")
    connection = connect(token)
    token.unlink() if content is None else token.write_text(content)
    with pytest.raises(UnauthenticatedError, match=str(token)):
        ask(connection)
    assert api.requests == []
    assert connection.counts.requests() == {("list", "pods", "unauthenticated"): 1}


def test_a_kubeconfig_is_read_again(api, connect, tmp_path):
    connection = connect("first")
    ask(connection)
    api.kubeconfig(tmp_path, "second")
    ask(connection)
    connection.reload()
    ask(connection)
    assert [request.token for request in api.requests] == ["first", "first", "second"]


def test_a_kubeconfig_that_has_gone_bad_leaves_what_was(api, connect, tmp_path):
    connection = connect("first")
    (tmp_path / "kubeconfig").write_text("{")
    with pytest.raises(ConfigError):
        connection.reload()
    ask(connection)


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "{",
        "[]",
        "apiVersion: v1",
        '{"current-context": "x", "contexts": [], "clusters": [], "users": []}',
        '{"current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "c"}}], "clusters": 5}',
        b"\xff\xfe",
    ],
)
def test_a_bad_kubeconfig(tmp_path, content):
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as raised:
        access.of_kubeconfig(path)
    assert str(path) in raised.value.message
    assert "expected" in raised.value.message
    assert raised.value.hint


def test_a_kubeconfig_whose_authority_is_missing(tmp_path):
    cluster = {"name": "c", "cluster": {"server": "https://x", "certificate-authority": str(tmp_path / "no.crt")}}
    content = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [cluster],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"no\.crt"):
        access.of_kubeconfig(path)


def test_the_service_account_of_a_pod(tmp_path):
    (tmp_path / "token").write_text("first")
    (tmp_path / "ca.crt").write_text("x")
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    made = access.of_service_account(environ, tmp_path)
    assert made.host == "https://[fd00::1]:443"
    assert made.get_api_key_with_prefix("BearerToken") == "Bearer first"
    (tmp_path / "token").write_text("second")
    assert made.get_api_key_with_prefix("BearerToken") == "Bearer second"
    assert (made.keep_alive, made.retries) == (True, False)


@pytest.mark.parametrize("missing", ["token", "ca.crt", "environment"])
def test_no_pod(tmp_path, missing):
    for name in {"token", "ca.crt"} - {missing}:
        (tmp_path / name).write_text("x")
    environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(ConfigError, match="service account"):
        access.of_service_account({} if missing == "environment" else environ, tmp_path)


def test_nobody_is_there(tmp_path, api, connect):
    connection = connect()
    api.close()
    with pytest.raises(UnreachableError) as raised:
        ask(connection)
    assert raised.value.code == "unreachable"
    assert "list pods" in raised.value.message
    assert connection.counts.requests() == {("list", "pods", "unreachable"): 1}


def test_nothing_is_tried_twice(api, connect):
    """Whoever asks decides about that, and sees each failure."""
    connection = connect()
    for fault in ({"code": 503}, {"code": 429, "headers": {"Retry-After": "0"}}, {"drop": True}):
        api.fail("list", PODS, **fault)
        with pytest.raises(UnreachableError):
            ask(connection)
    api.fail("list", PODS, code=302, headers={"Location": f"{api.url}/api/v1/nodes"})
    with pytest.raises(UnreachableError):
        ask(connection)
    assert len(api.requests) == 4
    assert api.asked("list", NODES) == []


def test_a_patch_is_a_merge_patch(api, connect):
    api.put(SERVICES, {"metadata": {"namespace": "default", "name": "llama"}, "status": {"a": 1, "b": [1]}})
    target = resources.service("default", "llama", "status")
    changed = connect().ask("patch", target, {"status": {"a": None, "b": [2]}}, fieldManager="aimd")
    assert changed["status"] == {"b": [2]}
    (request,) = api.asked("patch", SERVICES)
    assert request.content_type == "application/merge-patch+json"
    assert request.query == {"fieldManager": "aimd"}


def test_an_empty_patch_is_one(api, connect):
    api.put(SERVICES, {"metadata": {"namespace": "default", "name": "llama"}})
    assert connect().ask("patch", resources.service("default", "llama"), {})["metadata"]["name"] == "llama"


def test_statistics(api, connect):
    connection = connect()
    ask(connection)
    ask(connection)
    api.fail("list", PODS, code=403)
    with pytest.raises(DeniedError):
        ask(connection)
    api.fail("list", PODS, delay=0.7)
    with pytest.raises(UnreachableError):
        ask(connection)
    api.fail("watch", PODS, code=500)
    with pytest.raises(UnreachableError):
        connection.follow(resources.pods(), resourceVersion="100")
    connection.follow(resources.pods(), resourceVersion="100").close()
    assert connection.counts.requests() == {
        ("list", "pods", "200"): 2,
        ("list", "pods", "403"): 1,
        ("list", "pods", "timed_out"): 1,
        ("watch", "pods", "500"): 1,
        ("watch", "pods", "200"): 1,
    }
    durations = connection.counts.durations()["list", "pods"]
    assert sum(durations.counts) == 4
    assert durations.counts[7] == 1  # half a second to a second
    assert 0.5 < durations.sum_seconds < 1.5


def test_many_threads_at_once(api, connect):
    connection = connect()
    failures = []

    def work():
        try:
            for _ in range(20):
                ask(connection)
        except UnreachableError as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        connection.reload()
    for thread in threads:
        thread.join()
    assert failures == []
    assert connection.counts.requests() == {("list", "pods", "200"): 160}


def test_a_token_that_ends_is_read_again(api, reflect, tmp_path):
    """In the kubeconfig itself, which nothing but a 401 makes aimd read again."""
    path = api.kubeconfig(tmp_path, "first", "own")
    connection = Connection(partial(access.of_kubeconfig, path), "aimd", QUICK)
    reflector = reflect(connection=connection)
    until(lambda: reflector.statistics().connected, "not connected")
    api.tokens = {"second"}
    api.cut_watches()
    until(lambda: reflector.statistics().restarts.get("unauthenticated", 0) > 2, "nothing is refused")
    api.kubeconfig(tmp_path, "second", "own")
    until(lambda: reflector.statistics().connected, "not connected again")
    assert len(api.asked("list", PODS)) == 1


def test_a_kubeconfig_that_is_missing_for_a_while(api, reflect, tmp_path):
    path = api.kubeconfig(tmp_path, "first", "own")
    connection = Connection(partial(access.of_kubeconfig, path), "aimd", QUICK)
    api.tokens = {"second"}
    path.unlink()
    reflector = reflect(connection=connection)
    until(lambda: "cannot be used" in (reflector.statistics().problem or ""), "the problem is not told")
    api.kubeconfig(tmp_path, "second", "own")
    until(lambda: reflector.statistics().connected, "not connected again")
