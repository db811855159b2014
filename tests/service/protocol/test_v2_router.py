import pytest

VERSIONS = ("", "/versions/{version}")
CALLS = {
    ("get", "/v2"),
    ("get", "/v2/health/live"),
    ("get", "/v2/health/ready"),
    ("get", "/v2/models/stats"),
    *(
        ("get", f"/v2/models/{{model}}{version}{path}")
        for version in VERSIONS
        for path in ("", "/ready", "/config", "/stats")
    ),
    *(("post", f"/v2/models/{{model}}{version}/infer") for version in VERSIONS),
    *((method, "/v2/models/{model}/slo") for method in ("get", "put", "patch")),
    ("get", "/v2/models/{model}/gate"),
    ("get", "/v2/models/{model}/profile"),
    ("post", "/v2/repository/index"),
    ("post", "/v2/repository/models/{model}/load"),
    ("post", "/v2/repository/models/{model}/unload"),
}


@pytest.fixture
def openapi(app_of):
    return app_of(None).openapi()


def test_every_call_is_documented(openapi):
    found = {(method, path) for path, methods in openapi["paths"].items() for method in methods}
    assert found == CALLS
    for path, methods in openapi["paths"].items():
        for operation in methods.values():
            assert operation["tags"] and operation["summary"]
            assert {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"} == {
                name for name in ("model", "version") if f"{{{name}}}" in path
            }
            assert "422" not in operation["responses"], "the framework's own, which is never sent"
    identifiers = [operation["operationId"] for methods in openapi["paths"].values() for operation in methods.values()]
    assert len(identifiers) == len(set(identifiers))


def test_the_raw_bodies_are_documented(openapi):
    infer = openapi["paths"]["/v2/models/{model}/infer"]["post"]
    assert infer["requestBody"]["content"]["application/json"]["schema"]["example"]["inputs"]
    for method in ("put", "patch"):
        body = openapi["paths"]["/v2/models/{model}/slo"][method]["requestBody"]
        kinds = body["content"]["application/json"]["schema"]["anyOf"]
        times = [[name for name in kind["properties"] if name.endswith("_ms")] for kind in kinds]
        assert times == [["latency_ms"], ["latency_ms", "audio_second_ms"], ["first_token_ms", "token_ms"]]


def test_administrative_calls_show_their_lock(openapi):
    locked = {
        (method, path)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
        if operation.get("security")
    }
    assert locked == {
        ("put", "/v2/models/{model}/slo"),
        ("patch", "/v2/models/{model}/slo"),
        ("post", "/v2/repository/models/{model}/load"),
        ("post", "/v2/repository/models/{model}/unload"),
    }


async def test_the_documented_example_has_the_form_of_a_request(openapi):
    example = openapi["paths"]["/v2/models/{model}/infer"]["post"]["requestBody"]["content"]["application/json"]
    image = example["schema"]["example"]["inputs"][0]
    assert len(image["data"]) == image["shape"][0] * image["shape"][1] * image["shape"][2]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/", 404),
        ("GET", "/v2/models/toy/infer", 405),
        ("POST", "/v2/models/toy", 405),
        ("GET", "/v2/models/toy/other", 404),
        ("DELETE", "/v2/models/toy/slo", 405),
        ("POST", "/v2/models//infer", 404),
        ("POST", "/v2/models/a%2Fb/infer", 404),
    ],
)
async def test_what_is_not_a_call(client, method, path, status):
    response = await client.request(method, path)
    assert response.status_code == status
    assert response.json()["error"]
