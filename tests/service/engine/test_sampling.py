import numpy as np
import pytest

from service.engine.sampling import Sampler, Sampling

LOGITS = np.log(np.array([0.1, 0.5, 0.15, 0.25], np.float32))


def drawn(sampling, logits=LOGITS, count=1500):
    sampler = Sampler(sampling)
    tokens = [sampler.choose(logits).token for _ in range(count)]
    return np.bincount(tokens, minlength=len(logits)) / count


def test_the_likeliest_at_temperature_0():
    assert drawn(Sampling(temperature=0), count=5)[1] == 1
    assert drawn(Sampling(temperature=1e-300), count=5)[1] == 1


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_tokens_are_drawn_by_their_probabilities(temperature):
    wanted = np.exp(LOGITS / temperature)
    np.testing.assert_allclose(drawn(Sampling(temperature, seed=1)), wanted / wanted.sum(), atol=0.05)


@pytest.mark.parametrize(("top_p", "kept"), [(0.0, [1]), (0.5, [1]), (0.6, [1, 3]), (0.75, [1, 3]), (0.8, [1, 2, 3])])
def test_the_nucleus_is_the_fewest_that_add_up(top_p, kept):
    found = drawn(Sampling(top_p=top_p, seed=2))
    assert np.flatnonzero(found).tolist() == kept
    np.testing.assert_allclose(found[kept], np.exp(LOGITS[kept]) / np.exp(LOGITS[kept]).sum(), atol=0.05)


def test_a_nucleus_that_is_wider_than_what_is_looked_at_first():
    even = np.zeros(5000, np.float32)
    sampler = Sampler(Sampling(top_p=0.9, seed=3))
    tokens = {sampler.choose(even).token for _ in range(700)}
    assert len(tokens) > 550


def test_a_seed_gives_the_same_tokens_again():
    def tokens(seed):
        sampler = Sampler(Sampling(seed=seed))
        return [sampler.choose(LOGITS).token for _ in range(50)]

    assert tokens(7) == tokens(7) != tokens(8)


def test_penalties_fall_on_what_was_drawn():
    logits = np.array([1.0, 0.9, 0.05], np.float32)
    sampler = Sampler(Sampling(temperature=0, presence_penalty=0.5))
    assert [sampler.choose(logits).token for _ in range(4)] == [0, 1, 0, 0]
    sampler = Sampler(Sampling(temperature=0, frequency_penalty=0.5))
    assert [sampler.choose(logits).token for _ in range(5)] == [0, 1, 0, 1, 2]
    assert sampler.choose(logits).likeliest == 0


def test_a_bias_is_added_to_the_logits_of_its_tokens():
    logits = np.array([1.0, 0.9, 0.05], np.float32)
    sampler = Sampler(Sampling(temperature=0, bias=((0, -1.0), (2, 2.0)), logprobs=1))
    choice = sampler.choose(logits)
    assert (choice.token, choice.likeliest, choice.top[0][0]) == (2, 0, 0)
    banned = drawn(Sampling(bias=((1, -100.0),)))
    assert banned[1] == 0


def test_log_probabilities_are_the_models_own():
    choice = Sampler(Sampling(temperature=0.1, top_p=0.1, logprobs=3)).choose(LOGITS)
    assert choice.logprob == pytest.approx(np.log(0.5), abs=1e-6)
    assert [token for token, _ in choice.top] == [1, 3, 2]
    assert [logprob for _, logprob in choice.top] == pytest.approx(LOGITS[[1, 3, 2]], abs=1e-6)
    assert Sampler(Sampling(logprobs=0)).choose(LOGITS).top == ()
    assert Sampler(Sampling(logprobs=20)).choose(LOGITS).top[3][0] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers(bad):
    logits = LOGITS.copy()
    logits[2] = bad
    with pytest.raises(ValueError, match="not finite"):
        Sampler(Sampling()).choose(logits)


def test_tokens_that_are_ruled_out_are_not_drawn():
    logits = LOGITS.copy()
    logits[1] = -np.inf
    assert drawn(Sampling(seed=4))[1] > 0
    assert drawn(Sampling(seed=4), logits)[1] == 0
