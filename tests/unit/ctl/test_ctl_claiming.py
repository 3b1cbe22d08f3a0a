"""claim and release against the fake API."""

from __future__ import annotations

import json
import shlex

import pytest
import yaml
from msgspec import structs

from aimd.ctl.columns import places
from aimd.protocol.messages import HolderMessage, ProblemMessage, to_builtins
from tests.fakes.api import Raw, World
from tests.unit.ctl import samples

SHELL = """\
# new/0: gpu0/0 (0000:05:00.0/0), 24 GB
# new/1: gpu0/1 (0000:05:00.0/1), 24 GB
# replica 0, valid until the next mode switch on the node (aimctl exec new computes it anew):
export ROCR_VISIBLE_DEVICES=1
export HIP_VISIBLE_DEVICES=0
export AIM_CLAIM=llama
export AIM_PARTITION_ID=0000:05:00.0/0
export AIM_MEMORY_LIMIT_BYTES=25767706624
"""


def test_places_and_environment_are_for_eval(aimctl, world: World) -> None:
    result = aimctl("claim", "new", "--memory", "24")
    assert (result.exit_code, result.stdout, result.stderr) == (0, SHELL, "")
    assert [(each.method, each.target) for each in world.requests] == [
        ("PUT", "/v1/claims/new"),
        ("GET", "/v1/claims/new/environment?replica=0"),
    ]


def test_one_replica_needs_no_word_about_others(aimctl, world: World) -> None:
    world.claim = [samples.claim(replicas=1)]
    assert "\n# valid until" in aimctl("claim", "new", "--memory", "24").stdout


def test_only_what_was_asked_for_is_sent(aimctl, world: World) -> None:
    aimctl("claim", "new", "--memory", "1.5")
    assert world.requests[0].body == {"memory_gb": 1.5}


def test_everything_can_be_asked_for(aimctl, world: World) -> None:
    words = (
        "--memory 24 --qos high --guarantee 4 --limit 8 --weight 3 --replicas 2 --compute CPX --memory-mode NPS4 "
        "--partition 3 --preferred gpu3/5 --slo-latency 0.25 --slo-objective 0.99 --slo-throughput 12"
    )
    assert aimctl("claim", "new", *words.split()).exit_code == 0
    assert world.requests[0].body == {
        "memory_gb": 24,
        "qos": "high",
        "guarantee": 4,
        "limit": 8,
        "weight": 3,
        "replicas": 2,
        "compute_mode": "CPX",
        "memory_mode": "NPS4",
        "partition": 3,
        "preferred": "gpu3/5",
        "slo": {"latency_seconds": 0.25, "objective": 0.99, "throughput_floor": 12},
    }


def test_the_same_claim_again_is_placed_already(aimctl, world: World) -> None:
    assert aimctl("claim", "llama", "--memory", "24").exit_code == 0


def test_other_formats(aimctl) -> None:
    answer = json.loads(aimctl("claim", "new", "--memory", "24", "-o", "json").stdout)
    assert answer["claim"]["state"] == "placed"
    assert [(each["replica"], each["partition"]) for each in answer["environments"]] == [
        (0, "0000:05:00.0/0"),
        (1, "0000:05:00.0/1"),
    ]
    assert answer["environments"][1]["environment"]["ROCR_VISIBLE_DEVICES"] == "2"
    assert yaml.safe_load(aimctl("claim", "new", "--memory", "24", "-o", "yaml").stdout) == answer
    assert aimctl("claim", "new", "--memory", "24", "-o", "name").stdout == "new\n"


def test_a_switch_that_makes_room_is_waited_for_and_shown(aimctl, world: World) -> None:
    switching = samples.claim("switching", change="room-1")
    world.claim = [switching, switching, samples.claim()]
    world.changes["room-1"] = samples.committing()[2:3]
    result = aimctl("claim", "new", "--memory", "24")
    assert (result.exit_code, result.stdout) == (0, SHELL)
    assert result.stderr == "gpu1 SPX/NPS1 -> DPX/NPS1: switching\n"


OTHER = "mode change other is under way, and one runs at a time on a node; the claim is placed when it has ended"


def waiting_for_another(name: str = "new"):
    return samples.claim("pending", name=name, reason="switch_in_progress", message=OTHER)


def test_the_change_of_somebody_else_is_waited_for_and_shown(aimctl, world: World) -> None:
    world.claim = [*[waiting_for_another()] * 2, samples.claim("switching", change="own"), samples.claim()]
    world.changes["parked"] = [samples.change(samples.switch("awaiting_reload"), name="parked")]
    world.changes["other"] = [samples.change(samples.switch("switching"), name="other")]
    world.changes["own"] = [samples.change(samples.switch("switching"), name="own")]
    result = aimctl("claim", "new", "--memory", "24")
    assert (result.exit_code, result.stdout) == (0, SHELL)
    assert result.stderr == (
        f"new waits: {OTHER}\ngpu1 SPX/NPS1 -> DPX/NPS1: switching\ngpu1 SPX/NPS1 -> DPX/NPS1: switching\n"
    )


