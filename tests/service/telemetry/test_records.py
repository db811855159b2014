import httpx
import pytest

from service.telemetry.records import CURRENT, OnRecord, Recorded, RequestRecord
from tests.service.engine.fakes import Watcher

HEAD = {"type": "http.response.start", "status": 202, "headers": [(b"a", b"b")]}
BODY = {"type": "http.response.body", "body": b"ok"}


async def answer(scope, receive, send):
    await send(HEAD)
    await send(BODY)


async def fail(scope, receive, send):
    raise RuntimeError("no")


async def fail_late(scope, receive, send):
    await send(HEAD)
    raise RuntimeError("no")


async def get(app, headers=()) -> tuple[httpx.Response, list[RequestRecord]]:
    records: list[RequestRecord] = []
    transport = httpx.ASGITransport(Recorded(app, [records.append]), raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        return await client.get("/a%0Ab?secret=1", headers=headers), records


async def test_an_answer_has_the_clients_id():
    response, records = await get(answer, {"x-request-id": "mine"})
    assert (response.status_code, response.headers["x-request-id"], response.headers["a"]) == (202, "mine", "b")
    (record,) = records
    assert (record.id, record.method, record.path, record.status) == ("mine", "GET", "/a%0Ab", 202)
    assert record.seconds >= 0
    assert CURRENT.get() is None


async def test_one_without_gets_one_and_the_watcher_knows_it():
    response, records = await get(answer)
    assert response.headers["x-request-id"] == records[0].id != ""


async def test_an_error_that_nobody_foresaw_is_an_answer_with_an_id():
    response, records = await get(fail, {"x-request-id": "mine"})
    assert (response.status_code, response.headers["x-request-id"]) == (500, "mine")
    assert "log" in response.json()["error"]
    assert records[0].status == 500


async def test_an_answer_that_has_begun_ends_in_the_error():
    records: list[RequestRecord] = []

    async def send(message):
        pass

    with pytest.raises(RuntimeError):
        await Recorded(fail_late, [records.append])(
            {"type": "http", "method": "GET", "path": "/", "headers": []}, None, send
        )
    assert [record.status for record in records] == [202]


async def test_what_is_told_to_the_observer_is_on_the_record():
    inner = Watcher()
    observer = OnRecord(inner)

    async def app(scope, receive, send):
        observer.finished("first")
        observer.finished("second")
        await answer(scope, receive, send)

    _, records = await get(app)
    observer.finished("outside of any request")
    assert records[0].outcomes == ["first", "second"]
    assert inner.told == ["first", "second", "outside of any request"]


async def test_what_is_no_request_passes():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    await Recorded(app, [lambda record: pytest.fail("shown")])({"type": "lifespan"}, None, None)
    assert seen == ["lifespan"]
