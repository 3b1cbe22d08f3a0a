"""The daemon's side of the dispatch socket's frames, written from DISPATCH.md and not from aimd.protocol.frames."""

import struct

HELLO, OPEN, ACQUIRE, RELEASE, RENEW, ADOPT, CANCEL = range(1, 8)
KINDS = ["hello", "open", "acquire", "release", "renew", "adopt", "cancel"]
BAD_SIZE, UNKNOWN_KIND, BAD_MAGIC, BAD_VERSION, OUT_OF_ORDER, BAD_FIELD, DUPLICATE, UNKNOWN_HANDLE = range(1, 9)


class BadFrameError(Exception):
    """`error`: the number that the ERROR frame bears."""

    def __init__(self, error, message):
        super().__init__(message)
        self.error = error


def whole_frame(buffer):
    """The first frame of what arrived, taken off it, or None."""
    if len(buffer) < 8:
        return None
    size = int.from_bytes(buffer[:2], "little")
    if size % 8 or not 16 <= size <= 512:
        raise BadFrameError(BAD_SIZE, f"size {size}")
    if len(buffer) < size:
        return None
    frame = bytes(buffer[:size])
    del buffer[:size]
    return frame


def expect(condition, what):
    if not condition:
        raise BadFrameError(BAD_FIELD, what)


def decode(frame):
    """The fields of a client's frame, by name; strict about everything that DISPATCH.md says."""
    size, kind, flags, word = struct.unpack_from("<HBBI", frame)
    if not 1 <= kind <= 7:
        raise BadFrameError(UNKNOWN_KIND, f"kind {kind}")
    name = KINDS[kind - 1]
    if kind == OPEN:
        (tag,) = struct.unpack_from("<Q", frame, 8)
        model, place = word & 0xFFFF, word >> 16
        expect(1 <= model <= 253 and place <= 64 and flags == 0, "names or flags of open")
        expect(size == 16 + -(-(model + place) // 8) * 8, "size of open")
        expect(not any(frame[16 + model + place :]), "padding")
        text = frame[16 : 16 + model + place]
        return {"kind": name, "tag": tag, "model": text[:model].decode(), "partition": text[model:].decode()}
    if size != {HELLO: 24, ACQUIRE: 32}.get(kind, 16):
        raise BadFrameError(BAD_SIZE, f"{name} of {size} bytes")
    if kind == HELLO:
        if word != 0x444D4941:
            raise BadFrameError(BAD_MAGIC, "no AIMD")
        first, last, features, reserved = struct.unpack_from("<HHIQ", frame, 8)
        expect(flags == 0 and features == 0 and reserved == 0, "reserved of hello")
        return {"kind": name, "first": first, "last": last}
    if kind == ACQUIRE:
        request, wait, klass = struct.unpack_from("<QqB", frame, 8)
        expect(request < 1 << 63 and -1 <= wait <= 1 << 62 and klass in (0, 1, 2, 255) and flags <= 3, "acquire")
        expect(not any(frame[25:]), "reserved of acquire")
        return {"kind": name, "handle": word, "request": request, "wait_ns": wait, "klass": klass, "flags": flags}
    (number,) = struct.unpack_from("<Q", frame, 8)
    expect(word == 0 and (flags <= 3 if kind == RELEASE else flags == 0), f"word or flags of {name}")
    key = "request" if kind == CANCEL else "lease"
    return {"kind": name, key: number} | ({"flags": flags} if kind == RELEASE else {})


def encode(kind, **fields):
    """A frame of the daemon."""
    return ENCODERS[kind](**fields)


def framed(kind, flags, word, body, text=""):
    text = text.encode()
    body += text + bytes(-len(text) % 8)
    return struct.pack("<HBBI", 8 + len(body), kind, flags, word) + body


def opened(tag, handle, highest, default_class, slots, lease_ns, partition):
    body = struct.pack("<QBBHIq", tag, highest, default_class, len(partition.encode()), slots, lease_ns)
    return framed(66, 0, handle, body, partition)


def granted(request, lease, klass, lease_ns, guaranteed):
    return framed(67, int(guaranteed), klass, struct.pack("<QQq", request, lease, lease_ns))


ENCODERS = {
    "welcome": lambda version, instance, features, requests, handles: framed(
        65, 0, version, struct.pack("<QIIII", instance, features, requests, handles, 0)
    ),
    "opened": opened,
    "granted": granted,
    "queued": lambda request: framed(68, 0, 0, struct.pack("<Q", request)),
    "ended": lambda request, outcome, retry_after_ns: framed(
        69, 0, outcome, struct.pack("<QqQ", request, retry_after_ns, 0)
    ),
    "released": lambda lease: framed(70, 0, 0, struct.pack("<Q", lease)),
    "renewed": lambda lease, lease_ns: framed(71, 0, 0, struct.pack("<Qq", lease, lease_ns)),
    "adopted": lambda lease, lease_ns: framed(72, 0, 0, struct.pack("<Qq", lease, lease_ns)),
    "refused": lambda number, fault, asked: framed(73, 0, fault, struct.pack("<QQ", number, asked)),
    "taken": lambda lease, end: framed(74, 0, end, struct.pack("<Q", lease)),
    "denied": lambda tag, outcome, message: framed(
        75, 0, outcome, struct.pack("<QH6x", tag, len(message.encode())), message
    ),
    "error": lambda error, message: framed(127, 0, error, struct.pack("<H6x", len(message.encode())), message),
}
