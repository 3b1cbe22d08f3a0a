"""A raw client of the dispatch socket."""

import socket

from aimd.protocol import frames

PATIENCE = 5.0  # seconds, for what should come at once


class Talk:
    """A raw client: frames out, answers in."""

    def __init__(self, path, *, hello=True):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(path))
        self.buffer = bytearray()
        self.heard = []
        if hello:
            self.say(frames.hello())
            self.welcome = self.hear()

    def say(self, *what):
        self.sock.sendall(b"".join(what))

    def _read(self):
        got = self.sock.recv(65536)
        self.buffer += got
        self.heard += [frames.answer(frame) for frame in frames.split(self.buffer)]
        return bool(got)

    def hear(self):
        """The next answer."""
        while not self.heard:
            assert self._read(), "end of file"
        return self.heard.pop(0)

    def hear_many(self, count):
        return [self.hear() for _ in range(count)]

    def silent(self, seconds=0.05):
        """Whether nothing comes for a while."""
        self.sock.settimeout(seconds)
        try:
            return not self.heard and not self._read()
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(PATIENCE)

    def rest(self):
        """All up to the end of file, which has to come, and no error instead of it."""
        while self._read():
            pass
        assert not self.buffer
        heard, self.heard = self.heard, []
        return heard

    def open(self, model="llama", tag=7, partition=""):
        self.say(frames.open_model(tag, model, partition))
        opened = self.hear()
        assert isinstance(opened, frames.Opened), opened
        return opened.handle

    def acquire(self, handle, request, wait_ns=-1, klass=255, flags=0):
        """The answer to an acquire."""
        self.say(frames.acquire(handle, request, wait_ns, klass, flags))
        return self.hear()

    def lease(self, handle, request=1, **options):
        granted = self.acquire(handle, request, **options)
        assert isinstance(granted, frames.Granted), granted
        return granted.lease

    def close(self):
        self.sock.close()
