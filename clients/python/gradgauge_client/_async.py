"""`Client` for asyncio: the same names, awaited; the calls themselves run in threads."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

from gradgauge_client import _models, _watch
from gradgauge_client._analyses import Analysis, OnProgress, succeeded
from gradgauge_client._client import Client, FailOn, judged
from gradgauge_client._errors import APIConnectionError, ServerError
from gradgauge_client._http import RETRIES, TIMEOUT_S
from gradgauge_client._raw import RawCalls, RawResponse
from gradgauge_client._report import Report

P = ParamSpec("P")
T = TypeVar("T")
Call = Callable[P, Coroutine[Any, Any, T]]
Each = Callable[P, AsyncIterator[T]]

THREADS = 16
_END = object()
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_LONGEST_OUTAGE_S = 30.0


class Threads:
    """Where the blocking calls run: `size` at once, the next ones wait for their turn."""

    def __init__(self, size: int) -> None:
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="gradgauge")

    def close(self) -> None:
        """Take no more calls; those that run are waited for."""
        self._pool.shutdown()

    def call(self, function: Callable[P, T]) -> Call[P, T]:
        """`function`, awaited. A cancelled await lets go of it; the request ends by its timeout."""

        async def called(*args: P.args, **kwargs: P.kwargs) -> T:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, partial(function, *args, **kwargs))

        return called

    def each(self, function: Callable[P, Iterator[T]]) -> Each[P, T]:
        """What `function` yields, piece by piece; leaving the loop ends it."""

        async def yielded(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
            pieces = function(*args, **kwargs)
            loop = asyncio.get_running_loop()
            asked: asyncio.Future[Any] | None = None
            try:
                while True:
                    asked = loop.run_in_executor(self._pool, next, pieces, _END)
                    piece = await asyncio.shield(asked)
                    asked = None
                    if piece is _END:
                        return
                    yield piece
            finally:
                # A generator is closed by nobody while a thread is in it.
                close = getattr(pieces, "close", lambda: None)
                if asked is None:
                    await loop.run_in_executor(self._pool, close)
                else:
                    asked.add_done_callback(lambda _: close())

        return yielded


class AsyncAnalysis:
    """An analysis as the service last told it (`told`), and what can be done with it."""

    def __init__(self, told: Analysis, threads: Threads) -> None:
        self.told = told
        self._threads = threads
        self.events = threads.each(told.events)
        self.report = threads.call(told.report)
        self.report_json = threads.call(told.report_json)
        self.render = threads.call(told.render)
        self.layers = threads.each(told.layers)
        self.graph = threads.call(told.graph)
        self.spectra = threads.call(told.spectra)
        self.compare = threads.call(told.compare)
        self.gate = threads.call(told.gate)
        self.save_applied = threads.call(told.save_applied)

    def __getattr__(self, name: str) -> Any:
        """A field of what the service told: `id`, `state`, `progress`, `error`."""
        if name in _models.Analysis.model_fields:
            return getattr(self.told, name)
        raise AttributeError(f"an analysis has no {name!r}")

    async def refresh(self) -> "AsyncAnalysis":
        """The analysis as it is now."""
        return AsyncAnalysis(await self._threads.call(self.told.refresh)(), self._threads)

    async def cancel(self) -> "AsyncAnalysis":
        """Stop it, queued or running; one that has ended stays as it is."""
        return AsyncAnalysis(await self._threads.call(self.told.cancel)(), self._threads)

    async def apply(self, recommendation_id: str) -> "AsyncAnalysis":
        """As `Analysis.apply`."""
        made = await self._threads.call(self.told.apply)(recommendation_id)
        return AsyncAnalysis(made, self._threads)

    async def wait(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - of the analysis, as in `Analysis.wait`
        on_progress: OnProgress | None = None,
    ) -> "AsyncAnalysis":
        """The analysis once it has succeeded; raises what `Analysis.wait` raises.

        It is asked from time to time, so that many can be waited for without a thread each, and a
        cancelled wait ends at once.
        """
        deadline, now = _watch.Deadline(self.id, timeout), self
        pause, outage_s = _FIRST_PAUSE_S, 0.0
        while now.state not in _watch.FINAL:
            left = min(pause, deadline.left())
            await asyncio.sleep(left)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            try:
                now, outage_s = await now.refresh(), 0.0
            except (APIConnectionError, ServerError):
                outage_s += left
                if outage_s > _LONGEST_OUTAGE_S:
                    raise
            if on_progress is not None:
                on_progress(now.stage or now.state, now.progress)
        succeeded(now.told)
        return now


class AsyncAnalyses:
    """The project's analyses."""

    def __init__(self, client: Client, threads: Threads) -> None:
        self._analyses = client.analyses
        self._threads = threads

    async def create(
        self,
        *,
        model_id: str | None = None,
        architecture_id: str | None = None,
        architecture: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        fresh: bool = False,
    ) -> AsyncAnalysis:
        """As `Analyses.create`."""
        made = await self._threads.call(self._analyses.create)(
            model_id=model_id,
            architecture_id=architecture_id,
            architecture=architecture,
            options=options,
            fresh=fresh,
        )
        return AsyncAnalysis(made, self._threads)

    async def retrieve(self, analysis_id: str) -> AsyncAnalysis:
        """As `Analyses.retrieve`."""
        found = await self._threads.call(self._analyses.retrieve)(analysis_id)
        return AsyncAnalysis(found, self._threads)

    async def cancel(self, analysis_id: str) -> AsyncAnalysis:
        """As `Analyses.cancel`."""
        ended = await self._threads.call(self._analyses.cancel)(analysis_id)
        return AsyncAnalysis(ended, self._threads)

    async def list(self, **filters: str) -> AsyncIterator[AsyncAnalysis]:
        """As `Analyses.list`."""
        async for each in self._threads.each(self._analyses.list)(**filters):
            yield AsyncAnalysis(each, self._threads)


