"""`python -m aimd`."""

from aimd.cli import main

if __name__ == "__main__":
    main()
