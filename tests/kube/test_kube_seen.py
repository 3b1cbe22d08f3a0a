"""A daemon whose API server is away, and comes: what page, route, doctor and probes say of it."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest

from tests.e2e.programs import Daemon
from tests.fakes.kube_api import NODES, PARTITIONS, PODS, FakeApi
from tests.integration.unix_http import ask
from tests.systemd.machine import until


class Site:
    def __init__(self, folder: Path) -> None:
        self.api = FakeApi()
        self.api.put(NODES, {"metadata": {"name": "a", "uid": "n"}})
        kubeconfig = self.api.kubeconfig(folder)
        config = folder / "aimd.toml"
        config.write_text(
            f'[metrics]\nlisten = "off"\n[kubernetes]\nenabled = true\nnode = "a"\nkubeconfig = "{kubeconfig}"\n'
        )
        self.daemon = Daemon(folder, "mi300x:2", "--config", str(config))

    def series(self) -> dict[str, float]:
        """The page's series about the cluster."""
        page = ask(self.daemon.runtime / "metrics.sock", "/metrics", headers={"Host": "aimd"}).body.decode()
        return {name: float(value) for name, value in re.findall(r"^(aim_kube\S+) (\S+)$", page, re.MULTILINE)}

    def doctor(self) -> list[str]:
        """Its lines about the cluster. It fails for nothing that is the cluster's."""
        told = self.daemon.aimctl("doctor")
        assert told.returncode == 0, told.stdout
        return [line for line in told.stdout.splitlines() if "cluster: " in line]


@pytest.fixture
def site():
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        Path(folder).chmod(0o755)
        site = Site(Path(folder))
        yield site
        site.daemon.close()
        site.api.close()


def test_a_cluster_that_is_away_and_comes(site: Site) -> None:
    site.api.fail("*", "*", code=403, times=1 << 30)
    site.daemon.start()
    assert ask(site.daemon.socket, "/readyz").status == 200
    assert site.daemon.aimctl("doctor", "--probe", "ready").returncode == 0
    assert site.daemon.aimctl("doctor", "--probe", "live").returncode == 0
    until(lambda: "403" in (site.daemon.get("cluster")["watches"][0]["problem"] or ""), "the problem is not told")
    told = site.doctor()
    assert [line for line in told if line.startswith("warn  cluster: pods have not been listed since the daemon began")]
    assert [line for line in told if "compare the roles of aimd's account" in line]
    found = site.series()
    assert found['aim_kube_synced{resource="pods"}'] == 0
    assert 'aim_kube_last_word_timestamp_seconds{resource="pods"}' not in found
    assert found['aim_kube_requests_total{verb="list",resource="pods",code="403"}'] > 0
    assert found["aim_kube_turn_idle_seconds"] < 10
    site.api.heal()
    until(lambda: site.api.get(PARTITIONS, "a") and site.api.get(PARTITIONS, "a").get("status"), "no record", 60)
    until(lambda: not [line for line in site.doctor() if line.startswith("warn")], lambda: f"{site.doctor()}")
    found = site.series()
    assert found['aim_kube_synced{resource="pods"}'] == 1
    assert found["aim_kube_conflicting_managers"] == 0
    assert found['aim_kube_writes_total{kind="node"}'] > 0
    assert found['aim_kube_write_duration_seconds_count{kind="node"}'] == found['aim_kube_writes_total{kind="node"}']
    threads = {name: value for name, value in found.items() if name.startswith("aim_kube_thread_running")}
    assert set(threads.values()) == {1}


def test_a_cluster_without_our_definitions_and_a_pod_that_asks_in_vain(site: Site) -> None:
    site.api.unserved.add(PARTITIONS)
    annotations = {"aimd.dev/gpu-sharing": "enabled", "aimd.dev/memory-limit-gb": "none"}
    pod = {"namespace": "default", "name": "llama-0", "annotations": annotations}
    site.api.put(PODS, {"metadata": pod, "spec": {"nodeName": "a"}, "status": {"phase": "Pending"}})
    site.daemon.start()
    until(lambda: site.daemon.get("cluster")["pods_refused"], "the pod is not refused")
    told = site.doctor()
    assert [line for line in told if "no resource nodepartitions" in line and "-> install it: kubectl apply" in line]
    assert [line for line in told if line.startswith("warn  cluster: pod default/llama-0 gets no partition: ")]
    found = site.series()
    assert found['aim_kube_resource_missing{resource="nodepartitions"}'] == 1
    assert found["aim_kube_pods_refused"] == 1
    assert ask(site.daemon.socket, "/readyz").status == 200
