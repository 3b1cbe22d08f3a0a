"""Claims that ask for no amount of memory: a 400 with object, fact, expectation and hint, and nothing is claimed."""

from __future__ import annotations

from tests.fakes.served import served
from tests.integration.unix_http import ask

RANGE = ("is out of range, expected GB as GPUs are sold, more than 0 and at most 1048576", "for example 24 ")
BODIES = [
    (b'{"memory_gb": 0}', "memory 0.0 ", *RANGE),
    (b'{"memory_gb": -24}', "memory -24.0 ", *RANGE),
    (b'{"memory_gb": 1e9}', "memory 1000000000.0 ", *RANGE),
    (b'{"memory_gb": "24GiB"}', "$.memory_gb", "Expected `float`, got `str`", 'for example {"memory_gb": 24'),
    (b'{"memory_gb": null}', "$.memory_gb", "Expected `float`, got `null`", 'for example {"memory_gb": 24'),
    (b'{"memory_gb": NaN}', "body is not understood", "JSON is malformed", 'for example {"memory_gb": 24'),
    (b'{"memory_gb": 1e999}', "$.memory_gb", "out of range", 'for example {"memory_gb": 24'),
    (b"{}", "memory_gb", "missing required field", 'for example {"memory_gb": 24'),
    (b'{"memory_gb": 24, "replicas": 0}', "replicas: 0", "expected 1 to 64", ""),
    (b'{"memory_gb": 24, "guarantee": -1}', "guarantee: -1", "expected 0 to 4096", ""),
    (b'{"memory_gb": 24, "slo": {"latency_seconds": 0}}', "slo.latency_seconds: 0", "more than 0", ""),
]


def test_what_is_no_amount() -> None:
    with served() as daemon:
        for body, about, fact, hint in BODIES:
            answer = ask(daemon.socket, "/v1/claims/m", "PUT", body)
            problem = answer.json
            assert answer.status == 400, (body, problem)
            assert about in problem["detail"], (body, problem)
            assert fact in problem["detail"], (body, problem)
            assert (problem["hint"] or "").startswith(hint), (body, problem)
        assert daemon.node.snapshot.claims == ()
