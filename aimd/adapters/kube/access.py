"""Where the API server is and who asks: a kubeconfig file, or the service account of the pod that this runs in.

Translates both into the `kubernetes` library's configuration. A token file is read anew for every request: the library
reads a kubeconfig's `tokenFile` once and never again, and tokens of service accounts live for an hour.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from kubernetes import config
from kubernetes.client import Configuration
from kubernetes.config.incluster_config import InClusterConfigLoader

from aimd.errors import ConfigError, UnauthenticatedError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def of_kubeconfig(path: Path) -> Configuration:
    """What the file's current context says, with credentials as they are now.

    Raises:
        ConfigError: it cannot be read, or does not say what it has to.
    """
    with _complaints(f"kubeconfig {path}", "try it with kubectl --kubeconfig"):
        made = _plain()
        config.load_kube_config(str(path), client_configuration=made, persist_config=False)
        token = _token_file(yaml.safe_load(path.read_text()), path.parent)
        if token is not None:
            _renew_from(token, made)
        return made


def of_service_account(environ: Mapping[str, str] = os.environ, folder: Path = SERVICE_ACCOUNT) -> Configuration:
    """What Kubernetes tells a pod of itself.

    Args:
        folder: with token and ca.crt.

    Raises:
        ConfigError: this is no pod, or one without a service account's token.
    """
    with _complaints("the service account of this pod", "outside of a pod name a kubeconfig"):
        made = _plain()
        paths = (str(folder / "token"), str(folder / "ca.crt"))
        InClusterConfigLoader(*paths, try_refresh_token=False, environ=environ).load_and_set(made)
        _renew_from(folder / "token", made)
        return made


def _plain() -> Configuration:
    made = Configuration()
    made.keep_alive = True
    made.retries = False  # urllib3: no hidden attempts, errors as they are
    return made


@contextlib.contextmanager
def _complaints(what: str, hint: str) -> Iterator[None]:
    try:
        yield
    except (
        config.ConfigException,
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        yaml.YAMLError,
    ) as error:
        raise ConfigError(
            f"{what} cannot be used ({error}), expected an API server and who asks it", hint=hint
        ) from error


def _token_file(content: dict[str, Any], folder: Path) -> Path | None:
    """Of the current context's user; relative paths are the file's (client-go, clientcmd)."""
    contexts = {each["name"]: each["context"] for each in content.get("contexts") or []}
    users = {each["name"]: each.get("user") or {} for each in content.get("users") or []}
    named = users.get(contexts[content["current-context"]].get("user"), {}).get("tokenFile")
    return folder / named if named else None


def _renew_from(path: Path, made: Configuration) -> None:
    """From now on every request has the token that the file holds then."""

    def refresh(made: Configuration) -> None:
        try:
            token = path.read_text().strip()
        except (OSError, ValueError) as error:
            raise UnauthenticatedError(f"token file {path} cannot be read ({error}), expected aimd's token") from error
        if not token:
            raise UnauthenticatedError(f"token file {path} is empty, expected aimd's token")
        made.api_key["BearerToken"] = f"Bearer {token}"

    made.refresh_api_key_hook = refresh  # type: ignore[assignment]  # the library's annotation knows None alone
