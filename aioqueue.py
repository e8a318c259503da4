"""A task queue for asyncio on RabbitMQ, in one file.

The worker::

    import aioqueue

    q = aioqueue.Queue()

    @q.on('add')
    async def add(numbers):
        return sum(numbers)

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

The file is a house of six rooms, one above the other. A message goes straight down or
straight up:

- Queue: what a user holds. It keeps a link to the broker up.
- Task: what was sent, and the replies to it.
- Delivery: what came in. It runs the handler, and acknowledges what is done.
- _Link: two connections that live and die together.
- _Channel: AMQP. Calls are answered in their order, messages are confirmed.
- _Connection: bytes. Whole frames in, many frames out in one write.
"""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import dataclasses
import functools
import inspect
import itertools
import json
import logging
import os
import re
import signal
import ssl as tls
import struct
import threading
import time
import traceback
import weakref
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Self, TypeVar
from urllib.parse import unquote, urlsplit

import aioamqp  # type: ignore[import-untyped]
import msgpack  # type: ignore[import-untyped]
from aioamqp.protocol import AmqpProtocol  # type: ignore[import-untyped]
from pamqp import commands as amqp
from pamqp.frame import marshal, unmarshal
from pamqp.header import ContentHeader

__all__ = ('Delivery', 'Queue', 'Refused', 'RemoteException', 'Task', 'current')
__version__ = '1.0.0'

logger = logging.getLogger('aioqueue')

