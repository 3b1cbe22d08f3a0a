"""Answers that are no success, by what can be done."""

import json

import pytest

from aimd.adapters.kube.answers import failure
from aimd.adapters.kube.resources import event, node_partitions, pods, service
from aimd.errors import (
    ConflictError,
    DeniedError,
    GoneError,
    InvalidInputError,
    NotFoundError,
    ThrottledError,
    UnauthenticatedError,
    UnreachableError,
)


def body(code, reason="", **details):
    return json.dumps({"kind": "Status", "code": code, "reason": reason, "message": "why", "details": details}).encode()


@pytest.mark.parametrize(
    ("status", "reason", "kind", "code"),
    [
        (400, "BadRequest", InvalidInputError, "invalid"),
        (401, "Unauthorized", UnauthenticatedError, "unauthenticated"),
        (403, "Forbidden", DeniedError, "denied"),
        (404, "NotFound", NotFoundError, "not_found"),
        (405, "MethodNotAllowed", NotFoundError, "not_found"),
        (408, "", UnreachableError, "server_error"),
        (409, "Conflict", ConflictError, "conflict"),
        (409, "AlreadyExists", ConflictError, "already_exists"),
        (410, "Expired", GoneError, "gone"),
        (413, "RequestEntityTooLarge", InvalidInputError, "invalid"),
        (415, "UnsupportedMediaType", InvalidInputError, "invalid"),
        (422, "Invalid", InvalidInputError, "invalid"),
        (429, "TooManyRequests", ThrottledError, "throttled"),
        (500, "InternalError", UnreachableError, "server_error"),
        (503, "ServiceUnavailable", UnreachableError, "server_error"),
        (504, "Timeout", UnreachableError, "server_error"),
        (302, "", UnreachableError, "server_error"),
    ],
)
def test_status(status, reason, kind, code):
    error = failure("get pods default/x", status, body(status, reason))
    assert type(error) is kind
    assert error.code == code
    assert "get pods default/x" in error.message
    assert "why" in error.message


def test_a_version_that_the_server_has_not_reached_is_gone():
    """Its etcd was restored from a copy: it will not be reached for a long time."""
    answer = body(504, "Timeout", causes=[{"reason": "ResourceVersionTooLarge", "message": "Too large"}])
    assert type(failure("watch pods", 504, answer)) is GoneError


@pytest.mark.parametrize(
    ("header", "details", "seconds"),
    [
        ("3", {}, 3),
        ("3", {"retryAfterSeconds": 9}, 3),
        (None, {"retryAfterSeconds": 9}, 9),
        (None, {}, 0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", {}, 0),
        ("-1", {}, 0),
    ],
)
def test_retry_after(header, details, seconds):
    assert failure("x", 429, body(429, **details), header).retry_after_seconds == seconds


@pytest.mark.parametrize("content", [b"", b"<html>502</html>", b"\xff\xfe", b"[]", b"null", b'{"details": 5}'])
def test_what_a_proxy_sends(content):
    assert type(failure("x", 502, content)) is UnreachableError
    assert type(failure("x", 429, content)) is ThrottledError


def test_a_long_message_is_cut():
    assert len(failure("x", 500, b"a" * 10_000).message) < 600


@pytest.mark.parametrize(
    ("target", "path", "label"),
    [
        (pods(), "/api/v1/pods", "pods"),
        (
            service("default", "llama", "status"),
            "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices/llama/status",
            "inferenceservices/status",
        ),
        (node_partitions("gpu-1.example"), "/apis/aimd.dev/v1alpha1/nodepartitions/gpu-1.example", "nodepartitions"),
        (event("a/b?c", "d e"), "/apis/events.k8s.io/v1/namespaces/a%2Fb%3Fc/events/d%20e", "events"),
    ],
)
def test_paths(target, path, label):
    assert (target.path, target.label) == (path, label)
