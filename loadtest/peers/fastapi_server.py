"""`python -m loadtest.peers.fastapi_server PORT`: the dense network behind a plain FastAPI handler."""

import sys
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from loadtest.peers.network import Classifier


class Query(BaseModel):
    """A request."""

    image: str


def create_app(classify: Callable[[str], int]) -> FastAPI:
    """A `def` handler, which FastAPI runs in a thread, so that the event loop goes on."""
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/predict")
    def predict(query: Query) -> dict[str, int]:
        return {"label": classify(query.image)}

    return app


if __name__ == "__main__":
    uvicorn.run(create_app(Classifier()), port=int(sys.argv[1]), log_level="warning")