def test_not_waited_for_longer_than_asked(aimctl, world: World) -> None:
    for number, state in enumerate((waiting_for_another(), samples.claim("switching", change="own"))):
        world.claim = [state]
        result = aimctl("claim", f"new{number}", "--memory", "24", "--timeout", "0.3")
        assert (result.exit_code, result.stdout) == (7, "")
        assert result.stderr.endswith(
            f"hint: it is placed as soon as that has ended; give it up with: aimctl release new{number}\n"
        )
    assert "new1 is switching: mode change own makes room\n" in result.stderr


def test_not_waited_for_at_all(aimctl, world: World) -> None:
    world.claim = [waiting_for_another()]
    result = aimctl("claim", "new", "--memory", "24", "--no-follow", "-o", "name")
    assert (result.exit_code, result.stdout) == (0, "new\n")
    assert result.stderr.startswith(f"new is pending: {OTHER} (switch_in_progress)\n")
    assert len(world.requests) == 1


def test_a_claim_without_room_is_not_waited_for(aimctl, world: World) -> None:
    world.claim = [samples.waiting("no_room")]
    assert aimctl("claim", "new", "--memory", "24", "--timeout", "60").exit_code == 1
    assert len(world.requests) == 1


def test_the_daemon_goes_away_meanwhile(aimctl, world: World) -> None:
    world.claim = [waiting_for_another()]
    world.overrides["GET /v1/claims/new"] = Raw(http=False)
    result = aimctl("claim", "new", "--memory", "24")
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-2:] == [
        "error: aimd went away before new was placed",
        "hint: the claim is kept, and a restarted daemon goes on with it: aimctl describe claim new",
    ]


def many(*indexes: int):
    """A claim with a replica on each of these partitions of gpu0."""
    placed = [samples.assignment(index) for index in indexes]
    numbered = [structs.replace(each, name=f"m/{n}", replica=n, memory_gb=1) for n, each in enumerate(placed)]
    return structs.replace(samples.claim(replicas=len(indexes)), assignments=numbered, memory_gb=1)


def test_many_replicas_are_grouped_by_partition(aimctl, world: World) -> None:
    world.claim = [many(*[0] * 24, *[1] * 16, 2)]
    world.environments |= {24: samples.environment(1), 40: samples.environment(1)}
    lines = aimctl("claim", "new", "--memory", "1").stdout.splitlines()
    assert lines[:3] == [
        "# new/0-23: gpu0/0 (0000:05:00.0/0), 24 x 1 GB",
        "# new/24-39: gpu0/1 (0000:05:00.0/1), 16 x 1 GB",
        "# new/40: gpu0/2 (0000:05:00.0/2), 1 GB",
    ]
    assert lines[3].startswith("# replica 0, valid until")
    assert len(lines) == 9


def test_json_has_every_replica_and_asks_once_for_each_partition(aimctl, world: World) -> None:
    world.claim = [many(0, 0, 1, 1, 0)]
    world.environments[2] = samples.environment(1)
    answer = json.loads(aimctl("claim", "new", "--memory", "1", "-o", "json").stdout)
    assert [(each["replica"], each["partition"][-1]) for each in answer["environments"]] == [
        (0, "0"),
        (1, "0"),
        (2, "1"),
        (3, "1"),
        (4, "0"),
    ]
    assert [each["environment"]["AIM_PARTITION_ID"][-1] for each in answer["environments"]] == list("00110")
    assert len(answer["claim"]["assignments"]) == 5
    assert len(world.requests) == 3


def test_of_many_partitions_the_first_are_told(aimctl, world: World) -> None:
    world.claim = [many(*range(40))]
    lines = aimctl("claim", "new", "--memory", "1").stdout.splitlines()
    assert lines[7:9] == [
        "# new/7: gpu0/7 (0000:05:00.0/7), 1 GB",
        "# and 32 partitions more: aimctl get assignments new",
    ]


@pytest.mark.parametrize(
    ("indexes", "cell"),
    [
        ([0] * 24 + [1] * 16, "gpu0/0 x24, gpu0/1 x16"),
        (list(range(8)), "gpu0/0-7"),
        ([0, 1, 2, 3, 0, 1, 2, 3, 7], "gpu0/0-3 x2, gpu0/7"),
        ([0, 1], "gpu0/0, gpu0/1"),
    ],
)
def test_places_in_the_table(indexes, cell) -> None:
    assert places(to_builtins(many(*indexes))) == cell


def test_a_change_that_is_forgotten_meanwhile_does_not_matter(aimctl, world: World) -> None:
    world.claim = [samples.claim("switching", change="long-gone"), samples.claim()]
    assert aimctl("claim", "new", "--memory", "24").exit_code == 0


@pytest.mark.parametrize(("reason", "code"), [("no_room", 1), ("gpu_busy", 5), ("deadline_exceeded", 5)])
def test_a_claim_that_waits_for_room_says_why(aimctl, world: World, reason, code) -> None:
    world.claim = [samples.claim("switching"), samples.waiting(reason, "the switch failed")]
    result = aimctl("claim", "new", "--memory", "24")
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr == (
        f"new is pending: the switch failed ({reason})\n"
        "hint: it is placed as soon as there is room; give it up with: aimctl release new\n"
    )
    world.claim = [samples.waiting(reason)]
    as_json = aimctl("claim", "more", "--memory", "24", "-o", "json")
    assert (as_json.exit_code, json.loads(as_json.stdout)["environments"]) == (code, [])


