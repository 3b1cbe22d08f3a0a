"""The messages are those that were generated last, and those that the kubelet's module publishes."""

import importlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from tests.dra.generated import PROJECT, PROTO, generate

PUBLISHED = {"dra": "dra/v1", "health": "dra-health/v1alpha1", "registration": "pluginregistration/v1"}


def test_what_is_generated_is_up_to_date(tmp_path):
    generate(tmp_path)
    fresh = {path.name: path.read_text() for path in (tmp_path / PROTO).iterdir()}
    committed = {path.name: path.read_text() for path in (PROJECT / PROTO).glob("*_pb2.py*")}
    assert fresh == committed, "python -m tests.dra.generated writes them anew"


def modules():
    """Folders of the kubelet's module in Go's cache, the newest last."""
    cache = os.environ.get("GOMODCACHE")
    if cache is None and shutil.which("go"):
        cache = subprocess.run(["go", "env", "GOMODCACHE"], capture_output=True, text=True).stdout.strip()
    return sorted(Path(cache or Path.home() / "go/pkg/mod").glob("k8s.io/kubelet@v0.36.*"))


def described(package, file):
    """Messages, enums and services of a file, without what is Go's or a comment's."""
    kept = descriptor_pb2.FileDescriptorProto()
    kept.CopyFrom(file)
    kept.ClearField("options")
    kept.name = package
    for message in kept.message_type:
        message.field.sort(key=lambda each: each.number)
        for field in message.field:
            field.ClearField("json_name")  # which only protoc's own output has
        for entry in message.nested_type:
            for field in entry.field:
                field.ClearField("json_name")
    for kind in (kept.message_type, kept.enum_type, kept.service):
        kind.sort(key=lambda each: each.name)
    for service in kept.service:
        for method in service.method:
            method.ClearField("options")
    return str(kept)


@pytest.mark.parametrize("name", PUBLISHED)
def test_they_are_those_of_the_kubelet(name, tmp_path):
    if not modules():
        pytest.skip("the module k8s.io/kubelet v0.36 is not in Go's cache (tests/cluster fetches it)")
    from grpc_tools import protoc

    folder = modules()[-1] / "pkg/apis" / PUBLISHED[name]
    out = tmp_path / "set"
    assert protoc.main(["protoc", f"--proto_path={folder}", f"--descriptor_set_out={out}", "api.proto"]) == 0
    theirs = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]
    module = importlib.import_module(f"aimd.adapters.dra.proto.{name}_pb2")
    ours = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(ours)
    assert described(name, ours) == described(name, theirs)
