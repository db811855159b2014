from base64 import b64decode

import numpy as np
import pytest
from httpx import ASGITransport, AsyncClient

from loadtest.peers import PATH, JsonImages, UnknownPeer, peers
from loadtest.workload import Judged, Reply
from models.zoo.fashion_data import LabelledImages
from tests.tiny_model import random_images

DATA = LabelledImages(random_images(4), np.arange(4, dtype=np.int64))


def test_answers_are_judged():
    images = JsonImages(DATA)
    assert images.judge(2, Reply(200, {}, b'{"label": 2}')) == Judged("ok", score=1.0)
    assert images.judge(2, Reply(200, {}, b'{"label": 1}')) == Judged("ok", score=0.0)
    assert images.judge(2, Reply(200, {}, b"[]")).outcome == "error"
    assert images.judge(2, Reply(503, {}, b"")).outcome == "expired"


def test_names():
    assert [peer.name for peer in peers(["fastapi"], DATA)] == ["FastAPI"]
    assert [peer.name for peer in peers(["all"], DATA)] == ["FastAPI", "LitServe"]
    assert peers([], DATA) == []
    with pytest.raises(UnknownPeer, match="fastapi"):
        peers(["nothing"], DATA)


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
