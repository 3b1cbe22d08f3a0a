"""A dispatch server that ends with its test."""

import pytest

from tests.gate.dispatcher import Dispatcher


@pytest.fixture
def make_dispatcher(tmp_path):
    made = []

    def make(**options):
        made.append(Dispatcher(tmp_path, **options).start())
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def dispatcher(make_dispatcher):
    """One model, "llama", on one partition of two slots."""
    return make_dispatcher()
