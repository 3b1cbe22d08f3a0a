"""kill -9 around every acknowledged claim and release: no acknowledgement is lost, nothing is assigned twice.

The normal run kills 20 daemons at each point. A thousand at each:

    python -m pytest tests/integration/test_claim_crash.py -m campaign

Points and what is compared are in claim_crash_rounds.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.claim_crash_rounds import POINTS

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("rounds", [20, pytest.param(1000, marks=pytest.mark.campaign)])
@pytest.mark.parametrize("point", list(POINTS))
def test_killed(point: str, rounds: int) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.integration.claim_crash_rounds", point, str(rounds)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["wrong"] == {}
    assert told["acknowledged"] >= rounds, "hardly anything could have been lost"
