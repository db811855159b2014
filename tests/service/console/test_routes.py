import re

from tests.live import LiveServer


def test_the_page_needs_nothing_from_elsewhere(server: LiveServer):
    response = server.http.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "Sluice" in response.text
    assert not re.findall(r"(?:src|href)=\"?(?:https?:)?//", response.text)


def test_what_the_page_reads_is_there(server: LiveServer):
    page = server.http.get("/").text
    gate = server.http.get("/v2/models/fashion/gate").json()
    slo = server.http.get("/v2/models/fashion/slo").json()
    assert set(re.findall(r"\bgate\.(\w+)", page)) <= set(gate)
    assert set(re.findall(r"\bslo\.(\w+)", page)) <= set(slo)
    for path in re.findall(r'href="(/\w+)"', page):
        assert server.http.get(path).status_code == 200
    assert server.http.post("/v2/repository/index").json()[0]["state"] == "READY"
