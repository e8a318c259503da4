"""A task queue for asyncio on RabbitMQ, in one file.

The worker::

    import aioqueue

    q = aioqueue.Queue()

    @q.on('add')
    async def add(numbers):
        return sum(numbers)

    if __name__ == '__main__':
        q.start()

The caller, in another process::

    import asyncio
    import aioqueue

    async def main():
        async with aioqueue.Queue() as q:
            task = await q.task('add', [1, 2, 3])
            print(await task.result())

    asyncio.run(main())

A task is a message in the durable queue of its name. It is acknowledged only after its
result, its retry or its dead letter is confirmed by the broker: at least once.

The file has two halves. The upper one is the task queue:

- Queue: what a user holds.
- _Session: one life of a Queue, from connect() to close(). It keeps a link up.
- Task: what was sent, and what has come of it.
- Delivery: what came in. It calls the _Handler, and acknowledges what is done.

The lower one is AMQP, and knows nothing of tasks:

- _Message: what is published.
- _Link: two connections that live and die together.
- _Channel: calls are answered, messages are confirmed.
- _Connection: bytes. Whole frames in, many frames out in one write.

On its way down a task passes Queue, Task, _Session, _Link, _Channel and _Connection. On
its way up a message passes _Connection, _Channel and _Session, which hands it to a
Delivery or, if it is a reply, to the Task. The acknowledgement of a Delivery goes
straight down to the _Channel that it came by. Below both are functions about bytes, and
helpers.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import contextvars
import dataclasses
import functools
import inspect
import itertools
import logging
import os
import random
import re
import signal
import socket
import ssl as tls
import struct
import threading
import time
import traceback
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any, Self, TypeVar
from urllib.parse import unquote, urlsplit

import aioamqp  # type: ignore[import, unused-ignore]
import msgpack  # type: ignore[import, unused-ignore]
from pamqp import commands as amqp
from pamqp import decode, encode
from pamqp.frame import marshal, unmarshal
from pamqp.header import ContentHeader

__all__ = ('Delivery', 'Queue', 'Refused', 'RemoteException', 'Task', 'current')
__version__ = '1.0.0'

logger = logging.getLogger('aioqueue')
# What aioamqp says of a connection is logged here, with what follows from it.
logging.getLogger('aioamqp').setLevel(logging.CRITICAL)

F = TypeVar('F', bound=Callable[..., Any])
R = TypeVar('R')
RetryDelay = float | Callable[[BaseException, int], float | None] | None

#: Inside a handler, plain ones too, `current.get()` is the `Delivery` being run.
current: contextvars.ContextVar[Delivery] = contextvars.ContextVar('aioqueue.current')


class RemoteException(Exception):
    """The handler failed: `str()` is its error, `type` and `traceback` are texts.

    The remote traceback is a note of this exception, and so it is printed with it.
    """

    def __init__(self, error: Any, type: str | None = None,
                 traceback: str | None = None) -> None:
        super().__init__(error)
        self.type, self.traceback = type, traceback
        self.add_note(f'In the worker: {traceback or error}')


class Refused(Exception):
    """The broker said no: `str()` is what it said, `code` AMQP's reply code.

    `code` is 0 for a message it refused without a word (nack), as a full queue with
    `x-overflow: reject-publish` does.
    """

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class Queue:
    """A connection to RabbitMQ that sends tasks, and runs those it has handlers for.

    `host` is a name, an `amqp://user:password@host:port/vhost` or `amqps://` URL
    (percent-encoded), or a list of either: the nodes of one cluster, tried in turn.
    `port` is 5672, or 5671 with TLS. `ssl` is True or an `ssl.SSLContext`. `log_level`
    is that of the logger `aioqueue`. `retry` is the number of seconds between attempts
    to connect; with False the start raises when all hosts have failed once (5 seconds
    later on). `quorum`: every queue declared here is a quorum queue. `connect_kwargs`
    are `login`, `password`, `virtualhost`, `heartbeat` (60 seconds),
    `client_properties`, and `frame_max` (131072 bytes) and `channel_max` (2), unless
    the broker has less.
    Raises `TypeError` or `ValueError` for what can't be used.

    A Queue may be made before any event loop runs. From `connect()` to `close()` it
    belongs to one: in another event loop its coroutines raise `RuntimeError`, but for
    those that are given to `run()`. In the next loop, or a forked process, it may
    simply be used again.
    """

    def __init__(self, host: str | list[str] = 'localhost', port: int | None = None,
                 ssl: bool | tls.SSLContext = False, log_level: int | str | None = None,
                 retry: float = 5, *, quorum: bool = False, **connect_kwargs: Any):
        if log_level is not None:
            logger.setLevel(log_level)
        _check_limits(retry=None if retry is False else retry)
        if not isinstance(ssl, (bool, tls.SSLContext)):
            raise TypeError(f'ssl is True or an ssl.SSLContext, not {ssl!r}')
        # An empty list is no host, which _address() says.
        hosts: list[Any] = host if host and isinstance(host, list) else [host]
        self._addresses = [_address(at, port, ssl, **connect_kwargs) for at in hosts]
        self._retry, self._quorum = retry, {'x-queue-type': 'quorum'} if quorum else {}
        self._handlers: dict[str, _Handler] = {}
        self._session: _Session | None = None  # the one that is open, or was the last

    def __repr__(self) -> str:
        names = ', '.join(f'{each["host"]}:{each["port"]}' for each in self._addresses)
        return f'<Queue at {names}, {"" if self.connected else "not "}connected>'

    def on(self, name: str, raw: bool = False, prefetch_count: int = 10, *,
           retries: int = 0, retry_delay: RetryDelay = 1.0,
           timeout: float | None = None,
           arguments: dict[str, Any] | None = None) -> Callable[[F], F]:
        """Register the decorated function as the handler of queue `name`.

        An `async def` runs as an asyncio task, a plain function in a thread. Its one
        argument is the task's data (with `raw` the bytes of the message), its return
        value the task's result. What a generator yields is sent to the caller at once.

        `prefetch_count` tasks of this queue run at once here. `retries` counts the runs
        after the first; the wait before them is `retry_delay` seconds, doubled each
        time, or what a function `retry_delay(exception, attempt)` returns; None is
        'never again'. `timeout` is the number of seconds one run of an async handler
        may take. `arguments` belong to the queue, `x-max-priority` for instance.

        Raises `TypeError` or `ValueError` for what can't be used or a second handler of
        one queue, `RuntimeError` after the start.
        """
        _check_name(name)
        _check_limits(prefetch_count=prefetch_count, retries=retries, timeout=timeout,
                      retry_delay=None if callable(retry_delay) else retry_delay)
        if self._session and self._session.is_open and self._session.started:
            raise RuntimeError(f'register the handler of {name!r} before the start')

        def register(function: F) -> F:
            if name in self._handlers:
                raise ValueError(f'{name!r} has a handler already')
            is_async = _check_function(function, name, timeout)
            self._handlers[name] = _Handler(
                name, self._quorum | (arguments or {}), prefetch_count, raw=raw,
                function=function, is_async=is_async, retries=retries,
                retry_delay=retry_delay, timeout=timeout)
            return function

        return register

    @property
    def connected(self) -> bool:
        """Whether a link to the broker is up just now: for health checks."""
        return bool(self._session and self._session.is_open and self._session.up.done())

    async def connect(self) -> None:
        """Connect, to send only. Does nothing if that is done.

        Tries every `retry` seconds until it succeeds. Raises `Refused` when the broker
        refuses (credentials, vhost, permissions, too few channels), `ssl.SSLError` for
        a certificate, and with `retry=False` the first failure of any kind. A
        connection that is lost later comes back by itself.
        """
        await self._connect()

    async def _connect(self) -> _Session:
        while (session := self._session_here()) and session.closing:
            await self.close()  # a session that is closing has to end first
        if session is None:
            if self._session and self._session.process == os.getpid():
                # A loop that was closed under a link has left its sockets open.
                with contextlib.suppress(Exception):
                    self._session.up.result().hang_up()
            self._session = session = _Session(self)
        await _outcome(session.up)
        return session

    async def start_async(self) -> None:
        """Connect, declare the queue of every handler and consume from it.

        Raises what `connect()` raises, and `Refused` if the broker refuses a queue: one
        that exists with other arguments, for instance. If it was the first start, the
        Queue is closed then.
        """
        await self._start(30)

    async def _start(self, timeout: float) -> _Session:
        try:
            session = await self._connect()
            # Who may not declare a queue may still consume from it.
            wanted = [*self._handlers.values()]
            await session.until(_Link.consume, wanted, NOT_PERMITTED)
            session.started = True  # not before: each link would fall over a refusal
        except BaseException:
            if not (self._session and self._session.started):
                await self.close(timeout)
            raise
        if self._handlers:
            log.info('consuming from %s', ', '.join(self._handlers))
        return session

    def start(self, timeout: float = 30) -> None:
        """Run as a worker process, until SIGINT or SIGTERM.

        The first signal lets running tasks finish, for `timeout` seconds at most (see
        `close()`); a second one ends the process at once. Logs to stderr if no logging
        is set up. Raises what `start_async()` raises, and `RuntimeError` where an event
        loop runs already.
        """
        if asyncio._get_running_loop():
            raise RuntimeError('an event loop runs here already: await start_async()')
        if not logger.hasHandlers():
            logging.basicConfig(level=logger.level or logging.INFO)
        run_to_its_end(self._serve(timeout))

    async def _serve(self, timeout: float) -> None:
        with cancelled_by_signals():
            with contextlib.suppress(asyncio.CancelledError):
                await _outcome((await self._start(timeout)).supervisor)
            await self.close(timeout)

    async def close(self, timeout: float | None = 30) -> None:
        """Stop consuming, let running handlers finish, disconnect.

        Handlers that still run after `timeout` seconds are cancelled (threads can't be)
        and their tasks go to another worker. Results that are awaited and sends that
        wait raise `ConnectionError`. Does nothing if that is done; when it is
        cancelled, a second call goes on. In a handler it waits for that one, too.
        """
        if session := self._session_here():
            await session.close(timeout)

    async def __aenter__(self) -> Self:
        await self.start_async()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def task(self, name: str, data: Any = None, *, no_response: bool = False,
                   raw: bool = False, id: str | None = None, delay: float = 0,
                   expires: float | None = None, priority: int | None = None,
                   headers: dict[str, Any] | None = None) -> Task:
        """Send a task; return once the broker has confirmed it.

        `no_response`: nobody will ask for the result. `raw`: `data` is bytes, sent as
        they are. `id`: yours, 1 to 255 bytes, another one for each queue, so that a
        handler recognises a task that was sent twice; random unless given. `delay`:
        seconds until a worker may get it. `expires`: seconds after which the broker
        drops it unless a worker has it. `priority`: 0 to 255, for a queue with
        `x-max-priority` (on quorum queues without). `headers`: for the handler's
        `current.get()`; what pamqp can't carry unchanged, as floats, is an error.

        Connects when needed, and waits for the broker as long as it takes; not for the
        confirm if the result of a random id has come before. Raises `TypeError` or
        `ValueError` for what can't be sent, `Refused` for what the broker refuses (a
        message too large, a full queue), `ConnectionError` when the Queue is closed.
        """
        _check_name(name)
        properties: dict[str, Any] = {}
        if delay or expires is not None or priority is not None:  # Speed: enqueue 6 %
            _check_limits(delay=delay, expires=expires, priority=priority)
            if delay and expires is not None:  # RabbitMQ would forget the expiry
                raise ValueError('delay does not go with expires')
            ms = None if expires is None else str(round(expires * 1000))
            properties = {'expiration': ms, 'priority': priority}
        if headers is not None:
            properties['headers'] = _checked(headers)
        if raw and isinstance(data, str):
            raise TypeError('with raw=True data is bytes, not str: use data.encode()')
        if id is not None and not (isinstance(id, str) and 0 < len(id.encode()) < 256):
            raise ValueError(f'id is a str of 1 to 255 bytes, not {id!r}')
        task = Task(self, name, data, no_response, raw, id, delay, properties)
        await task.retry()
        return task

    create = task  # as 0.2 calls it, too

    def run(self, coroutine: Coroutine[Any, Any, R], timeout: float | None = None) -> R:
        """Run a coroutine of this Queue or its tasks from plain code: its result.

        From any thread: in a plain handler, a script, a notebook, a view of a web
        framework. It runs in the event loop in which the Queue is open, or else in that
        of a background thread, where the Queue is closed when the interpreter ends.
        Raises what the coroutine raises, `TimeoutError` after `timeout` seconds,
        `ConnectionError` if that loop ends meanwhile, and `RuntimeError` in its own
        thread, which it would block.
        """
        loop = _loop_to_run_in(self)
        if asyncio._get_running_loop() is loop:
            coroutine.close()
            raise RuntimeError('run() would block its own event loop: await it')
        return run_in_loop(asyncio.wait_for(coroutine, timeout), loop)

    def _session_here(self) -> _Session | None:
        """The session, if it is open: in this event loop, or it raises."""
        session = self._session
        if session and session.loop is asyncio.get_running_loop():
            return None if session.supervisor.done() else session
        if session and session.is_open:
            raise RuntimeError('the Queue is open in another event loop: use its run() '
                               'or close it there')
        return None


CLOSED = 'the Queue was closed; connect() opens it again'
EARLY = 10  # ms before it is due a task may run
# How a quorum queue passes on what is due: for that it may refuse a message.
# https://www.rabbitmq.com/docs/quorum-queues#dead-lettering
AT_LEAST_ONCE = {'x-dead-letter-strategy': 'at-least-once',
                 'x-overflow': 'reject-publish'}


class _Session:
    """One life of a Queue, from connect() to close(): all of it that changes.

    It belongs to one event loop and one process. It is open while its supervisor runs,
    and it closes in two steps: when it is `closing` no task is begun; when the
    supervisor is cancelled, by close() or with the loop, none is waited for any more.
    """

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.loop, self.process = asyncio.get_running_loop(), os.getpid()
        # Whether start_async() has succeeded, and whether close() was called: between
        # them each link consumes from the queues of the handlers.
        self.started = self.closing = False
        # The link that is up; while none is, the future of the next one.
        self.up: asyncio.Future[_Link] = self.loop.create_future()
        # What handlers have begun, and how much of each queue: the broker's prefetch
        # doesn't count what a lost link had delivered.
        self.running: dict[Delivery, Any] = {}  # with its asyncio task
        self.busy = defaultdict[str, int](int)
        # What this link has delivered while handlers of a lost one took all slots.
        self.waiting = defaultdict[str, deque[Delivery]](deque)
        # Where replies come in; each link consumes from what is in `listening`, too.
        self.reply_queue = f'aioqueue.reply.{os.urandom(16).hex()}'
        self.listening: list[_Wanted] = []
        # What has come of each task that somebody holds, by its id.
        self.replies = weakref.WeakValueDictionary[str, _Replies]()
        # Futures of all who wait for a reply: the event loop itself doesn't hold them.
        self.waiters: set[asyncio.Future[None]] = set()
        # The ids of streams that were cancelled, the last ten thousand of them.
        self.cancelled: OrderedDict[str, None] = OrderedDict()
        # Reply queues over which the broker has closed a link: it is not asked again.
        self.refused: dict[str, Refused] = {}
        # What its opener has in context variables is none of the handlers' business.
        self.supervisor = self.loop.create_task(
            self._supervise(), context=contextvars.Context())
        self.supervisor.add_done_callback(self._closed)

    @property
    def is_open(self) -> bool:
        """Whether it runs: a closed event loop and a fork end it without a word."""
        return not (self.supervisor.done() or self.loop.is_closed()
                    or self.process != os.getpid())

    async def _supervise(self) -> None:
        """Keep a link up, to each address in turn: the retry loop.

        Whatever dies, all of it is dropped and built again. Who waits for a confirm
        sends again then; replies have waited in their queue.
        """
        addresses, retry = self.queue._addresses, self.queue._retry or 5
        quorum, ever_up, refusal = bool(self.queue._quorum), False, None
        for count, address in enumerate(itertools.cycle(addresses), 1):
            link, lost = _Link(address, self.received, self.broke, quorum), ''
            try:
                works = self.started and not self.closing
                handlers = self.queue._handlers.values() if works else ()
                await link.open([*handlers, *self.listening])
                for handler in self.queue._handlers.values() if self.closing else ():
                    link.cancel(handler)  # close() was called meanwhile
                self.up.set_result(link)
                ever_up, lost = True, 'lost the'
                log.info('connected to %s', link.name)
                await _outcome(link.broken)
            except Exception as error:
                link.drop(error)
            except asyncio.CancelledError:
                if self.closing:  # else the loop ends, and with it aioamqp's tasks
                    await _ended(self.running.values(), CLOSE_DEADLINE)
                    await link.close(self.listening)
                link.drop(ConnectionError('closed'))
                return  # if it were raised, its traceback would keep the link alive
            why = link.broken.exception()
            refusal = why if _is_final(why) else refusal
            log.warning('%s connection to %s: %r', lost or 'no', link.name, why)
            if lost:  # RabbitMQ 3.10 forgets what is sent while quorum queues elect
                await asyncio.sleep(random.uniform(0, min(1, retry)) + quorum)
            elif count % len(addresses) == 0:  # all were tried
                if not ever_up and (refusal or self.queue._retry is False):
                    _settle(self.up, refusal or why)
                    return
                await asyncio.sleep(random.uniform(retry, 1.5 * retry))

    def broke(self) -> None:
        """The link broke: what it had delivered will come again."""
        if self.up.done():
            self.up = self.loop.create_future()
        self.waiting.clear()

    def _closed(self, _: object) -> None:
        """The supervisor has ended: by `close()`, with the event loop, or in vain."""
        _settle(self.up, ConnectionError(CLOSED))
        for news in self.waiters:
            _settle(news, None)

    async def close(self, timeout: float | None) -> None:
        """Begin no task, wait for those that run, then for nothing any more."""
        log.info('stopping: %s tasks are running', len(self.running))
        self.closing = True
        for handler in self.queue._handlers.values() if self.up.done() else ():
            self.up.result().cancel(handler)
        await _ended(self.running.values(), timeout)
        work = *self.running.values(), self.supervisor
        if not self.supervisor.cancelling():  # another close() may be further
            for each in work:
                each.cancel()
        await _ended(work, 2 * CLOSE_DEADLINE)

    async def until(self, call: Callable[..., Awaitable[R]], *args: Any,
                    queue: str = '') -> R:
        """`call(link, *args)` with this link; should it be lost, with the next.

        For a `queue` that isn't a task's (a reply queue, ours or a caller's) a refusal
        that has cost a link is final: to ask again would cost the next link, too.
        """
        while queue not in self.refused:
            link = self.up.result() if self.up.done() else await _outcome(self.up)
            try:
                return await call(link, *args)
            except TimeoutError as error:
                link.drop(error)
            except ConnectionError:
                continue  # with the next link, or the channel that was opened anew
            except Refused as error:
                if queue and link.broken.done():
                    self.refused[queue] = error
                raise
        raise self.refused[queue].with_traceback(None)

    async def listen(self) -> None:
        """Consume from the reply queue: with this link, and with the next."""
        if not self.listening:
            # Replies wait ten minutes for a lost caller to come back.
            wanted = _Wanted(
                self.reply_queue, {**self.queue._quorum, 'x-expires': 600_000})
            await self.until(_Link.consume, [wanted], NOTHING, queue=wanted.name)
            self.listening = [wanted]  # not before: each link would fall over a refusal

    async def send(self, message: _Message, delay: int = 0) -> None:
        """Publish; if there is no such queue declare it, and publish again.

        To declare it first would cost a round trip, and fails where it exists with
        other arguments. `delay` is in ms.
        """
        queue, name, rung = self.queue, message.queue, None
        if delay:
            message, rung = _delayed(message, delay, queue._quorum)
        while not await self.until(_Link.publish, message):
            own = queue._handlers.get(name) or _Wanted(name, queue._quorum)
            for wanted in (own, rung) if rung else (own,):
                await self.until(_Link.declare, wanted, EXISTS_OTHERWISE)

    def received(self, queue: str, header: bytes, body: bytes, ack: Callable[[], None],
                 capacity: int) -> None:
        """A message has come from one of the queues that are consumed."""
        if queue == self.reply_queue:
            ack()  # whatever it is: nobody else can do more with it
            try:
                self._reply_received(header, body)
            except Exception as error:
                log.warning('a reply that is none: %.1000r', error)
        elif not self.closing:
            delivery = Delivery(self, queue, header, body, ack, capacity)
            if self.busy[queue] < delivery._handler.prefetch_count:
                self.busy[queue] += 1
                start_task(self.loop, delivery._work())
            else:
                self.waiting[queue].append(delivery)

    def done(self, delivery: Delivery) -> None:
        """A handler has ended: what has waited for its slot begins."""
        del self.running[delivery]
        if waiting := self.waiting.get(delivery.name):
            work = waiting.popleft()._work()
            self.loop.create_task(work, context=contextvars.Context())
        else:
            self.busy[delivery.name] -= 1

    def _reply_received(self, header: bytes, body: bytes) -> None:
        """Give a reply to the task that awaits it, a cancellation to its delivery."""
        properties = unpack_properties(header)
        ident, sender = properties.get('correlation_id', ''), properties.get('reply_to')
        headers: dict[str, Any] = properties.get('headers', {})
        if 'part' in headers and ident in self.cancelled:
            self.cancel(ident, sender)
        if properties.get('message_type') == 'cancel':
            for delivery in self.running:
                if delivery.id == ident and sender in (delivery._reply_to, None):
                    delivery._goes_on = False
        else:  # if nobody holds the task any more, its failure is logged
            replies = self.replies.pop(ident, None) or _Replies(self, ident)
            replies.add(headers, body, sender)
            if not replies.end:
                self.replies[ident] = replies

    def cancel(self, ident: str, reply_to: str | None) -> None:
        """Tell a worker that nobody wants what a generator yields."""
        self.cancelled[ident] = None
        if len(self.cancelled) > 10_000:
            self.cancelled.popitem(last=False)
        if reply_to:  # otherwise the next part may say where
            message = _Message(reply_to, b'', {
                'correlation_id': ident, 'message_type': 'cancel',
                'reply_to': self.reply_queue})
            sending = self.until(_Link.publish, message, queue=reply_to)
            # Should it fail, the next part brings another one.
            self.loop.create_task(sending).add_done_callback(
                lambda task: task.cancelled() or task.exception())


def _delayed(message: _Message, delay: int,
             quorum: dict[str, Any]) -> tuple[_Message, _Wanted]:
    """A message on its way down a ladder of queues, and the queue it waits in.

    `NAME.delay.MS` passes on to `NAME` what is MS old. MS is the delay cut down to a
    digit and a half (3_947_123 is 3_500_000, 47 is 45), so that there are few such
    queues, whatever delays are asked for. Headers say how much was cut off, and when
    the message is due (ms since the epoch): a worker that gets it too early sends it on
    for the rest, due when it was.
    """
    cut = delay % (10 ** len(str(delay)) // 20 or 1)
    headers = message.properties.get('headers') or {}
    if cut > EARLY:
        # Of a message that is sent on, the old x-due counts, and the new x-cut.
        headers = {'x-due': _now() + delay, **headers, 'x-cut': cut}
    properties = {**message.properties, 'headers': headers}
    rung = _Wanted(f'{message.queue}.delay.{delay - cut}', {
        'x-message-ttl': delay - cut, 'x-dead-letter-exchange': '',
        'x-dead-letter-routing-key': message.queue,
        **(quorum and {**quorum, **AT_LEAST_ONCE})})
    return _Message(rung.name, message.body, properties), rung


class _Replies:
    """What has come of a task: `parts` that nobody has taken yet, and the `end`."""

    count = 0  # of all parts that have come
    end: Any = None  # then its headers and its body
    reply_to: str | None = None  # where the worker hears of a cancellation
    message: _Message | None = None  # which the end confirms
    heard = False  # whether somebody was given the end

    def __init__(self, session: _Session, ident: str) -> None:
        self.session, self.id, self.parts = session, ident, deque[bytes]()
        # Speed: these futures cost a call 4 % less than an asyncio.Event.
        self.waiters: set[asyncio.Future[None]] = set()

    def add(self, headers: dict[str, Any], body: bytes, reply_to: str | None) -> None:
        """Keep a part or the end; of another run, which begins at 0, what is new."""
        if 'part' in headers:
            self.reply_to = reply_to
            if headers['part'] == self.count:
                self.count += 1
                self.parts.append(body)
        elif _number(headers.get('parts')) <= self.count:
            self.end = headers, body
            if self.message and self.message.confirm:
                _settle(self.message.confirm, True)  # what is done can't be lost
        for news in self.waiters:
            _settle(news, None)

    async def wait(self, streaming: bool) -> bool:
        """Wait for the end or, when streaming, for a part: whether there are parts."""
        session = self.session
        here = session.queue._session_here()  # in another event loop it raises
        while not (self.end or (streaming and self.parts)):
            if here is not session or session.supervisor.done():
                raise ConnectionError(CLOSED)
            news = session.loop.create_future()
            self.waiters.add(news)
            session.waiters.add(news)
            try:
                await news
            finally:
                self.waiters.discard(news)
                session.waiters.discard(news)
        return bool(self.parts)

    def outcome(self) -> Any:
        """The value at the end; or the failure is raised."""
        self.heard = True
        return _value(*self.end)

    def __del__(self) -> None:  # nobody holds the task any more
        if self.end and 'type' in self.end[0] and not self.heard:
            error = _text(lambda body: str(unpack(body)[0]), self.end[1])
            log.error('task %.300r failed, and nobody awaits it any more: %.1000r: '
                      '%.1000r', self.id, self.end[0]['type'], error)


MSGPACK, RAW = 'application/msgpack', 'application/octet-stream'


class Task:
    """A task that was sent: its `id`, `name`, `data`, `raw` and `no_response`.

    `async for value in task` gives what a generator handler yields, as it comes, once,
    and ends or raises as `result()` does.
    """

    _replies: _Replies | None = None

    def __init__(self, queue: Queue, name: str, data: Any, no_response: bool, raw: bool,
                 id: str | None, delay: float, properties: dict[str, Any]) -> None:
        self.id: str = id or os.urandom(16).hex()
        self.name, self.data = name, data
        self.no_response, self.raw = no_response, raw
        self._queue, self._delay, self._properties = queue, delay, properties
        # With a random id, until it is sent: a result can only be that of this message.
        self._first = id is None

    def __repr__(self) -> str:
        return f'<Task {self.id!r} of {self.name!r}>'

    async def retry(self) -> None:
        """Send the task again, with the same id. Raises what `Queue.task()` raises."""
        body = memoryview(self.data).tobytes() if self.raw else pack(self.data, 'data')
        properties = {'correlation_id': self.id, **self._properties,
                      'content_type': RAW if self.raw else MSGPACK}
        session, replies = self._queue._session, None
        # What was closed here stays closed: then until() raises.
        if not (session and session.loop is asyncio.get_running_loop()
                and (session.closing or not session.supervisor.done())):
            session = await self._queue._connect()
        if not self.no_response:
            if not session.listening:  # Speed: of a coroutine
                await session.listen()
            properties['reply_to'] = session.reply_queue
            replies = session.replies.setdefault(self.id, _Replies(session, self.id))
            session.cancelled.pop(self.id, None)
        message = _Message(self.name, body, properties)
        if replies and self._first:
            replies.message = message
        try:
            await session.send(message, round(self._delay * 1000))
        except asyncio.CancelledError:
            if replies and not self._replies:  # nobody gets this Task, to cancel it
                session.cancel(self.id, None)
            raise
        self._replies, self._first = replies, False

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the handler's return value; None at once with `no_response`.

        Of a generator handler it is the list of all values that `async for` has not
        taken. Raises `RemoteException` if the handler failed, `TimeoutError` after
        `timeout` seconds (a later call can still get it), `ConnectionError` when the
        Queue is closed.
        """
        if timeout is not None:  # Speed: asyncio.timeout(None) costs 15 % of a call
            async with asyncio.timeout(timeout):
                return await self.result()
        if (replies := self._replies) is None:
            return None
        await replies.wait(streaming=False)
        value = replies.outcome()  # of a generator it is an empty list
        return [_value({}, part) for part in replies.parts] or value

    async def __aiter__(self) -> AsyncIterator[Any]:
        if replies := self._replies:
            while await replies.wait(streaming=True):
                yield _value({}, replies.parts.popleft())
            replies.outcome()

    def cancel(self) -> None:
        """Have a generator handler end at its next yield: nobody wants what it yields.

        From any thread, as often as you like; harmless where there is nothing to end.
        """
        replies = self._replies
        if replies and not replies.end and replies.session.is_open:
            replies.session.loop.call_soon_threadsafe(
                replies.session.cancel, self.id, replies.reply_to)


@dataclasses.dataclass
class _Wanted:
    """A queue that is declared with these arguments, and perhaps consumed from."""

    name: str
    arguments: dict[str, Any]
    prefetch_count: int = 0  # no limit


@dataclasses.dataclass(kw_only=True)
class _Handler(_Wanted):
    """What `Queue.on()` was told."""

    function: Callable[[Any], Any]
    is_async: bool
    raw: bool
    retries: int
    retry_delay: RetryDelay
    timeout: float | None


# A quorum queue counts deliveries. A task that was delivered this often without being
# acknowledged is taken to kill its workers; RabbitMQ 4 would drop it at 20, silently.
# https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling
DELIVERY_LIMIT = 10
REFUSED_PAUSE = 5  # seconds until a refused dead letter is sent again


class Delivery:
    """A task that came in: `id`, `name`, `attempt` (1 at first) and `headers`.

    Inside its handler it is `aioqueue.current.get()`.
    """

    attempt: int = 1
    _deliveries = 0  # without an acknowledgement
    _due = _cut = 0  # in ms: when it may run, and how much of its delay was cut off
    _parts = 0  # that a generator has yielded
    _goes_on = True  # whether somebody wants more of them
    _malformed: Exception | None = None
    _retries = 0  # what the handler allows, if it is called

    def __init__(self, session: _Session, queue: str, header: bytes, body: bytes,
                 ack: Callable[[], None], capacity: int) -> None:
        self._session, self.name, self._body = session, queue, body
        self._ack, self._capacity = ack, capacity  # bytes of headers that can be sent
        self._handler = session.queue._handlers[self.name]
        self.headers: dict[str, Any] = {}
        try:
            self._properties = unpack_properties(header)
        except Exception as error:
            self._malformed, self._properties = error, {}
        self.id: str = (self._properties.get('correlation_id')
                        or self._properties.get('message_id') or os.urandom(16).hex())
        self._reply_to: str = self._properties.get('reply_to', '')
        if headers := self._properties.get('headers'):  # Speed: drain 5 %
            self.headers = {
                key: headers[key] for key in headers if not RESERVED.fullmatch(key)}
            self.attempt = max(1, _number(headers.get('x-attempt')))
            self._due = _number(headers.get('x-due'))
            self._cut = _number(headers.get('x-cut'))
            self._deliveries = (_number(headers.get('x-deliveries'))
                                + _number(headers.get('x-delivery-count')))

    def __repr__(self) -> str:
        return f'<Delivery {self.id!r} of {self.name!r}, attempt {self.attempt}>'

    async def _work(self) -> None:
        """From its arrival to its acknowledgement."""
        session = self._session
        current.set(self)
        session.running[self] = asyncio.current_task()
        try:
            if session.closing:
                return
            try:
                await self._process()
            except BaseException as error:  # SystemExit ends no worker
                if session.supervisor.cancelling():
                    raise
                await self._fail(error)
            self._ack()
        except BaseException as error:
            if session.up.done() and not session.supervisor.cancelling():
                # The broker has to know, or it waits for the acknowledgement.
                session.up.result().drop(ConnectionError('a task was given up'))
            log.warning('%r goes to another worker: %.1000r', self, error,
                        exc_info=not session.supervisor.cancelling())
        finally:
            session.done(self)

    async def _process(self) -> None:
        """Run the handler, and have its result confirmed."""
        # Clocks differ: it waits no longer than what was cut off.
        if self._due and (rest := min(self._cut, self._due - _now())) > EARLY:
            counts = {'x-attempt': self.attempt, 'x-deliveries': self._deliveries}
            await self._resend(self.name, {**counts, 'x-due': self._due}, rest)
            return
        if self._deliveries >= DELIVERY_LIMIT:
            raise RuntimeError(f'{self._deliveries} deliveries, never acknowledged')
        handler = self._handler
        try:
            if self._malformed:
                raise self._malformed
            self._retries = handler.retries
            data = self._body if handler.raw else unpack(self._body)
        except Exception as error:  # it may hold the whole body
            text = f'the message cannot be decoded: {type(error).__name__}: {error}'
            raise ValueError(text) from None
        running = call(handler.function, handler.is_async, data, self._send_part)
        if handler.timeout is not None:  # Speed: asyncio.timeout() costs 15 % of a call
            running = in_time(running, handler.timeout)
        body = pack([None, await running], '[error, result]')
        self._retries = 0  # if the result is refused, so would be that of another run
        end = {'headers': {'parts': self._parts}} if self._parts else {}
        await self._reply(body, **end)

    async def _send_part(self, value: Any) -> bool:
        """Send what a generator has yielded; False if nobody wants more."""
        properties = {'message_type': 'part', 'headers': {'part': self._parts}}
        if self._reply_to and not self._parts:
            with contextlib.suppress(Refused):  # then it can't be cancelled
                await self._session.listen()
        if self._session.listening:
            properties['reply_to'] = self._session.reply_queue
        self._parts += 1
        told = await self._reply(pack([None, value], '[error, result]'), **properties)
        return self._goes_on and (told or not self._reply_to)

    async def _reply(self, body: bytes, **properties: Any) -> bool:
        """Answer the caller; False if there is none, or none any more."""
        if not self._reply_to:
            return False
        properties |= {'correlation_id': self.id, 'content_type': MSGPACK}
        message = _Message(self._reply_to, body, properties)
        told = await self._session.until(_Link.publish, message, queue=self._reply_to)
        if not told:
            log.info('the caller of %r is gone', self)
        return told

    async def _fail(self, error: BaseException) -> None:
        """Have the retry confirmed; or else tell the caller, or leave a dead letter."""
        try:
            pause = self._pause(error)
        except BaseException as of_retry_delay:  # its context is the handler's
            error, pause = of_retry_delay, None
        text, kind = _text(str, error), _text(str, type(error).__qualname__)
        trace = _text(traceback.format_exception, error)
        if pause is not None:
            with contextlib.suppress(Refused):  # to wait for room would block our queue
                # Without x-deliveries: another attempt is not another death.
                await self._resend(self.name, {'x-attempt': self.attempt + 1}, pause)
                log.warning('%r failed, it runs again in %s s: %s: %.1000r', self,
                            pause / 1000, kind, text)
                return
        # Headers fit one frame: three such texts, of up to four bytes a character.
        most = self._capacity // 16
        headers: dict[str, Any] = {'type': kind[-most:], 'traceback': trace[-most:]}
        told, fate = False, 'its caller is told'
        with contextlib.suppress(Refused):
            told = await self._reply(pack([text, None], 'error'), headers=headers)
        if not told or self._deliveries >= DELIVERY_LIMIT:
            # A handler of dead letters has nobody to answer.
            self._reply_to, fate = '', f'it is in {self.name}.dead'
            headers |= {'error': text[:most], 'attempts': self.attempt}
            await self._bury(headers)
        if 'Traceback' not in trace or len(text) > 1000 or len(trace) > 20_000:
            # It cannot be formatted, or is too long for a log.
            brief = RuntimeError(f'{kind:.200}: {text:.1000}')
            error = brief.with_traceback(error.__traceback__)
        log.error('%r failed, %s', self, fate, exc_info=error)

    def _pause(self, error: BaseException) -> int | None:
        """How many ms to wait for the next attempt, if there is one."""
        delay = self._handler.retry_delay if self.attempt <= self._retries else None
        if callable(delay):
            delay = delay(error, self.attempt)
        elif delay is not None:
            delay *= 2 ** min(self.attempt - 1, 32)  # x-attempt may be anything
        return None if delay is None else round(1000 * max(0, min(delay, LONGEST)))

    async def _bury(self, headers: dict[str, Any]) -> None:
        """Leave a dead letter, however long that takes."""
        for attempt in itertools.count():
            with contextlib.suppress(Refused):
                await self._resend(f'{self.name}.dead', headers)
                return
            if attempt == 0:
                log.warning('%r waits: its dead letter is refused', self)
            await asyncio.sleep(REFUSED_PAUSE)

    async def _resend(self, queue: str, headers: dict[str, Any], ms: int = 0) -> None:
        """Send the message on as it came, without what can't be sent again."""
        kept = {key: value for key, value in self.headers.items()
                if is_unchanged(key, value)}
        properties = {
            **self._properties, 'correlation_id': self.id, 'reply_to': self._reply_to,
            'expiration': None, 'user_id': None, 'cluster_id': ''}
        while True:
            properties['headers'] = {**kept, **headers}
            message = _Message(queue, self._body, properties)
            # There is room left for what _delayed() adds.
            if not kept or len(message.header) + 100 < self._capacity:
                return await self._session.send(message, ms)
            del kept[max(kept, key=lambda key: len(repr(kept[key])))]


# ------------------------------------------------------------------------- The line
#
# From here on it is AMQP, which knows nothing of tasks. Down come messages to publish,
# and queues that are wanted. Up go `received(queue, header, body, ack, capacity)` for
# what the broker delivers (capacity: how many bytes of headers may be sent), `broke()`,
# once, when a link is lost, and as results of what was called, whether a message was
# confirmed, and what the broker refuses.


class _Message:
    """What is published to a queue; once it is, `confirm` is what the broker says."""

    confirm: asyncio.Future[bool] | None = None
    suspicion = 0  # the reply code with which the broker refused it, or another one

    def __init__(self, queue: str, body: bytes, properties: dict[str, Any]) -> None:
        self.queue, self.body, self.properties = queue, body, properties
        self.id: str = properties['correlation_id']
        self.header = content_header(len(body), **properties)


# Channels: the role of the connection, and the number there. What the broker refuses
# closes the channel, so what may be refused (suspects, declarations) has its own.
MESSAGES, SUSPECTS = ('publish', 1), ('publish', 2)
CONSUMERS, DECLARATIONS = ('consume', 1), ('consume', 2)

# Seconds that the broker has to answer; with SUSPECT_DEADLINE others wait no longer.
CONNECT_DEADLINE, CLOSE_DEADLINE, SUSPECT_DEADLINE = 10, 5, 5
# Seconds before each further attempt: a quorum queue that is losing its leader refuses,
# as a full one does, without a word (nack).
NACK_PAUSES = (0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
# Reply codes of AMQP's, and words of RabbitMQ's in refusals that may be tolerated.
CONNECTION_FORCED, HARD_ERROR, INTERNAL_ERROR = 320, 500, 541
NOTHING, NOT_PERMITTED, EXISTS_OTHERWISE = '(?!)', 'ACCESS_REFUSED', 'inequivalent arg'


class _Link:
    """Two connections and their channels: what is dropped and built again as one.

    A broker in a memory alarm stops reading from connections that publish. On a
    connection of its own, a worker's acknowledgements still drain the queues then.
    https://www.rabbitmq.com/docs/alarms

    A channel that the broker closes is opened again at once; but without that of the
    consumers the link falls. `broken` is the future of the reason why it fell.
    """

    def __init__(self, address: dict[str, Any], received: Callable[..., None],
                 broke: Callable[[], None], patient: bool) -> None:
        self.address, self.received, self.broke = address, received, broke
        self.name = f'{address["host"]}:{address["port"]}'
        self.pauses = NACK_PAUSES if patient else (0,)
        self.broken: asyncio.Future[None] = asyncio.Future()
        self.connections: dict[str, _Connection] = {}
        self.consumers: dict[str, asyncio.Future[Any]] = {}
        self.alone = asyncio.Lock()  # held while one suspect is sent
        self.silent = False  # whether messages that are no suspects wait for it, too

    async def open(self, wanted: list[_Wanted]) -> None:
        """Connect, and consume from the queues that are wanted."""
        async with asyncio.timeout(CONNECT_DEADLINE):
            await self.connect('publish')
            await self.connect('consume')
            for place in MESSAGES, SUSPECTS, CONSUMERS, DECLARATIONS:
                await self.channel(place).opened
        await self.consume(wanted, f'{NOT_PERMITTED}|{EXISTS_OTHERWISE}')
        self.channel(CONSUMERS)  # raises if the link was lost meanwhile

    async def connect(self, role: str) -> None:
        loop, address = asyncio.get_running_loop(), self.address
        # One of the addresses of a name may be silent. uvloop tries them in turn.
        is_asyncio = isinstance(loop, asyncio.BaseEventLoop)
        eyeballs: Any = {'happy_eyeballs_delay': 0.25} if is_asyncio else {}
        _, connection = await loop.create_connection(
            lambda: _Connection(self, role), address['host'], address['port'],
            ssl=address['ssl'], **eyeballs)
        await connection.start_connection(  # which doesn't look at a host and a port
            '', 0, address['login'], address['password'], address['virtualhost'])

    def drop(self, why: BaseException) -> None:
        """Give it up. The first reason counts: those that come later follow from it."""
        if isinstance(why, TimeoutError) and not why.args:
            why = TimeoutError(f'no answer in {CONNECT_DEADLINE} seconds')
        if _settle(self.broken, why):
            self.broke()
        for connection in self.connections.values():
            connection.transport.abort()

    def hang_up(self) -> None:
        """Close the sockets, without the event loop."""
        for connection in self.connections.values():
            connection.transport.get_extra_info('socket').shutdown(socket.SHUT_RDWR)

    def channel(self, place: tuple[str, int]) -> _Channel:
        if self.broken.done():
            raise ConnectionError('the link is broken')
        role, number = place
        return self.connections[role].numbered[number]

    async def publish(self, message: _Message) -> bool:
        """Publish until it is confirmed; False if there is no such queue.

        When the broker refuses a message, it closes the channel, or even the
        connection, and doesn't say which one it was. All that were unconfirmed are
        suspects, and sent again, one at a time: see `_Channel.fail()`.
        """
        pauses = iter(self.pauses)
        while True:
            try:
                connection = self.connections['publish']
                if connection._paused:  # by asyncio, while the broker reads nothing
                    with contextlib.suppress(OSError):
                        await connection._drain_helper()
                if not (message.suspicion or (self.silent and self.alone.locked())):
                    return await self.channel(MESSAGES).publish(message)
                # Who costs a connection is found only while nothing else is sent.
                self.silent |= message.suspicion >= HARD_ERROR
                async with self.alone:  # the next suspect waits, but not for ever
                    confirm = self.channel(SUSPECTS).publish(message)
                    await asyncio.wait([confirm], timeout=SUSPECT_DEADLINE)
                return await confirm
            except Refused as error:
                pause = None if error.code else next(pauses, None)  # 0: a nack
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    async def declare(self, wanted: _Wanted, tolerated: str,
                      deadline: float | None = None) -> None:
        """Declare a queue; a refusal in which `tolerated` is found is none."""
        declare = amqp.Queue.Declare(
            queue=wanted.name, durable=True, arguments=wanted.arguments)
        try:
            await _outcome(self.channel(DECLARATIONS).call(declare), deadline)
        except Refused as refused:
            if not re.search(tolerated, str(refused)):
                raise

    async def consume(self, queues: list[_Wanted], tolerated: str) -> None:
        """Declare queues, all of them, then consume from them.

        Each answer has its deadline, and counts if it is there: what the first queues
        deliver may block the event loop, and there may be many queues.
        """
        for wanted in queues:
            await self.declare(wanted, tolerated, CONNECT_DEADLINE)
        for wanted in queues:
            if wanted.name not in self.consumers:
                self.consumers[wanted.name] = self.consumer(wanted)
            await _outcome(self.consumers[wanted.name], CONNECT_DEADLINE)

    def consumer(self, wanted: _Wanted) -> asyncio.Future[Any]:
        # Only quorum queues take this, since RabbitMQ 4.3; it is in ms.
        # https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout
        is_quorum = wanted.arguments.get('x-queue-type') == 'quorum'
        patience: Any = {'x-consumer-timeout': 2**31 - 1} if is_quorum else {}
        channel = self.channel(CONSUMERS)
        channel.call(amqp.Basic.Qos(prefetch_count=wanted.prefetch_count))
        return channel.call(amqp.Basic.Consume(
            queue=wanted.name, consumer_tag=wanted.name, arguments=patience))

    def cancel(self, wanted: _Wanted) -> None:
        """Consume no more from a queue."""
        if wanted.arguments.get('x-single-active-consumer'):
            return  # it ends with the link: the next one has to wait for what runs here
        consumer = self.consumers.get(wanted.name)
        if consumer and not consumer.done():
            # RabbitMQ's channel crashes over a cancellation that overtakes ConsumeOk.
            consumer.add_done_callback(lambda _: self.cancel(wanted))
        elif self.consumers.pop(wanted.name, None) and not self.broken.done():
            self.channel(CONSUMERS).call(amqp.Basic.Cancel(consumer_tag=wanted.name))

    async def close(self, temporary: list[_Wanted]) -> None:
        """Delete queues, and say goodbye, on both connections: one may be blocked."""
        with contextlib.suppress(Exception):  # whatever is broken, it is over
            async with asyncio.timeout(CLOSE_DEADLINE):
                for queue in temporary:
                    self.cancel(queue)
                    delete = amqp.Queue.Delete(queue=queue.name)
                    await self.channel(CONSUMERS).call(delete)
                if _settle(self.broken, ConnectionError('closed')):
                    self.broke()  # nothing more is sent
                goodbyes = [each.close() for each in self.connections.values()]
                await asyncio.gather(*goodbyes)


METHOD, HEADER, BODY = 1, 2, 3  # the types of frames
BASIC_RETURN, BASIC_DELIVER = b'\x00\x3c\x00\x32', b'\x00\x3c\x00\x3c'
BASIC_ACK, BASIC_NACK = b'\x00\x3c\x00\x50', b'\x00\x3c\x00\x78'
FRAME = struct.Struct('>BHI')  # type, channel, size; payload and CE follow
# A frame of Basic.Ack, but for the delivery tag, and 1 for 'all up to it', else 0.
ACK = FRAME.pack(METHOD, CONSUMERS[1], 13) + BASIC_ACK + b'%b%c\xce'


class _Channel:
    """A channel: the broker answers calls, confirms messages and delivers others.

    What each message needs is packed and parsed here, all else by pamqp.
    """

    def __init__(self, connection: _Connection, number: int) -> None:
        self.connection, self.number = connection, number
        self.capacity = connection.connection_tunning['frame_max'] - 8
        # What the broker has not answered: calls, and messages by their delivery tags.
        self.calls: dict[asyncio.Future[Any], list[str]] = {}  # what may answer them
        self.unconfirmed: dict[int, tuple[_Message, asyncio.Future[bool]]] = {}
        self.tags = itertools.count(1)
        # Delivery tags of what came in and isn't acknowledged.
        # Speed: the first key of a dict takes long to find after many removals.
        self.unacked: OrderedDict[int, None] = OrderedDict()
        # It is sent the payload of each frame, and says which type has to come next.
        self.frames = self.receive()
        self.expected = next(self.frames)
        self.call(amqp.Channel.Open())
        self.opened = self.call(amqp.Confirm.Select())

    def call(self, method: Any) -> asyncio.Future[Any]:
        """Send a method; the future is the broker's answer."""
        self.connection.send(marshal(method, self.number))
        answer = self.connection.loop.create_future()
        self.calls[answer] = method.valid_responses
        return answer

    def publish(self, message: _Message) -> asyncio.Future[bool]:
        """Publish a message; the future is False for what came back."""
        header, body = message.header, message.body
        if len(header) > self.capacity:
            raise ValueError(f'headers of {len(header)} bytes: {self.capacity} at most')
        publish = _publish_frame(self.number, message.queue)
        self.connection.send(publish + packed(HEADER, self.number, header))
        for at in range(0, len(body), self.capacity):
            self.connection.send(packed(BODY, self.number, body[at:at + self.capacity]))
        message.confirm = confirm = self.connection.loop.create_future()
        self.unconfirmed[next(self.tags)] = message, confirm
        return confirm

    def ack(self, delivery_tag: int) -> None:
        """Acknowledge a message.

        Speed: each frame costs the broker some time. When the oldest one has ended, all
        up to it has: flush() makes one frame of these, after all others (drain x 1.4).
        """
        oldest = next(iter(self.unacked))
        del self.unacked[delivery_tag]
        if delivery_tag == oldest:
            self.connection.acked = delivery_tag
            self.connection.send(b'')  # so that flush() runs
        else:
            self.connection.send(ACK % (delivery_tag.to_bytes(8), False))

    def fail(self, error: Exception, alone: bool = False) -> None:
        """The channel is closed: tell all who wait.

        The error is about the first call without an answer, or about one of the
        messages without a confirm. Only if that is a suspect, and was `alone`, it is
        known which one; the others are suspects from now on, and sent again.
        """
        for tag in [*self.unconfirmed]:  # emptied: the error's traceback leads to it
            message, confirm = self.unconfirmed.pop(tag)
            guilty = alone and message.suspicion
            if isinstance(error, Refused):
                message.suspicion = error.code
            _settle(confirm, error if guilty else ConnectionError('closed over it?'))
        for answer in self.calls:
            _settle(answer, error)
            error = ConnectionError('closed over another call')

    def receive(self) -> Generator[int, bytes, None]:
        while True:
            method = yield METHOD
            if method.startswith((BASIC_ACK, BASIC_NACK)):
                self.confirmed(method)
            elif method.startswith((BASIC_DELIVER, BASIC_RETURN)):
                header, body = (yield HEADER), bytearray()
                size = int.from_bytes(header[4:12])
                while len(body) < size:
                    body += yield BODY
                if len(body) > size:
                    raise ValueError('a body that is too long')
                if method.startswith(BASIC_DELIVER):
                    self.delivered(method, header, bytes(body))
                else:
                    self.returned(method, header)
            else:
                self.method_received(unmarshal(packed(METHOD, self.number, method))[2])

    def method_received(self, method: Any) -> None:
        connection = self.connection
        if method.name == 'Channel.Close':
            # After Close-Ok this channel is none: what was gathered goes out before.
            connection.send(marshal(amqp.Channel.CloseOk(), self.number))
            connection.numbered[self.number] = _Channel(connection, self.number)
            refused = Refused(method.reply_text, method.reply_code)
            self.fail(refused, alone=len(self.unconfirmed) == 1)
            if (connection.role, self.number) == CONSUMERS:
                connection.link.drop(refused)
        elif method.name == 'Basic.Cancel':  # its queue was deleted, perhaps
            connection.link.drop(ConnectionError(f'cancelled: {method.consumer_tag!r}'))
        else:
            # RabbitMQ answers in the order of the calls, but for Basic.Consume.
            answer = next(each for each, names in self.calls.items()
                          if method.name in names)
            del self.calls[answer]
            _settle(answer, method)

    def delivered(self, method: bytes, header: bytes, body: bytes) -> None:
        end = 5 + method[4]  # of the consumer tag, our queue; the delivery tag follows
        queue, tag = method[5:end].decode(), int.from_bytes(method[end:end + 8])
        self.unacked[tag] = None
        ack = functools.partial(self.ack, tag)
        self.connection.link.received(queue, header, body, ack, self.capacity)

    def returned(self, method: bytes, header: bytes) -> None:
        """An unroutable message: its ack comes next, and doesn't mention it.

        A return has no tag; but messages of one id to one queue are alike.
        """
        back: Any = unmarshal(packed(METHOD, self.number, method))[2]
        what = back.routing_key, unpack_properties(header)['correlation_id']
        for message, confirm in self.unconfirmed.values():
            if (message.queue, message.id) == what and _settle(confirm, False):
                break

    def confirmed(self, method: bytes) -> None:
        tags = [int.from_bytes(method[4:12])]
        if method[12] & 1:  # multiple: all up to this one
            tags = list(itertools.takewhile(tags[0].__ge__, self.unconfirmed))
        is_nack = method.startswith(BASIC_NACK)
        outcome = Refused('refused, without a word: queue full?') if is_nack else True
        for tag in tags:
            _settle(self.unconfirmed.pop(tag)[1], outcome)  # unless it came back


# RabbitMQ adds to headers, and sends them in one frame, whatever the frame_max is.
HEADER_LIMIT = 2**20
MANY = 48  # Speed: pieces that are gathered: those of 24 small messages
CAPABILITIES = {'authentication_failure_close': True, 'consumer_cancel_notify': True,
                'connection.blocked': True}


class _Connection(aioamqp.AmqpProtocol):  # type: ignore[misc, unused-ignore]
    """A connection: aioamqp opens and closes it, and has its heartbeats.

    Frames are taken here out of what the socket gives, wherever it was cut. Those of
    channel 0 go on to aioamqp.
    """

    def __init__(self, link: _Link, role: str) -> None:
        name = f'aioqueue {socket.gethostname()}:{os.getpid()} {role}'
        # Of the address aioamqp takes heartbeat, frame_max and channel_max.
        super().__init__(**{**link.address, 'client_properties': {
            'product': 'aioqueue', 'version': __version__, 'connection_name': name,
            **link.address['client_properties'], 'capabilities': CAPABILITIES}})
        self.link, self.role, self.loop = link, role, asyncio.get_running_loop()
        self.numbered: dict[int, _Channel] = {}
        self.acked = 0  # all of CONSUMERS up to this delivery tag, when frames go out
        self.outgoing: list[bytes] = []
        self.incomplete = b''  # the start of a frame

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.transport = transport
        self.link.connections[self.role] = self
        # When the peer is silent aioamqp closes, which waits for what is unwritten.
        self._stream_writer.close = transport.abort

    def eof_received(self) -> None:
        """Nothing: aioamqp hears of it after us, when the connection is lost."""

    def connection_lost(self, exc: Exception | None) -> None:
        if self.state != aioamqp.protocol.CLOSING:  # its end doesn't abort the other
            self.link.drop(exc or ConnectionError('closed by the peer'))
        super().connection_lost(exc)
        for channel in self.numbered.values():
            channel.fail(ConnectionError('the connection was lost'))

    def control_received(self, frame: bytes) -> None:
        """Look at a frame of channel 0, and pass it on."""
        method: Any = unmarshal(frame)[2]
        if method.name == 'Connection.Tune':  # the lower limit counts; its 0 is none
            limits = self.connection_tunning
            for name in 'frame_max', 'channel_max':
                limits[name] = min(limits[name], getattr(method, name) or limits[name])
        elif method.name == 'Connection.OpenOk' and not self.numbered:
            self.numbered = {number: _Channel(self, number) for number in (1, 2)}
        elif method.name == 'Connection.Close':
            self.transport.write(marshal(amqp.Connection.CloseOk(), 0))
            self.link.drop(refused := Refused(method.reply_text, method.reply_code))
            if refused.code != CONNECTION_FORCED:  # but over what was sent
                channels = self.numbered.values()
                alone = sum(len(each.unconfirmed) for each in channels) == 1
                for channel in channels:
                    channel.fail(refused, alone)
        elif method.name in ('Connection.Blocked', 'Connection.Unblocked'):
            log.warning('%s: %s %.1000r', self.link.name, method.name, dict(method))
        super().data_received(frame)

    def send(self, data: bytes) -> None:
        """Write after all that can run now.

        Speed: one system call for many frames; but not for all of them, so that the
        broker works on the first while we make more (drain x 1.14).
        """
        if not self.outgoing:
            self.loop.call_soon(self.flush)
        self.outgoing.append(data)
        if len(self.outgoing) >= MANY:
            self.flush()

    def flush(self) -> None:
        if self.acked:
            self.outgoing.append(ACK % (self.acked.to_bytes(8), True))
            self.acked = 0
        if self.outgoing and not self.transport.is_closing():
            self.transport.write(b''.join(self.outgoing))
        self.outgoing.clear()

    def data_received(self, data: bytes) -> None:
        self._heartbeat_timer_recv_reset()
        data = self.incomplete + data
        try:
            self.incomplete = data[self.take_frames(data):]
        except Exception as error:
            said = '' if self.numbered else f': {data[:40]!r}'  # no body of a task
            self.link.drop(ConnectionError(f'this is no AMQP: {error!r}{said}'))

    def take_frames(self, data: bytes) -> int:
        """Hand out the complete frames: where they end."""
        start, size, capacity = 0, len(data), self.connection_tunning['frame_max'] - 8
        while size - start >= 7:
            kind, number, length = FRAME.unpack_from(data, start)
            end = start + 7 + length  # of the payload; the octet CE ends the frame
            most = HEADER_LIMIT if kind == HEADER else capacity
            if length > most or (end < size and data[end] != 0xCE):
                raise ValueError('this is no frame')
            if end >= size:
                break
            if number:
                channel = self.numbered[number]
                if kind != channel.expected:
                    raise ValueError('a frame out of order')
                channel.expected = channel.frames.send(data[start + 7:end])
            else:
                self.control_received(data[start:end + 1])
            start = end + 1
        return start


# ----------------------------------------------------------------- What is only bytes


def packed(kind: int, channel: int, payload: bytes) -> bytes:
    """A frame. https://www.rabbitmq.com/amqp-0-9-1-protocol, 2.3.5"""
    return b'%b%b\xce' % (FRAME.pack(kind, channel, len(payload)), payload)


@functools.lru_cache(1024)  # Speed: one for each queue and each caller
def _publish_frame(channel: int, queue: str) -> bytes:
    return marshal(amqp.Basic.Publish(routing_key=queue, mandatory=True), channel)


def content_header(size: int, correlation_id: str, content_type: str = '',
                   reply_to: str = '', **unusual: Any) -> bytes:
    """The payload of a content header frame: the size of the body and properties.

    That is class, weight, size, the flags that say which properties follow, and these,
    each after its length. Speed: nearly every message has the same few (calls x 1.4).
    The others are made by pamqp, which leaves out None and ''.
    """
    if unusual or not content_type:
        unusual |= {'content_type': content_type, 'correlation_id': correlation_id,
                    'delivery_mode': 2, 'reply_to': reply_to}
        return ContentHeader(0, size, amqp.Basic.Properties(**unusual)).marshal()
    kind, ident, to = content_type.encode(), correlation_id.encode(), reply_to.encode()
    header = b'\0\x3c\0\0%b%c\0%c%b\x02%c%b' % (
        size.to_bytes(8), 0x96 if to else 0x94, len(kind), kind, len(ident), ident)
    return b'%b%c%b' % (header, len(to), to) if to else header


def unpack_properties(header: bytes) -> dict[str, Any]:
    """Decode the payload of a content header frame. Raises whatever pamqp does."""
    if header[12:14] in (b'\x94\0', b'\x96\0'):  # Speed: as content_header() makes it
        kind = 15 + header[14]
        ident = kind + 2 + header[kind + 1]
        return {'content_type': header[15:kind].decode(),
                'correlation_id': header[kind + 2:ident].decode(),
                'reply_to': header[ident + 1:].decode()}
    if header[13] & 1:  # pamqp before 4.0.1 would look for more for ever
        raise ValueError('more flags than there are properties')
    content = ContentHeader()
    content.unmarshal(header)
    return {name: value for name, value in content.properties if value is not None}


def is_unchanged(key: str, value: Any) -> bool:
    """Whether pamqp reads a header as it wrote it: not a longer float, for one."""
    try:
        table = encode.field_table({key: value})
        return bool(decode.field_table(table)[1] == {key: value})
    except Exception:
        return False


# --------------------------------------------- Helpers, of Python rather than of queues


class _Log(logging.LoggerAdapter[logging.Logger]):
    """What a handler of the log raises goes to stderr: it costs no task and no link."""

    def log(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().log(*args, stacklevel=2, **kwargs)
        except Exception:
            with contextlib.suppress(Exception):
                traceback.print_exc()


log = _Log(logger)

# Speed: since Python 3.12 a task can run at once, up to its first pause.
start_task: Any = getattr(
    asyncio, 'eager_task_factory', lambda loop, coroutine: loop.create_task(coroutine))


def run_to_its_end(coroutine: Coroutine[Any, Any, None]) -> None:
    """`asyncio.run()`, but a SystemExit of another asyncio task doesn't end it."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        main = loop.create_task(coroutine)
        while not main.done():
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                loop.run_until_complete(main)
        main.result()


@contextlib.contextmanager
def cancelled_by_signals() -> Generator[None, None, None]:
    """SIGINT or SIGTERM cancel this asyncio task; a second one ends the process."""
    loop, signals = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
    main: Any = asyncio.current_task()

    def stop(*_: object) -> None:
        for signum in signals:  # SIG_DFL would mean 'ignore' to process 1
            signal.signal(signum, lambda second, _: os._exit(128 + second))
        loop.call_soon_threadsafe(main.cancel)

    with contextlib.ExitStack() as stack:
        # loop.add_signal_handler() would hear the signals of a forked process, too.
        for signum in signals:
            stack.callback(signal.signal, signum, signal.signal(signum, stop))
        if hasattr(os, 'register_at_fork'):  # a handler's child just ends by them
            os.register_at_fork(after_in_child=stack.close)
        yield


BACKGROUND: dict[int, asyncio.AbstractEventLoop] = {}  # of each process
IN_BACKGROUND = weakref.WeakSet[Queue]()


def _loop_to_run_in(queue: Queue) -> asyncio.AbstractEventLoop:
    """That of the open Queue; or else one in a thread, for all of this process."""
    session = queue._session
    if session and session.is_open and session.loop.is_running():
        return session.loop
    IN_BACKGROUND.add(queue)
    new = asyncio.new_event_loop()
    # Of several threads one is the first, without a lock that a fork could inherit.
    loop = BACKGROUND.setdefault(os.getpid(), new)
    if loop is not new:
        new.close()
        return loop
    try:
        threading.Thread(target=run_for_ever, args=[loop], daemon=True).start()
    except RuntimeError:  # there may be room for a thread later
        del BACKGROUND[os.getpid()]
        raise
    return loop


def run_for_ever(loop: asyncio.AbstractEventLoop) -> None:
    while True:  # a SystemExit of one asyncio task ends no other
        with contextlib.suppress(SystemExit):
            loop.run_forever()


@atexit.register
def close_background() -> None:
    for queue in [*IN_BACKGROUND] if os.getpid() in BACKGROUND else ():
        with contextlib.suppress(Exception):
            queue.run(queue.close(CLOSE_DEADLINE))


def run_in_loop(coroutine: Coroutine[Any, Any, R],
                loop: asyncio.AbstractEventLoop) -> R:
    """Run a coroutine in the event loop of another thread: its result."""
    running = asyncio.run_coroutine_threadsafe(coroutine, loop)
    while not concurrent.futures.wait([running], timeout=1).done:
        if not loop.is_running():  # a loop that ends forgets what it had not begun
            raise ConnectionError(CLOSED)
    return running.result()


SendPart = Callable[[Any], Coroutine[Any, Any, bool]]


async def call(function: Callable[[Any], Any], is_async: bool, data: Any,
               send_part: SendPart) -> Any:
    """Call a function, plain or async, with one argument: what it returns.

    `send_part` gets each value that a generator yields, and says whether to go on.
    """
    if is_async:
        result = function(data)
    else:
        result = await in_thread(function, data, send_part, asyncio.get_running_loop())
    if inspect.isasyncgen(result):
        async with contextlib.aclosing(result):
            async for value in result:
                if not await send_part(value):
                    break
        return []
    return await result if inspect.isawaitable(result) else result


def call_plain(function: Callable[[Any], Any], data: Any, send_part: SendPart,
               loop: asyncio.AbstractEventLoop) -> Any:
    """The same in a thread: all steps of a generator run in this one."""
    result = function(data)
    if not inspect.isgenerator(result):
        return result
    with contextlib.closing(result):
        for value in result:
            if not run_in_loop(send_part(value), loop):
                break
    return []


async def in_thread(*args: Any) -> Any:
    """Call `call_plain(*args)` in a thread of its own.

    Those of `asyncio.to_thread` are few, and the interpreter waits for them at its end:
    a handler that hangs would keep a stopped worker alive.
    """
    done: concurrent.futures.Future[Any] = concurrent.futures.Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(call_plain(*args))
        except StopIteration as error:  # no coroutine can get it
            done.set_exception(RuntimeError(repr(error)))
        except BaseException as error:
            done.set_exception(error)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=[run], daemon=True).start()
    return await asyncio.wrap_future(done)


async def in_time(running: Awaitable[R], seconds: float) -> R:
    try:
        async with asyncio.timeout(seconds) as limit:
            return await running
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise TimeoutError(f'it ran longer than {seconds} seconds') from error


# 0.2 sent integer keys; timestamp=3 makes an aware datetime of msgpack's timestamp.
unpack = functools.partial(msgpack.unpackb, strict_map_key=False, timestamp=3)


def pack(value: Any, what: str) -> bytes:
    """The bytes of a value; an error says where in it is what msgpack can't carry."""
    try:
        # Speed: packb() would do the same, in one more function (enqueue 3 %).
        body: bytes = msgpack.Packer(datetime=True).pack(value)
        return body
    except Exception as error:
        inner = value if isinstance(value, dict) else {}
        if isinstance(value, (list, tuple)):
            inner = dict(enumerate(value))
        for key, child in inner.items() if len(what) < 1000 else ():  # perhaps circular
            pack(child, f'{what}[{key!r:.100}]')
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f'{what:.1000} is of type {type(value).__name__}: {error!s:.200}. '
                   'Send str() of a UUID or Decimal, asdict() of a dataclass, '
                   'model_dump(mode="json") of a pydantic model; a datetime needs a '
                   'time zone') from None


def _value(headers: dict[str, Any], body: bytes) -> Any:
    """What a reply says: the value, or the failure is raised."""
    error, value = unpack(body)
    if error is not None:
        raise RemoteException(error, headers.get('type'), headers.get('traceback'))
    return value


def _address(host: str, port: int | None, ssl: bool | tls.SSLContext, *,
             login: str = 'guest', password: str = 'guest', virtualhost: str = '/',
             heartbeat: int = 60, frame_max: int = 131_072, channel_max: int = 2,
             client_properties: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a connection needs to know. No error shows a part of the password."""
    properties = client_properties or {}
    _check_limits(
        port=port, heartbeat=heartbeat, frame_max=frame_max, channel_max=channel_max)
    try:  # what urllib and pamqp say of it may hold the password
        marshal(amqp.Connection.StartOk(properties, response=login + password), 0)
        url = urlsplit(host if '://' in host else 'amqp://' + host)
        secure = ssl or url.scheme == 'amqps'
        port = url.port or port or (5671 if secure else 5672)
        misread = url.query or '@' in url.path + url.fragment  # a ? / # in a password
        if url.scheme not in ('amqp', 'amqps') or misread:
            raise ValueError
    except Exception:
        raise ValueError(
            'host is a name or amqp(s)://user:password@host:port/vhost, with its parts '
            'percent-encoded, as by urllib.parse.quote(password, ""); login, password '
            'and client_properties are such as AMQP can carry') from None
    return {
        'host': url.hostname or 'localhost', 'port': port, 'ssl': secure,
        'login': unquote(url.username or '') or login,
        'password': unquote(url.password or '') or password,
        'virtualhost': unquote(url.path[1:]) or virtualhost, 'heartbeat': heartbeat,
        'frame_max': frame_max, 'channel_max': channel_max,
        'client_properties': properties}


NAME = re.compile(r'(?!amq\.)[a-zA-Z0-9\-_.:@#,/+ ]{1,230}')  # .delay.MS has room


@functools.lru_cache(1024)
def _check_name(name: str) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError("a queue name, as in @q.on('name'), is a str of up to 230 "
                         f'letters, digits, spaces or -_.:@#,/+, not {name!r}')


def _check_function(function: Callable[..., Any], name: str,
                    timeout: float | None) -> bool:
    """Whether it is async."""
    is_async = (inspect.iscoroutinefunction(function)
                or inspect.isasyncgenfunction(function))
    if timeout is not None and not is_async:
        raise ValueError(f'timeout of {name!r}: a plain function runs in a thread, and '
                         'no thread can be stopped; make it async')
    try:
        inspect.signature(function).bind('data')
    except TypeError as error:
        raise TypeError(f'the handler of {name!r} is called with one argument, the '
                        f'data of the task: {error}') from None
    return is_async


LONGEST = 10 * 365 * 86_400.0  # seconds: RabbitMQ takes no longer x-message-ttl
# The least and the most of arguments, which are integers where 0 is no 0.0. Without
# heartbeats aioamqp spins, and RabbitMQ 4 hangs up over smaller frames.
LIMITS: dict[str, tuple[float, float]] = {
    'port': (1, 65_535), 'heartbeat': (1, 65_535), 'frame_max': (8192, 2**31),
    'channel_max': (2, 65_535), 'retry': (0.001, LONGEST), 'retries': (0, 2**31),
    'prefetch_count': (1, 65_535), 'retry_delay': (0.0, LONGEST), 'priority': (0, 255),
    'timeout': (0.0, LONGEST), 'delay': (0.0, LONGEST), 'expires': (0.0, LONGEST)}


def _check_limits(**arguments: Any) -> None:
    for name, value in arguments.items():
        least, most = LIMITS[name]
        kind = type(least)
        fits = isinstance(value, (int, kind))
        if value is None or (fits and least <= value <= most):
            continue
        error = ValueError if fits else TypeError
        raise error(f'{name}: {kind.__name__}, {least} to {most}, not {value!r:.99}')


# A message loses these headers on its way, and none is sent with them. RabbitMQ drops
# what it takes for a cycle of dead letters, routes by CC and BCC, counts deliveries;
# others are ours. https://www.rabbitmq.com/docs/dlx#automatic-dead-letter-cycles
RESERVED = re.compile(
    'x-(first-|last-)?death.*|CC|BCC|x-(delivery|acquired)-count|'
    'x-(attempt|deliveries|due|cut)', re.DOTALL)


def _checked(headers: Any) -> dict[str, Any]:
    if not isinstance(headers, dict):
        raise TypeError(f'headers is a dict, not {type(headers).__name__}')
    for key, value in headers.items():
        if RESERVED.fullmatch(key):
            raise ValueError(f'the header {key!r} is one of RabbitMQ or of aioqueue')
        if _has_float(value) or not is_unchanged(key, value):
            raise TypeError(f'the header {key!r}: pamqp cannot send {value!r:.1000} '
                            'unchanged; send str() of it, or an int')
    return dict(headers)


def _has_float(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, float) or (
        isinstance(value, list) and any(map(_has_float, value)))


def _number(header: Any) -> int:
    """A count in a header, which anybody may have set to anything."""
    return header if isinstance(header, int) else 0


def _now() -> int:
    """Milliseconds since the epoch."""
    return round(time.time() * 1000)


def _text(describe: Callable[[Any], str | list[str]], value: Any) -> str:
    """A description of whatever a handler raised, as text that can be sent."""
    try:
        text = ''.join(describe(value))
    except BaseException:
        text = f'{type(value).__name__}, which cannot be described'
    return text[:500_000].encode('utf-8', 'backslashreplace').decode()


def _is_final(error: BaseException | None) -> bool:
    """Waiting can't mend it: the broker refuses us, TLS does, or what was passed."""
    if isinstance(error, Refused):
        return error.code not in (CONNECTION_FORCED, INTERNAL_ERROR)
    # An SSLCertVerificationError is a ValueError; other kinds of SSLError may pass.
    return (not isinstance(error, (OSError, aioamqp.AioamqpException))
            or isinstance(error, ValueError) or type(error) is tls.SSLError)


def _settle(future: asyncio.Future[Any], outcome: Any) -> bool:
    """Give a future its result or exception; False if it has one, or is cancelled."""
    if future.done():
        return False
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
        future.exception()  # or asyncio complains, if nobody ever waits for it
    else:
        future.set_result(outcome)
    return True


async def _ended(tasks: Any, timeout: float | None) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=timeout)


async def _outcome(future: asyncio.Future[R], timeout: float | None = None) -> R:
    """Await a future that others await, too: it isn't cancelled with us."""
    await asyncio.wait([future], timeout=timeout)
    if not future.done():
        raise TimeoutError
    return future.result()
