"""What tests of the dashboards share: the load scene, run once for all."""

from pathlib import Path

import pytest

from tests.dashboards.load_seen import seen

__all__ = ["pytest_collection_modifyitems", "seen"]


def pytest_collection_modifyitems(items):
    """The first test of a scene waits for all of it."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(300))
