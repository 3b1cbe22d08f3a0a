"""The model's packages, installed once per machine."""

import sys

import pytest

from tests.models.packages import NoPackagesError, model_packages


@pytest.fixture(scope="session")
def packages():
    """Their folder, importable."""
    try:
        folder = model_packages()
    except NoPackagesError as error:
        pytest.skip(str(error))
    sys.path.append(str(folder))
    yield folder
    sys.path.remove(str(folder))
