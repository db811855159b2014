"""The engine: what the rest of the service asks for everything that has to do with running models.

>>> engine = Engine([model], EngineSettings(), MemorySloStore(), Unobserved())      # doctest: +SKIP
>>> await engine.start()                                                            # doctest: +SKIP
>>> finished = await engine.submit(Request("1", "fashion", inputs, time.monotonic()))      # doctest: +SKIP
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import suppress

from models.model import Generator, InvalidInput, Model, Transcriber
from service.control.generation_slo import Objective
from service.engine.dispatch import expired
from service.engine.entry import Entry, Ran, Reply
from service.engine.generate import generate, pieces_of
from service.engine.generation import GenerationRequest, Piece
from service.engine.hosted import HostedModel
from service.engine.long_texts import beside_the_loop_if
from service.engine.observer import Observer
from service.engine.outcomes import Outcomes
from service.engine.place import Inside, Place, State, not_ready
from service.engine.request import Finished, Request
from service.engine.scheduler import Scheduler
from service.engine.settings import EngineSettings
from service.engine.slo_store import SloStore, SloStoreError
from service.engine.snapshot import Health, ModelSnapshot
from service.engine.stream import Stream
from service.engine.whole_texts import whole_texts
from service.errors import Internal, InvalidRequest, NotFound, ServiceError, Unavailable

log = logging.getLogger(__name__)

_SWEEP_SECONDS = 0.05
_DRAIN_POLL_SECONDS = 0.005


class Engine:
    """Hosts models and runs requests on them. Its coroutines and `set_slo` belong to one event loop; the rest may be
    called from any thread.

    `load` makes a model from its name, for `Engine.load`; it raises KeyError for a name that it does not know. `clock`
    is monotonic, in seconds, and that of `Request.arrival`. Raises `SloStoreError` when the SLOs cannot be read.
    """

    def __init__(
        self,
        models: Iterable[Model],
        settings: EngineSettings,
        slo_store: SloStore,
        observer: Observer,
        load: Callable[[str], Model] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._store = slo_store
        self._outcomes = Outcomes(observer, self._label, clock)
        self._load = load
        self._clock = clock
        self._scheduler = Scheduler(settings, clock, self._deliver, self._pass_on)
        self._places = {model.name: Place("LOADING", hosted=self._host(model)) for model in models}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._accepting = False

    async def start(self) -> None:
        """Warms the models up and starts the executors; afterwards the engine is ready."""
        self._loop = asyncio.get_running_loop()
        for place in self._places.values():
            assert place.hosted is not None
            await asyncio.to_thread(self._warm, place.hosted)
            place.state = "READY"
        self._scheduler.start()
        self._sweeper = asyncio.create_task(self._sweep())
        self._accepting = True

    async def stop(self, grace_seconds: float) -> None:
        """Takes no more requests, lets those inside finish for as long as `grace_seconds`, and answers the rest with
        `Unavailable`.
        """
        self._accepting = False
        await self._drained(self._places.values(), grace_seconds)
        executors = self._scheduler.close(Unavailable("the server stopped before the request was computed"))
        await self._drained(self._places.values(), 1.0)
        if self._sweeper is not None:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper
        for executor in executors:
            await asyncio.to_thread(executor.join, 0.2)

    @property
    def ready(self) -> bool:
        return self.health().ready

    def health(self) -> Health:
        hung = self._scheduler.hung
        faults = [
            f"model {name!r} is {place.state.lower()}"
            for name, place in self._places.items()
            if place.state == "LOADING"
        ]
        if not self._accepting:
            faults.append("the server does not take requests: it is starting or stopping")
        ready = not faults
        if hung:
            faults.append(f"{hung} run(s) hang past {self._settings.hang_seconds:g} s; their executors were replaced")
        return Health(ready, tuple(faults), hung, self._scheduler.replaced)

    async def submit(self, request: Request) -> Finished:
        """Runs a request. Raises `ServiceError`; the request is abandoned when the awaiting task is cancelled.

        However it ends, the observer is told here, once.
        """
        try:
            finished = await self._serve(request)
        except ServiceError as error:
            self._outcomes.failed(request.model, request.protocol, request.arrival, error)
            raise
        except asyncio.CancelledError:
            self._outcomes.cancelled(request)
            raise
        except Exception as error:
            raise self._outcomes.faulty(request, error) from error
        self._outcomes.served(request, finished)
        return finished

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        """Makes text, piece by piece; the last has `finished`. Raises `ServiceError`, before the first piece or later.
        Closing it, or cancelling the task that waits for a piece, ends the generation within one step.

        However it ends, the observer is told here, once.
        """
        return generate(request, self._inside, self._scheduler, self._outcomes)

    def reject(self, model: str, protocol: str, arrival: float, error: ServiceError) -> None:
        """Counts a request that failed before it could be submitted: a body that cannot be read, say."""
        self._outcomes.failed(model, protocol, arrival, error)

    def names(self) -> list[str]:
        """The models hosted, and those that were until they were unloaded."""
        return list(self._places)

    def state(self, name: str) -> tuple[State, str]:
        """A model's state and the reason for it, "" when it is ready. Raises `NotFound`."""
        place = self._place(name)
        return place.state, place.reason

    def is_ready(self, name: str) -> bool:
        """Whether requests for the model are taken. Raises `NotFound`."""
        return self._place(name).state == "READY" and self._accepting

    def model(self, name: str) -> Model:
        """Raises `NotFound`, or `Unavailable` when it is not loaded."""
        return self._hosted(name).model

    def slo(self, name: str) -> Objective:
        """The SLO in force. Raises `NotFound`, or `Unavailable` when the model is not loaded."""
        return self._hosted(name).slo

    def set_slo(self, name: str, slo: Objective) -> Objective:
        """Keeps an SLO and puts it in force for the next request. Where it cannot be kept, `Unavailable` is raised and
        the old one stays.
        """
        hosted = self._hosted(name)
        try:
            self._store.put(name, slo)
        except SloStoreError as error:
            log.error("%s", error)
            raise Unavailable(f"the SLO could not be kept and was not changed: {error}") from error
        with self._scheduler.lock:
            hosted.set_slo(slo)
        return slo

    def snapshot(self, name: str) -> ModelSnapshot:
        """Raises `NotFound`, or `Unavailable` when the model is not loaded."""
        hosted = self._hosted(name)
        with self._scheduler.lock:
            return self._scheduler.snapshot(hosted, self._clock(), self.is_ready(name))

    def snapshots(self) -> list[ModelSnapshot]:
        """Of every model that is loaded."""
        places = list(self._places.values())
        with self._scheduler.lock:
            now = self._clock()
            return [
                self._scheduler.snapshot(hosted, now, place.state == "READY" and self._accepting)
                for place in places
                if (hosted := place.hosted) is not None
            ]

    def queue_depth(self, name: str) -> int:
        return self._hosted(name).waiting

    def inflight(self, name: str) -> int:
        return self._hosted(name).running

    async def load(self, name: str) -> None:
        """Loads a model, or does nothing when it is ready. Raises `NotFound` for an unknown name, `Unavailable` when it
        cannot be loaded.
        """
        place = self._places.get(name)
        if place is not None and place.state == "READY":
            return
        if place is not None and place.state != "UNAVAILABLE":
            raise Unavailable(f"the model {name!r} is {place.state.lower()}; try again when it is done")
        if self._load is None:
            raise NotFound(f"no model {name!r} can be loaded here")
        place = place or Place("LOADING")
        before, place.state, place.reason = place.reason, "LOADING", ""
        try:
            hosted = await asyncio.to_thread(self._load_and_warm, self._load, name)
        except KeyError:
            place.state, place.reason = "UNAVAILABLE", before
            raise NotFound(f"unknown model {name!r}") from None
        except Exception as error:
            log.exception("model %s could not be loaded", name)
            place.state, place.reason = "UNAVAILABLE", str(error)
            raise Unavailable(f"the model {name!r} could not be loaded: {error}") from error
        place.hosted, place.state = hosted, "READY"
        self._places[name] = place

    async def reload(self, name: str) -> None:
        """Loads a ready model anew, from what its files are now; what comes from then on runs on that. Until then, and
        where it cannot be loaded, the old one goes on. Raises `NotFound`, or `Unavailable`.
        """
        place = self._place(name)
        if self._load is None or place.state != "READY":
            raise not_ready(name, place)
        try:
            hosted = await asyncio.to_thread(self._load_and_warm, self._load, name)
        except Exception as error:
            raise Unavailable(f"the model {name!r} could not be loaded anew: {error}") from error
        old = place.hosted
        if place.state != "READY" or old is None:
            self._scheduler.retire(hosted)
            return
        with self._scheduler.lock:
            hosted.set_slo(old.slo)
        place.hosted = hosted
        self._scheduler.retire(old)

    async def unload(self, name: str) -> None:
        """Takes no more requests for a model, waits for those inside, and lets go of it. Raises `NotFound`."""
        place = self._place(name)
        if place.state == "UNAVAILABLE":
            return
        if place.state != "READY":
            raise Unavailable(f"the model {name!r} is {place.state.lower()}; try again when it is done")
        place.state, place.reason = "UNLOADING", ""
        await self._drained([place], self._settings.hang_seconds)
        if place.hosted is not None:
            self._scheduler.forget(place.hosted)
        place.state, place.reason, place.hosted = "UNAVAILABLE", "unloaded", None

    async def _serve(self, request: Request) -> Finished:
        with self._inside(request.model) as hosted:
            macs = await beside_the_loop_if(_text_length(request), _checked, hosted.model, request)
            if hosted.generator is None:
                _refuse_token_times(request)
            else:
                return await whole_texts(
                    request, hosted.generator, lambda one: pieces_of(one, self._inside, self._scheduler)
                )
            return await self._run(hosted, request, macs)

    async def _run(self, hosted: HostedModel, request: Request, macs: int) -> Finished:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Ran] = loop.create_future()
        entry = self._scheduler.admit(hosted, request, macs, future)
        timer = loop.call_later(entry.expires - entry.admitted, self._time_out, entry) if entry.timed else None
        try:
            return self._scheduler.settle(entry, await future)
        except asyncio.CancelledError:
            self._scheduler.withdraw(entry)
            raise
        except ServiceError as error:
            self._scheduler.failed(entry, error)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            # An error's traceback holds this frame: a ring through its future would keep the model in memory.
            entry.reply = None
            del future

    def _inside(self, name: str) -> Inside:
        """While something is done with a model. Raises `NotFound` or `Unavailable`."""
        place = self._place(name)
        if not self._accepting:
            raise Unavailable("the server does not take requests: it is starting or stopping")
        if place.hosted is None or place.state != "READY":
            raise not_ready(name, place)
        return Inside(place, place.hosted)

    def _time_out(self, entry: Entry) -> None:
        self._scheduler.withdraw(entry)
        _resolve(entry.reply, expired(entry, max(self._clock(), entry.expires)))

    def _deliver(self, reply: Reply, result: Ran | ServiceError) -> None:
        assert self._loop is not None
        # A loop that is closed has nobody left who waits.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_resolve, reply, result)

    def _pass_on(self, stream: Stream, item: Piece | ServiceError) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(stream.put, item)

    def _label(self, model: str) -> str:
        return model if model in self._places else ""

    def _place(self, name: str) -> Place:
        place = self._places.get(name)
        if place is None:
            raise NotFound(f"unknown model {name!r}")
        return place

    def _hosted(self, name: str) -> HostedModel:
        place = self._place(name)
        if place.hosted is None:
            raise not_ready(name, place)
        return place.hosted

    def _host(self, model: Model) -> HostedModel:
        usual: Objective = self._settings.default_slo
        if isinstance(model, Generator):
            usual = self._settings.default_generation_slo
        elif isinstance(model, Transcriber):
            usual = self._settings.default_speech_slo
        kept = self._store.get(model.name) or self._settings.slos.get(model.name)
        # One of another kind was kept for another model of this name.
        hosted = HostedModel(model, kept if type(kept) is type(usual) else usual)
        self._scheduler.host(hosted)
        return hosted

    def _warm(self, hosted: HostedModel) -> None:
        self._scheduler.warm_up(hosted)

    def _load_and_warm(self, load: Callable[[str], Model], name: str) -> HostedModel:
        hosted = self._host(load(name))
        self._warm(hosted)
        return hosted

    async def _drained(self, places: Iterable[Place], seconds: float) -> None:
        until = self._clock() + seconds
        places = list(places)
        while any(place.active for place in places) and self._clock() < until:
            await asyncio.sleep(_DRAIN_POLL_SECONDS)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            try:
                self._scheduler.sweep()
            except Exception:
                # Without the next sweeps nobody would notice a run that hangs.
                log.exception("a sweep failed")


