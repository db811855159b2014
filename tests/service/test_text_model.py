"""A model of texts beside the image classifier, as the public Triton client sees it."""

from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

from models.model import GateContext, Model
from models.zoo import text_family
from models.zoo.text_embeddings import TextEmbedder
from tests.live import LiveServer, infer_body, serve
from tests.models.zoo.random_bert import write_random_bert

TEXTS = ["The old captain sailed.", "", "a white whale \N{WHALE}", "Fünf Wale"]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory) -> TextEmbedder:
    """MiniLM where its weights are installed, else a small random encoder."""
    folder = text_family.minilm_folder() or write_random_bert(tmp_path_factory.mktemp("bert"))
    return TextEmbedder("minilm", folder)


@pytest.fixture(scope="module")
def both(model: Model, embedder, tmp_path_factory) -> Iterator[LiveServer]:
    with serve([model, embedder], tmp_path_factory.mktemp("home"), slo_latency_ms=10_000) as live:
        yield live


def tensor(values, binary=True):
    made = triton.InferInput("text", [len(values)], "BYTES")
    made.set_data_from_numpy(np.array(values, object), binary_data=binary)
    return made


@pytest.mark.parametrize("binary", [True, False])
def test_texts_go_in_and_unit_vectors_come_out(both, embedder, binary):
    client = triton.InferenceServerClient(both.address)
    result = client.infer("minilm", [tensor(TEXTS, binary)])
    wanted = embedder.run({"text": np.array([text.encode() for text in TEXTS], object)}, GateContext(0.0))
    assert result.as_numpy("embedding") == pytest.approx(wanted["embedding"], abs=1e-6)
    assert result.get_response()["parameters"]["level"] == 0
    client.close()


def test_it_has_an_slo_and_a_dial_of_its_own(both: LiveServer, images):
    assert both.http.patch("/v2/models/minilm/slo", json={"latency_ms": 1234}).status_code == 200
    assert both.http.get("/v2/models/minilm/slo").json()["latency_ms"] == 1234
    assert both.http.get("/v2/models/fashion/slo").json()["latency_ms"] == 10_000
    assert both.http.get("/v2/models/minilm/gate").json()["highest_level"] <= 1
    assert both.http.post("/v2/models/fashion/infer", json=infer_body(images[:1])).status_code == 200


def test_so_many_texts_as_openai_takes_are_one_request(embedder):
    embedder.check({"text": np.array([b"a"] * 2048, object)})


def test_what_is_not_a_text_is_refused(both):
    client = triton.InferenceServerClient(both.address)
    with pytest.raises(InferenceServerException, match="element 1 is not UTF-8"):
        client.infer("minilm", [tensor([b"good", b"\xff\xfe"])])
    with pytest.raises(InferenceServerException, match="1 to 2048 texts, got 2049"):
        client.infer("minilm", [tensor(["a"] * 2049)])
    client.close()


def test_a_raw_request_is_one_text(both: LiveServer, embedder):
    headers = {"Inference-Header-Content-Length": "0"}
    answer: httpx.Response = both.http.post("/v2/models/minilm/infer", content=b"the sea", headers=headers)
    length = int(answer.headers["Inference-Header-Content-Length"])
    result = triton.InferenceServerClient.parse_response_body(answer.content, header_length=length)
    wanted = embedder.run({"text": np.array([b"the sea"], object)}, GateContext(0.0))
    assert result.as_numpy("embedding") == pytest.approx(wanted["embedding"], abs=1e-6)
