from dataclasses import asdict

from service.app import engine_settings
from service.control.slo import SLO
from service.control.speech_slo import SpeechSLO
from service.engine.settings import EngineSettings
from service.settings import load_settings
from tests.live import LiveServer


def test_the_settings_reach_the_engine():
    settings = load_settings(
        executors=3,
        queue_limit=7,
        shadow_share=0.5,
        slo_latency_ms=12.0,
        slo_speech_ms=700.0,
        slo_audio_second_ms=50.0,
        slo_percentile=95.0,
        quality_floor=0.9,
        shed=False,
    )
    engine = engine_settings(settings)
    assert (engine.executors, engine.queue_limit, engine.shadow_share) == (3, 7, 0.5)
    assert engine.default_slo == SLO(12.0, 95.0, 0.9, False)
    assert engine.default_speech_slo == SpeechSLO(700.0, 95.0, 0.9, False, audio_second_ms=50.0)


def test_fewer_executors_where_each_has_threads(monkeypatch):
    monkeypatch.setattr("service.app.usable_cores", lambda: 6)
    monkeypatch.setattr("service.engine.settings.usable_cores", lambda: 6)
    engine = engine_settings(load_settings(threads=2))
    assert (engine.executors, engine.threads) == (3, 2)


def test_both_have_the_same_defaults(monkeypatch):
    for name in (
        "EXECUTORS",
        "QUEUE_LIMIT",
        "SHADOW_SHARE",
        "SLO_LATENCY_MS",
        "SLO_SPEECH_MS",
        "SLO_AUDIO_SECOND_MS",
        "SLO_PERCENTILE",
        "QUALITY_FLOOR",
        "SHED",
    ):
        monkeypatch.delenv(f"SLUICE_{name}", raising=False)
    assert asdict(engine_settings(load_settings())) == asdict(EngineSettings())


def test_the_api_is_documented(server: LiveServer):
    page = server.http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "://" not in page.text
    assert server.http.get("/redoc").status_code == 404
    paths = server.http.get("/openapi.json").json()["paths"]
    for path in ("/v2", "/v2/models/{model}/infer", "/v2/models/{model}/slo", "/v2/repository/index", "/metrics"):
        assert path in paths
    assert {"get", "patch", "put"} <= set(paths["/v2/models/{model}/slo"])


def test_a_trailing_slash_is_an_error_and_no_redirect(server: LiveServer):
    response = server.http.get("/v2/", follow_redirects=False)
    assert response.status_code == 404
    assert "/v2/" in response.json()["error"]
