"""`python -m loadtest.peers.litserve_server PORT`: the dense network behind LitServe, with one worker process."""

import sys
from typing import Any

import litserve

from loadtest.peers.network import Classifier


class DenseApi(litserve.LitAPI):
    """LitServe calls `setup` in its worker, and the others for each request."""

    def setup(self, device: str) -> None:
        self.classify = Classifier()

    def decode_request(self, request: dict[str, Any]) -> str:
        image: str = request["image"]
        return image

    def predict(self, image: str) -> int:
        return self.classify(image)

    def encode_response(self, label: int) -> dict[str, int]:
        return {"label": label}


if __name__ == "__main__":
    server = litserve.LitServer(DenseApi(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
