"""Calls to a running server, for the commands."""

from typing import Any

import httpx

from service.commands.output import fail

DEFAULT_URL = "http://127.0.0.1:8000"


def call(method: str, url: str, path: str, token: str | None = None, body: Any = None) -> Any:
    """The JSON answer of a server at ``url``; ends the command with the server's own error where there is one."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        response = httpx.request(method, url.rstrip("/") + path, json=body, headers=headers, timeout=60)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        fail(f"no server answers at {url} ({error}). Start one with: sluice serve")
    try:
        answer = response.json()
    except ValueError:
        fail(f"{url} is no Sluice server: it answered {response.status_code} with something that is not JSON")
    if response.status_code != 200:
        fail(str(answer.get("error", answer) if isinstance(answer, dict) else answer))
    return answer
