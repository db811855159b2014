import pytest

pytest.importorskip("python_multipart", reason="the extra `speech` is not installed")

from service.errors import InvalidRequest, TooLarge
from service.protocol.multipart import MAX_FIELD_BYTES, MAX_PARTS, parse_form

KIND = "multipart/form-data; boundary=edge"


def part(name, content, filename=None):
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--edge\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + content + b"\r\n"


END = b"--edge--\r\n"


def test_fields_and_files_in_their_order():
    content = bytes(range(256)) + b"\r\n--edg\r\n"
    body = part("b", b"1") + part("file", content, "a.wav") + part("b", "ä".encode()) + END
    form = parse_form(KIND, body)
    assert form.fields == [("b", "1"), ("b", "ä")]
    assert form.files == {"file": content}


@pytest.mark.parametrize("name", [b"filename*", b"FileName*", b"filename* "])
def test_a_file_may_have_a_name_that_is_not_ascii(name):
    head = b'--edge\r\nContent-Disposition: form-data; name="file"; ' + name + b"=UTF-8''%C3%A9.wav\r\n\r\n"
    form = parse_form(KIND, head + b"\xff\xfe" + b"\r\n" + END)
    assert (form.fields, form.files) == ([], {"file": b"\xff\xfe"})


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        ("application/json", b"{}", "Content-Type"),
        ("multipart/form-data", END, "Content-Type"),
        ("", b"", "Content-Type"),
        (f"multipart/form-data; boundary={'e' * 257}", END, "Content-Type"),
        (KIND, b"nonsense", "body"),
        (KIND, b"", "body"),
        (KIND, part("a", b"1"), "body"),
        (KIND, part("", b"1") + END, "body"),
        (KIND, part("a", b"\xff") + END, "a"),
        (KIND, part("a", b"", "x") * 2 + END, "a"),
        (KIND, b"--edge\r\nX: " + b"y" * 10_000 + b"\r\n\r\n1\r\n" + END, "body"),
        (KIND, b"--edge\r\n" + b"X: y\r\n" * 3000 + b"\r\n1\r\n" + END, "body"),
    ],
)
def test_what_is_no_form_is_named(kind, body, field):
    with pytest.raises(InvalidRequest) as refused:
        parse_form(kind, body)
    assert refused.value.field == field


@pytest.mark.parametrize(
    "body",
    [
        part("a", b"1") * (MAX_PARTS + 1) + END,
        part("a", b"x" * (MAX_FIELD_BYTES + 1)) + END,
    ],
)
def test_what_is_too_large_is_refused(body):
    with pytest.raises(TooLarge):
        parse_form(KIND, body)
