"""Everything under ``/v2``.

>>> app = FastAPI(redirect_slashes=False)                                        # doctest: +SKIP
>>> mount_v2(app, engine, Limits(), admin_authorisation(token), available, "0.1.0")  # doctest: +SKIP
>>> install_error_handlers(app)                                                  # doctest: +SKIP
"""

from fastapi import FastAPI

from service.protocol.admin import Authorise
from service.protocol.collaborators import InferenceEngine
from service.protocol.gate_control import gate_router
from service.protocol.limits import Limits
from service.protocol.v2_infer import Inference, infer_router
from service.protocol.v2_models import models_router
from service.protocol.v2_repository import Catalog, repository_router


def mount_v2(
    app: FastAPI, engine: InferenceEngine, limits: Limits, authorise: Authorise, catalog: Catalog, version: str
) -> Inference:
    """Adds the Open Inference Protocol v2 with its extensions, and the SLO, gate and profile of each model.

    ``authorise`` guards what changes things, ``catalog`` lists what can be hosted, ``version`` is the server's. The app
    needs ``install_error_handlers`` and ``redirect_slashes=False``, since a redirect is an answer without an error.
    Returns what answers the inference call, for `InferenceFirst`.
    """
    inference = Inference(engine, limits)
    app.include_router(infer_router(inference))
    app.include_router(models_router(engine, version))
    app.include_router(gate_router(engine, limits, authorise))
    app.include_router(repository_router(engine, limits, authorise, catalog))
    return inference
