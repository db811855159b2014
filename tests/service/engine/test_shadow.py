import pytest

from models.model import GateContext
from service.control.slo import SLO
from service.engine.dispatch import plan_entry
from service.engine.entry import Ran
from service.engine.hosted import HostedModel
from service.engine.shadow import RequestShadow, Shadows
from tests.service.engine.fakes import MACS, FakeModel, request
from tests.service.engine.virtual import learned

DENSE = 0.01


def offered(shadows, hosted, count=1, value=1.0):
    for _ in range(count):
        entry = plan_entry(hosted, request(value), MACS, 0.0, None)
        ran = Ran({}, GateContext(0.5), 0.9, 0.0, 0.0, 0.0, 0.0)
        shadow = RequestShadow(hosted, entry, ran, hosted.latency.upper(MACS))
        shadows.offer(lambda shadow=shadow: shadow)


def hosted(slo_ms=1000.0):
    return learned(HostedModel(FakeModel(), SLO(slo_ms)), lambda share: DENSE * share, MACS)


@pytest.mark.parametrize(("share", "picked"), [(0.0, 0), (0.25, 3), (1.0, 4)])
def test_a_share_is_picked_and_a_few_are_kept(share, picked):
    shadows = Shadows(share)
    offered(shadows, hosted(), count=12)
    assert len([shadow for shadow in iter(lambda: shadows.take(spare=True), None)]) == picked


def test_without_a_spare_executor_a_request_that_comes_meanwhile_must_still_be_in_time():
    tight, wide = hosted(slo_ms=DENSE * 1e3), hosted(slo_ms=3 * DENSE * 1e3)
    shadows = Shadows(1.0)
    offered(shadows, tight)
    assert shadows.take(spare=False) is None
    offered(shadows, wide)
    taken = shadows.take(spare=False)
    assert taken is not None
    assert taken.hosted is wide
    assert shadows.take(spare=True) is not None


def test_a_model_that_fails_in_the_shadow_gives_no_sample():
    def work(value, context):
        raise RuntimeError

    model = hosted()
    shadows = Shadows(1.0)
    offered(shadows, model)
    model.model.work = work
    assert shadows.take(spare=True).run() is None


@pytest.mark.parametrize("agreement", [1.5, -0.1, float("nan"), None])
def test_an_agreement_that_cannot_be_gives_no_sample(agreement):
    model = hosted()
    shadows = Shadows(1.0)
    offered(shadows, model)
    model.model.agrees = agreement
    assert shadows.take(spare=True).run() is None


def test_an_unloaded_model_is_forgotten():
    shadows, model, other = Shadows(1.0), hosted(), hosted()
    offered(shadows, model)
    offered(shadows, other)
    shadows.forget(model)
    assert shadows.take(spare=True).hosted is other
    assert shadows.take(spare=True) is None
