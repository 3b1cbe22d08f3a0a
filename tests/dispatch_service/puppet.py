"""A process that does what it is told: a line of Python on its stdin, the value of it on its stdout."""

import ast
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]


class Puppet:
    """The process, as its parent sees it."""

    def __init__(self, **options):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.dispatch_service.puppet"],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )
        self.pid = self._process.pid

    def tell(self, line):
        self._process.stdin.write(line.replace("\n", "\r") + "\n")
        self._process.stdin.flush()

    def do(self, line):
        """The value of a line; it has to be a literal."""
        self.tell(line)
        answer = self._process.stdout.readline()
        assert answer.startswith("= "), answer + self._process.stdout.read()
        return ast.literal_eval(answer[2:])

    def connect(self, path):
        self.do(f"client = Talk({str(path)!r})")
        return self

    def wait(self):
        return self._process.wait(10)

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


def main():
    from tests.dispatch_service.talking import Talk

    names = {"Talk": Talk}
    exec("import os, socket, sys, time; from aimd.protocol import frames", names)
    for line in sys.stdin:
        source = line.rstrip("\n").replace("\r", "\n")
        try:
            code = compile(source, "<told>", "eval")
        except SyntaxError:
            exec(source, names)
            value = None
        else:
            value = eval(code, names)
        print("=", repr(value), flush=True)


if __name__ == "__main__":
    main()
