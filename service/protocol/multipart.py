"""Forms with files: `multipart/form-data` (RFC 7578)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from service.errors import InvalidRequest, TooLarge, Unsupported

MAX_PARTS = 64
MAX_BOUNDARY_BYTES = 256
"""More than clients need, who may use 70 (RFC 2046 §5.1.1)."""
MAX_FIELD_BYTES = 64 * 1024
"""Of a field that is no file."""


_EXTENDED_NAME = re.compile(rb";\s*filename\*\s*=", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Form:
    """`fields` are (name, value) in their order, `files` the content by name."""

    fields: list[tuple[str, str]]
    files: Mapping[str, bytes]


@dataclass(slots=True)
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    header_name: bytearray = field(default_factory=bytearray)
    header_value: bytearray = field(default_factory=bytearray)
    pieces: list[bytes] = field(default_factory=list)


def parse_form(content_type: str, body: bytes) -> Form:
    """Raises InvalidRequest for what is no such form, TooLarge for too many parts or too large ones, Unsupported where
    the package that reads forms is missing."""
    try:
        from python_multipart import MultipartParser
        from python_multipart.exceptions import FormParserError
        from python_multipart.multipart import parse_options_header
    except ImportError:
        raise Unsupported("uploads need the extra `speech`: pip install 'sluice-serve[speech]'") from None
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= MAX_BOUNDARY_BYTES:
        raise InvalidRequest(
            f"must be multipart/form-data with a boundary of 1 to {MAX_BOUNDARY_BYTES} bytes", "Content-Type"
        )
    parts: list[_Part] = []
    done = False

    def begin() -> None:
        if len(parts) == MAX_PARTS:
            raise TooLarge(f"body: has more than {MAX_PARTS} parts")
        parts.append(_Part())

    def header_name(data: bytes, start: int, end: int) -> None:
        parts[-1].header_name += data[start:end]

    def header_value(data: bytes, start: int, end: int) -> None:
        parts[-1].header_value += data[start:end]

    def header_end() -> None:
        part = parts[-1]
        part.headers[bytes(part.header_name).lower()] = bytes(part.header_value)
        part.header_name.clear()
        part.header_value.clear()

    def data_of(data: bytes, start: int, end: int) -> None:
        parts[-1].pieces.append(data[start:end])

    def finish() -> None:
        nonlocal done
        done = True

    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": begin,
            "on_header_field": header_name,
            "on_header_value": header_value,
            "on_header_end": header_end,
            "on_part_data": data_of,
            "on_end": finish,
        },
    )
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidRequest(f"is no valid multipart/form-data ({error})", "body") from None
    if not done:
        raise InvalidRequest("is multipart/form-data that ends too early", "body")
    fields: list[tuple[str, str]] = []
    files: dict[str, bytes] = {}
    for part in parts:
        disposition = part.headers.get(b"content-disposition", b"")
        _, described = parse_options_header(disposition)
        name = described.get(b"name", b"").decode("utf-8", "replace")
        content = b"".join(part.pieces)
        if not name:
            raise InvalidRequest("has a part without a name", "body")
        # The latter is how some clients give a name that is not ASCII (RFC 8187).
        if b"filename" in described or _EXTENDED_NAME.search(disposition):
            if name in files:
                raise InvalidRequest("is given twice", name[:64])
            files[name] = content
            continue
        if len(content) > MAX_FIELD_BYTES:
            raise TooLarge(f"{name[:64]}: is over the limit of {MAX_FIELD_BYTES} bytes")
        try:
            fields.append((name, content.decode()))
        except UnicodeDecodeError:
            raise InvalidRequest("is not UTF-8", name[:64]) from None
    return Form(fields, files)