class AsyncModels:
    """The project's models; every call as that of `Models`."""

    def __init__(self, client: Client, threads: Threads) -> None:
        held = client.models
        self.upload = threads.call(held.upload)
        self.upload_in_parts = threads.call(held.upload_in_parts)
        self.fetch = threads.call(held.fetch)
        self.retrieve = threads.call(held.retrieve)
        self.find = threads.call(held.find)
        self.download = threads.call(held.download)


class AsyncDataFiles:
    """The project's data files; every call as that of `DataFiles`."""

    def __init__(self, client: Client, threads: Threads) -> None:
        held = client.data
        self.upload = threads.call(held.upload)
        self.retrieve = threads.call(held.retrieve)
        self.find = threads.call(held.find)
        self.list = threads.each(held.list)
        self.delete = threads.call(held.delete)


class AsyncArchitectures:
    """The project's architecture specs; every call as that of `Architectures`."""

    def __init__(self, client: Client, threads: Threads) -> None:
        self.create = threads.call(client.architectures.create)
        self.retrieve = threads.call(client.architectures.retrieve)


class AsyncPolicies:
    """The project's policies; every call as that of `Policies`."""

    def __init__(self, client: Client, threads: Threads) -> None:
        self.put = threads.call(client.policies.put)
        self.retrieve = threads.call(client.policies.retrieve)
        self.list = threads.each(client.policies.list)
        self.delete = threads.call(client.policies.delete)


class AsyncReports:
    """Reports of whatever origin; every call as that of `Reports`."""

    def __init__(self, client: Client, threads: Threads) -> None:
        self.compare = threads.call(client.reports.compare)
        self.judge = threads.call(client.reports.judge)
        self.judge_json = threads.call(client.reports.judge_json)
        self.render = threads.call(client.reports.render)


class AsyncRules:
    """The service's rules; every call as that of `Rules`."""

    def __init__(self, client: Client, threads: Threads) -> None:
        self.list = threads.call(client.rules.list)
        self.retrieve = threads.call(client.rules.retrieve)


class AsyncKeys:
    """The project's keys; every call as that of `Keys`."""

    def __init__(self, client: Client, threads: Threads) -> None:
        self.create = threads.call(client.keys.create)
        self.list = threads.each(client.keys.list)
        self.rotate = threads.call(client.keys.rotate)
        self.revoke = threads.call(client.keys.revoke)


