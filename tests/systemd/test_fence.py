"""aimctl exec in a machine with systemd: behind the fence no other GPU can be opened, and all in the scope is the claim's.

Device nodes are stand-ins: KFD's has the number of a driver that is there (fuse), render nodes have their own, whose
driver is missing, so that opening one that is allowed ends in ENXIO and one that is not in EPERM.
"""

import json
import re
import signal

import pytest

from tests.systemd.machine import until

KFD = (10, 229)
MINORS = range(128, 192, 8)  # the driver keeps eight numbers for each GPU
OPENED = """\
import errno, json, os
def outcome(path):
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError as error:
        return errno.errorcode[error.errno]
    return "opened"
paths = ["/dev/kfd", "/dev/null", "/dev/urandom", *(f"/dev/dri/renderD{minor}" for minor in range(128, 192, 8))]
group = next(line[3:].strip() for line in open("/proc/self/cgroup") if line.startswith("0::"))
print(json.dumps({"pid": os.getpid(), "group": group, "outcomes": {path: outcome(path) for path in paths},
                  "environ": {name: value for name, value in os.environ.items() if "VISIBLE" in name or "AIM" in name}}))
"""
SCOPE = re.compile(r"/system\.slice/aimd-claim-(.+)-([0-9]+)\.[0-9]+\.scope")
# Started twice removed, without environment, and its parents are gone at once: nothing but the scope tells whose it is.
AWAY = "setsid env -i sh -c 'sleep 3601 >/dev/null 2>&1 &' >/dev/null 2>&1 & exit 0"


@pytest.fixture(scope="module")
def node(machine):
    """The machine with device nodes, the daemon, and a claim of root's for each of two GPUs."""
    machine.done("sh", "-c", f"mknod -m 666 /dev/kfd c {KFD[0]} {KFD[1]} && mkdir -p /dev/dri")
    for minor in MINORS:
        machine.done("mknod", "-m", "666", f"/dev/dri/renderD{minor}", "c", "226", str(minor))
    toml = machine.root / "etc/aimd/aimd.toml"
    toml.write_text(f"operators = [1000]\n{toml.read_text()}")
    machine.done("systemctl", "start", "aimd")
    for name, place in (("llama-70b", "gpu1/0"), ("mistral", "gpu6/0")):
        machine.done("aimctl", "claim", name, "--memory", "24", "--partition", place, "-o", "name")
    return machine


def run(node, claim, *words, options=(), **more):
    return node.run("aimctl", "exec", claim, *options, "--", *words, **more)


def probed(result):
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def holders(node, claim):
    found = json.loads(node.done("aimctl", "get", "claims", "-o", "json"))["claims"]
    return [holder for each in found if each["name"] == claim for holder in each["holders"]]


def sleepers(node):
    return [int(pid) for pid in node.run("pgrep", "-x", "sleep").stdout.split()]


def scopes(node):
    return node.done("systemctl", "list-units", "--no-legend", "--plain", "--all", "aimd-claim-*").splitlines()


@pytest.mark.parametrize(
    ("claim", "escaped", "own"), [("llama-70b", r"llama\x2d70b", 136), ("mistral", "mistral", 176)]
)
def test_behind_the_fence_only_the_claims_own_devices_open(node, claim, escaped, own):
    result = run(node, claim, "python3", "-I", "-c", OPENED, options=("--fence", "require"))
    told = probed(result)
    name, pid = SCOPE.fullmatch(told["group"]).groups()
    assert (name, int(pid)) == (escaped, told["pid"])
    assert "behind a device fence" in result.stderr
    outcomes = told["outcomes"]
    assert (outcomes.pop("/dev/kfd"), outcomes.pop("/dev/null"), outcomes.pop("/dev/urandom")) == ("opened",) * 3
    assert outcomes == {f"/dev/dri/renderD{minor}": "ENXIO" if minor == own else "EPERM" for minor in MINORS}
    assert told["environ"]["AIM_CLAIM"] == claim