def _refuse_token_times(request: Request) -> None:
    times = {"slo_first_token_ms": request.options.first_token_ms, "slo_token_ms": request.options.token_ms}
    for name, value in times.items():
        if value is not None:
            raise InvalidRequest(f"is for language models, which {request.model!r} is not: slo_ms is", field=name)


def _text_length(request: Request) -> int:
    """Bytes of all its texts."""
    return sum(
        len(text)
        for texts in request.inputs.values()
        if texts.dtype == object
        for text in texts.flat
        if isinstance(text, bytes)
    )


def _checked(model: Model, request: Request) -> int:
    """The dense model's MACs on a request's inputs. Raises `InvalidRequest` when the model cannot take them."""
    try:
        model.check(request.inputs)
        return model.dense_macs(request.inputs)
    except InvalidInput as error:
        raise InvalidRequest(str(error).removeprefix(f"{error.field}: "), field=error.field) from error
    except Exception as error:
        log.exception("model %s failed to check request %s", model.name, request.id)
        raise Internal(f"the model {model.name!r} failed to check this request: {type(error).__name__}") from error


def _resolve(reply: Reply, result: Ran | ServiceError) -> None:
    if reply is None or reply.done():
        return
    if isinstance(result, Ran):
        reply.set_result(result)
    else:
        reply.set_exception(result)
