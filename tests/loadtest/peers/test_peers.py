from base64 import b64decode, b64encode
from dataclasses import replace

import numpy as np
import pytest
from httpx import ASGITransport, AsyncClient, Client

from loadtest.peers import PATH, PEERS, JsonImages, UnknownPeer, contenders
from loadtest.processes import ServerFailed
from loadtest.workload import Judged, Reply
from models.zoo import fashion_data
from models.zoo.fashion_data import LabelledImages
from service.settings import load_settings
from tests.tiny_model import random_images

DATA = LabelledImages(random_images(4), np.arange(4, dtype=np.int64))


def test_answers_are_judged():
    images = JsonImages(DATA)
    assert images.judge(2, Reply(200, {}, b'{"label": 2}')) == Judged("ok", score=1.0)
    assert images.judge(2, Reply(200, {}, b'{"label": 1}')) == Judged("ok", score=0.0)
    assert images.judge(2, Reply(200, {}, b"[]")).outcome == "error"
    assert images.judge(2, Reply(503, {}, b"")).outcome == "expired"


def test_names(tmp_path):
    assert [peer.name for peer in contenders(["fastapi"], DATA, tmp_path)] == ["FastAPI"]
    everyone = ["FastAPI", "LitServe", "BentoML", "Ray Serve"]
    assert [peer.name for peer in contenders(["all"], DATA, tmp_path)] == everyone
    assert contenders([], DATA, tmp_path) == []
    with pytest.raises(UnknownPeer, match="fastapi"):
        contenders(["nothing"], DATA, tmp_path)


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(PEERS, "litserve", replace(PEERS["litserve"], needs=("no_such_module",)))
    (peer,) = contenders(["litserve"], DATA, tmp_path)
    with pytest.raises(ServerFailed, match=r"no_such_module is not installed.*peers"):
        peer.prepare(print)
    with pytest.raises(ServerFailed, match="no_such_module"), peer.start():
        pass


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_peers_answer_with_the_labels_of_the_network(name):
    """In the environments that the benchmark made; without one a peer is skipped, and says so."""
    environments = load_settings().home / "peers"
    requirements = PEERS[name].requirements
    if requirements is not None and not (environments / requirements).exists():
        pytest.skip(f"{name} has no environment in {environments}: `sluice bench slo` makes it")
    for module in PEERS[name].needs:
        pytest.importorskip(module, reason=f"{name} needs it: pip install 'sluice-serve[peers]'")
    from loadtest.peers.network import Classifier

    data = fashion_data.sample()
    data = LabelledImages(data.images[:20], data.labels[:20])
    classify = Classifier()
    expected = [classify(b64encode(image.tobytes()).decode()) for image in data.images]
    (peer,) = contenders([name], data, environments)
    with peer.start() as address, Client(base_url=f"http://{address}", timeout=30) as client:
        answers = [client.post(post.path, content=post.body, headers=post.headers) for post in peer.workload.posts]
        assert [answer.status_code for answer in answers] == [200] * len(data)
        assert [answer.json() for answer in answers] == [{"label": label} for label in expected]
        judged = [
            peer.workload.judge(number, Reply(200, {}, answer.content)).score for number, answer in enumerate(answers)
        ]
    assert judged == (np.array(expected) == data.labels).tolist()
    assert np.mean(judged) > 0.8


async def test_fastapi_takes_what_is_sent():
    from loadtest.peers.fastapi_server import create_app

    seen = []

    def classify(image: str) -> int:
        seen.append(b64decode(image))
        return 2

    workload = JsonImages(DATA)
    async with AsyncClient(transport=ASGITransport(create_app(classify)), base_url="http://peer") as client:
        assert (await client.get("/health")).status_code == 200
        response = await client.post(PATH, content=workload.posts[2].body, headers=workload.posts[2].headers)
    assert seen == [DATA.images[2].tobytes()]
    assert workload.judge(2, Reply(response.status_code, {}, response.content)) == Judged("ok", score=1.0)