def test_a_fence_is_made_where_that_is_possible(node):
    assert probed(run(node, "mistral", "python3", "-I", "-c", OPENED))["outcomes"]["/dev/dri/renderD128"] == "EPERM"


def test_no_fence_is_made_if_none_is_wished(node):
    result = run(node, "mistral", "python3", "-I", "-c", OPENED, options=("--fence", "none"))
    told = probed(result)
    assert told["outcomes"]["/dev/dri/renderD128"] == "ENXIO"
    assert SCOPE.fullmatch(told["group"]) is None
    assert "--fence none asks for no fence" in result.stderr


def test_an_ordinary_user_is_told_and_runs_by_environment(node):
    node.done("useradd", "--uid=1000", "someone")  # the system bus speaks to users that have a name
    asked = node.as_user("aimctl", "claim", "his", "--memory", "8", "-o", "name")
    assert asked.returncode == 0, asked.stderr
    result = node.as_user("aimctl", "exec", "his", "--", "python3", "-I", "-c", OPENED)
    told = probed(result)
    assert told["outcomes"]["/dev/dri/renderD128"] == "ENXIO"
    (note,) = result.stderr.splitlines()
    assert re.search("by its environment alone: systemd says no: (Access denied|Interactive auth.* required)", note), (
        note
    )
    refused = node.as_user("aimctl", "exec", "his", "--fence", "require", "--", "echo", "ran")
    assert (refused.returncode, refused.stdout) == (4, "")
    assert "cannot be fenced off" in refused.stderr


@pytest.mark.parametrize("code", [0, 3])
def test_exit_codes_are_the_commands(node, code):
    assert run(node, "mistral", "sh", "-c", f"exit {code}").returncode == code


def test_a_command_that_is_not_there(node):
    assert run(node, "mistral", "no-such-command").returncode == 127


def test_signals_and_standard_input_reach_the_command(node):
    with node.start(
        "aimctl",
        "exec",
        "mistral",
        "--fence",
        "require",
        "--",
        "sh",
        "-c",
        "read word; echo got $word; exec sleep 3600",
    ) as process:
        process.stdin.write("this\n")
        process.stdin.flush()
        lines = [process.stdout.readline() for _ in range(2)]
        assert lines[1] == "got this\n"
        until(lambda: sleepers(node), "the command does not run")
        node.done("pkill", "-TERM", "-x", "sleep")
        assert process.wait(30) in (-signal.SIGTERM, 128 + signal.SIGTERM)


def test_a_terminal_stays_one(node):
    told = node.done("script", "-qec", "aimctl exec mistral -- tty", "/dev/null")
    assert "/dev/pts/" in told


def test_a_scope_is_gone_with_its_last_process(node):
    run(node, "mistral", "true")
    until(lambda: not scopes(node), lambda: scopes(node))


def test_a_process_that_left_everything_behind_is_still_the_claims(node):
    """Its environment is empty, its parents have ended, and the daemon is another one."""
    assert run(node, "llama-70b", "sh", "-c", AWAY, options=("--fence", "require")).returncode == 0
    try:
        (pid,) = until(lambda: sleepers(node), "it does not run")
        assert node.done("cat", f"/proc/{pid}/environ") == "PWD=/\0"  # of the shell
        until(lambda: [each["pid"] for each in holders(node, "llama-70b")] == [pid], lambda: holders(node, "llama-70b"))
        node.done("systemctl", "restart", "aimd")
        until(lambda: [each["pid"] for each in holders(node, "llama-70b")] == [pid], lambda: holders(node, "llama-70b"))
        node.done("aimctl", "release", "llama-70b")
        told = node.run("aimctl", "doctor").stdout
        assert f"kept for pid {pid} (sleep 3601) of llama-70b/0: its claim is released" in told
    finally:
        node.run("pkill", "-x", "sleep")
    until(lambda: "are kept for" not in node.run("aimctl", "doctor").stdout, "what has ended is still kept for")
