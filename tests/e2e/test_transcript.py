"""README's transcript is what the program prints."""

from __future__ import annotations

from tests.e2e.transcript import in_readme, transcript


def test_readme_shows_what_happens() -> None:
    shown = in_readme()
    assert shown.count("\n    $ ") > 10, "README has no transcript: python -m tests.e2e.transcript"
    assert transcript() == shown, "README shows something else: python -m tests.e2e.transcript writes it anew"
