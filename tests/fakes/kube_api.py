"""An API server in the test's process that goes wrong when it is told to; plain HTTP on 127.0.0.1.

It keeps objects of any resource with a version that grows with each change, lists them by one field selector, and
tells watches of changes, each in an HTTP chunk of its own as the real one does. Faults are of two kinds: what answers
the next requests (`fail`), and what happens to watches that are open (`say`, `end_watches`, `cut_watches`, `hush`).
"""

from __future__ import annotations

import contextlib
import copy
import json
import queue
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.kube_http import Server, status

PODS = "api/v1/pods"
PARTITIONS = "apis/aimd.dev/v1alpha1/nodepartitions"
SERVICES = "apis/serving.kserve.io/v1beta1/inferenceservices"
NODES = "api/v1/nodes"
EVENTS = "apis/events.k8s.io/v1/events"
SLICES = "apis/resource.k8s.io/v1/resourceslices"
CLAIMS = "apis/resource.k8s.io/v1/resourceclaims"


def merged(target, patch):
    """JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


@dataclass
class Fault:
    """What the next requests meet, instead of an answer (`code`), before one (`delay`), in place of any (`drop`), or after it (`lost`)."""

    verb: str
    resource: str
    times: int
    code: int | None = None
    body: bytes | None = None
    headers: dict = field(default_factory=dict)
    delay: float = 0.0
    drop: bool = False
    lost: bool = False


@dataclass
class _Watch:
    resource: str
    selector: str
    bookmarks: bool
    lines: queue.Queue = field(default_factory=queue.Queue)


class FakeApi:
    """Runs from its making until `close`. All methods are for any thread."""

    def __init__(self):
        self._lock = threading.RLock()
        self._revision = 100
        self._objects = {}
        self._history = []  # (revision, type, resource, object before, object)
        self._compacted = 0
        self._faults = []
        self._watches = []
        self._gone_as_event = True
        self.unserved = set()
        self.tokens = None
        self.requests = []
        self._server = Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self):
        self.cut_watches()
        self._server.shutdown()
        self._server.close_all()

    def kubeconfig(self, folder, token="first", name="kubeconfig"):
        """A file for a token, or for a file that holds one."""
        user = {"tokenFile": str(token)} if isinstance(token, Path) else {"token": token}
        path = folder / name
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "fake", "user": user}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
            "current-context": "fake",
        }
        path.write_text(json.dumps(content))
        return path

    # -- objects ---------------------------------------------------------------------------------------------

    def put(self, resource, item):
        """Make or replace an object; watches are told."""
        with self._lock:
            item = copy.deepcopy(item)
            metadata = item.setdefault("metadata", {})
            key = (resource, metadata.get("namespace", ""), metadata["name"])
            before = self._objects.get(key)
            metadata["uid"] = before["metadata"]["uid"] if before else metadata.get("uid") or str(uuid.uuid4())
            self._record("MODIFIED" if before else "ADDED", resource, before, item)
            self._objects[key] = item
            return copy.deepcopy(item)

    def remove(self, resource, name, namespace=""):
        with self._lock:
            before = self._objects.pop((resource, namespace, name))
            self._record("DELETED", resource, before, copy.deepcopy(before))

    def get(self, resource, name, namespace=""):
        with self._lock:
            return copy.deepcopy(self._objects.get((resource, namespace, name)))

    def all(self, resource):
        with self._lock:
            return [copy.deepcopy(item) for (kind, _, _), item in self._objects.items() if kind == resource]

    # -- faults ----------------------------------------------------------------------------------------------

    def fail(self, verb, resource, *, times=1, **fault):
        """The next `times` requests of a verb (`*`: of any) of a resource (`*`) meet the Fault of these fields."""
        with self._lock:
            self._faults.append(Fault(verb, resource, times, **fault))

    def heal(self):
        with self._lock:
            self._faults.clear()

    def compact(self, *, as_event=True):
        """Forget all history: who wants to go on from before is told 410, in the watch or as HTTP's status."""
        with self._lock:
            self._compacted, self._gone_as_event = self._revision, as_event
            self._history.clear()

    def say(self, resource, *events):
        """Bytes or events to all watches of the resource, whatever is true."""
        with self._lock:
            for watch in self._watches:
                if watch.resource == resource:
                    for event in events:
                        watch.lines.put(event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n")

    def bookmark(self, resource):
        """Tell of the present version, as the real one does each minute; gives the version."""
        with self._lock:
            version = str(self._revision)
            for watch in self._watches:
                if watch.resource == resource and watch.bookmarks:
                    event = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}}
                    watch.lines.put(json.dumps(event).encode() + b"\n")
            return version

    def advance(self, revisions=1):
        """Something else in the cluster changes."""
        with self._lock:
            self._revision += revisions

    def end_watches(self):
        """Properly, as when their time has come."""
        self._to_watches("end")

    def cut_watches(self, partial=b""):
        """By a connection that breaks, perhaps after a part of a line."""
        self._to_watches(("cut", partial))

    def break_connections(self):
        """All, those that say nothing any more included."""
        self._to_watches("end")
        self._server.break_all()

    def hush(self):
        """The watches that are open say nothing any more, and do not end: half-open connections."""
        self._to_watches("hush")

    def _to_watches(self, what):
        with self._lock:
            for watch in self._watches:
                watch.lines.put(what)
            self._watches.clear()

    # -- what the test sees ----------------------------------------------------------------------------------

    def asked(self, verb, resource):
        """The requests so far."""
        with self._lock:
            return [each for each in self.requests if (each.verb, each.resource) == (verb, resource)]

    def watches(self, resource):
        """How many are open."""
        with self._lock:
            return sum(watch.resource == resource for watch in self._watches)

    # -- answers ---------------------------------------------------------------------------------------------

    def _record(self, kind, resource, before, item):
        self._revision += 1
        item["metadata"]["resourceVersion"] = str(self._revision)
        entry = (self._revision, kind, resource, before, copy.deepcopy(item))
        self._history.append(entry)
        for watch in self._watches:
            if (line := _line(entry, watch)) is not None:
                watch.lines.put(line)

    def next_fault(self, verb, resource):
        with self._lock:
            for fault in self._faults:
                if fault.verb in (verb, "*") and fault.resource in (resource, "*") and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def answer(self, request, name, namespace, subresource):
        """Status and body of everything but a watch."""
        key = (request.resource, namespace, name)
        with self._lock:
            if request.resource in self.unserved:
                return 404, status(404, "the server could not find the requested resource")
            if request.verb == "list":
                chosen = [item for item in self.all(request.resource) if _chosen(item, request.query)]
                return 200, {"metadata": {"resourceVersion": str(self._revision)}, "items": chosen}
            if request.verb == "create":
                name = request.body["metadata"]["name"]
                if (request.resource, namespace, name) in self._objects:
                    return 409, status(409, f"{name} already exists", "AlreadyExists")
                body = {**request.body, "metadata": {**request.body["metadata"]}}
                if namespace:
                    body["metadata"]["namespace"] = namespace
                return 201, self.put(request.resource, body)
            if key not in self._objects:
                return 404, status(404, f"{name} not found")
            if request.verb == "delete":
                self.remove(request.resource, name, namespace)
                return 200, {"kind": "Status", "status": "Success"}
            if request.verb in ("patch", "update", "apply"):
                return self._changed(request, key, subresource)
            return 200, copy.deepcopy(self._objects[key])

    def _changed(self, request, key, subresource):
        before = self._objects[key]
        said = {**before["metadata"], **(request.body.get("metadata") or {})}
        if said["resourceVersion"] != before["metadata"]["resourceVersion"]:
            return 409, status(409, "the object has been modified")
        if said["uid"] != before["metadata"]["uid"]:
            return 422, status(422, f'metadata.uid: Invalid value: "{said["uid"]}": field is immutable')
        if request.verb == "update":
            return 200, self.put(request.resource, request.body)
        if request.verb == "apply":
            return self._applied(request, before)
        patch = {subresource: request.body.get(subresource)} if subresource else request.body
        after = merged(before, patch)
        return 200, self.put(request.resource, after) if after != before else copy.deepcopy(before)

    def _applied(self, request, before):
        """Server-side apply as far as `status.devices` of claims needs it: entries by identity, and who applied them."""
        state = before.get("status") or {}
        allocated = ((state.get("allocation") or {}).get("devices") or {}).get("results") or []
        wanted = {identity(each): each for each in request.body["status"]["devices"]}
        if not set(wanted) <= {identity(each) for each in allocated}:
            return 422, status(422, "status.devices: must be an allocated device in the claim")
        applied = before["metadata"].get("applied") or []
        kept = {identity(each): each for each in state.get("devices") or () if list(identity(each)) not in applied}
        after = copy.deepcopy(before)
        after["status"]["devices"] = list((kept | wanted).values())
        after["metadata"]["applied"] = [list(each) for each in wanted]
        return 200, self.put(request.resource, after) if after != before else copy.deepcopy(before)

    def begin_watch(self, request):
        """The watch, with all that it has missed; or a status that ends it."""
        with self._lock:
            since = int(request.query["resourceVersion"])
            watch = _Watch(request.resource, request.query, request.query.get("allowWatchBookmarks") == "true")
            if since < self._compacted:
                if not self._gone_as_event:
                    return 410, status(410, "too old resource version")
                gone = {"type": "ERROR", "object": status(410, "too old resource version")}
                watch.lines.put(json.dumps(gone).encode() + b"\n")
                watch.lines.put("end")
                return 200, watch
            for entry in self._history:
                if entry[0] > since and (line := _line(entry, watch)) is not None:
                    watch.lines.put(line)
            self._watches.append(watch)
            return 200, watch

    def forget(self, watch):
        with self._lock, contextlib.suppress(ValueError):
            self._watches.remove(watch)


def identity(device):
    """What tells an entry of a claim's `status.devices` from others."""
    return tuple(device.get(key) for key in ("driver", "pool", "device", "shareID"))


def _chosen(item, query):
    """By a field selector."""
    terms = query.get("fieldSelector")
    return all(_fits(item, *term.split("=")) for term in terms.split(",")) if terms else True


def _fits(item, path, wanted):
    for part in path.split("."):
        item = item.get(part) or {}
    return item == wanted


def _line(entry, watch):
    """The event for this watch; what leaves a selection is deleted for it, what enters is added."""
    _, kind, resource, before, item = entry
    if resource != watch.resource:
        return None
    was, is_now = before is not None and _chosen(before, watch.selector), _chosen(item, watch.selector)
    if kind == "DELETED":
        kind = kind if was else None
    else:
        kind = {(True, True): "MODIFIED", (False, True): "ADDED", (True, False): "DELETED"}.get((was, is_now))
    return json.dumps({"type": kind, "object": item}).encode() + b"\n" if kind else None
