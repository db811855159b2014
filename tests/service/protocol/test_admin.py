import pytest

LOAD = "/v2/repository/models/toy/load"


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1"])
@pytest.mark.parametrize("header", ["Bearer sëcret", "bearer sëcret"])
async def test_the_token_opens_from_anywhere(client_of, host, header):
    response = await client_of("sëcret", host).post(LOAD, headers={"Authorization": header.encode()})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer secre",
        b"Bearer secrets",
        b"Basic secret",
        b"secret",
        b"Bearer \xff\xfe",
    ],
)
async def test_without_the_token_it_stays_shut_even_on_loopback(client_of, header):
    headers = {} if header is None else {"Authorization": header}
    response = await client_of("secret").post(LOAD, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer" in response.json()["error"]
    assert "secret" not in response.json()["error"]


@pytest.mark.parametrize("token", [None, ""])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
async def test_no_token_means_loopback_only(client_of, token, host):
    assert (await client_of(token, host).post(LOAD)).status_code == 200


@pytest.mark.parametrize("host", ["10.0.0.1", "192.168.1.1", "::2", "::ffff:10.0.0.1", "0.0.0.0", "unix", ""])
async def test_others_are_refused_without_a_token(client_of, host):
    response = await client_of(None, host).post(LOAD, headers={"Authorization": "Bearer x"})
    assert response.status_code == 403
    assert "www-authenticate" not in response.headers
    assert "admin token" in response.json()["error"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8000", 200),
        ("http://127.0.0.1:8000", 200),
        ("http://[::1]:8000", 200),
        ("https://example.com", 403),
        ("http://localhost.example.com", 403),
        ("http://127.0.0.1.example.com", 403),
        ("http://[bad", 403),
        ("null", 403),
        ("", 403),
    ],
)
async def test_pages_of_other_sites_are_refused_on_loopback(client_of, origin, status):
    assert (await client_of(None).post(LOAD, headers={"Origin": origin})).status_code == status
