"""Reads and changes the SLO of the model under test, over HTTP."""

from collections.abc import Mapping
from typing import Any

import httpx

from loadtest.script import Event
from service.control.generation_slo import Objective
from service.control.objective import objective_of


class SloClient:
    """`token` is the server's admin token, where it has one. Errors of the server are raised as `httpx` errors."""

    def __init__(self, url: str, model: str, token: str | None = None) -> None:
        self._url = f"{url.rstrip('/')}/v2/models/{model}/slo"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def read(self) -> Objective:
        return objective_of(_answer(httpx.get(self._url)))

    def change(self, changes: Mapping[str, Any]) -> Objective:
        return objective_of(_answer(httpx.patch(self._url, json=dict(changes), headers=self._headers)))

    async def apply(self, event: Event) -> None:
        """For the driver, whose sending must not wait for this."""
        async with httpx.AsyncClient() as client:
            _answer(await client.patch(self._url, json=event.changes, headers=self._headers))


def _answer(response: httpx.Response) -> Any:
    response.raise_for_status()
    return response.json()
