"""What the routes need of the rest of the server; ``service.engine.engine.Engine`` is the real one."""

from collections.abc import Sequence
from typing import Protocol

from models.model import Model
from service.control.slo import SLO
from service.engine.request import Finished, Request
from service.engine.snapshot import Health, ModelSnapshot
from service.errors import ServiceError


class HostedModel(Protocol):
    """A model that is loaded, and the SLO in force for it."""

    @property
    def model(self) -> Model: ...
    @property
    def slo(self) -> SLO: ...


class InferenceEngine(Protocol):
    """Methods that take a name raise NotFound for one that is not hosted."""

    def names(self) -> Sequence[str]: ...
    def hosted(self, name: str) -> HostedModel: ...
    def snapshot(self, name: str) -> ModelSnapshot: ...
    def health(self) -> Health: ...
    def set_slo(self, name: str, slo: SLO) -> SLO: ...
    async def load(self, name: str) -> None: ...
    async def unload(self, name: str) -> None: ...

    async def submit(self, request: Request) -> Finished:
        """Raises ServiceError; cancelling it withdraws the request."""

    def reject(self, model: str, protocol: str, arrival: float, error: ServiceError) -> None:
        """Count a request that could not be submitted."""


class CatalogEntry(Protocol):
    """A model that could be hosted; ``missing`` is the command that installs its weights, "" where they are there."""

    @property
    def name(self) -> str: ...
    @property
    def missing(self) -> str: ...
