"""The caller itself: who it is by its connection, the claim that is its own, and where that was placed.

A pod asks this at the mounted socket: it knows neither its claim's name nor its own number in the daemon's eyes.
"""

from __future__ import annotations

from aimd.adapters.callers import holders_of_process
from aimd.adapters.http.api import Api
from aimd.adapters.http.call import Answer, Call, Result
from aimd.adapters.http.routes import Route
from aimd.protocol import claims as msg
from aimd.protocol.convert_self import Asker, self_message


async def read_self(api: Api, call: Call) -> Result:
    peer = call.peer
    holders = frozenset[tuple[int, int]]() if peer.in_pod else holders_of_process(peer)
    asker = Asker(peer.pid, peer.uid, api.operators.include(peer), peer.in_pod, peer.pod, holders)
    return Answer(self_message(asker, api.snapshot()))


ROUTES = (
    Route(
        "GET",
        "/v1/self",
        "Who the caller is, by its connection; its own claim and where that is placed, or why it is not",
        read_self,
        {200: msg.SelfMessage},
    ),
)
