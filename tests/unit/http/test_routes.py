"""Finding a request's route."""

from __future__ import annotations

import pytest

from aimd.adapters.http.problems import HttpError
from aimd.adapters.http.resources import ROUTES
from aimd.adapters.http.routes import RouteTable

TABLE = RouteTable(ROUTES)


@pytest.mark.parametrize(
    ("method", "path", "route", "variables"),
    [
        ("GET", "/v1/gpus", "/v1/gpus", {}),
        ("HEAD", "/v1/gpus", "/v1/gpus", {}),
        ("GET", "/v1/gpus/0000%3A05%3A00.0", "/v1/gpus/{gpu}", {"gpu": "0000:05:00.0"}),
        ("GET", "/v1/plans/a%2Fb", "/v1/plans/{name}", {"name": "a/b"}),
        ("GET", "/v1/partitions/gpu0/3", "/v1/partitions/{gpu}/{index}", {"gpu": "gpu0", "index": "3"}),
    ],
)
def test_found(method, path, route, variables):
    found, values = TABLE.find(method, path)
    assert (found.path, values) == (route, variables)


@pytest.mark.parametrize(
    "path", ["/", "", "*", "/v1", "/v1/", "/v1/gpus/", "/v1//gpus", "/v1/plans/a/b", "/V1/gpus", "/v1/gpus/../gpus"]
)
def test_not_found(path):
    with pytest.raises(HttpError) as caught:
        TABLE.find("GET", path)
    assert (caught.value.status, caught.value.code) == (404, "not_found")


def test_another_method_is_told_which_there_are():
    with pytest.raises(HttpError) as caught:
        TABLE.find("POST", "/v1/plans/p")
    assert (caught.value.status, caught.value.headers) == (405, {"Allow": "GET, HEAD, OPTIONS, PUT"})
    assert TABLE.methods("/v1/reload") == "OPTIONS, POST"


def test_no_path_is_another_ones_twice():
    keys = [(route.method, route.path) for route in ROUTES]
    assert len(set(keys)) == len(keys)
