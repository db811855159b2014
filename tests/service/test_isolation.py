"""Requests that run at the same time do not touch each other."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import tritonclient.http as triton

from models.model import GateContext, Model
from tests.live import LiveServer

LEVELS = (0.0, 0.3, 0.7, 1.0)
ROUNDS = 6


def test_concurrent_requests_at_different_levels_are_bit_for_bit_as_alone(server: LiveServer, model: Model, images):
    alone = {}
    for level in LEVELS:
        context = GateContext(level)
        outputs = model.run({"image": images}, context)
        alone[level] = (outputs["probabilities"].tobytes(), context.skip_rate, context.macs_skipped)

    tensor = triton.InferInput("image", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images)

    def ask(level: float, client: httpx.Client) -> tuple[float, bytes, float]:
        body, json_length = triton.InferenceServerClient.generate_request_body([tensor], parameters={"level": level})
        response = client.post(
            "/v2/models/fashion/infer", content=body, headers={"Inference-Header-Content-Length": str(json_length)}
        )
        assert response.status_code == 200, response.text
        result = triton.InferenceServerClient.parse_response_body(
            response.content, header_length=int(response.headers["Inference-Header-Content-Length"])
        )
        return level, result.as_numpy("probabilities").tobytes(), result.get_response()["parameters"]["skip_rate"]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda level: ask(level, server.http), LEVELS * ROUNDS))

    assert len(answers) == len(LEVELS) * ROUNDS
    for level, probabilities, skip_rate in answers:
        assert probabilities == alone[level][0], f"level {level}"
        np.testing.assert_allclose(skip_rate, alone[level][1], atol=1e-6)
    assert len({probabilities for _, probabilities, _ in answers}) == len(LEVELS)
