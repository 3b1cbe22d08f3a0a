"""Client processes that live and die at random: `python -m tests.dispatch_service.churn SOCKET PROCESSES SECONDS SEED`.

Each acquires, releases, renews, cancels, closes and adopts on "llama" and "sure", and exits, well or without a word, or
is killed; sometimes a child of its own keeps its socket. What they hold is in shared memory: more than CAPACITY at one
instant breaks T1. A line of JSON at the end.
"""

import json
import mmap
import os
import random
import signal
import sys
import time
import traceback

from aimd.protocol import frames
from tests.dispatch_service.talking import Talk

CAPACITY = 8
HELD, ACQUIRES, ANSWERS, EARLY, WRONG, FIELDS = range(6)
MS = 1_000_000


class Life:
    """A client process. Its cell says that it holds a lease from when it has heard so until it gives it back."""

    def __init__(self, path, cell, chance):
        self._path, self._cell, self._chance = path, cell, chance
        self._leases = []
        self._waiting = {}  # request: not before this instant can it expire
        self._request = 0
        self._connect()

    def _connect(self):
        self._talk = Talk(self._path)
        self._handles = [self._talk.open("llama"), self._talk.open("sure")]

    def live(self, moves):
        for _ in range(moves):
            self._chance.choice((self._acquire, self._acquire, self._release, self._cancel, self._renew, self._hear))()
            if self._chance.random() < 0.01:
                self._reconnect()
        if self._chance.random() < 0.5:
            while self._leases:
                self._release()
        if self._chance.random() < 0.1 and os.fork() == 0:
            time.sleep(0.2)  # keeps the socket of its parent for a while
            os._exit(0)
        self._cell[HELD] = 0

    def _acquire(self):
        if len(self._waiting) >= 8:
            self._hear()
            return
        self._request += 1
        wait = self._chance.randrange(1, 40) * MS
        self._cell[ACQUIRES] += 1
        self._waiting[self._request] = time.monotonic_ns() + wait
        self._talk.say(
            frames.acquire(self._chance.choice(self._handles), self._request, wait, self._chance.randrange(3), 2)
        )

    def _hear(self):
        """One answer to an acquire; each has exactly one."""
        while self._waiting and not self._took(self._talk.hear()):
            pass

    def _took(self, answer):
        if isinstance(answer, frames.Granted):
            self._leases.append(answer.lease)
            self._cell[HELD] += 1
        elif not isinstance(answer, frames.Ended):
            return False
        due = self._waiting.pop(answer.request)
        self._cell[ANSWERS] += 1
        if isinstance(answer, frames.Ended) and answer.outcome == 5 and time.monotonic_ns() < due:
            self._cell[EARLY] += 1
        return True

    def _until(self, kind):
        """The answer; a cancel may have come too late, and is refused in between."""
        while True:
            answer = self._talk.hear()
            if isinstance(answer, (kind, frames.Refused)) and getattr(answer, "asked", 0) != frames.FrameKind.CANCEL:
                return answer
            self._took(answer)

    def _release(self):
        if self._leases:
            self._cell[HELD] -= 1
            lease = self._leases.pop(self._chance.randrange(len(self._leases)))
            self._talk.say(frames.release(lease, self._chance.randrange(2)))
            assert self._until(frames.Released) == frames.Released(lease)

    def _renew(self):
        if self._leases:
            self._talk.say(frames.renew(self._leases[0]))
            self._until(frames.Renewed)

    def _cancel(self):
        if self._waiting:
            self._talk.say(frames.cancel(self._chance.choice(list(self._waiting))))
            self._hear()

    def _reconnect(self):
        """What waits is given up; an answer that is under way is taken in, what was granted is adopted."""
        while self._waiting:
            self._hear()
        self._talk.close()
        self._connect()
        for lease in self._leases:
            self._talk.say(frames.adopt(lease))
            assert isinstance(self._until(frames.Adopted), frames.Adopted)


class Churn:
    def __init__(self, path, count, seed):
        self._path, self._chance = path, random.Random(seed)
        self._memory = mmap.mmap(-1, 8 * FIELDS * count)
        self._cells = memoryview(self._memory).cast("Q")
        self._pids = [0] * count
        self.totals = {"lives": 0, "killed": 0, "samples": 0, "over": 0, "most": 0}

    def _cell(self, place):
        return self._cells[place * FIELDS : (place + 1) * FIELDS]

    def _begin(self, place):
        self.totals["lives"] += 1
        self._cell(place)[HELD] = 0
        seed, moves = self._chance.getrandbits(60), self._chance.randrange(20, 400)
        self._pids[place] = os.fork()
        if self._pids[place]:
            return
        try:
            Life(self._path, self._cell(place), random.Random(seed)).live(moves)
        except BaseException:  # noqa: BLE001 - a child has to end here
            traceback.print_exc()
            self._cell(place)[WRONG] += 1
        os._exit(0)

    def _kill(self, place):
        """Its cell is put to 0 while it stands still, for with its death others may be granted what it had."""
        pid = self._pids[place]
        os.kill(pid, signal.SIGSTOP)
        _, status = os.waitpid(pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            self._cell(place)[HELD] = 0
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self.totals["killed"] += 1
        self._pids[place] = 0

    def _sample(self):
        """Two equal looks are one instant."""
        first, second = bytes(self._memory), bytes(self._memory)
        if first == second:
            held = sum(memoryview(second).cast("Q")[HELD::FIELDS])
            self.totals["samples"] += 1
            self.totals["over"] += held > CAPACITY
            self.totals["most"] = max(self.totals["most"], held)

    def run(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for place, pid in enumerate(self._pids):
                if pid and os.waitpid(pid, os.WNOHANG)[0]:
                    self._pids[place] = 0
                if not self._pids[place]:
                    self._begin(place)
            self._sample()
            if self._chance.random() < 0.3:
                self._kill(self._chance.randrange(len(self._pids)))
            self._sample()
            time.sleep(0.002)
        for place in range(len(self._pids)):
            if self._pids[place]:
                self._kill(place)
        for name, field in (("acquires", ACQUIRES), ("answers", ANSWERS), ("early", EARLY), ("wrong", WRONG)):
            self.totals[name] = sum(self._cells[field::FIELDS])


def main():
    path, count, seconds, seed = sys.argv[1], *map(int, sys.argv[2:])
    churn = Churn(path, count, seed)
    churn.run(seconds)
    print(json.dumps(churn.totals), flush=True)


if __name__ == "__main__":
    main()
