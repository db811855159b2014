import re
from urllib.parse import urljoin

import httpx
from fastapi import FastAPI

from service.protocol import api_page
from service.protocol.errors import install_error_handlers


def client() -> httpx.AsyncClient:
    app = FastAPI(title="Sluice", docs_url=None, redoc_url=None)
    install_error_handlers(app)
    api_page.mount_api_page(app)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")


async def test_the_page_and_its_files_come_from_here():
    async with client() as app:
        page = await app.get("/docs")
        assert page.status_code == 200
        assert "://" not in page.text
        assert not re.search(r"""["'(]//""", page.text), "an address without a scheme is elsewhere too"
        places = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert {place.rsplit(".", 1)[-1] for place in places} == {"js", "css", "png"}
        for place in places:
            answer = await app.get(urljoin("/docs", place))
            assert answer.status_code == 200
            assert len(answer.content) > 1000
        (described,) = re.findall(r"url: '([^']+)'", page.text)
        assert (await app.get(urljoin("/docs", described))).json()["openapi"]


async def test_a_browser_may_load_nothing_from_elsewhere():
    policy = (await client().get("/docs")).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy and "*" not in policy


async def test_without_the_files_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(api_page, "find_spec", lambda name: None)
    answer = await client().get("/docs")
    assert answer.status_code == 501
    assert "sluice-serve[console]" in answer.json()["error"]
