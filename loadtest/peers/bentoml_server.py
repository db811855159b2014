"""`bentoml serve loadtest.peers.bentoml_server:Dense`: the dense network behind BentoML, with one worker process."""

import bentoml  # type: ignore[import-not-found]  # It is in an environment of its own.

from loadtest.peers.network import Classifier


@bentoml.service(workers=1, threads=1, logging={"access": {"enabled": False}})
class Dense:
    """BentoML makes it in its worker, and runs the method in a thread, so that the event loop goes on."""

    def __init__(self) -> None:
        self.classify = Classifier()

    @bentoml.api  # type: ignore[untyped-decorator]
    def predict(self, image: str) -> dict[str, int]:
        return {"label": self.classify(image)}
