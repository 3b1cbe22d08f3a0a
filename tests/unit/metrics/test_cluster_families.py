"""What a page tells of the cluster: nothing where there is none, what is unknown is absent, histograms are Prometheus'."""

from dataclasses import replace

import pytest

from aimd.adapters.metrics import cluster_families
from aimd.adapters.metrics.cluster_families import families
from aimd.adapters.metrics.family import as_metric
from aimd.adapters.metrics.view import View
from aimd.domain.cluster import WRITE_KINDS, ClusterStanding, KindStatistics, KubeStatistics, WriteStatistics
from tests.unit.metrics.cluster_scene import PODS, standing
from tests.unit.metrics.test_families import names, seen, snapshot


def told(what=None):
    """Values of all series, by name and label values."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families(what or standing())
        for sample in as_metric(family).samples
    }


def test_without_a_cluster_there_is_nothing_of_one():
    assert not names(seen(View("1", snapshot())), "aim_kube")
    assert len(names(seen(View("1", snapshot(), cluster=standing())), "aim_kube")) > 25


def test_every_family_is_yielded_once():
    found = [family.descriptor for family in families(standing())]
    known = [each for each in vars(cluster_families).values() if isinstance(each, cluster_families.Descriptor)]
    assert len(found) == len(known)
    assert set(found) == set(known)


def test_buckets_have_those_below_them_too():
    found = told()
    buckets = [
        value for key, value in found.items() if key[:2] == ("aim_kube_write_duration_seconds_bucket", "service")
    ]
    assert buckets == [4] * 11 + [5]
    assert found["aim_kube_write_duration_seconds_count", "service"] == 5
    assert found["aim_kube_request_duration_seconds_bucket", "list", "pods", "0.1"] == 2
    assert found["aim_kube_request_duration_seconds_bucket", "list", "pods", "0.05"] == 1


def test_a_resource_that_is_missing_is_not_synced_and_has_said_nothing():
    found = told()
    assert found["aim_kube_synced", "nodepartitions"] == 0
    assert found["aim_kube_resource_missing", "nodepartitions"] == 1
    assert ("aim_kube_last_word_timestamp_seconds", "nodepartitions") not in found
    assert found["aim_kube_last_word_timestamp_seconds", "pods"] == 1700000050.5
    assert found["aim_kube_synced", "pods"] == 1


def test_events_that_are_dropped_are_no_records_that_are():
    found = told()
    assert found["aim_kube_writes_dropped_total", "event", "full"] == 1
    assert found["aim_kube_writes_dropped_total", "service", "invalid"] == 1
    assert found["aim_kube_events_held_back_total",] == 7


def test_what_was_never_written_has_no_time():
    quiet = KubeStatistics(writes=WriteStatistics({kind: KindStatistics() for kind in WRITE_KINDS}))
    found = told(ClusterStanding("a", quiet))
    assert "aim_kube_last_write_timestamp_seconds" not in names(found)
    assert [found["aim_kube_writes_total", kind] for kind in WRITE_KINDS] == [0, 0, 0]


@pytest.mark.parametrize(("rivals", "expected"), [(None, None), ((), 0), (("a", "b"), 2)])
def test_other_managers_are_absent_while_they_are_not_known(rivals, expected):
    assert told(replace(standing(), rivals=rivals)).get(("aim_kube_conflicting_managers",)) == expected


def test_threads_that_have_ended():
    assert {key[1]: value for key, value in told().items() if key[0] == "aim_kube_thread_running"} == {
        "pods": 1, "nodepartitions": 1, "writes": 1, "reads": 1
    }  # fmt: skip
    ended = replace(standing().statistics, watches=(replace(PODS, running=False),))
    assert told(replace(standing(), statistics=ended))["aim_kube_thread_running", "pods"] == 0


def test_what_the_cluster_asks_for_in_vain():
    found = told()
    assert (found["aim_kube_spec_refused",], found["aim_kube_pods_refused",]) == (1, 1)
    fine = told(ClusterStanding("a"))
    assert (fine["aim_kube_spec_refused",], fine["aim_kube_pods_refused",]) == (0, 0)
