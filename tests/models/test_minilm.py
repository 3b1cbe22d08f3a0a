"""The forward pass is the model's: against numbers that its publishers and users have printed."""

import pytest

from tests.models.minilm import MiniLm


@pytest.fixture(scope="module")
def model(packages):
    return MiniLm(packages)


def test_first_numbers_are_those_of_the_model_card(model):
    """Its example, as sentence-transformers prints it."""
    first = model.embed("This is an example sentence")[:6]
    assert first == pytest.approx([0.0676569, 0.0634959, 0.0487131, 0.0793049, 0.0374480, 0.0026528], abs=1e-5)


@pytest.mark.parametrize(
    ("one", "other", "similarity"),
    [
        ("That is a happy person", "That is a happy dog", 0.695),
        ("That is a happy person", "That is a very happy person", 0.943),
        ("That is a happy person", "Today is a sunny day", 0.257),
    ],
)
def test_similarities_are_known(model, one, other, similarity):
    """Of the example in the model's widget."""
    assert float(model.embed(one) @ model.embed(other)) == pytest.approx(similarity, abs=5e-4)


def test_length_is_one(model):
    assert float((model.embed("x " * 1000) ** 2).sum()) == pytest.approx(1, abs=1e-5)
