"""A living client under load: acquires, releases and cancels at random on several connections; knows what it holds."""

import random
import threading

from aimd.protocol import frames
from tests.dispatch_service.talking import Talk


class Load:
    """Threads of this process, each with a connection, until the daemon ends; `held` is what they hold for sure.

    A lease whose release was sent without an answer may or may not be held any more: `unsure`.
    """

    def __init__(self, path, connections, seed):
        self.held = set()
        self.unsure = set()
        self.most = 0
        self._lock = threading.Lock()
        self._talks = [Talk(path) for _ in range(connections)]
        self._threads = [
            threading.Thread(target=self._speak, args=(talk, random.Random(seed + number)), daemon=True)
            for number, talk in enumerate(self._talks)
        ]

    def start(self):
        for thread in self._threads:
            thread.start()
        return self

    def join(self):
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        for talk in self._talks:
            talk.close()

    def _speak(self, talk, chance):
        try:
            handle = talk.open()
            request = 0
            mine = []
            while True:
                if mine and chance.random() < 0.5:
                    self._release(talk, mine.pop(chance.randrange(len(mine))))
                else:
                    request += 1
                    talk.say(frames.acquire(handle, request, 3_000_000, chance.randrange(3), chance.choice((0, 1, 2))))
                    self._await(talk, mine, request)
        except (OSError, AssertionError):
            return  # the daemon has ended

    def _release(self, talk, lease):
        with self._lock:
            self.held.discard(lease)
            self.unsure.add(lease)
        talk.say(frames.release(lease))
        assert isinstance(talk.hear(), frames.Released)
        with self._lock:
            self.unsure.discard(lease)

    def _await(self, talk, mine, request):
        answer = talk.hear()
        while isinstance(answer, frames.Queued):
            answer = talk.hear()
        assert answer.request == request
        if isinstance(answer, frames.Granted):
            mine.append(answer.lease)
            with self._lock:
                self.held.add(answer.lease)
                self.most = max(self.most, len(self.held))
