import numpy as np
import pytest

from models.model import TensorSpec
from service.control.generation_slo import GenerationSLO
from service.control.latency_model import LatencyModel
from service.engine.generation_pool import GenerationPool
from service.engine.hosted import HostedModel
from service.engine.settings import EngineSettings
from service.engine.warmup import warm_up, warm_up_generation
from tests.service.engine.fake_generator import FakeGenerator
from tests.service.engine.fakes import MACS, FakeModel


def test_it_teaches_the_latency_model_at_several_levels():
    model, latency = FakeModel(), LatencyModel()
    assert warm_up(model, latency, runs=2) == MACS
    assert latency.observations == 6
    assert latency.trusted
    assert [level for _, level in model.ran] == [0.0, *[0.0, 0.5, 1.0] * 2]


def test_a_model_that_does_not_take_zeros_is_left_alone():
    def work(value, context):
        raise ZeroDivisionError

    for model in (FakeModel(work=work), FakeModel(inputs=(TensorSpec("x", "BF16", (-1,)),))):
        latency = LatencyModel()
        assert warm_up(model, latency, runs=2) == 0
        assert not latency.trusted


def test_a_model_of_texts_gets_a_text():
    class TextModel(FakeModel):
        def check(self, inputs):
            assert inputs["x"].shape == (1, 2)
            assert inputs["x"][0, 0].decode()

        def run(self, inputs, context):
            return {"y": inputs["x"]}

    model = TextModel(inputs=(TensorSpec("x", "BYTES", (-1, 2)),))
    assert warm_up(model, LatencyModel(), runs=1) == MACS


def test_no_runs_are_none():
    model = FakeModel()
    assert warm_up(model, LatencyModel(), runs=0) == 0
    assert model.ran == []


def test_a_model_of_speech_gets_its_own_example_and_what_is_optional_is_left_out():
    class Speech(FakeModel):
        sample_rate, longest_seconds, languages = 16_000, 10.0, ("en",)

        def example(self):
            return {"x": np.full((3, 1), 7, np.float32)}

    speech = Speech()
    assert warm_up(speech, LatencyModel(), runs=1) == 3 * MACS
    assert speech.ran[0] == (7, 0)
    optional = FakeModel(inputs=(*FakeModel().inputs, TensorSpec("more", "FP32", (-1,), optional=True)))
    assert warm_up(optional, LatencyModel(), runs=1) == MACS


@pytest.mark.parametrize("runs", [0, 3])
def test_a_language_model_says_a_token_at_every_level_behind_each_prompt(runs):
    model = FakeGenerator(endless=True)
    pool = GenerationPool(HostedModel(model, GenerationSLO(100, 10)), EngineSettings(), refuse, refuse)
    warm_up_generation(pool, runs)
    assert pool.forecast.tokens.observations == 3 * runs
    assert pool.forecast.tokens.trusted == pool.forecast.prompts.trusted == (runs > 0)
    levels = [level for _, (level,) in model.steps]
    assert [levels.count(level) > 0 for level in (0.0, 0.5, 1.0)] == [runs > 0] * 3
    assert levels[-3:] == [0.0, 0.5, 1.0][: 3 * runs]


def refuse(*_):
    raise AssertionError("nobody waits for these")
