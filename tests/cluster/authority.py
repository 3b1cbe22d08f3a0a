"""Certificates and kubeconfig files of one test cluster, made by openssl."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.systemd.tree import done

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
DAYS = 7


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, each in a file."""

    certificate: Path
    key: Path


class Authority:
    """Signs what it is asked to, until its folder is removed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self.certificate = folder / "ca.crt"
        self._key = folder / "ca.key"
        subject = ("-subj", "/CN=aimd-test", "-days", DAYS)
        done("openssl", "req", "-x509", *KEY, *subject, "-keyout", self._key, "-out", self.certificate)

    def issue(self, name: str, groups: tuple[str, ...] = (), addresses: tuple[str, ...] = ()) -> Certificate:
        """For a user of the API (its groups are organizations), and for a server on these addresses (`IP:127.0.0.1`)."""
        stem = self._folder / name.replace(":", "-")
        certificate, key, request, extensions = (
            stem.with_name(f"{stem.name}.{it}") for it in ("crt", "key", "csr", "ext")
        )
        subject = "".join(f"/O={group}" for group in groups) + f"/CN={name}"
        done("openssl", "req", "-new", *KEY, "-subj", subject, "-keyout", key, "-out", request)
        names = [f"subjectAltName={','.join(addresses)}"] if addresses else []
        extensions.write_text("\n".join(["extendedKeyUsage=clientAuth,serverAuth", *names]))
        signer = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial", "-days", DAYS)
        done("openssl", "x509", "-req", "-in", request, *signer, "-extfile", extensions, "-out", certificate)
        return Certificate(certificate, key)

    def key_pair(self) -> Certificate:
        """What the API server signs and knows tokens of service accounts by; the "certificate" is a public key."""
        private, public = self._folder / "sa.key", self._folder / "sa.pub"
        done("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private)
        done("openssl", "ec", "-in", private, "-pubout", "-out", public)
        return Certificate(public, private)


def kubeconfig(
    path: Path, url: str, authority: Path, user: Certificate | str | Path, namespace: str = "default"
) -> Path:
    """Written to the path. The user is a certificate, a token, or a file with a token."""
    if isinstance(user, Certificate):
        credentials = {"client-certificate": str(user.certificate), "client-key": str(user.key)}
    else:
        credentials = {"tokenFile": str(user)} if isinstance(user, Path) else {"token": user}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": str(authority)}}],
        "users": [{"name": "test", "user": credentials}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
        "current-context": "test",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(content, indent=1))  # JSON is YAML
    return path
