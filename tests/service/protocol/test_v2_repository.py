import pytest

REPOSITORY = "/v2/repository"


async def test_index(client, engine):
    toy = {"name": "toy", "version": "1", "state": "READY", "reason": ""}
    absent = {
        "name": "absent",
        "version": "",
        "state": "UNAVAILABLE",
        "reason": "not installed: pip install absent-weights",
    }
    assert (await client.post(f"{REPOSITORY}/index")).json() == [toy, absent]
    assert (await client.post(f"{REPOSITORY}/index", json={"ready": False})).json() == [toy, absent]
    assert (await client.post(f"{REPOSITORY}/index", json={"ready": True})).json() == [toy]
    engine.loaded = False
    unloaded = {"name": "toy", "version": "", "state": "UNAVAILABLE", "reason": "unloaded"}
    assert (await client.post(f"{REPOSITORY}/index")).json() == [unloaded, absent]


@pytest.mark.parametrize(("content", "field"), [(b'{"ready": 1}', "ready"), (b"[]", "body"), (b"{", "body")])
async def test_a_bad_index_request(client, content, field):
    response = await client.post(f"{REPOSITORY}/index", content=content)
    assert response.status_code == 400
    assert response.json()["error"].startswith(f"{field}: ")


@pytest.mark.parametrize("content", [b"", b"{}", b'{"parameters": {"unload_dependents": false}}'])
async def test_unload_and_load(client, engine, content):
    assert (await client.post(f"{REPOSITORY}/models/toy/unload", content=content)).status_code == 200
    assert not engine.loaded
    assert (await client.post(f"{REPOSITORY}/models/toy/load", content=content)).status_code == 200
    assert engine.loaded


@pytest.mark.parametrize("call", ["load", "unload"])
async def test_an_unknown_model(client, call):
    response = await client.post(f"{REPOSITORY}/models/nope/{call}")
    assert response.status_code == 404
    assert "nope" in response.json()["error"]


@pytest.mark.parametrize("name", ["config", "file:1/model.onnx"])
async def test_a_models_files_cannot_be_sent(client, name):
    response = await client.post(f"{REPOSITORY}/models/toy/load", json={"parameters": {name: "{}"}})
    assert response.status_code == 501
    assert name in response.json()["error"]


@pytest.mark.parametrize("call", ["load", "unload"])
async def test_bad_parameters(client, call):
    response = await client.post(f"{REPOSITORY}/models/toy/{call}", json={"parameters": {"x": []}})
    assert response.status_code == 400
    assert response.json()["error"].startswith("parameters.x: ")


@pytest.mark.parametrize("call", ["load", "unload"])
async def test_only_for_administrators(client_of, engine, call):
    response = await client_of("secret").post(f"{REPOSITORY}/models/toy/{call}")
    assert response.status_code == 401
    assert engine.loaded
