"""Where the API server is and who asks: a kubeconfig file, or the service account of the pod that this runs in.

Translates both into the `kubernetes` library's configuration. A token file is read anew for every request: the library
reads a kubeconfig's `tokenFile` once and never again, and tokens of service accounts live for an hour.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from kubernetes import config
from kubernetes.client import Configuration

from aimd.errors import ConfigError, UnauthenticatedError


def configuration(kubeconfig: Path | None) -> Configuration:
    """With credentials as they are now.

    Args:
        kubeconfig: the file, whose current context counts; None is this pod's service account.

    Raises:
        ConfigError: it cannot be read, does not say what it has to, or this is no pod.
    """
    made = Configuration()
    made.keep_alive = True
    made.retries = False  # urllib3: no hidden attempts, errors as they are
    try:
        if kubeconfig is None:
            config.load_incluster_config(client_configuration=made)
        else:
            _read(kubeconfig, made)
    except (config.ConfigException, OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        where = f"kubeconfig {kubeconfig}" if kubeconfig is not None else "the service account of this pod"
        raise ConfigError(
            f"{where} cannot be used ({error}), expected an API server and who asks it",
            hint="try it with kubectl --kubeconfig" if kubeconfig is not None else "outside of a pod name a kubeconfig",
        ) from error
    return made


def _read(kubeconfig: Path, made: Configuration) -> None:
    config.load_kube_config(str(kubeconfig), client_configuration=made, persist_config=False)
    path = _token_file(yaml.safe_load(kubeconfig.read_text()), kubeconfig.parent)
    if path is not None:
        made.refresh_api_key_hook = _reading(path)


def _token_file(content: dict[str, Any], folder: Path) -> Path | None:
    """Of the current context's user; relative paths are the file's (client-go, clientcmd)."""
    contexts = {each["name"]: each["context"] for each in content.get("contexts") or []}
    users = {each["name"]: each.get("user") or {} for each in content.get("users") or []}
    named = users.get(contexts[content["current-context"]].get("user"), {}).get("tokenFile")
    return folder / named if named else None


def _reading(path: Path) -> Any:
    """What the library calls before each request."""

    def refresh(made: Configuration) -> None:
        try:
            token = path.read_text().strip()
        except OSError as error:
            raise UnauthenticatedError(
                f"token file {path} cannot be read ({error.strerror}), expected the token of aimd's account"
            ) from error
        made.api_key["BearerToken"] = f"Bearer {token}"

    return refresh