CONNECT_DEADLINE, CLOSE_DEADLINE = 10, 5  # seconds that the broker has to answer
REPLY_QUEUE_EXPIRES = 3_600_000  # ms that replies wait for a lost caller to come back
DELAY_SLOT = 600  # seconds in which delayed tasks share a queue, see _Link.send()
LONGEST_DELAY = 365 * 86_400  # seconds between retries; RabbitMQ takes up to ten years
# A quorum queue counts deliveries. A task that was delivered this often without being
# acknowledged is taken to kill its workers; RabbitMQ 4 would drop it at 20, silently.
# https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling
DELIVERY_LIMIT = 10
# Seconds between attempts: a quorum queue that is losing its leader refuses, as a full
# one does, without a word.
NACK_PAUSES = (0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
# How a quorum queue passes on what is due: for that it may refuse a message.
# https://www.rabbitmq.com/docs/quorum-queues#dead-lettering
AT_LEAST_ONCE = {'x-dead-letter-strategy': 'at-least-once',
                 'x-overflow': 'reject-publish'}
REFUSED_PAUSE = 5  # seconds until a refused dead letter is sent again

NAME = re.compile(r'(?!amq\.)[a-zA-Z0-9\-_.:@#,/+ ]{1,230}')  # .delay.MS.N has room
MSGPACK, RAW = 'application/msgpack', 'application/octet-stream'
OPTIONS = {'login', 'password', 'virtualhost', 'login_method', 'insist', 'heartbeat',
           'channel_max', 'frame_max', 'client_properties'}
# A message loses these headers on its way: by them the broker would take a retry for a
# cycle of dead letters, and drop it.
# https://www.rabbitmq.com/docs/dlx#automatic-dead-letter-cycles
PAST = ('x-death', 'x-first-death-', 'x-last-death-', 'x-delivery-count',
        'x-acquired-count', 'x-attempt')

F = TypeVar('F', bound=Callable[..., Any])

#: Inside a handler, plain ones too, `current.get()` is the `Delivery` being run.
current: contextvars.ContextVar['Delivery'] = contextvars.ContextVar('aioqueue.current')

pack = functools.partial(msgpack.packb, datetime=True)
# 0.2 sent integer keys; timestamp=3 makes an aware datetime of msgpack's timestamp.
unpack = functools.partial(msgpack.unpackb, strict_map_key=False, timestamp=3)


class RemoteException(Exception):
    """The handler failed: `str()` is its error, `type` and `traceback` are texts."""

    def __init__(self, error: str, type: str | None = None,
                 traceback: str | None = None) -> None:
        super().__init__(error)
        self.type, self.traceback = type, traceback


class Refused(Exception):
    """The broker said no: `str()` is what it said, `code` AMQP's reply code.

    `code` is 0 for a message it refused without a word (nack), as a full queue with
    `x-overflow: reject-publish` does.
    """

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


@dataclasses.dataclass
class _Settings:
    """Those of a queue, and of its handler if it has one: see `Queue.on()`."""

    arguments: dict[str, Any]
    prefetch_count: int = 0
    function: Callable[..., Any] | None = None
    is_async: bool = False
    raw: bool = False
    retries: int = 0
    retry_delay: float = 0
    timeout: float | None = None

    def __post_init__(self):
        """Make what belongs to an event loop."""
        self.slots = asyncio.Semaphore(self.prefetch_count)


class Queue:
    """A connection to RabbitMQ that sends tasks, and runs those it has handlers for.

    `host` is a name, an `amqp://user:password@host:port/vhost` or `amqps://` URL
    (percent-encoded), or a list of either: the nodes of one cluster, tried in turn.
    `port` is 5672, or 5671 with TLS. `ssl` is True or an `ssl.SSLContext`. `log_level`
    sets the level of the logger `aioqueue`. `retry` is the number of seconds between
    attempts to connect; with False the start raises when all hosts have failed once.
    `quorum=True` makes every queue declared here a quorum queue. `connect_kwargs` go to
    aioamqp: `login`, `password`, `virtualhost`, `heartbeat` (seconds, at least 1),
    `frame_max` (bytes, at least 8192), `channel_max`, `client_properties`.

    Raises `TypeError` or `ValueError` for what can't be used.
    """

    def __init__(self, host: str | list[str] = 'localhost', port: int | None = None,
                 ssl: bool | tls.SSLContext = False, log_level: int | str | None = None,
                 retry: float = 5, *, quorum: bool = False, **connect_kwargs: Any):
        if log_level is not None:
            logger.setLevel(log_level)
        if unknown := connect_kwargs.keys() - OPTIONS:  # aioamqp ignores them
            raise TypeError(f'Queue() takes no {unknown}, but {OPTIONS}')
        for name, least in ('heartbeat', 1), ('frame_max', 8192):
            # aioamqp spins without heartbeats; RabbitMQ 4 hangs up over small frames.
            if connect_kwargs.get(name, least) < least:
                raise ValueError(f'{name} is {least} at least')
        hosts = [host] if isinstance(host, str) else host
        if not hosts or not retry >= 0:
            raise ValueError('there is no host, or retry is negative')
        self._addresses = [_address(each, port, ssl, connect_kwargs) for each in hosts]
        self._retry, self._quorum = retry, {'x-queue-type': 'quorum'} if quorum else {}
        self._handlers: dict[str, _Settings] = {}
        # A Queue is open while its supervisor runs. Then `_link` is the link while one
        # is up, `_up` the future of this or the next one, and `_consumed` says from
        # which queues each link consumes. It closes in two steps: `_closing`, no new
        # tasks; its supervisor is cancelled, no more waiting for those that run.
        self._supervisor: Any = None
        self._link: _Link | None = None
        self._started = self._closing = False

    def on(self, name: str, raw: bool = False, prefetch_count: int = 10, *,
           retries: int = 0, retry_delay: float = 1.0, timeout: float | None = None,
           arguments: dict[str, Any] | None = None) -> Callable[[F], F]:
        """Register the decorated function as the handler of queue `name`.

        An `async def` runs as an asyncio task, a plain function in a thread. Its one
        argument is the task's data (with `raw` the bytes of the message), its return
        value the task's result. What a generator yields is sent to the caller at once.

        `prefetch_count` tasks of this queue run at once here. `retries` counts the runs
        after the first; the wait before them is `retry_delay` seconds, doubled each
        time. `timeout` is the number of seconds one run of an async handler may take.
        `arguments` belong to the queue, `x-max-priority` for instance.

        Raises `TypeError` or `ValueError` for what can't be used or a second handler of
        one queue, `RuntimeError` after the start.
        """
        _check_name(name)
        if not (1 <= prefetch_count <= 65535 and retries >= 0 and retry_delay >= 0):
            raise ValueError('prefetch_count is 1 to 65535, and neither retries nor '
                             'retry_delay is negative')
        if self._started:
            raise RuntimeError(f'register the handler of {name!r} before the start')

        def register(function: F) -> F:
            is_async = (inspect.iscoroutinefunction(function)
                        or inspect.isasyncgenfunction(function))
            if name in self._handlers:
                raise ValueError(f'{name!r} has a handler already')
            if timeout is not None and not is_async:
                raise ValueError(f'timeout of {name!r}: a plain function runs in a '
                                 'thread, and no thread can be stopped; make it async')
            self._handlers[name] = _Settings(
                self._quorum | (arguments or {}), prefetch_count, function, is_async,
                raw, retries, retry_delay, timeout)
            return function

        return register

    @property
    def connected(self) -> bool:
        """Whether a link to the broker is up just now: for health checks."""
        return self._link is not None

    async def connect(self) -> None:
        """Connect, to send only. Does nothing if that is done.

        Tries every `retry` seconds until it succeeds. Raises `Refused` when the broker
        refuses (credentials, vhost, permissions), `ssl.SSLError` for a certificate, and
        with `retry=False` the first failure of any kind. A connection that is lost
        later comes back by itself.
        """
        if self._closing:
            await self.close()
        if self._supervisor and self._supervisor.done():
            await asyncio.sleep(0)  # until _closed() was called
        if self._supervisor is None or self._supervisor.done():
            self._closing = False
            self._consumed: dict[str, _Settings] = {}
            for handler in self._handlers.values():
                handler.__post_init__()
            self._running: set[Any] = set()
            # The next reply to each task that somebody has, and those who wait for it.
            self._awaited: Any = weakref.WeakValueDictionary()
            self._waiting: set[Any] = set()
            self._reply_queue = f'aioqueue.reply.{os.urandom(16).hex()}'
            self._up: asyncio.Future[_Link] = asyncio.Future()
            self._supervisor = asyncio.create_task(self._supervise())
            self._supervisor.add_done_callback(self._closed)
        await _outcome(self._up)

    async def start_async(self) -> None:
        """Connect, declare the queue of every handler and consume from it.

        Raises what `connect()` raises, and `Refused` if the broker refuses a queue: one
        that exists with other arguments, for instance. If it was the first start, the
        Queue is closed then.
        """
        started = self._started
        try:
            await self.connect()
            self._started = True
            await self._consume(self._handlers)
        except BaseException:
            if not started:
                await self.close()
            raise
        logger.info('consuming from %s', ', '.join(self._handlers))

    def start(self) -> None:
        """Run as a worker process, until SIGINT or SIGTERM.

        The first signal lets running tasks finish (see `close()`), a second one ends
        the process at once. Logs to stderr if no logging is set up. Raises what
        `start_async()` raises.
        """
        if not logger.hasHandlers():
            logging.basicConfig(level=logger.level or logging.INFO)
            logging.getLogger('aioamqp').setLevel(logging.ERROR)
        asyncio.run(self._serve())

    async def _serve(self):
        main, signals = asyncio.current_task(), (signal.SIGINT, signal.SIGTERM)

        def stop():
            main.cancel()
            for signum in signals:
                signal.signal(signum, signal.SIG_DFL)  # a second one ends the process

        for signum in signals:
            asyncio.get_running_loop().add_signal_handler(signum, stop)
        with contextlib.suppress(asyncio.CancelledError):
            await self.start_async()
            await _ended(self._supervisor)
        await self.close()

    async def close(self, timeout: float = 30) -> None:
        """Stop consuming, let running handlers finish, disconnect.

        Handlers that still run after `timeout` seconds are cancelled (but for threads,
        which can't be), and the broker gives their tasks to another worker. Results
        still awaited and sends still waiting for the broker raise `ConnectionError`.
        Does nothing if that is done; when it is cancelled, a second call goes on. In a
        handler it waits for that handler, too, until `timeout`.
        """
        supervisor = self._supervisor
        if supervisor is None or supervisor.done():
            return
        logger.info('stopping: %s tasks are running', len(self._running))
        self._closing = True
        for name in self._handlers:
            self._consumed.pop(name, None)
        if self._link:
            self._link.cancel()
        await _ended(*self._running, timeout=timeout)
        if not supervisor.cancelling():  # another close() may be further
            for work in (*self._running, supervisor):
                work.cancel()
        await _ended(supervisor, *self._running, timeout=2 * CLOSE_DEADLINE)

    def _closed(self, _):
        """The supervisor has ended: by `close()`, with the event loop, or in vain."""
        self._link, self._started = None, False
        closed = ConnectionError('the Queue was closed; connect() opens it again')
        _settle(self._up, closed)
        for reply in list(self._awaited.values()):
            reply.arrived(None, closed, None)

    async def __aenter__(self) -> Self:
        await self.start_async()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def task(self, name: str, data: Any = None, no_response: bool = False,
                   raw: bool = False, *, id: str | None = None, delay: float = 0,
                   expires: float | None = None, priority: int | None = None,
                   headers: dict[str, Any] | None = None) -> 'Task':
        """Send a task; return once the broker has confirmed it.

        `no_response`: nobody will ask for the result. `raw`: `data` is bytes, sent as
        they are. `id`: yours, 1 to 255 bytes, so that a handler recognises a task that
        was sent twice; random unless given. `delay`: seconds until a worker may get it.
        `expires`: seconds after which the broker drops it unless a worker has it.
        `priority`: 0 to 255, for a queue with `x-max-priority`. `headers`: for the
        handler's `current.get()`.

        Connects when needed, and waits for the broker as long as it takes; not for the
        confirm of a task with a random id whose result has come before. Raises
        what msgpack and pamqp raise for what can't be sent (`TypeError`, for instance),
        `ValueError` also when a task of another queue with this id is awaited here, or
        one of a generator that has begun, `Refused` for what the broker refuses (a
        message too large, a full queue), `ConnectionError` when the Queue is closed.
        """
        _check_name(name)
        if delay < 0 or (delay and expires is not None):
            # Of both RabbitMQ would forget the expiry on the way.
            raise ValueError('delay is not negative, and does not go with expires')
        if id is not None and not (isinstance(id, str) and 0 < len(id.encode()) < 256):
            raise ValueError(f'id is a str of 1 to 255 bytes, not {id!r}')
        properties: dict[str, Any] = {}
        if headers or priority or expires is not None:
            ms = None if expires is None else str(round(expires * 1000))
            properties = {'headers': headers, 'priority': priority, 'expiration': ms}
        task = Task(self, name, data, no_response, raw, id, delay, properties)
        await task.retry()
        return task

    create = task

    async def _supervise(self):
        """Keep a link up: the retry loop.

        Whatever dies, all of it is dropped and built again. Who waits for a confirm
        sends again then; replies have waited in their queue.
        """
        starting, refusal, clock = True, None, asyncio.get_running_loop().time
        for count, address in enumerate(itertools.cycle(self._addresses), 1):
            began, link = clock(), _Link(self, address)
            try:
                await link.open()
                self._link, starting = link, False
                _settle(self._up, link)
                logger.info('connected to %s', link.address)
                await _outcome(link.broken)
            except Exception as error:
                link.drop(error)
            except asyncio.CancelledError:
                if self._closing:  # or the event loop ends, and aioamqp with it
                    await _ended(*self._running, timeout=CLOSE_DEADLINE)
                    await link.close()
                link.drop(ConnectionError('closed'))
                raise
            why = link.broken.exception()  # what came first
            logger.warning('no connection to %s: %r', link.address, why)
            refusal = why if _is_final(why) else refusal
            if self._quorum and not starting:
                await asyncio.sleep(1)  # RabbitMQ 3.10 forgets tasks in elections
            if count % len(self._addresses) == 0:  # all were tried
                if starting and (refusal or self._retry is False):
                    _settle(self._up, refusal or why)
                    return
                # Not more often than every `retry` seconds, so after a while at once.
                pause = 5 if self._retry is False else self._retry
                await asyncio.sleep(began + pause - clock())

    async def _until(self, call, *args):
        """`call(link, *args)` with this link, or else with the next."""
        while True:
            link = self._link or await _outcome(self._up)
            try:
                return await call(link, *args)
            except ConnectionError:
                continue  # it was lost meanwhile

    async def _consume(self, queues):
        """Declare queues, then consume from them: with this link, and with the next."""
        for name, settings in queues.items():
            await self._until(_Link.call, _declare(name, settings.arguments))
        self._consumed |= queues
        try:
            await self._until(_Link.consume)
        except Refused:
            for name in queues:
                self._consumed.pop(name, None)  # or each link would fall over it
            raise

    def _received(self, channel, name, delivery_tag, header, body):
        """A message has come from one of the queues that are consumed."""
        if name == self._reply_queue:
            channel.ack(delivery_tag)
            _reply_received(self._awaited, header, body)
        else:
            delivery = Delivery(self, channel, name, delivery_tag, header, body)
            start_task(channel.connection._loop, delivery._work())


class _Reply(asyncio.Event):
    """A reply to a task of queue `name`, after `count` parts: then `name` says so.

    `sent` is the future of the confirm, if a result may do for that.
    """

    name = sent = None
    count = 0

    def arrived(self, headers, body, following):
        """Without headers the Queue was closed; `following` is a part's next reply."""
        self.content = headers, body, following
        self.set()


class Task:
    """A task that was sent: its `id`, `name`, `data`, `raw` and `no_response`.

    `async for value in task` gives what a generator handler yields, as it comes, and
    ends or raises as `result()` does.
    """

    _reply: Any = None

    def __init__(self, queue: Queue, name: str, data: Any, no_response: bool, raw: bool,
                 id: str | None, delay: float, properties: dict[str, Any]) -> None:
        self._first = id is None  # a result can only be that of the first message
        self.id, self.name, self.data = id or os.urandom(16).hex(), name, data
        self.no_response, self.raw = no_response, raw
        self._queue, self._delay, self._properties = queue, delay, properties

    async def retry(self) -> None:
        """Send the task again, with the same id. Raises what `Queue.task()` raises."""
        queue, reply, reply_to = self._queue, None, ''
        body = memoryview(self.data).tobytes() if self.raw else pack(self.data)
        living = queue._supervisor and not queue._supervisor.done()
        if living and queue._supervisor.get_loop() is not asyncio.get_running_loop():
            # From asyncio.run() in a plain handler, say: it would wait for ever.
            raise RuntimeError('a thread sends with asyncio.run_coroutine_threadsafe()')
        if not (queue._link or queue._closing):
            await queue.connect()
        if not self.no_response:
            if queue._reply_queue not in queue._consumed:
                arguments = queue._quorum | {'x-expires': REPLY_QUEUE_EXPIRES}
                await queue._consume({queue._reply_queue: _Settings(arguments)})
            reply_to = queue._reply_queue
            reply = queue._awaited.setdefault(self.id, _Reply())
            if reply.name not in (None, self.name):  # no reply says to which
                raise ValueError(f'a task {self.id!r} of {reply.name!r} is awaited')
            reply.name = self.name
        header = content_header(len(body), self.id, RAW if self.raw else MSGPACK,
                                reply_to, **self._properties)
        message = header, body, self.id, reply if self._first else None
        await queue._until(_Link.send, self.name, message, self._delay)
        self._reply, self._first = reply, False

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the handler's return value; None at once with `no_response`.

        Of a generator handler it is the list of all values yielded. Raises
        `RemoteException` if the handler failed, `TimeoutError` after `timeout` seconds
        (a later call can still get it), `ConnectionError` when the Queue is closed.
        """
        if timeout is not None:
            async with asyncio.timeout(timeout):
                return await self.result()
        parts: list[Any] = []
        value, reply = None, self._reply
        while reply:
            value, reply = await self._take(reply)
            if reply:
                parts.append(value)
        return parts or value

    async def __aiter__(self) -> AsyncIterator[Any]:
        reply = self._reply
        while reply:
            value, reply = await self._take(reply)
            if reply:
                yield value

    async def _take(self, reply):
        """Await a reply: the value and, if it is a part, the next reply."""
        waiting = asyncio.current_task()
        self._queue._waiting.add(waiting)  # else no strong reference would lead to us
        try:
            await reply.wait()
        finally:
            self._queue._waiting.discard(waiting)
        headers, body, following = reply.content
        if headers is None:
            raise body.with_traceback(None)  # without that of an earlier raise
        error, value = unpack(body)
        if error is not None:
            raise RemoteException(error, headers.get('type'), headers.get('traceback'))
        return value, following


def _reply_received(awaited, header, body):
    """Give a reply to those who await it."""
    properties = unpack_properties(header)
    ident, headers = properties.get('correlation_id'), properties.get('headers', {})
    reply, following = awaited.pop(ident, None), None
    if reply is None:
        if 'type' in headers:
            logger.warning('task %s failed, and nobody awaits it any more', ident)
        return
    if (headers.get('part', reply.count) != reply.count
            or _number(headers.get('parts')) > reply.count):
        awaited[ident] = reply  # that was of another run: each begins at 0
        return
    if 'part' in headers:
        following = awaited[ident] = _Reply()
        following.name = 'a generator'  # half of it: nobody else may await the rest
        following.count = reply.count + 1
    elif reply.sent:
        _settle(reply.sent, True)  # before its confirm: what is done can't be lost
    reply.arrived(headers, body, following)


class Delivery:
    """A task that came in: `id`, `name`, `attempt` (1 at first) and `headers`.

    Inside its handler it is `aioqueue.current.get()`.
    """

    def __init__(self, queue, channel, name, delivery_tag, header, body) -> None:
        self._queue, self._channel, self._tag = queue, channel, delivery_tag
        self._body, self._properties = body, unpack_properties(header)
        self._handler: _Settings = queue._handlers[name]
        self._reply_to: str = self._properties.get('reply_to', '')
        self._parts = 0  # that a generator has yielded
        self.name: str = name
        self.id: str = self._properties.get('correlation_id') or os.urandom(16).hex()
        self.headers: dict[str, Any] = {}
        self.attempt, self._deliveries = 1, 0
        if headers := self._properties.get('headers'):
            self.attempt = max(1, _number(headers.get('x-attempt')))
            self._deliveries = _number(headers.get('x-delivery-count'))
            self.headers = {
                key: headers[key] for key in headers if not key.startswith(PAST)}

    async def _work(self):
        """From its arrival to its acknowledgement."""
        current.set(self)
        running, slots = self._queue._running, self._handler.slots
        running.add(task := asyncio.current_task())
        await slots.acquire()  # tasks of a lost connection may still run
        try:
            if not (self._queue._closing or self._channel.closed):
                await self._process()
                self._channel.ack(self._tag)
        finally:
            slots.release()
            running.discard(task)

    async def _process(self):
        """Run the handler; have its result, its retry or its dead letter confirmed."""
        timeout = self._handler.timeout
        limit = None if timeout is None else asyncio.timeout(timeout)
        try:
            if self._deliveries >= DELIVERY_LIMIT:
                raise RuntimeError(f'{self._deliveries} deliveries, never acknowledged')
            if limit is None:
                result = await self._call()
            else:
                async with limit:
                    result = await self._call()
            end = {'headers': {'parts': self._parts}} if self._parts else {}
            await self._reply(None, result, **end)
        except BaseException as error:  # SystemExit ends the handler, not the worker
            if self._queue._supervisor.cancelling():  # close() waits no longer
                raise
            failure = error
            if limit and limit.expired():
                failure = TimeoutError(f'it ran longer than {timeout} seconds')
                failure.__cause__ = error  # its traceback says where
            await self._fail(failure)

    async def _call(self):
        """Call the handler with the data of the task, and send what it yields."""
        try:
            data = self._body if self._handler.raw else unpack(self._body)
        except Exception as error:  # msgpack's own words may be none
            raise ValueError(f'the message cannot be decoded: {error!r}') from error
        if self._handler.is_async:
            result = self._handler.function(data)
        else:
            result = await in_thread(self._call_plain, data)
        if inspect.isasyncgen(result):
            async with contextlib.aclosing(result):
                async for value in result:
                    if not await self._send_part(value):
                        break
            return []
        return await result if inspect.isawaitable(result) else result

    def _call_plain(self, data):
        """The same in a thread: all steps of a generator run in this one."""
        loop, result = self._channel.connection._loop, self._handler.function(data)
        if not inspect.isgenerator(result):
            return result
        with contextlib.closing(result):
            for value in result:
                part = self._send_part(value)
                if not asyncio.run_coroutine_threadsafe(part, loop).result():
                    break
        return []

    async def _send_part(self, value):
        """Send what a generator has yielded; False if its caller is gone."""
        properties = {'message_type': 'part', 'headers': {'part': self._parts}}
        self._parts += 1
        wanted = await self._reply(None, value, **properties) or not self._reply_to
        if 'content_type' not in self._properties:
            self._reply_to = ''  # a caller of 0.2 takes the first reply for the result
        return wanted

    async def _reply(self, error, result, **properties):
        """Answer the caller; False if there is none, or none any more."""
        body = pack([error, result])
        if not self._reply_to:
            return False
        header = content_header(len(body), self.id, MSGPACK, **properties)
        routed = await self._queue._until(
            _Link.send, self._reply_to, (header, body, self.id), 0, False)
        # RabbitMQ delivers to a direct reply-to, and returns the message, too.
        return routed or self._reply_to.startswith('amq.rabbitmq.reply-to.')

    async def _fail(self, failure):
        """Have the retry confirmed; or else tell the caller, or leave a dead letter."""
        error, lines = _text(failure), ''.join(traceback.format_exception(failure))
        # Characters of up to four bytes: what describes a failure has to fit one frame.
        room = self._channel.room // 16
        headers = {'type': type(failure).__qualname__[-room:],
                   'traceback': _text(lines)[-room:]}
        logger.warning('task %s of %r failed, attempt %s: %s: %s', self.id, self.name,
                       self.attempt, headers['type'], error)
        poison = self._deliveries >= DELIVERY_LIMIT
        retry = self.attempt <= self._handler.retries and not poison
        while True:
            try:
                if retry:
                    again = {'x-attempt': self.attempt + 1}
                    delay = self._handler.retry_delay * 2 ** min(self.attempt - 1, 32)
                    delay = min(delay, LONGEST_DELAY)
                    await self._resend(self.name, again, self._reply_to, delay)
                elif not await self._reply(error, None, headers=headers) or poison:
                    headers |= {'error': error[:room], 'attempts': self.attempt}
                    await self._resend(f'{self.name}.dead', headers)
                return
            except Exception as why:
                logger.exception('task %s of %r has to wait', self.id, self.name)
                if isinstance(why, Refused):
                    retry = False  # to wait for room in our own queue would block it
                else:
                    self.headers, self._properties = {}, {}  # what can't be sent again
                await asyncio.sleep(REFUSED_PAUSE)

    async def _resend(self, name, headers, reply_to='', delay=0):
        """Send the message on as it came, with a few properties changed."""
        header = pack_properties(len(self._body), self._properties | {
            'correlation_id': self.id, 'delivery_mode': 2, 'reply_to': reply_to,
            'headers': self.headers | headers, 'expiration': None, 'user_id': None})
        await self._queue._until(_Link.send, name, (header, self._body, self.id), delay)


class _Link:
    """Two connections and their channels: what is dropped and built again as one.

    A broker in a memory alarm stops reading from connections that publish. On a
    connection of its own, a worker's acknowledgements still drain the queues then.
    https://www.rabbitmq.com/docs/alarms

    The first has channel 1 for messages and 2 for those that may be refused. The second
    has channel 1 for all consumers, 2 for declarations. What the broker has closed is
    replaced; but the link falls with the channel of the consumers.
    """

    def __init__(self, queue, options):
        self.queue, self.options = queue, options
        self.address = f'{options["host"]}:{options["port"]}'
        self.broken: asyncio.Future[None] = asyncio.Future()
        self.connections: list[_Connection] = []
        self.consumers: dict[str, list[asyncio.Future[Any]]] = {}
        self.alone = asyncio.Lock()

    async def open(self):
        """Connect, and consume from all that the Queue consumes."""
        for role in ('publish', 'consume'):
            factory = functools.partial(_Connection, self, role)
            async with asyncio.timeout(CONNECT_DEADLINE):
                await aioamqp.connect(protocol_factory=factory, **self.options)
        self.consuming = _Channel(self.connections[1], 1)
        await self.declare(self.queue._consumed)
        await self.consume()

    def drop(self, why):
        """Give it up. A late signal of this one can't touch its successor.

        The first reason counts: what the broker says comes before what that makes
        aioamqp stumble over.
        """
        _settle(self.broken, why)
        if self.queue._link is self:
            self.queue._link, self.queue._up = None, asyncio.Future()
        for connection in self.connections:
            if connection.transport:
                connection.transport.abort()

    def channel(self, connection, number):
        channel = self.connections[connection].numbered.get(number)
        if channel is None or channel.closed:
            channel = _Channel(self.connections[connection], number)
        return channel

    async def call(self, method):
        return await self.channel(1, 2).call(method)

    async def send(self, name, message, delay=0, declare=True):
        """Publish, until it is confirmed; declare the queue if it doesn't exist.

        Without `declare` it returns False instead.

        To declare it first would cost a round trip, and fails where it exists with
        other arguments: `mandatory` tells what has no queue.

        With a delay the message waits in `NAME.delay.MS.N`, the queue of this delay and
        of this time slot, until it is dead-lettered to `NAME`. A queue's `x-expires`
        can't be relied on to be renewed (quorum queues do not), so it is never needed
        to be: the lease is three slots longer than the delay. One slot to publish in,
        one for a confirm that takes long, one for clocks that differ.
        https://www.rabbitmq.com/docs/ttl#queue-ttl
        """
        queue, ms = name, round(delay * 1000)
        while True:
            if ms:
                now = time.time()
                queue = f'{name}.delay.{ms}.{int(now // DELAY_SLOT)}'
            try:
                routed = await self.channel(0, 1).publish(queue, *message)
            except Refused:  # it, or another one
                routed = await self.send_alone(queue, message)
            if not routed and declare:
                own = self.queue._handlers.get(name) or _Settings(self.queue._quorum)
                await self.declare({queue: self.delaying(name, ms), name: own})
            elif not ms or time.time() - now < DELAY_SLOT:
                return routed

    async def send_alone(self, queue, message):
        """Publish what may have been refused.

        When the broker refuses a message, it closes the channel and doesn't say which
        one it was. All that were unconfirmed are sent again, one at a time: what is
        refused alone is the culprit.
        """
        for pause in NACK_PAUSES:
            await asyncio.sleep(pause)
            async with self.alone:
                try:
                    return await self.channel(0, 2).publish(queue, *message)
                except Refused as error:
                    refused = error
            if refused.code or not self.queue._quorum:
                break
        raise refused

    def delaying(self, name, ms):
        """The queue that passes on to `name` what is `ms` old."""
        quorum = self.queue._quorum
        return _Settings({
            'x-message-ttl': ms, 'x-expires': ms + round(3_000 * DELAY_SLOT),
            'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': name,
            **quorum, **(AT_LEAST_ONCE if quorum else {})})

    async def declare(self, queues):
        """Make sure that queues exist."""
        for name, settings in list(queues.items()):
            try:
                await self.call(_declare(name, settings.arguments))
            except Refused as refused:
                if 'inequivalent arg' not in str(refused):  # there with other arguments
                    raise

    async def consume(self):
        """Consume from all queues that the Queue consumes from by now."""
        for name, settings in self.queue._consumed.items():
            if name not in self.consumers:
                # Only quorum queues take this, since RabbitMQ 4.3; it is in ms.
                # https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout
                quorum = settings.arguments.get('x-queue-type') == 'quorum'
                patience = {'x-consumer-timeout': 2**31 - 1} if quorum else {}
                consume = amqp.Basic.Consume(
                    queue=name, consumer_tag=name, arguments=patience)
                qos = amqp.Basic.Qos(prefetch_count=settings.prefetch_count)
                self.consumers[name] = list(map(self.consuming.call, (qos, consume)))
        for answer in itertools.chain(*self.consumers.values()):
            await _outcome(answer)
        self.cancel()  # it closes, perhaps

    async def give_up(self, name):
        """The broker ended a consumer: its queue was deleted, or its node died.

        All that came is handed back first. What a lost connection had is a failure for
        RabbitMQ 4.3, and in the end poison.
        """
        with contextlib.suppress(ConnectionError, Refused):
            for each in self.consumers:
                self.consuming.call(amqp.Basic.Cancel(consumer_tag=each))
            self.consuming.connection.flush()  # what is done isn't handed back
            nack = marshal(amqp.Basic.Nack(0, multiple=True, requeue=True), 1)
            self.consuming.connection.send(nack)
            await self.consuming.call(amqp.Basic.Qos())  # answered when that is done
        self.drop(ConnectionError(f'the broker ended the consumer of {name!r}'))

    def cancel(self):
        """Consume no more from what the Queue doesn't any more."""
        for name in self.consumers.keys() - self.queue._consumed.keys():
            self.consuming.call(amqp.Basic.Cancel(consumer_tag=name))
            del self.consumers[name]

    async def close(self):
        """Say goodbye: the connection that publishes may be blocked, so it is last."""
        with contextlib.suppress(Exception):  # whatever is broken, it is over
            async with asyncio.timeout(CLOSE_DEADLINE):
                if (queue := self.queue._reply_queue) in self.consumers:
                    self.consuming.call(amqp.Basic.Cancel(consumer_tag=queue))
                    await self.consuming.call(amqp.Queue.Delete(queue=queue))
                for connection in reversed(self.connections):
                    await connection.close()


METHOD, HEADER, BODY = 1, 2, 3  # the types of frames
BASIC_RETURN, BASIC_DELIVER = b'\x00\x3c\x00\x32', b'\x00\x3c\x00\x3c'
BASIC_ACK, BASIC_NACK = b'\x00\x3c\x00\x50', b'\x00\x3c\x00\x78'
ACK, ACK_ALL = BASIC_ACK + b'%b\0', BASIC_ACK + b'%b\1'  # delivery tag, multiple


class _Channel:
    """A channel: the broker answers calls in their order, and confirms messages.

    What each message needs is packed and parsed here, all else by pamqp.
    """

    def __init__(self, connection, number):
        self.connection, self.number = connection, number
        self.room = (connection.server_frame_max or 2**31) - 8  # for payload in a frame
        self.closed = False
        self.calls: deque[asyncio.Future[Any]] = deque()
        self.tags = itertools.count(1)
        self.unconfirmed: dict[int, tuple[asyncio.Future[bool], tuple[str, str]]] = {}
        # Delivery tags. The first key of a dict takes long to find after many removals.
        self.unacked: OrderedDict[int, None] = OrderedDict()
        self.frame_received = self.receive().send
        self.frame_received(None)
        self.call(amqp.Channel.Open())
        self.call(amqp.Confirm.Select())
        connection.numbered[number] = self  # unless the connection is lost

    def call(self, method):
        """Send a method; the future is the broker's answer."""
        if self.connection.link.broken.done():
            raise ConnectionError('connection lost')
        self.connection.send(marshal(method, self.number))
        self.calls.append(self.connection._loop.create_future())
        return self.calls[-1]

    def publish(self, routing_key, header, body, correlation_id, reply=None):
        """Publish to the default exchange; the future is False for what came back.

        It is `sent` of the `reply`, too: that may come first, and tells as much.
        """
        if len(header) > self.room:
            raise ValueError(f'{len(header)} bytes of headers, the limit: {self.room}')
        publish = _publish_frame(self.number, routing_key)
        self.connection.send(publish + frame(HEADER, self.number, header))
        for at in range(0, len(body), self.room):
            self.connection.send(frame(BODY, self.number, body[at:at + self.room]))
        future = self.connection._loop.create_future()
        self.unconfirmed[next(self.tags)] = future, (routing_key, correlation_id)
        if reply:
            reply.sent = future
        return future

    def ack(self, delivery_tag):
        """Acknowledge a message.

        Each frame costs the broker some time. When the oldest one is acknowledged, so
        is all that came before: one frame, made when frames are written, does for all.
        """
        if self.closed:  # then the broker delivers the message again
            return
        oldest = next(iter(self.unacked))
        del self.unacked[delivery_tag]
        if delivery_tag == oldest:
            self.connection.acked = delivery_tag
            self.connection.send(b'')  # so that it will be flushed
        else:
            ack = ACK % delivery_tag.to_bytes(8)
            self.connection.send(frame(METHOD, self.number, ack))

    def fail(self, error):
        """It is closed: tell all who wait for the broker.

        The error is about the first call that it did not answer, or about one of the
        messages that it did not confirm.
        """
        self.closed = True
        if self.calls:
            _settle(self.calls.popleft(), error)
            error = ConnectionError('the channel was closed over another call')
        for future in (*self.calls, *(each for each, _ in self.unconfirmed.values())):
            _settle(future, error)
        self.unconfirmed.clear()  # the error has a traceback, with all that was sent

    def receive(self):
        """A generator that is sent the payload of each frame: a message has several."""
        while True:
            method = yield
            if method.startswith((BASIC_ACK, BASIC_NACK)):
                self.confirmed(method)
            elif method.startswith((BASIC_DELIVER, BASIC_RETURN)):
                header, body = (yield), bytearray()
                while len(body) < int.from_bytes(header[4:12]):
                    body += yield
                self.message_received(method, header, bytes(body))
            else:
                self.method_received(unmarshal(frame(METHOD, self.number, method))[2])

    def method_received(self, method):
        link = self.connection.link
        if isinstance(method, amqp.Channel.Close):
            # After Close-Ok this channel is none: what was gathered goes out before.
            self.connection.send(marshal(amqp.Channel.CloseOk(), self.number))
            self.fail(refused := Refused(method.reply_text, method.reply_code))
            if self is link.consuming:
                link.drop(refused)
        elif isinstance(method, amqp.Basic.Cancel):
            asyncio.create_task(link.give_up(method.consumer_tag))
        else:
            _settle(self.calls.popleft(), method)

    def message_received(self, method, header, body):
        if method.startswith(BASIC_DELIVER):  # consumer tag, delivery tag and more
            end = 5 + method[4]
            name, tag = method[5:end].decode(), int.from_bytes(method[end:end + 8])
            self.unacked[tag] = None
            self.connection.link.queue._received(self, name, tag, header, body)
        else:
            # An unroutable message: its ack comes next, and doesn't mention it. A
            # return has no tag; but messages of one id to one queue are alike.
            returned = unmarshal(frame(METHOD, self.number, method))[2]
            message = returned.routing_key, unpack_properties(header)['correlation_id']
            for tag, (future, sent) in self.unconfirmed.items():
                if sent == message:
                    _settle(future, False)
                    del self.unconfirmed[tag]
                    break

    def confirmed(self, method):
        tags = [int.from_bytes(method[4:12])]
        if method[12] & 1:  # multiple: all up to this one
            tags = list(itertools.takewhile(tags[0].__ge__, self.unconfirmed))
        nacked = method.startswith(BASIC_NACK)
        outcome = Refused('refused, without a word: queue full?') if nacked else True
        for tag in tags:
            if tag in self.unconfirmed:  # not if it was returned
                _settle(self.unconfirmed.pop(tag)[0], outcome)


FRAME = struct.Struct('>BHI')  # type, channel, size; payload and CE follow
MANY = 48  # pieces that are gathered: those of 24 small messages
ASKED_FOR = {'authentication_failure_close': True, 'consumer_cancel_notify': True}


class _Connection(AmqpProtocol):  # type: ignore[misc]
    """A connection: aioamqp opens and closes it, and has its heartbeats.

    The frames of its channels are taken here out of what the socket gives, wherever it
    was cut. Only those of channel 0 go to aioamqp.
    """

    def __init__(self, link, role, **options):
        name = f'aioqueue {os.uname().nodename}:{os.getpid()} {role}'
        properties = {'product': 'aioqueue', 'version': __version__,
                      'connection_name': name, **options.pop('client_properties', {}),
                      'capabilities': ASKED_FOR}
        super().__init__(client_properties=properties, **options)
        self.link, self.transport = link, None
        self.numbered: dict[int, _Channel] = {}
        self.acked = 0  # all up to this delivery tag, when frames go out
        self.outgoing: list[bytes] = []
        self.incomplete = b''
        link.connections.append(self)

    def connection_made(self, transport):
        super().connection_made(transport)
        self.transport = transport
        # When the peer is silent aioamqp closes, which waits for what is unwritten.
        self._stream_writer.close = transport.abort

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self.link.drop(exc or ConnectionError('closed by the peer'))
        for channel in self.numbered.values():
            channel.fail(ConnectionError('connection lost'))

    async def server_close(self, frame):
        self.transport.write(marshal(amqp.Connection.CloseOk(), 0))
        self.link.drop(Refused(frame.reply_text, frame.reply_code))

    def send(self, frame):
        """Write after all that can run now: one system call for many frames.

        Not for all of them: the broker works on the first while we make the next.
        """
        if not self.outgoing:
            self._loop.call_soon(self.flush)
        self.outgoing.append(frame)
        if len(self.outgoing) >= MANY:
            self.flush()

    def flush(self):
        if self.acked:
            self.outgoing.append(frame(METHOD, 1, ACK_ALL % self.acked.to_bytes(8)))
            self.acked = 0
        if self.outgoing and not self.transport.is_closing():
            self.transport.write(b''.join(self.outgoing))
        self.outgoing.clear()

    def data_received(self, data):
        self._heartbeat_timer_recv_reset()
        data = self.incomplete + data
        start, size = 0, len(data)
        while size - start > 7:
            _, number, length = FRAME.unpack_from(data, start)
            end = start + 7 + length  # of the payload; the octet CE ends the frame
            if end >= size:
                break
            if number:
                self.numbered[number].frame_received(data[start + 7:end])
            else:
                super().data_received(data[start:end + 1])
            start = end + 1
        self.incomplete = data[start:]


# What is only bytes.


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """A frame. https://www.rabbitmq.com/amqp-0-9-1-protocol, 2.3.5"""
    return b'%b%b\xce' % (FRAME.pack(kind, channel, len(payload)), payload)


@functools.lru_cache(1024)  # one for each queue and each caller
def _publish_frame(channel, routing_key):
    publish = amqp.Basic.Publish(routing_key=routing_key, mandatory=True)
    return marshal(publish, channel)


def _declare(queue, arguments):
    return amqp.Queue.Declare(queue=queue, durable=True, arguments=arguments)


def content_header(size: int, correlation_id: str, content_type: str,
                   reply_to: str = '', **unusual: Any) -> bytes:
    """The payload of a content header frame: the size of the body and properties.

    That is class, weight, size, the flags that say which properties follow, and these,
    each after its length. Nearly every message has the same few.
    """
    if unusual:
        return pack_properties(size, {
            'content_type': content_type, 'correlation_id': correlation_id,
            'delivery_mode': 2, 'reply_to': reply_to, **unusual})
    kind, ident, reply = map(str.encode, (content_type, correlation_id, reply_to))
    header = b'\0\x3c\0\0%b%c\0%c%b\x02%c%b' % (
        size.to_bytes(8), 0x96 if reply else 0x94, len(kind), kind, len(ident), ident)
    return b'%b%c%b' % (header, len(reply), reply) if reply else header


def pack_properties(size: int, properties: dict[str, Any]) -> bytes:
    """The same for any properties, by pamqp; None and '' are left out."""
    # RabbitMQ can't read inf and nan, and closes the connection over them.
    json.dumps(properties, allow_nan=False, default=repr)
    given = {key: value for key, value in properties.items() if value not in (None, '')}
    return ContentHeader(0, size, amqp.Basic.Properties(**given)).marshal()


def unpack_properties(header: bytes) -> dict[str, Any]:
    """Decode the payload of a content header frame; nothing, if it is malformed."""
    try:
        if header[12:14] in (b'\x94\0', b'\x96\0'):  # as content_header() makes it
            kind = 15 + header[14]
            ident = kind + 2 + header[kind + 1]
            return {'content_type': header[15:kind].decode(),
                    'correlation_id': header[kind + 2:ident].decode(),
                    'reply_to': header[ident + 1:].decode()}
        content = ContentHeader()
        content.unmarshal(header)
        return {name: value for name, value in content.properties if value is not None}
    except Exception as error:
        logger.warning('malformed properties are ignored: %r', error)
        return {}


# Helpers.

# Since Python 3.12 a task can run at once, up to its first pause: a loop turn less.
start_task: Any = getattr(
    asyncio, 'eager_task_factory', lambda loop, coroutine: loop.create_task(coroutine))


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Call a plain function in a thread of its own.

    Those of `asyncio.to_thread` are few, and the interpreter waits for them at its end:
    a handler that hangs would keep a stopped worker alive.
    """
    done: concurrent.futures.Future[Any] = concurrent.futures.Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(function(*args))
        except (StopIteration, GeneratorExit) as error:  # no coroutine can get it
            done.set_exception(RuntimeError(repr(error)))
        except BaseException as error:
            done.set_exception(error)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=[run], daemon=True).start()
    return await asyncio.wrap_future(done)


def _address(host, port, ssl, options):
    """The arguments of `aioamqp.connect()` for a host name or a URL."""
    url = urlsplit(host if '://' in host else f'amqp://{host}')
    if url.scheme not in ('amqp', 'amqps') or url.query:
        raise ValueError('host is a name or amqp(s)://user:password@host:port/vhost, '
                         f'not {url.scheme}://{url.hostname}?{url.query}')
    secure = ssl or url.scheme == 'amqps'
    parts = {'login': url.username, 'password': url.password,
             'host': url.hostname or 'localhost', 'virtualhost': url.path[1:]}
    return {**options, **{name: unquote(part) for name, part in parts.items() if part},
            'port': url.port or port or (5671 if secure else 5672),
            'ssl': secure or None}


def _number(header):
    """A count in a header, which anybody may have set to anything."""
    return header if isinstance(header, int) else 0


@functools.lru_cache(1024)
def _check_name(name):
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError("a queue name, as in @q.on('name'), is a str of up to 230 "
                         f'letters, digits, spaces or -_.:@#,/+, not {name!r}')


def _is_final(error):
    """Waiting can't mend it: the broker refuses us, TLS does, or what was passed."""
    if isinstance(error, Refused):  # 320 connection forced, 541 internal error: passing
        return error.code not in (320, 541)
    return isinstance(error, (TypeError, ValueError)) or type(error) is tls.SSLError


def _settle(future, outcome):
    """Give a future its result, or its exception, unless nobody waits for it now."""
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
        future.exception()  # or asyncio complains, if nobody ever waits for it
    else:
        future.set_result(outcome)


async def _outcome(future):
    """Await a future that others await, too: it isn't cancelled with us."""
    await _ended(future)
    return future.result()


async def _ended(*futures, timeout=None):
    if pending := [future for future in futures if future and not future.done()]:
        await asyncio.wait(pending, timeout=timeout)


def _text(value):
    """`str(value)`, whatever a handler raised, as text that can be sent."""
    try:
        return str(value)[:500_000].encode('utf-8', 'backslashreplace').decode()
    except Exception:
        return f'{type(value).__name__}, whose str() fails'
