"""Errors as problems."""

from __future__ import annotations

import json
from http import HTTPStatus

import pytest

from aimd import errors
from aimd.adapters.http.problems import STATUS, HttpError, phrase_of, problem_of, raw_response
from aimd.protocol.messages import to_json


@pytest.mark.parametrize(("kind", "status"), STATUS)
def test_each_leaf_has_its_status(kind, status):
    problem = problem_of(kind("it is so", hint="do this"))
    assert (problem.status, problem.title, problem.detail, problem.hint) == (
        status,
        phrase_of(status),
        "it is so",
        "do this",
    )
    assert problem.code == kind.code


def test_every_error_of_the_tree_has_a_status():
    leaves = [error for error in vars(errors).values() if isinstance(error, type)]
    assert len(leaves) > 8
    for error in leaves:
        arguments = {"errno": 5, "path": "p"} if error is errors.DriverError else {}
        assert problem_of(error("it is so", **arguments)).status >= 400


def test_what_cannot_be_encoded_is_told_escaped():
    """Bytes of a request that are no UTF-8 come as surrogates where aiohttp has no compiled parser."""
    problem = json.loads(to_json(problem_of(errors.InvalidInputError("path \udcff", hint="not \udcfe"))))
    assert (problem["detail"], problem["hint"]) == ("path \\udcff", "not \\udcfe")


def test_a_raw_response_is_a_whole_answer():
    error = HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "too_many_connections", "too many")
    head, _, body = raw_response(error).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body)["code"] == "too_many_connections"
