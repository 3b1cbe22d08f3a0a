"""The health of devices, as the kubelet follows it."""

import time

import grpc
import pytest

from aimd.adapters.dra.proto import health_pb2
from aimd.domain.dra import DeviceHealth
from tests.systemd.machine import until

WELL, ILL = DeviceHealth("node-a", "cpx-0", True), DeviceHealth("node-a", "cpx-0", False, "ECC errors")


@pytest.fixture
def driver(drive, kubelet):
    driver = drive(resend_seconds=0.3)
    kubelet.register()
    return driver


def told(response):
    return [(each.device.device_name, each.health, each.message) for each in response.devices]


def test_what_is_known_is_said_at_once_and_then_what_changes(driver, kubelet):
    driver.publish_health([WELL], 1000.5)
    stream = kubelet.follow_health()
    first = next(stream)
    assert told(first) == [("cpx-0", health_pb2.HEALTHY, "")]
    assert (first.devices[0].device.pool_name, first.devices[0].last_updated_time) == ("node-a", 1000)
    assert first.devices[0].health_check_timeout_seconds == 30
    driver.publish_health([ILL, DeviceHealth("node-a", "cpx-1", None)], 1001.0)
    assert told(next(stream)) == [("cpx-0", health_pb2.UNHEALTHY, "ECC errors"), ("cpx-1", health_pb2.UNKNOWN, "")]
    stream.cancel()


def test_nothing_is_said_before_anything_is_known(driver, kubelet):
    stream = kubelet.follow_health()
    time.sleep(0.05)
    driver.publish_health([ILL], 1.0)
    assert told(next(stream)) == [("cpx-0", health_pb2.UNHEALTHY, "ECC errors")]
    stream.cancel()


def test_the_same_is_said_again_now_and_then_while_it_is_published(driver, kubelet):
    driver.publish_health([WELL], 1000.0)
    stream = kubelet.follow_health()
    next(stream)
    began = time.monotonic()
    driver.publish_health([WELL], 1002.0)
    driver.publish_health([WELL], 1004.0)
    assert next(stream).devices[0].last_updated_time == 1004
    assert time.monotonic() - began > 0.25
    driver.publish_health([ILL], 1005.0)  # and a change at once
    assert told(next(stream))[0][1] == health_pb2.UNHEALTHY
    stream.cancel()


def test_what_nobody_publishes_again_is_not_said_again(driver, kubelet):
    driver.publish_health([WELL], 1000.0)
    stream = kubelet.follow_health()
    received = []
    next(stream)
    stream.add_callback(lambda: received.append("end"))
    time.sleep(0.7)
    assert received == []
    driver.publish_health([ILL], 1001.0)
    assert told(next(stream))[0][1] == health_pb2.UNHEALTHY
    stream.cancel()


def test_a_long_message_is_cut(driver, kubelet):
    driver.publish_health([DeviceHealth("node-a", "cpx-0", False, "x" * 2000)], 1.0)
    stream = kubelet.follow_health()
    assert len(next(stream).devices[0].message) == 1024
    stream.cancel()


def test_streams_end_with_the_driver(driver, kubelet):
    driver.publish_health([WELL], 1.0)
    streams = [kubelet.follow_health(), kubelet.follow_health()]
    for stream in streams:
        next(stream)
    began = time.monotonic()
    driver.close()
    assert time.monotonic() - began < 3
    for stream in streams:
        with pytest.raises((StopIteration, grpc.RpcError)):
            next(stream)


def test_a_stream_that_is_given_up_frees_its_thread(driver, kubelet):
    for round_ in range(100):  # more than there are threads
        driver.publish_health([WELL], float(round_))
        stream = kubelet.follow_health()
        next(stream)
        stream.cancel()
    until(lambda: kubelet.prepare(("default", "a", "u"))["u"].error == "", "no thread is left")
