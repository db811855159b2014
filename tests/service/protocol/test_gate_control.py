import json

import pytest

from service.control.generation_slo import GenerationSLO
from service.control.slo import SLO

SLO_PATH = "/v2/models/toy/slo"
WHOLE = {"latency_ms": 5.0, "percentile": 95.0, "quality_floor": 0.9, "shed": False}


async def test_get_slo(client):
    assert (await client.get(SLO_PATH)).json() == SLO(20.0).as_dict()


async def test_put_all(client, engine):
    response = await client.put(SLO_PATH, json=WHOLE)
    assert response.status_code == 200
    assert response.json() == WHOLE
    assert engine.objective == SLO(**WHOLE)


@pytest.mark.parametrize("changes", [{}, {"latency_ms": 7}, {"percentile": 50, "shed": False}])
async def test_patch_some(client, engine, changes):
    response = await client.patch(SLO_PATH, json=changes)
    assert response.status_code == 200
    assert response.json() == SLO(20.0).as_dict() | changes
    assert engine.objective == SLO(20.0).patched(changes)


@pytest.mark.parametrize("missing", sorted(WHOLE))
async def test_put_needs_all(client, engine, missing):
    response = await client.put(SLO_PATH, json={key: value for key, value in WHOLE.items() if key != missing})
    assert response.status_code == 400
    assert response.json()["error"] == f"{missing}: is missing"
    assert engine.objective == SLO(20.0)


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("latency_ms", value) for value in (0, -1, "20", True, None, [], {}, 10**400)),
        *(("percentile", value) for value in (0, -1, 100, 101, "99", True, None)),
        *(("quality_floor", value) for value in (-0.1, 1.1, 95, "high", False, None)),
        *(("shed", value) for value in (0, 1, "yes", None)),
        ("latency", 20),
    ],
)
async def test_a_bad_slo_names_the_field_and_changes_nothing(client, engine, method, field, value):
    response = await client.request(method, SLO_PATH, content=json.dumps(WHOLE | {field: value}))
    assert response.status_code == 400
    message = response.json()["error"]
    assert message.startswith(f"{field}: ")
    assert not message.startswith(f"{field}: {field}")
    assert engine.objective == SLO(20.0)


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"[" * 9999])
async def test_a_body_that_is_no_object(client, engine, method, content):
    response = await client.request(method, SLO_PATH, content=content)
    assert response.status_code == 400
    assert response.json()["error"].startswith("body: ")
    assert engine.objective == SLO(20.0)


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("field", ["latency_ms", "percentile", "quality_floor", "shed"])
async def test_nan_is_named_by_its_field(client, engine, method, field):
    response = await client.request(method, SLO_PATH, content=b'{"%s": NaN}' % field.encode())
    assert response.status_code == 400
    assert response.json()["error"].startswith(f"{field}: ")
    assert engine.objective == SLO(20.0)


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_only_for_administrators(client_of, engine, method):
    response = await client_of("secret").request(method, SLO_PATH, json=WHOLE)
    assert response.status_code == 401
    assert engine.objective == SLO(20.0)
    assert (await client_of("secret").get(SLO_PATH)).status_code == 200


async def test_gate(client):
    assert (await client.get("/v2/models/toy/gate")).json() == {
        "level": 0.25,
        "highest_level": 0.5,
        "highest_reason": "the quality floor",
        "layers": {"conv": {"threshold": 0.125, "skip_rate": None, "channels": 10, "channels_skipped": 4}},
        "expected_skip_rate": 0.125,
        "expected_quality": 0.99,
        "expected_quality_lower": 0.98,
        "live_agreement": None,
        "live_samples": 0,
        "skip_rate": 0.4,
        "macs_skipped": 0.5,
        "slo_attainable": True,
        "safety_margin": 1.0,
    }


async def test_numbers_that_json_lacks_are_null(client, engine):
    engine.quality = float("nan")
    response = await client.get("/v2/models/toy/gate")
    gate = json.loads(response.content, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert gate["expected_quality"] is None


async def test_profile(client, engine):
    profile = (await client.get("/v2/models/toy/profile")).json()
    assert profile == json.loads(json.dumps(engine.toy.profile.as_dict()))
    assert [point["level"] for point in profile["points"]] == [0.0, 1.0]


@pytest.mark.parametrize("path", ["slo", "gate", "profile"])
async def test_unknown_models(client, path):
    response = await client.get(f"/v2/models/nope/{path}")
    assert response.status_code == 404
    assert "nope" in response.json()["error"]


async def test_the_slo_of_a_language_model_has_its_own_fields(client, engine):
    engine.objective = GenerationSLO(1000, 80)
    assert (await client.get(SLO_PATH)).json() == GenerationSLO(1000, 80).as_dict()
    response = await client.patch(SLO_PATH, json={"token_ms": 50})
    assert (response.status_code, engine.objective) == (200, GenerationSLO(1000, 50))
    whole = {"first_token_ms": 700.0, "token_ms": 40.0, "percentile": 95.0, "quality_floor": 0.9, "shed": False}
    assert (await client.put(SLO_PATH, json=whole)).json() == whole
    for method, body, field in (
        ("PATCH", {"latency_ms": 20}, "latency_ms"),
        ("PUT", WHOLE, "latency_ms"),
        ("PATCH", {"first_token_ms": 0}, "first_token_ms"),
    ):
        refused = await client.request(method, SLO_PATH, json=body)
        assert refused.status_code == 400
        assert refused.json()["error"].startswith(f"{field}: ")
    assert engine.objective == GenerationSLO(**whole)


async def test_the_times_of_a_language_model_are_not_for_others(client, engine):
    refused = await client.patch(SLO_PATH, json={"token_ms": 20})
    assert refused.status_code == 400
    assert refused.json()["error"].startswith("token_ms: is not part of this SLO; known are latency_ms")
