"""`python -m aimd.ctl` is aimctl."""

from aimd.ctl.main import main

main()
