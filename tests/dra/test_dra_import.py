"""Nothing of gRPC is loaded where no driver is served: memory and a tenth of a second."""

import os
import subprocess
import sys

PROGRAM = """
import importlib, pkgutil, sys
import aimd
LOADED = ("aimd.cli", "aimd.daemon", "aimd.ports", "aimd.adapters.kube", "aimd.adapters.metrics", "aimd.adapters.http")
for module in pkgutil.walk_packages(aimd.__path__, "aimd."):
    if module.name.startswith(LOADED):
        importlib.import_module(module.name)
print(*sorted(name for name in sys.modules if name in ("grpc", "google.protobuf")))
"""


def test_without_a_driver_the_library_is_not_imported():
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=dict(os.environ), capture_output=True, text=True, timeout=60
    )
    assert (result.stdout.strip(), result.returncode) == ("", 0), result.stderr


def test_what_makes_files_for_containers_needs_no_library():
    program = "import sys, aimd.adapters.dra.cdi; print('grpc' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "False", result.stderr
