"""`python -m loadtest.peers.fastapi_server PORT`: the dense network behind a plain FastAPI handler."""

import sys

import uvicorn
from fastapi import Body, FastAPI

from loadtest.peers.network import Classifier


def create_app(classify: Classifier) -> FastAPI:
    """A `def` handler, which FastAPI runs in a thread, so that the event loop goes on."""
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/predict")
    def predict(image: bytes = Body(media_type="application/octet-stream")) -> dict[str, int]:
        return {"label": classify(image)}

    return app


if __name__ == "__main__":
    uvicorn.run(create_app(Classifier()), port=int(sys.argv[1]), log_level="warning")
