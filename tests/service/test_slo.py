"""The SLO, changed while the server runs: who may, when it acts, how long it is kept."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest

from tests.live import LiveServer, infer_body, serve

SLO = "/v2/models/fashion/slo"
INFER = "/v2/models/fashion/infer"
HARDLY_POSSIBLE_MS = 0.01


def run(server: LiveServer, images, **parameters) -> dict:
    response = server.http.post(INFER, json=infer_body(images, **parameters))
    assert response.status_code == 200, response.text
    return response.json()["parameters"]


def test_a_change_acts_on_the_next_request(model, images, tmp_path):
    with serve([model], tmp_path, slo_latency_ms=10_000, quality_floor=0.0, shed=False) as server:
        generous = run(server, images[:8])
        assert generous["level"] == 0
        assert generous["slo_met"] is True

        changed = server.http.patch(SLO, json={"latency_ms": HARDLY_POSSIBLE_MS})
        assert changed.json()["latency_ms"] == HARDLY_POSSIBLE_MS
        tight = run(server, images[:8])
        assert tight["level"] == 1
        assert tight["macs_skipped"] > generous["macs_skipped"]
        assert tight["slo_met"] is False
        assert tight["slo_attainable"] is False

        samples = server.metrics()
        assert samples['sluice_slo_latency_seconds{model="fashion"}'] == HARDLY_POSSIBLE_MS / 1e3
        assert samples['sluice_gate_level_ratio{model="fashion"}'] > 0

        server.http.patch(SLO, json={"latency_ms": 10_000})
        assert run(server, images[:8])["level"] == 0


def test_the_floor_bounds_the_level(model, images, tmp_path):
    with serve([model], tmp_path, slo_latency_ms=HARDLY_POSSIBLE_MS, quality_floor=1.0, shed=False) as server:
        assert run(server, images[:8])["level"] == 0
        floor = model.profile.points[1].quality_lower
        server.http.patch(SLO, json={"quality_floor": floor})
        level = run(server, images[:8])["level"]
        assert level == pytest.approx(model.profile.highest_level(floor), abs=1e-6)
        # A request's own floor and a pinned level go before the model's.
        assert run(server, images[:8], quality_floor=1.0)["level"] == 0
        assert run(server, images[:8], level=1.0)["level"] == 1


def test_an_slo_that_no_level_can_keep_is_said_and_not_made_an_outage(model, images, tmp_path):
    with serve([model], tmp_path, slo_latency_ms=HARDLY_POSSIBLE_MS, quality_floor=1.0, shed=True) as server:
        # On a busy machine one or the other may wait so long that it is dropped; all of them would be an outage.
        answers = [server.http.post(INFER, json=infer_body(images)) for _ in range(20)]
        served = [answer.json()["parameters"] for answer in answers if answer.status_code == 200]
        assert served
        assert not any(parameters["slo_met"] or parameters["slo_attainable"] for parameters in served)
        assert server.http.get("/v2/models/fashion/gate").json()["slo_attainable"] is False
        assert server.metrics()['sluice_slo_attainable{model="fashion"}'] == 0


def test_what_cannot_be_in_time_is_refused_at_once(model, images, tmp_path):
    with serve([model], tmp_path, executors=1, slo_latency_ms=10_000, quality_floor=1.0, shadow_share=0) as server:
        alone = min(run(server, images)["compute_ms"] for _ in range(5))
        server.http.patch(SLO, json={"latency_ms": 4 * alone})
        body = infer_body(images)
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: server.http.post(INFER, json=body), range(64)))
        refused = [answer for answer in answers if answer.status_code == 503]
        assert refused
        assert {answer.status_code for answer in answers} <= {200, 503}
        for answer in refused:
            # Refused on arrival, or dropped from the queue when its deadline could not be met any more.
            assert int(answer.headers.get("Retry-After", 0)) >= 1 or "cannot be met any more" in answer.json()["error"]
        assert any("Retry-After" in answer.headers for answer in refused)
        # The storm has passed, so the next is served.
        assert run(server, images[:1], slo_ms=10_000)["slo_met"] is True


def test_a_restart_keeps_it(model, tmp_path):
    wanted = {"latency_ms": 123.5, "percentile": 95.0, "quality_floor": 0.75, "shed": False}
    with serve([model], tmp_path) as server:
        assert server.http.put(SLO, json=wanted).json() == wanted
    with serve([model], tmp_path, slo_latency_ms=77) as server:
        assert server.http.get(SLO).json() == wanted
    with serve([model], tmp_path / "elsewhere", slo_latency_ms=77) as server:
        assert server.http.get(SLO).json()["latency_ms"] == 77


def test_the_admin_token(model, tmp_path):
    admin_calls = [
        ("PATCH", SLO, {"latency_ms": 20}),
        ("PUT", SLO, {"latency_ms": 20, "percentile": 99, "quality_floor": 0.9, "shed": True}),
        ("POST", "/v2/repository/models/fashion/unload", {}),
        ("POST", "/v2/repository/models/fashion/load", {}),
    ]
    with serve([model], tmp_path, admin_token="correct horse") as server:
        for method, path, body in admin_calls:
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic correct horse"}):
                response = server.http.request(method, path, json=body, headers=headers)
                assert response.status_code == 401, (method, path, headers)
                assert response.headers["WWW-Authenticate"] == "Bearer"
                assert response.json()["error"]
        assert server.http.get(SLO).status_code == 200
        token = {"Authorization": "Bearer correct horse"}
        assert server.http.patch(SLO, json={"latency_ms": 20}, headers=token).json()["latency_ms"] == 20


def test_without_a_token_only_this_machine_is_let_in(model, tmp_path):
    with serve([model], tmp_path) as server:
        assert server.http.patch(SLO, json={"latency_ms": 20}).status_code == 200
        # A proxy on this machine says for whom it calls, and a page of another site says where it comes from.
        for headers in ({"X-Forwarded-For": "192.0.2.7"}, {"Origin": "http://site.example"}):
            response = server.http.patch(SLO, json={"latency_ms": 30}, headers=headers)
            assert response.status_code == 403, headers
            assert "admin token" in response.json()["error"]
        assert server.http.get(SLO).json()["latency_ms"] == 20


def test_gate_and_profile_say_what_holds(server: LiveServer, model):
    profile = server.http.get("/v2/models/fashion/profile").json()
    assert [point["level"] for point in profile["points"]] == [point.level for point in model.profile.points]
    gate = server.http.get("/v2/models/fashion/gate").json()
    assert gate["level"] == 0
    assert gate["highest_level"] == pytest.approx(model.profile.highest_level(0.95))
    assert set(gate["layers"]) == set(model.profile.points[0].thresholds)


def test_a_bad_slo_in_the_past_does_not_hide_it(model, tmp_path):
    """The database is opened again at each start: what is not a database is said, not overwritten."""
    (tmp_path / "sluice.db").write_bytes(b"no database" * 100)
    with pytest.raises(Exception, match=r"sluice\.db"), serve([model], tmp_path):
        pass


def test_clients_that_leave_are_counted_as_cancelled(model, images, tmp_path):
    with serve([model], tmp_path, executors=1, slo_latency_ms=10_000) as server:
        with httpx.Client(base_url=server.http.base_url, timeout=httpx.Timeout(5, read=0.001)) as hasty:
            for _ in range(20):
                with suppress(httpx.ReadTimeout):
                    hasty.post(INFER, json=infer_body(images, level=0.0))
        # The next in the queue, so all before it have come to an end.
        assert run(server, images[:1])["slo_met"] is True
        samples = server.metrics()
        assert samples['sluice_requests_total{model="fashion",outcome="cancelled",protocol="v2"}'] > 0
        assert samples['sluice_inflight{model="fashion"}'] == 0
        assert samples['sluice_queue_depth{model="fashion"}'] == 0
