"""Everything under ``/v2``.

>>> app = FastAPI(redirect_slashes=False)                                        # doctest: +SKIP
>>> app.include_router(v2_router(engine, Limits(), admin_authorisation(token), available, "0.1.0"))  # doctest: +SKIP
>>> install_error_handlers(app)                                                  # doctest: +SKIP
"""

from fastapi import APIRouter

from service.protocol.admin import Authorise
from service.protocol.collaborators import InferenceEngine
from service.protocol.gate_control import gate_router
from service.protocol.limits import Limits
from service.protocol.v2_infer import infer_router
from service.protocol.v2_models import models_router
from service.protocol.v2_repository import Catalog, repository_router


def v2_router(
    engine: InferenceEngine, limits: Limits, authorise: Authorise, catalog: Catalog, version: str
) -> APIRouter:
    """The Open Inference Protocol v2 with its extensions, and the SLO, gate and profile of each model.

    ``authorise`` guards what changes things, ``catalog`` lists what can be hosted, ``version`` is the server's. The app
    needs ``install_error_handlers`` and ``redirect_slashes=False``, since a redirect is an answer without an error.
    """
    router = APIRouter()
    # Routes are tried in turn, so the one that is called a thousand times a second comes first.
    router.include_router(infer_router(engine, limits))
    router.include_router(models_router(engine, version))
    router.include_router(gate_router(engine, limits, authorise))
    router.include_router(repository_router(engine, limits, authorise, catalog))
    return router