def test_refused(aimctl, world: World) -> None:
    world.overrides["PUT /v1/claims/new"] = ProblemMessage(
        title="No", status=422, detail="25 GB fit nowhere", code="no_room", hint="at most 24 GB are free, on gpu0/1"
    )
    result = aimctl("claim", "new", "--memory", "25")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: 25 GB fit nowhere\nhint: at most 24 GB are free, on gpu0/1\n"


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--memory 1 --qos urgent",
        "--memory 1 --replicas two",
        "--memory 1 --timeout -1",
        "--memory 1 --timeout nan",
        "--memory 1 --timeout inf",
        "--memory 1 --slo-latency nan",
        "--memory 1 --slo-throughput inf",
        "--memory 1 --slo-objective x",
        "--memory 1 --slo-latency 0",
    ],
)
def test_usage(aimctl, world: World, words) -> None:
    result = aimctl("claim", "new", *words.split())
    assert (result.exit_code, result.stdout, world.requests) == (2, "", [])
    assert result.stderr.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize(
    ("memory", "fact", "hint"),
    [
        ("0", "out of range", "for example 24 "),
        ("-3", "out of range", "for example 24 "),
        ("inf", "out of range", "for example 24 "),
        ("1e9", "out of range", "for example 24 "),
        ("nan", "not a number", "for example 24 "),
        ("", "not a number", "for example 24 "),
        ("24MiB", "not a number", "for example 24 "),
        ("24GiB", "not a number", "write 24: the unit is always GB"),
        ("1,5 gb", "not a number", "write 1.5: the unit is always GB"),
    ],
)
def test_an_amount_that_is_none(aimctl, world: World, memory, fact, hint) -> None:
    result = aimctl("claim", "new", f"--memory={memory}")
    error, told = result.stderr.splitlines()[-2:]
    assert (result.exit_code, result.stdout, world.requests) == (2, "", [])
    assert error == (
        f"Error: Invalid value for '--memory': memory {memory!r} is {fact}, expected GB as GPUs are sold, more than 0 "
        "and at most 1048576"
    )
    assert told.startswith(f"hint: {hint}")


def test_exports_survive_the_shell(aimctl, world: World) -> None:
    world.environments[0] = samples.environment()
    lines = aimctl("claim", "new", "--memory", "24").stdout.splitlines()
    for line in lines:
        assert line.startswith("# ") or shlex.split(line)[0] == "export"


def test_a_place_that_this_process_cannot_see(aimctl, world: World) -> None:
    """The claim is placed all the same; the exit code says that the environment is not there."""
    world.environments[0] = samples.environment(sysfs_root="/nonexistent")
    result = aimctl("claim", "new", "--memory", "24")
    assert (result.exit_code, result.stdout) == (5, "")
    places, error = result.stderr.split("error: ")
    assert places.splitlines() == SHELL.splitlines()[:2]
    assert "below /nonexistent" in error


def test_release_speaks_of_no_orphan(aimctl, world: World) -> None:
    orphan = HolderMessage(pid=8, command="python b.py", ended_at=1700000000.0)
    world.claims["llama"] = [samples.claim(holders=(orphan,))]
    assert aimctl("release", "llama").stdout == "llama: released\n"


def test_release(aimctl, world: World) -> None:
    result = aimctl("release", "llama", "bert")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "llama: released; still running: pid 4711 (python3 serve.py)\nbert: released\n"
    assert [(each.method, each.target) for each in world.requests] == [
        ("DELETE", "/v1/claims/llama"),
        ("DELETE", "/v1/claims/bert"),
    ]


def test_release_goes_on_after_an_error(aimctl, world: World) -> None:
    result = aimctl("release", "nothing", "bert", "-o", "name")
    assert (result.exit_code, result.stdout) == (6, "bert\n")
    assert "does not exist" in result.stderr
    assert list(world.claims) == ["llama"]


def test_release_in_json(aimctl, world: World) -> None:
    expected = to_builtins(world.claims["bert"][0])
    assert json.loads(aimctl("release", "bert", "-o", "json").stdout) == {"claims": [expected]}


def test_release_needs_a_name(aimctl, world: World) -> None:
    assert (aimctl("release").exit_code, world.requests) == (2, [])


def test_a_strange_answer_is_one_sentence(aimctl, world: World) -> None:
    world.overrides["PUT /v1/claims/new"] = Raw(b'{"state": "placed"}')
    result = aimctl("claim", "new", "--memory", "24")
    assert result.exit_code == 3
    assert result.stderr.startswith("error: what answers is no aimd of this version")


def test_holders_are_printable(aimctl, world: World) -> None:
    world.claims["bert"] = [samples.claim(name="bert", holders=(HolderMessage(pid=1, command="a\x1b[2Jb"),))]
    assert "\x1b" not in aimctl("release", "bert").stdout
