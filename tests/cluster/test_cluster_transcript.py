"""README's part about the cluster: its transcript is what the programs print, its table is the schema's."""

from __future__ import annotations

import re

from k8s.crd import generate
from tests.cluster.cluster_transcript import README, in_readme, transcript


def test_readme_shows_what_happens_in_a_cluster(cluster_programs):
    shown = in_readme()
    assert shown.count("    $ ") > 5, "README has no such transcript: python -m tests.cluster.cluster_transcript"
    assert transcript(cluster_programs) == shown, "it is another now: python -m tests.cluster.cluster_transcript"


def test_the_fields_in_readme_are_those_of_the_schema():
    rows = re.findall(r"^\| `(\w+)` \| `([\w-]+)` \|", README.read_text("utf-8"), re.MULTILINE)
    properties = generate.schema()["properties"]
    assert len(rows) == 7
    assert [properties[name]["x-annotation"] for name, _ in rows] == [annotation for _, annotation in rows]
