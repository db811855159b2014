"""What a hosted model learns from its runs."""

import numpy as np
import pytest

from loadtest.simulation.model import SimulatedModel, host, straight_profile
from loadtest.simulation.simulator import Simulation
from models.model import Transcriber
from service.control.slo import SLO
from service.engine.request import Request, RequestOptions

SECONDS_PER_MAC = 1e-9


class Talkative(SimulatedModel):
    """Does half as much again as is expected of it, as a text is longer than was thought."""

    def run(self, inputs, context):
        super().run(inputs, context)
        context.macs, context.macs_skipped = context.macs * 3 // 2, context.macs_skipped * 3 // 2
        return {}


class TalkativeTranscriber(Talkative):
    sample_rate, longest_seconds, languages = 16_000, 10.0, ("en",)

    def example(self):
        return {"audio": np.zeros(16_000, np.float32)}


def seconds(context):
    return (context.macs - context.macs_skipped) * SECONDS_PER_MAC


@pytest.mark.parametrize(("kind", "ratio"), [(Talkative, 1.0), (TalkativeTranscriber, 1.5)])
def test_where_work_is_only_known_after_a_run_the_time_of_what_was_expected_is_learned(kind, ratio):
    model = kind(straight_profile())
    assert isinstance(model, Transcriber) == (kind is TalkativeTranscriber)
    hosted = host(model, SLO(1000, 99, 0.9), seconds)
    inputs = {"item": np.zeros(1, np.uint32), "audio": np.zeros(16_000, np.float32)}
    levels = (0.0, 0.4, 0.8)
    requests = [
        Request("", model.name, inputs, float(number), RequestOptions(level=levels[number % 3]))
        for number in range(300)
    ]
    Simulation(hosted, seconds).run(requests)
    expected = ratio * model.macs * SECONDS_PER_MAC
    assert hosted.latency.seconds(model.macs) == pytest.approx(expected, rel=0.05)
