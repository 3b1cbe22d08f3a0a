"""What tests of the dashboards share: the load scene, run once for all."""

from tests.dashboards.load_seen import seen

__all__ = ["seen"]
