"""A language model as it is served."""

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `language` is not installed")
pytest.importorskip("jinja2", reason="the extra `language` is not installed")

from models.model import GateContext, Generator, InvalidInput
from models.zoo.language_model import CHUNK, LanguageModel
from tests.models.zoo.random_llama import POSITIONS, write_random_llama


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return LanguageModel("tiny", write_random_llama(tmp_path_factory.mktemp("tiny")))


def steps(model, sequence, count):
    """Greedy."""
    for _ in range(count):
        (logits,) = model.step([sequence], [GateContext(0.0)])
        if logits is not None:
            sequence.append(int(logits.argmax()))
    return sequence.tokens


def prompt(*texts):
    return {"prompt": np.array([text.encode() for text in texts], object)}


def test_it_is_a_generator(model):
    assert isinstance(model, Generator)
    assert model.context_length == POSITIONS
    assert model.end_tokens == {2}
    assert model.decode(model.encode("a whale")) == b"a whale"


def test_sequences_in_one_step_do_not_touch_each_other(model):
    texts = ("a", "a whale", "sea")
    alone = [steps(model, model.begin(model.encode(text)), 8) for text in texts]
    together = [model.begin(model.encode(text)) for text in texts]
    for _ in range(8):
        for sequence, logits in zip(together, model.step(together, [GateContext(0.0)] * 3), strict=True):
            sequence.append(int(logits.argmax()))
    assert [sequence.tokens for sequence in together] == alone


def test_a_long_prompt_takes_several_steps(tmp_path):
    model = LanguageModel("long", write_random_llama(tmp_path, max_position_embeddings=2 * CHUNK + 40))
    sequence = model.begin([5] * (2 * CHUNK + 3))
    answers = []
    for _ in range(3):
        context = GateContext(0.0)
        macs = model.step_macs(sequence)
        answers.append(model.step([sequence], [context])[0])
        assert context.macs == macs
    assert [answer is None for answer in answers] == [True, True, False]


def test_a_step_has_something_to_compute(model):
    sequence = model.begin([5])
    model.step([sequence], [GateContext(0.0)])
    with pytest.raises(ValueError, match="no pending token"):
        model.step([sequence], [GateContext(0.0)])
    full = model.begin([5] * POSITIONS)
    model.step([full], [GateContext(0.0)])
    full.append(5)
    with pytest.raises(ValueError, match="end of the context"):
        model.step([full], [GateContext(0.0)])


@pytest.mark.parametrize("tokens", [[], [5] * (POSITIONS + 1), [-1], [100_000]])
def test_a_sequence_of_other_tokens_is_refused(model, tokens):
    with pytest.raises(InvalidInput, match="prompt"):
        model.begin(tokens)


def test_texts_at_once_are_the_steps(model):
    inputs = prompt("a whale", "sea") | {"max_tokens": np.array([6], np.int32)}
    model.check(inputs)
    context = GateContext(0.0)
    answers = model.run(inputs, context)["text"]
    tokens = model.encode("sea")
    wanted = steps(model, model.begin(tokens), 6)[len(tokens) :]
    wanted = wanted[: wanted.index(2)] if 2 in wanted else wanted
    assert answers[1] == model.decode(wanted)
    assert 0 < context.macs <= model.dense_macs(inputs)


def test_its_work_is_known_beforehand(model):
    inputs = prompt("sea") | {"max_tokens": np.array([4], np.int32)}
    sequence, total = model.begin(model.encode("sea")), 0
    for _ in range(4):
        total += model.step_macs(sequence)
        steps(model, sequence, 1)
    assert model.dense_macs(inputs) == total


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ({}, "prompt"),
        ({"text": np.array([b"a"], object)}, "text"),
        ({"prompt": np.array([1.0])}, "prompt"),
        (prompt(""), "prompt"),
        (prompt("a" * POSITIONS), "prompt"),
        ({"prompt": np.array([b"\xff"], object)}, "prompt"),
        ({"prompt": np.array(["a"], object)}, "prompt"),
        (prompt("a") | {"max_tokens": np.array([0], np.int32)}, "max_tokens"),
        (prompt("a") | {"max_tokens": np.array([1, 2], np.int32)}, "max_tokens"),
    ],
)
def test_what_it_cannot_take_is_named(model, inputs, field):
    with pytest.raises(InvalidInput) as caught:
        model.check(inputs)
    assert caught.value.field == field


def test_agreement_is_how_far_texts_are_the_same(model):
    dense = {"text": np.array([b"the sea", b"", b"abcd"], object)}
    assert model.agreement(dense, dense) == 1
    assert model.agreement({"text": np.array([b"the", b"", b"abxd"], object)}, dense) == pytest.approx(
        (3 / 7 + 1 + 0.5) / 3
    )


def test_a_chat_becomes_a_prompt(model):
    assert model.chat_prompt([{"role": "user", "content": "Hi"}]).endswith("<|im_start|>assistant\n")