class AsyncWebhooks:
    """The project's webhooks; every call as that of `Webhooks`."""

    def __init__(self, client: Client, threads: Threads) -> None:
        self.create = threads.call(client.webhooks.create)
        self.list = threads.each(client.webhooks.list)
        self.delete = threads.call(client.webhooks.delete)


class AsyncRawCalls:
    """As `RawCalls`, awaited; `parse()` gives what the calls of `AsyncClient` give."""

    def __init__(self, calls: RawCalls, threads: Threads) -> None:
        self._calls = calls
        self._threads = threads

    def __getattr__(self, name: str) -> Any:
        """A call, or a part with calls of its own."""
        held: Any = getattr(self._calls, name)
        if isinstance(held, RawCalls):
            return AsyncRawCalls(held, self._threads)

        async def call(*args: Any, **kwargs: Any) -> RawResponse:
            made = await self._threads.call(held)(*args, **kwargs)
            return RawResponse(made.responses, self._awaited(made.parse()))

        return call

    def _awaited(self, parsed: Any) -> Any:
        if isinstance(parsed, Analysis):
            return AsyncAnalysis(parsed, self._threads)
        return self._pieces(parsed) if isinstance(parsed, Iterator) else parsed

    async def _pieces(self, parsed: Iterator[Any]) -> AsyncIterator[Any]:
        async for piece in self._threads.each(lambda: parsed)():
            yield self._awaited(piece)


class AsyncClient:
    """`Client` for asyncio, closed as an asynchronous context manager; arguments as there.

    Requests run in `threads` threads over one pool of connections; more at once wait their turn.
    Callbacks of an upload's progress are called in such a thread, those of `wait` in the loop.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = TIMEOUT_S,
        retries: int = RETRIES,
        threads: int = THREADS,
    ) -> None:
        self._threads = Threads(threads)
        self._bind(Client(url, api_key=api_key, timeout=timeout, retries=retries))

    def _bind(self, client: Client) -> None:
        self._client = client
        self.models = AsyncModels(self._client, self._threads)
        self.architectures = AsyncArchitectures(self._client, self._threads)
        self.data = AsyncDataFiles(self._client, self._threads)
        self.analyses = AsyncAnalyses(self._client, self._threads)
        self.policies = AsyncPolicies(self._client, self._threads)
        self.reports = AsyncReports(self._client, self._threads)
        self.rules = AsyncRules(self._client, self._threads)
        self.keys = AsyncKeys(self._client, self._threads)
        self.webhooks = AsyncWebhooks(self._client, self._threads)
        self.compare = self._threads.call(self._client.compare)
        self.capabilities = self._threads.call(self._client.capabilities)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections, once the requests that run have ended."""
        await asyncio.to_thread(self._threads.close)
        self._client.close()

    def with_options(self, *, timeout: float | None = None, retries: int | None = None) -> Self:
        """As `Client.with_options`."""
        made = copy(self)
        made._bind(self._client.with_options(timeout=timeout, retries=retries))  # noqa: SLF001 - its own kind
        return made

    @property
    def with_raw_response(self) -> "AsyncRawCalls":
        """As `Client.with_raw_response`, awaited."""
        return AsyncRawCalls(self._client.with_raw_response, self._threads)

    async def submit(
        self,
        path: Path | str | Any,
        options: Mapping[str, Any] | None = None,
        example_inputs: Any = None,
    ) -> AsyncAnalysis:
        """As `Client.submit`."""
        made = await self._threads.call(self._client.submit)(path, options, example_inputs)
        return AsyncAnalysis(made, self._threads)

    async def check(
        self,
        path: Path | str | Any,
        example_inputs: Any = None,
        *,
        fail_on: FailOn | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - of the analysis, as in `Client.check`
        on_progress: OnProgress | None = None,
        **options: Any,
    ) -> Report:
        """As `Client.check`."""
        analysis = await self.submit(path, options, example_inputs)
        done = await analysis.wait(timeout, on_progress)
        return judged(await done.report_json(), fail_on, done.told)
