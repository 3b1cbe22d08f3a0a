"""What this machine lets the tests do: root, FUSE, network namespaces, shared data. A test asks by fixture."""

import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from tests import debian
from tests.turns import ByGroup, folder_of_run, turn

PROJECT = Path(__file__).parents[1]
FUSE_DEVICE = Path("/dev/fuse")
UNSHARE = (
    "import ctypes, sys; sys.exit(ctypes.CDLL(None, use_errno=True).unshare(int(sys.argv[1])) and ctypes.get_errno())"
)
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
# The same examples in every run, and no limit of their time: machines are busy. Campaigns draw others each time.
settings.register_profile("aimd", deadline=None, derandomize=True)
settings.load_profile("aimd")


def pytest_configure():
    """A shell that starts the run in the background has it ignore SIGINT, and so would every program that it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """For runs by several workers (-n 2): by file, and what shares something big in one."""
    return ByGroup(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    folder = folder_of_run(item.config)
    if folder is None:
        return (yield)
    with turn(folder, alone=item.get_closest_marker("alone") is not None):
        return (yield)


def is_root():
    return os.geteuid() == 0


def libfuse_is_missing():
    """Asked of the loader afresh: ctypes.util.find_library needs ldconfig or gcc, which not every machine has."""
    for soname in ("libfuse3.so.4", "libfuse3.so.3", "libfuse.so.2"):
        try:
            ctypes.CDLL(soname)
        except OSError:
            continue
        return False
    return True


def fuse_obstacle():
    """Why nothing can be mounted here and installing packages would not help, or None."""
    if not os.access(FUSE_DEVICE, os.R_OK | os.W_OK):
        return f"{FUSE_DEVICE} is missing or closed to uid {os.geteuid()}"
    if libfuse_is_missing():
        if not is_root():
            return "libfuse is not installed (Debian: fuse3), and only root can install it"
        if shutil.which("apt-get") is None:
            return "libfuse is not installed, and there is no apt-get to install it with"
    elif not is_root() and not (shutil.which("fusermount3") or shutil.which("fusermount")):
        return "fusermount is not installed (Debian: fuse3), and only root can mount without it"
    return None


def namespace_obstacle():
    """Why a test cannot have a network namespace of its own, or None."""
    flags = CLONE_NEWNET if is_root() else CLONE_NEWUSER | CLONE_NEWNET
    code = subprocess.run([sys.executable, "-c", UNSHARE, str(flags)]).returncode
    return f"unshare: {os.strerror(code)}" if code else None


def shared_data_folder():
    return Path(os.environ.get("AIMD_SHARED_DATA") or PROJECT.parent / "shared" / "data")


def install(package):
    """A package of Debian's. As root, failing here is a failure."""
    for command in (["apt-get", "update"], ["apt-get", "install", "--yes", "--no-install-recommends", package]):
        result = subprocess.run(
            command,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if result.returncode != 0:
            pytest.fail(f"{package} is missing and `{' '.join(command)}` fails:\n{result.stdout}", pytrace=False)


def install_libfuse():
    """fuse3 with the libfuse it depends on (libfuse3-3 or -4)."""
    install("fuse3")
    if libfuse_is_missing():
        pytest.fail("fuse3 is installed and yet no libfuse can be loaded", pytrace=False)


@pytest.fixture(scope="session")
def requires_root():
    if not is_root():
        pytest.skip(f"needs root, runs as uid {os.geteuid()}")


@pytest.fixture(scope="session")
def requires_fuse():
    """A machine that can mount by FUSE; as root, one that is made to."""
    if importlib.util.find_spec("mfusepy") is None:  # not imported yet: that fails without libfuse
        pytest.skip("mfusepy is not installed (extra `sim`)")
    if obstacle := fuse_obstacle():
        pytest.skip(obstacle)
    if libfuse_is_missing():
        install_libfuse()


@pytest.fixture(scope="session")
def promtool():
    """Path of Prometheus' own judge of pages and rules, beside the server; Debian's package, unless it is installed."""
    if (found := shutil.which("promtool")) is not None:
        return found
    try:
        folder = debian.unpacked(debian.candidate("prometheus").removesuffix(".deb"), "prometheus")
    except debian.UnavailableError as error:
        pytest.skip(f"promtool is not installed, and Debian's package prometheus cannot be had: {error}")
    return str(folder / "usr" / "bin" / "promtool")


@pytest.fixture(scope="session")
def shared_data():
    """The folder with captures and traces that are not part of the project."""
    folder = shared_data_folder()
    if not folder.is_dir():
        pytest.skip(f"no shared data: {folder} does not exist (AIMD_SHARED_DATA names another folder)")
    return folder


def pytest_report_header():
    root = "yes" if is_root() else f"no (uid {os.geteuid()})"
    fuse = fuse_obstacle() or ("libfuse will be installed" if libfuse_is_missing() else "yes")
    namespaces = namespace_obstacle() or "yes"
    data = shared_data_folder() if shared_data_folder().is_dir() else "no"
    return f"possible here: root: {root}; fuse: {fuse}; network namespaces: {namespaces}; shared data: {data}"
