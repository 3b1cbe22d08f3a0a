"""aimd-metrics(7) has the families that a page has: none is missing, and none is told that is not there."""

import importlib.util
import re

from tests.unit.metrics import scene

PAGES = scene.GOLDEN.parents[3] / "systemd/man/pages.py"


def test_the_manual_page_has_the_families_of_a_page() -> None:
    spec = importlib.util.spec_from_file_location("pages", PAGES)
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    told = re.findall(r"^\.B (aim_\w+)$", pages.pages()["aimd-metrics.7"], re.MULTILINE)
    assert told == sorted(told)
    assert sorted(told) == sorted(re.findall(r"^# HELP (aim_\S+)", scene.GOLDEN.read_text(), re.MULTILINE))
