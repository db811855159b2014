"""What the routes need of the rest of the server; ``service.engine.engine.Engine`` is the real one."""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from models.model import Model
from service.control.generation_slo import Objective
from service.engine.generation import GenerationRequest, Piece
from service.engine.request import Finished, Request
from service.engine.snapshot import Health, ModelSnapshot
from service.errors import ServiceError


class InferenceEngine(Protocol):
    """Methods that take a name raise NotFound for an unknown one, and Unavailable where the model has to be loaded."""

    def names(self) -> Sequence[str]: ...
    def state(self, name: str) -> tuple[str, str]: ...
    def is_ready(self, name: str) -> bool: ...
    def health(self) -> Health: ...
    def model(self, name: str) -> Model: ...
    def slo(self, name: str) -> Objective: ...
    def set_slo(self, name: str, slo: Objective) -> Objective: ...
    def snapshot(self, name: str) -> ModelSnapshot: ...
    def snapshots(self) -> Sequence[ModelSnapshot]: ...
    async def load(self, name: str) -> None: ...
    async def unload(self, name: str) -> None: ...

    async def submit(self, request: Request) -> Finished:
        """Raises ServiceError; cancelling it withdraws the request."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        """Raises ServiceError, at the first piece or later; closing it ends the generation."""

    def reject(self, model: str, protocol: str, arrival: float, error: ServiceError) -> None:
        """Counts a request that could not be submitted."""


class CatalogEntry(Protocol):
    """A model that could be hosted; ``missing`` is the command that installs its weights, "" where they are there."""

    @property
    def name(self) -> str: ...
    @property
    def missing(self) -> str: ...
