"""From text to tokens and back, and from a chat to text."""

import json

import pytest

pytest.importorskip("tokenizers", reason="the extra `language` is not installed")
pytest.importorskip("jinja2", reason="the extra `language` is not installed")

from tokenizers import Tokenizer, decoders, models, processors

from models.model import InvalidInput
from models.zoo import language_text
from models.zoo.language_text import ChatTemplate, Vocabulary
from tests.models.zoo.random_llama import byte_tokenizer

MESSAGES = [{"role": "user", "content": "Hi there"}]


def written(folder, **settings):
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def chat(folder, messages=MESSAGES):
    return ChatTemplate(folder, Vocabulary(folder))(messages)


def test_a_text_comes_back_byte_by_byte(tmp_path):
    vocabulary, text = Vocabulary(written(tmp_path)), "Ünïcode — 中文 🐳\n"
    tokens = vocabulary.encode(text)
    assert vocabulary.decode(tokens) == text.encode()
    assert b"".join(vocabulary.decode([token]) for token in tokens) == text.encode()


def test_special_tokens_are_read_by_their_names_and_not_written(tmp_path):
    vocabulary = Vocabulary(written(tmp_path))
    tokens = vocabulary.encode("<|im_start|>a<|im_end|>")
    assert (tokens[0], tokens[-1], len(tokens)) == (1, 2, 3)
    assert vocabulary.decode(tokens) == b"a"


def test_what_begins_a_sequence_is_there_once(tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing("<|im_start|> $A", None, [("<|im_start|>", 1)])
    folder = written(tmp_path, bos_token={"content": "<|im_start|>"})
    tokenizer.save(str(folder / "tokenizer.json"))
    vocabulary = Vocabulary(folder)
    assert vocabulary.encode("a") == vocabulary.encode("<|im_start|>a")


def test_pieces_of_a_sentence_with_bytes_among_them(tmp_path):
    names = ["<unk>", "<0xC3>", "<0x9C>", "\u2581whale", "s"]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = Vocabulary(tmp_path)
    assert vocabulary.decode([3, 4, 1, 2]) == " whalesÜ".encode()
    assert vocabulary.decode([1]) == b"\xc3"


def test_a_chat_by_the_folders_template(tmp_path):
    template = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] | trim }}{{ eos_token }}\n{% endfor %}>"
    assert chat(written(tmp_path, chat_template=template, eos_token="</s>")) == "[user]Hi there</s>\n>"
    by_name = [{"name": "tools", "template": "no"}, {"name": "default", "template": "yes"}]
    assert chat(written(tmp_path, chat_template=by_name)) == "yes"
    (tmp_path / "chat_template.jinja").write_text("{{ messages | length }}")
    assert chat(tmp_path) == "1"


def test_chatml_where_there_is_no_template_but_its_tokens(tmp_path):
    assert chat(written(tmp_path)) == "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n"


def test_a_template_that_refuses_says_why(tmp_path):
    folder = written(tmp_path, chat_template="{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InvalidInput, match=r"messages: .*roles must alternate"):
        chat(folder)
    with pytest.raises(InvalidInput, match="messages: must hold"):
        chat(folder, [])


def test_a_template_reaches_nothing_outside(tmp_path):
    folder = written(tmp_path, chat_template="{{ ''.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(InvalidInput, match="messages"):
        chat(folder)


def test_a_template_has_what_transformers_gives_it(tmp_path):
    template = "{{ strftime_now('%Y') | length }} {{ tools is none }} {% generation %}{{ messages[0].role }}"
    assert chat(written(tmp_path, chat_template=template + "{% endgeneration %}{{ 1 }}")) == "4 True user1"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% for m in messages %}", "does not compile"),
        ("{{ messages[0]['content'] / 2 }}", "refuses them"),
        ("{{ range(1000000) | list }}", "refuses them"),
        ("{{ messages[0].content.index('!') }}", "refuses them"),
    ],
)
def test_a_template_that_is_wrong_is_an_error_of_chats(tmp_path, template, why):
    made = ChatTemplate(written(tmp_path, chat_template=template), Vocabulary(tmp_path))
    with pytest.raises(InvalidInput, match=f"messages: the model's chat template {why}"):
        made(MESSAGES)


def test_a_template_that_is_no_text_is_named(tmp_path):
    folder = written(tmp_path, chat_template=[{"name": "default", "template": 5}])
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: chat_template must be a text, got 5"):
        ChatTemplate(folder, Vocabulary(folder))


@pytest.mark.parametrize("made_to_begin", [True, False])
def test_the_settings_say_what_begins_a_text_before_the_tokeniser_does(tmp_path, made_to_begin):
    tokenizer = byte_tokenizer()
    if made_to_begin:
        tokenizer.post_processor = processors.TemplateProcessing("<|im_start|> $A", None, [("<|im_start|>", 1)])
    for begins in (None, True, False):
        more = {} if begins is None else {"add_bos_token": begins}
        folder = written(tmp_path, bos_token="<|im_start|>", **more)
        tokenizer.save(str(folder / "tokenizer.json"))
        expected = made_to_begin if begins is None else begins
        assert (Vocabulary(folder).encode("a")[0] == 1) == expected
    folder = written(tmp_path, add_bos_token=True)
    assert Vocabulary(folder).encode("a") == Vocabulary(written(tmp_path)).encode("a")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", r"tokenizer\.json is no tokenizer that can be read"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer"),
    ],
)
def test_a_tokeniser_that_is_none_is_named(tmp_path, content, why):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=why):
        Vocabulary(tmp_path)


def test_a_folder_without_a_tokeniser_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        Vocabulary(tmp_path)


def test_texts_are_remembered_by_their_size(tmp_path, monkeypatch):
    monkeypatch.setattr(language_text, "REMEMBERED_BYTES", 100_000)
    vocabulary = Vocabulary(written(tmp_path))
    for number in range(40):
        assert len(vocabulary.encode(f"{number:02}" * 500)) == 1000
    assert 50_000 < vocabulary.encode.taken <= 100_000
