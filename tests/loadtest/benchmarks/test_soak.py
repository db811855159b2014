from collections import Counter

import pytest

from loadtest.benchmarks.soak import Soak, soak
from loadtest.driver import Address
from tests.live import serve

SECONDS = 8


async def test_a_short_soak_balances(model, images, tmp_path):
    with serve([model], tmp_path, shadow_share=0.2) as live:
        host, port = live.address.split(":")
        result = await soak(Address(host, int(port)), model.name, images, SECONDS, seed=1)
        samples = live.metrics()
    assert result.balances, (result.counted, result.seen)
    assert result.slo_changes > 0 and result.reloads > 0
    for outcome in ("ok", "invalid", "left"):
        assert result.seen[outcome] > 20, result.seen
    assert result.counted["cancelled"] > 0
    assert samples[f'sluice_inflight{{model="{model.name}"}}'] == 0
    assert samples[f'sluice_queue_depth{{model="{model.name}"}}'] == 0


def books(**counted: int) -> dict[str, int]:
    return dict.fromkeys(("ok", "refused", "expired", "cancelled", "invalid", "error"), 0) | counted


@pytest.mark.parametrize(
    ("counted", "seen", "balances"),
    [
        (books(ok=3, invalid=1), {"ok": 3, "invalid": 1}, True),
        (books(ok=3, cancelled=1), {"ok": 2, "left": 2}, True),
        (books(refused=1, expired=1), {"unavailable": 2}, True),
        pytest.param(books(ok=3), {"ok": 4}, False, id="one was not counted"),
        pytest.param(books(ok=3, cancelled=1), {"ok": 3}, False, id="one was counted that nobody sent"),
        pytest.param(books(ok=3, invalid=1), {"ok": 4}, False, id="one was counted as something else"),
        pytest.param(books(ok=1, error=1), {"ok": 1, "error": 1}, False, id="an error of the server"),
        pytest.param(books(ok=2), {"ok": 1, "lost": 1}, False, id="an answer was lost"),
    ],
)
def test_the_books(counted, seen, balances):
    assert Soak(1.0, Counter(seen), counted).balances is balances


@pytest.mark.parametrize(("last", "leaks"), [(104, False), (106, True), (90, False)])
def test_a_leak_is_growth_after_the_warm_up(last, leaks):
    memory = [(0.0, 50), (21.0, 100), (29.0, 100), (60.0, 500), (91.0, last), (99.0, last)]
    assert Soak(100.0, memory=memory).leaks is leaks


def test_too_short_a_run_says_nothing_of_memory():
    for result in (Soak(100.0, memory=[(50.0, 100)]), Soak(10.0, memory=[(2.5, 100), (9.5, 200)])):
        assert result.growth is None and not result.leaks
