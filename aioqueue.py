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
"""

import asyncio
import contextlib
import contextvars
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
import traceback
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from types import NoneType, SimpleNamespace
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import aioamqp  # type: ignore[import-untyped]
import msgpack  # type: ignore[import-untyped]
from aioamqp.channel import Channel  # type: ignore[import-untyped]
from aioamqp.protocol import AmqpProtocol  # type: ignore[import-untyped]
from pamqp.commands import Basic
from pamqp.commands import Channel as ChannelMethod
from pamqp.frame import marshal
from pamqp.header import ContentHeader

__all__ = ('Queue', 'Refused', 'RemoteException', 'Task', 'current')
__version__ = '1.0.0'

logger = logging.getLogger('aioqueue')

CONNECT_DEADLINE, CLOSE_DEADLINE = 10, 5  # seconds that the broker has to answer
REPLY_QUEUE_EXPIRES = 3_600_000  # ms that replies wait for a lost caller to come back
# ms that a delay queue outlives its last message. A quorum queue may need more than
# three minutes to pass one on (dead_letter_worker_publisher_confirm_timeout).
DELAY_QUEUE_LEASE, QUORUM_LEASE = 10_000, 600_000
LONGEST_DELAY = 4_294_367  # seconds; with the lease 32 bits of ms, as x-expires is
# A quorum queue counts deliveries. A task that was delivered this often without being
# settled is taken to kill its workers; RabbitMQ 4 would drop it at 20, without a trace.
DELIVERY_LIMIT = 10
NO_LIMIT = contextlib.nullcontext()  # asyncio.timeout(None) costs 2 µs more
# Seconds between attempts: a quorum queue that is losing its leader refuses, as a full
# one does, without a word.
NACK_PAUSES = (0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)

MSGPACK, RAW = 'application/msgpack', 'application/octet-stream'
# What pamqp, so aioamqp, lets pass; and no name that means something else.
NAME = re.compile(r'(?!amq\.rabbitmq\.)(?!.*\.delay\.\d+$)[a-zA-Z0-9\-_.:@#,/+ ]+')
DELAY_SUFFIX = f'.delay.{LONGEST_DELAY}000'  # the longest
OPTIONS = {'login': str, 'password': str, 'virtualhost': str, 'login_method': str,
           'insist': bool, 'client_properties': dict}
# With a heartbeat of 0 aioamqp sends one after the other, without a pause.
NUMBERS = {'heartbeat': (1, 65535), 'channel_max': (1, 65535),
           'frame_max': (4096, 2**31)}
LOST = (ConnectionError, aioamqp.AioamqpException)
# A message that is sent again keeps these properties, and loses these headers: by them
# the broker would take a retry for a cycle of dead letters, and drop it.
KEPT = ('content_type', 'content_encoding', 'priority', 'message_id', 'app_id')
PAST = ('x-death', 'x-first-death-', 'x-last-death-', 'x-delivery-count', 'x-attempt')

F = TypeVar('F', bound=Callable[..., Any])
Message = tuple[bytes, bytes, str]  # content header, body, correlation_id

#: Inside a handler `current.get()` is the task being run: its `id`, `name`, `attempt`
#: (1 at first) and `headers`.
current: contextvars.ContextVar[Any] = contextvars.ContextVar('aioqueue.current')

# 0.2 sent integer keys; timestamp=3 makes an aware datetime of msgpack's timestamp.
unpack = functools.partial(msgpack.unpackb, strict_map_key=False, timestamp=3)


def pack(data: Any) -> Any:
    return msgpack.Packer(datetime=True).pack(data)


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


class Queue:
    """A connection to RabbitMQ that sends tasks, and runs those it has handlers for.

    `host` is a name, an `amqp://user:password@host:port/vhost` or `amqps://` URL
    (percent-encoded), or a list of either: the nodes of one cluster, tried in turn.
    `port` is 5672, or 5671 with TLS. `ssl` is True or an `ssl.SSLContext`. `log_level`
    sets the level of the logger `aioqueue`. `retry` is the number of seconds between
    attempts to connect; with False the first failure on start-up raises. `quorum=True`
    makes every queue declared here a quorum queue. `connect_kwargs` go to aioamqp:
    `login`, `password`, `virtualhost`, `heartbeat` (seconds), `channel_max`,
    `frame_max` (bytes), `client_properties`.

    Raises `TypeError` or `ValueError` for what can't be used.
    """

    def __init__(self, host: str | list[str] = 'localhost', port: int | None = None,
                 ssl: bool | tls.SSLContext = False, log_level: int | str | None = None,
                 retry: float = 5, *, quorum: bool = False, **connect_kwargs: Any):
        if log_level is not None:
            logger.setLevel(log_level)
        if retry is not False:
            _check('retry', retry, (int, float), 0, LONGEST_DELAY)
        for name, value in connect_kwargs.items():
            if name in NUMBERS:
                _check(name, value, int, *NUMBERS[name])
            elif not isinstance(value, OPTIONS.get(name, ())):
                raise TypeError(f'Queue() takes no {name}={type(value).__name__}, but '
                                f'{", ".join((*OPTIONS, *NUMBERS))}')
        hosts = host if isinstance(host, (list, tuple)) and host else [host]
        self._addresses = [_address(each, port, ssl, connect_kwargs) for each in hosts]
        self._retry = retry
        self._quorum = {'x-queue-type': 'quorum'} if quorum else {}
        self._handlers: dict[str, Any] = {}
        # By id; a task that its caller forgot is forgotten here too.
        self._awaited: Any = weakref.WeakValueDictionary()
        self._running: set[Any] = set()
        self._waiting: set[Any] = set()
        self._shared: dict[object, asyncio.Task[Any]] = {}
        # A Queue is open while its supervisor runs. Then `_up` is the future of a link,
        # and `_link` that link while it is up. If we consume tasks or replies already,
        # the next link does so from its beginning. `_closing` is the task that closes,
        # or did; `_stopped` says that the handlers have had their time.
        self._supervisor: asyncio.Task[None] | None = None
        self._link: _Link | None = None
        self._consuming = self._replying = self._stopped = False
        self._closing: asyncio.Task[None] | None = None

    def on(self, queue: str, raw: bool = False, durable: bool = True,
           prefetch_count: int = 10, prefetch_size: int = 0,
           connection_global: bool = False, *, retries: int = 0,
           retry_delay: float = 1.0, timeout: float | None = None,
           arguments: dict[str, Any] | None = None) -> Callable[[F], F]:
        """Register the decorated function as the handler of `queue`; it stays as it is.

        An `async def` runs as an asyncio task, a plain function in a thread. Its one
        argument is the task's data (with `raw` the bytes of the message), its return
        value the task's result. What a generator yields is sent to the caller at once.

        `prefetch_count` tasks of this queue run at once here. `retries` counts the runs
        after the first; the wait before them is `retry_delay` seconds, doubled each
        time. `timeout` is the number of seconds one run of an async handler may take.
        `durable` and `arguments` belong to the queue. `connection_global` is there for
        0.2: each handler has a channel of its own, where it makes no difference.

        Raises `TypeError` or `ValueError` for what can't be used or a second handler of
        one queue, `RuntimeError` after the start.
        """
        _check_name(queue, DELAY_SUFFIX if retries else '.dead')
        _check('prefetch_count', prefetch_count, int, 1, 65535)
        _check('prefetch_size', prefetch_size, int, 0, 2**32 - 1)
        _check('retries', retries, int, 0, 1000)
        _check('retry_delay', retry_delay, (int, float), 0, LONGEST_DELAY)
        _check('timeout', timeout, (int, float, NoneType), 0.001, LONGEST_DELAY)
        if self._consuming:
            raise RuntimeError(f'register the handler of {queue!r} before the start')
        try:
            _message(b'', '', headers=arguments)
        except Exception as error:
            raise TypeError(f'arguments of {queue!r}: {error}') from error

        def register(function: F) -> F:
            if queue in self._handlers:
                raise ValueError(f'{queue!r} has a handler already')
            if not callable(function):
                raise TypeError(f'a handler is a function, not {function!r}')
            is_async = (inspect.iscoroutinefunction(function)
                        or inspect.isasyncgenfunction(function))
            if timeout is not None and not is_async:
                raise ValueError(f'timeout of {queue!r}: a plain function runs in a '
                                 'thread, and no thread can be stopped; make it async')
            self._handlers[queue] = SimpleNamespace(
                name=queue, function=function, is_async=is_async, raw=raw,
                qos=(prefetch_size, prefetch_count), retries=retries,
                slots=asyncio.Semaphore(prefetch_count),
                retry_delay=retry_delay, timeout=timeout,
                queue={'durable': durable,
                       'arguments': {**self._quorum, **(arguments or {})}})
            return function

        return register

    async def connect(self) -> None:
        """Connect, to send only. Does nothing if that is done.

        Tries every `retry` seconds until it succeeds. Raises `Refused` when the broker
        refuses (credentials, vhost, permissions), `ssl.SSLError` for a certificate, and
        with `retry=False` the first failure of any kind. A connection that is lost
        later comes back by itself.
        """
        await _ended(self._closing)
        if self._supervisor is None or self._supervisor.done():
            self._replying, self._stopped, self._closing = False, False, None
            self._reply_queue = f'aioqueue.reply.{os.urandom(16).hex()}'
            for handler in self._handlers.values():
                handler.slots = asyncio.Semaphore(handler.qos[1])
            self._up: asyncio.Future[_Link] = asyncio.get_running_loop().create_future()
            self._supervisor = asyncio.create_task(self._supervise())
            self._supervisor.add_done_callback(self._closed)
        await asyncio.shield(self._up)

    async def start_async(self) -> None:
        """Connect, declare the queue of every handler and consume from it.

        Raises what `connect()` raises, and `Refused` if the broker refuses a queue: one
        that exists with other arguments, for instance. Then the Queue is closed.
        """
        await _ended(self._closing)
        started, self._consuming = self._consuming, True
        try:
            await self.connect()
            await self._once(self._consume)
        except BaseException:
            if not started:
                await self.close()
            raise

    def start(self) -> None:
        """Run as a worker process, until SIGINT or SIGTERM.

        The first signal lets running tasks finish (see `close()`), a second one ends
        the process at once. Raises what `start_async()` raises.
        """
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        main: Any = asyncio.current_task()

        def stop() -> None:
            logger.info('stopping: %s tasks are running', len(self._running))
            if main.cancelling():
                os._exit(1)
            main.cancel()

        for signum in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(signum, stop)
        with contextlib.suppress(asyncio.CancelledError):
            await self.start_async()
            await asyncio.Event().wait()
        await self.close()

    async def close(self, timeout: float = 30) -> None:
        """Stop consuming, let running handlers finish, disconnect.

        Handlers that still run after `timeout` seconds are cancelled (but for threads,
        which can't be), and the broker gives their tasks to another worker, as it does
        with that of a handler which calls this. Results still awaited and sends still
        waiting for the broker raise `ConnectionError`. Does nothing if that is done.
        """
        _check('timeout', timeout, (int, float), 0, LONGEST_DELAY)
        if self._supervisor and not self._supervisor.done() and not self._closing:
            # A task of its own: it ends, whoever of those who wait for it is cancelled.
            closing = self._close(timeout, asyncio.current_task())
            self._closing = asyncio.create_task(closing)
        await _ended(self._closing)

    async def _close(self, timeout: float, caller: Any) -> None:
        assert self._supervisor
        deadline = asyncio.get_running_loop().time() + timeout
        if self._link:
            await self._link.stop_consuming(*self._handlers)
        for handler in self._handlers.values():
            # A delivery that waits for a slot is handed back, which frees the slot for
            # the next that waits: one is enough.
            handler.slots.release()
        others = self._running - {caller}
        await _ended(*others, timeout=timeout)
        self._stopped = True
        for work in others:
            work.cancel()
        await _ended(*others, timeout=CLOSE_DEADLINE)
        self._running -= others  # one that was cancelled before it began is there yet
        if self._link:
            await self._link.close(deadline, self._reply_queue)
        self._supervisor.cancel()
        await _ended(self._supervisor)

    def _closed(self, _: object) -> None:
        """By `close()`, by the end of the event loop, or since the start failed."""
        self._consuming = False
        closed = ConnectionError('the Queue was closed; connect() opens it again')
        if not self._up.done():
            self._up.set_exception(closed)
        self._up.exception()  # there may be nobody who waits to hear it
        for task in list(self._awaited.values()):
            task._finish(closed, None)

    async def __aenter__(self) -> 'Queue':
        await self.start_async()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def task(self, name: str, data: Any = None, no_response: bool = False,
                   raw: bool = False, *, delay: float = 0, expires: float | None = None,
                   priority: int | None = None,
                   headers: dict[str, Any] | None = None) -> 'Task':
        """Send a task; return once the broker has it on disk.

        `no_response`: nobody will ask for the result. `raw`: `data` is bytes, sent as
        they are. `delay`: seconds until a worker may get it. `expires`: seconds after
        which the broker drops it unless a worker has it. `priority`: 0 to 255, for a
        queue with `x-max-priority`. `headers`: for the handler's `current.get()`.

        Connects when needed, and waits for the broker as long as it takes. Raises
        `TypeError` or `ValueError` for what can't be sent, `Refused` for what the
        broker refuses (a message too large, a full queue), `ConnectionError` when the
        Queue is closed.
        """
        _check_name(name, DELAY_SUFFIX if delay else '')
        properties: dict[str, Any] = {'content_type': RAW if raw else MSGPACK}
        if headers:
            properties['headers'] = headers
        if delay != 0 or expires is not None or priority is not None:
            _check('delay', delay, (int, float), 0, LONGEST_DELAY)
            _check('expires', expires, (int, float, NoneType), 0, LONGEST_DELAY)
            _check('priority', priority, (int, NoneType), 0, 255)
            if delay and expires is not None:
                raise ValueError('a task has either a delay or expires, not both')
            if expires is not None:
                properties['expiration'] = str(round(expires * 1000))
            properties['priority'] = priority
        task = Task(self, name, data, no_response, raw, delay, properties)
        await task._send()
        return task

    create = task

    async def _supervise(self) -> None:
        """Keep the connections up: the retry loop.

        Whatever dies, all of it is dropped and built again. Who waits for a confirm
        sends again then; replies have waited in their queue.
        """
        starting, time = True, asyncio.get_running_loop().time
        failures: list[Any] = []
        for address in itertools.cycle(self._addresses):
            link, up_since = _Link(self, address), float('inf')
            try:
                await link.connect()
                await link.channel('publish')
                await self._consume(link)
                self._link = link
                self._up.set_result(link)
                starting, up_since = False, time()
                logger.info('connected to %s', link.address)
                await asyncio.shield(link.broken)
            except Exception as error:
                link.drop(error)
            finally:
                link.drop('closed')
            why = link.broken.result()  # what came first
            if not self._closing:
                logger.warning('no connection to %s: %s', link.address, why)
            if self._quorum and up_since < time():
                await asyncio.sleep(1)  # RabbitMQ 3.10 forgets messages in elections
            # To break straight away is a failure too. After a loss the next attempt
            # comes at once, after a failure with every host in `retry` seconds.
            failures = [] if time() - up_since > 1 else [*failures, why]
            if len(failures) == len(self._addresses):
                refusals = [failure for failure in failures if _is_final(failure)]
                if starting and (refusals or self._retry is False):
                    self._up.set_exception((refusals or failures)[-1])
                    return
                failures = []
                await asyncio.sleep(5 if self._retry is False else self._retry)

    async def _retried(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call `function(link, *args)`; when that is lost meanwhile, with the next."""
        while True:
            link = self._link if self._link else await asyncio.shield(self._up)
            try:
                return await function(link, *args)
            except LOST as error:
                link.drop(error)
                why = link.broken.result()
                if function == self._consume and _is_final(why):
                    raise why from None  # what it asks for costs the connection

    def _once(self, function: Callable[..., Any], *args: Any) -> Any:
        """The same, in one call for all who ask for it at the same time.

        It goes on when they are cancelled: aioamqp can't use a channel again on which
        nobody waited for an answer.
        """
        key = function, args

        def done(call: asyncio.Task[Any]) -> None:
            self._shared.pop(key, None)
            if not call.cancelled():
                call.exception()  # those who asked may all be cancelled

        if key not in self._shared:
            self._shared[key] = asyncio.create_task(self._retried(function, *args))
            self._shared[key].add_done_callback(done)
        return asyncio.shield(self._shared[key])

    async def _consume(self, link: '_Link', replies: bool = False) -> None:
        """Consume what should be consumed by now and isn't yet: tasks, replies."""
        async with link.lock:
            for name, handler in self._handlers.items() if self._consuming else ():
                receive = functools.partial(self._task_received, handler)
                await link.consume(name, receive, handler.queue, handler.qos)
            if replies or self._replying:
                arguments = {**self._quorum, 'x-expires': REPLY_QUEUE_EXPIRES}
                await link.consume(self._reply_queue, self._reply_received,
                                   {'durable': True, 'arguments': arguments})
                self._replying = True
            if self._closing:  # it has lost the link that stopped, or had none
                await link.stop_consuming(*self._handlers)

    async def _send(self, name: str, message: Message, delay: float = 0,
                    declare: bool = True) -> bool:
        """Publish, after `delay` seconds, until the broker has confirmed it.

        Declare a queue that doesn't exist, or else return False. To declare first would
        cost a round trip, and fails where the queue exists with other arguments:
        `mandatory` tells what has no queue.
        """
        if ttl := round(delay * 1000):
            await self._once(self._declare, name)
            await self._once(self._declare, name, ttl)
        queue = f'{name}.delay.{ttl}' if ttl else name
        routed = False
        while not routed:
            # As in _retried(): to call it would cost each message 1 µs more, of 16.
            link = self._link if self._link else await asyncio.shield(self._up)
            try:
                routed = await link.channels['publish'].publish(queue, *message)
            except LOST as error:
                link.drop(error)
                continue
            except Refused:
                routed = await self._send_alone(queue, message)
            if not routed and not declare:
                # RabbitMQ delivers to a direct reply-to, and returns the message, too.
                return queue.startswith('amq.rabbitmq.reply-to.')
            if ttl or not routed:
                # A delay queue in any case: x-expires counts from the last declaration,
                # and the confirm may have taken long.
                await self._once(self._declare, name, ttl)
        return True

    async def _send_alone(self, queue: str, message: Message) -> Any:
        """Publish what was unconfirmed when the broker refused a message.

        It doesn't say which one. All are sent again, one at a time: what is refused
        alone is the culprit.
        """
        await self._once(_Link.channel, 'publish')
        for pause in NACK_PAUSES:
            await asyncio.sleep(pause)
            try:
                return await self._once(_Link.alone, 'publish', queue, *message)
            except Refused as error:
                refused = error
                if refused.code or not self._quorum:
                    break
        raise refused

    async def _declare(self, link: '_Link', name: str, ttl: int = 0) -> None:
        """Make sure that a queue exists, or renew its delay queue of `ttl` ms."""
        arguments: dict[str, Any] = dict(self._quorum)
        options = {'durable': True, 'arguments': arguments}
        if ttl:
            arguments |= {'x-message-ttl': ttl, 'x-expires': ttl + DELAY_QUEUE_LEASE,
                          'x-dead-letter-exchange': '',
                          'x-dead-letter-routing-key': name}
            if self._quorum:  # at least once, for which the queue may refuse a message
                arguments |= {'x-dead-letter-strategy': 'at-least-once',
                              'x-overflow': 'reject-publish',
                              'x-expires': ttl + QUORUM_LEASE}
            name = f'{name}.delay.{ttl}'
        else:
            with contextlib.suppress(Refused):  # mostly 404: then declare it
                await link.alone('queue_declare', name, passive=True)
                return
            if name in self._handlers:
                options = self._handlers[name].queue
        try:
            await link.alone('queue_declare', name, **options)
        except Refused as refused:
            # Unless somebody has declared it meanwhile, with other arguments.
            if refused.code != 406 or 'inequivalent' not in str(refused):
                raise

    def _reply_received(self, channel: '_Channel', delivery_tag: int, header: bytes,
                        body: bytes) -> None:
        channel.settle(delivery_tag)
        properties = _unpack_properties(header) or {}
        task = self._awaited.get(properties.get('correlation_id'))
        if task is not None:
            task._receive(properties, body)
        elif 'type' in properties.get('headers', ()):
            logger.warning('task %s failed, and nobody awaits it any more',
                           properties.get('correlation_id'))

    def _task_received(self, handler: Any, *delivery: Any) -> None:
        self._running.add(asyncio.create_task(self._work(handler, *delivery)))

    async def _work(self, handler: Any, channel: '_Channel', delivery_tag: int,
                    header: bytes, body: bytes) -> None:
        """One delivery, from its arrival to its acknowledgement."""
        requeue = True
        try:
            current.set(job := _job(handler.name, header, body, channel.room))
            async with handler.slots:  # tasks of a lost connection may still run
                if self._closing:
                    return
                failure = await self._run(handler, job)
            await self._settle(handler, job, failure)
            requeue = False
        except Exception:  # even the dead letter was refused, for instance: not now
            if not self._stopped:
                logger.exception('task %s of %r is delivered again', job.id, job.name)
                await asyncio.sleep(5)
        finally:
            self._running.discard(asyncio.current_task())
            channel.settle(delivery_tag, requeue)

    async def _run(self, handler: Any, job: Any) -> BaseException | None:
        """Run the handler. Return its error, or None with the reply in `job.reply`.

        `job.final` says that another run would fail, too.
        """
        failure: BaseException | None = None
        # What an error now means: None is a failure of the handler itself, which may
        # run again; else the type and the first words of one that stays the same.
        final: Any = RuntimeError, 'it seems to kill its workers'
        limit: Any = asyncio.timeout(handler.timeout) if handler.timeout else NO_LIMIT
        try:
            if job.deliveries >= DELIVERY_LIMIT:
                raise ValueError(f'{job.deliveries} deliveries, and never settled')
            final = ValueError, 'the message cannot be decoded'
            if job.properties is None:
                raise ValueError('malformed properties')
            data = job.body if handler.raw else unpack(job.body)
            final = None
            async with limit:
                failure, result = await self._call(handler, job, data)
            if failure is None:
                final = TypeError, 'msgpack cannot carry the result'
                job.reply = pack([None, result])
        except BaseException as error:  # SystemExit ends the handler, not the worker
            assert self._supervisor
            if self._stopped or self._supervisor.cancelling():  # as the loop shuts down
                raise
            failure = final[0](f'{final[1]}: {error}') if final else error
            if handler.timeout and limit.expired() and isinstance(error, TimeoutError):
                failure = TimeoutError(f'it ran longer than {handler.timeout} seconds')
        job.final = bool(final)
        return failure

    async def _call(self, handler: Any, job: Any,
                    data: Any) -> tuple[BaseException | None, Any]:
        """Call the handler; return the error of a plain one or None, and the result.

        Returned, for a coroutine that raises StopIteration gets a RuntimeError instead.
        """
        failure = None
        if handler.is_async:
            result = handler.function(data)
        else:
            # The threads of asyncio.to_thread are few, and the interpreter waits for
            # them at its end: a handler that hangs would keep a stopped worker alive.
            loop = asyncio.get_running_loop()
            done: asyncio.Future[Any] = loop.create_future()
            arguments = self._call_plain, handler.function, job, data, loop, done
            threading.Thread(target=contextvars.copy_context().run, args=arguments,
                             daemon=True).start()
            failure, result = await done
        if inspect.isawaitable(result):
            result = await result
        elif inspect.isasyncgen(result):
            job.parts = 0
            async with contextlib.aclosing(result) as values:
                async for value in values:
                    if not await self._send_part(job, value):
                        break
            result = None
        return failure, result

    def _call_plain(self, function: Callable[..., Any], job: Any, data: Any,
                    loop: asyncio.AbstractEventLoop, done: asyncio.Future[Any]) -> None:
        """Call a plain function, and send what a generator yields, in its thread."""
        outcome: tuple[BaseException | None, Any]
        try:
            outcome = None, function(data)
            if inspect.isgenerator(outcome[1]):
                job.parts = 0
                with contextlib.closing(outcome[1]) as values:
                    for value in values:
                        sending = self._send_part(job, value)
                        if not asyncio.run_coroutine_threadsafe(sending, loop).result():
                            break
                outcome = None, None
        except BaseException as error:
            outcome = error, None
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_resolve, done, outcome)

    async def _send_part(self, job: Any, value: Any) -> bool:
        """Send what a generator yielded; False if the caller is gone."""
        part = _message(pack([None, value]), job.id, message_type='part',
                        headers={'part': job.parts})
        job.parts += 1
        if not job.reply_to:  # a value that can't be packed has failed all the same
            return True
        read = await self._send(job.reply_to, part, declare=False)
        if 'content_type' not in job.properties:
            job.reply_to = ''  # a caller of 0.2 takes the first reply for the result
        return read and bool(job.reply_to)

    async def _settle(self, handler: Any, job: Any,
                      failure: BaseException | None) -> None:
        """Have the reply, the retry or the dead letter of a task confirmed."""
        headers = {'parts': job.parts} if job.parts is not None else {}
        if failure is not None:
            error = _text(failure)
            logger.warning('task %s of %r failed, attempt %s: %s', job.id, job.name,
                           job.attempt, error)
            if job.attempt <= handler.retries and not job.final:
                delay = min(handler.retry_delay * 2 ** (job.attempt - 1), LONGEST_DELAY)
                retry = {'x-attempt': job.attempt + 1}
                await self._resend(job, job.name, retry, delay, job.reply_to)
                return
            job.reply, lines = pack([error, None]), traceback.format_exception(failure)
            headers = {'type': _text(type(failure).__qualname__)[-job.limit:],
                       'traceback': _text(''.join(lines))[-job.limit:]}
        answered = False
        if job.reply_to:
            try:
                reply = _message(job.reply, job.id, headers=headers)
                answered = await self._send(job.reply_to, reply, declare=False)
            except Refused as refused:  # a result larger than the broker takes
                if not isinstance(failure, Refused):
                    job.final = True
                    await self._settle(handler, job, refused)
                    return
        if failure is not None and (not answered or job.deliveries >= DELIVERY_LIMIT):
            headers |= {'error': error[-job.limit:], 'attempts': job.attempt}
            await self._resend(job, f'{job.name}.dead', headers)
        elif job.reply_to and not answered:
            logger.info('task %s of %r: its caller is gone', job.id, job.name)

    async def _resend(self, job: Any, name: str, headers: dict[str, Any],
                      delay: float = 0, reply_to: str = '') -> None:
        """Send the message of a task on, with headers of ours added."""
        known = job.properties or {}
        kept: dict[str, Any] = {key: known.get(key) for key in KEPT}
        past = {key: value for key, value in job.headers.items()
                if not key.startswith(PAST)}
        try:
            message = _message(job.body, job.id, reply_to=reply_to,
                               headers=past | headers, **kept)
            await self._send(name, message, delay)
        except (TypeError, ValueError, OverflowError):  # headers that can't go out
            message = _message(job.body, job.id, kept['content_type'], reply_to,
                               headers=headers)
            await self._send(name, message, delay)


class Task:
    """A task that was sent: its `id`, `name`, `data`, `raw` and `no_response`.

    `async for value in task` gives what a generator handler yields, as it comes, and
    ends or raises as `result()` does.
    """

    def __init__(self, queue: Queue, name: str, data: Any, no_response: bool, raw: bool,
                 delay: float, properties: dict[str, Any]) -> None:
        self.id = os.urandom(16).hex()
        self.name, self.data, self.no_response, self.raw = name, data, no_response, raw
        self._queue, self._delay, self._properties = queue, delay, properties
        self._parts: list[Any] = []
        self._outcome: tuple[Exception | None, Any] | None = None
        self._news = asyncio.Event()

    async def retry(self) -> None:
        """Send the task again, with the same id. Raises what `Queue.task()` raises."""
        before = self._parts, self._outcome
        self._parts, self._outcome = [], None
        try:
            await self._send()
        except BaseException:
            self._parts, self._outcome = before
            raise

    async def _send(self) -> None:
        queue, reply_to = self._queue, ''
        if not queue._link and not queue._closing:
            await queue.connect()
        if not self.no_response:
            if not queue._replying:
                await queue._once(queue._consume, True)
            reply_to = queue._reply_queue
            queue._awaited[self.id] = self
        try:
            body = memoryview(self.data).tobytes() if self.raw else pack(self.data)
            message = _message(body, self.id, reply_to=reply_to, **self._properties)
        except Exception as error:
            raise TypeError(f'the task cannot be sent: {error}') from error
        await queue._send(self.name, message, self._delay)

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the handler's return value; None at once with `no_response`.

        Of a generator handler it is the list of all values yielded. Raises
        `RemoteException` if the handler failed, `TimeoutError` after `timeout` seconds
        (a later call can still get it), `ConnectionError` when the Queue is closed.
        """
        if timeout is not None:
            async with asyncio.timeout(timeout):
                return await self.result()
        while self._outcome is None and not self.no_response:
            await self._wait()
        error, result = self._outcome or (None, None)
        if error is not None:
            raise error.with_traceback(None)  # that it got when it was raised before
        return result

    async def _wait(self) -> None:
        waiter = asyncio.current_task()
        self._queue._waiting.add(waiter)  # or only a weak reference would lead to it
        try:
            await self._news.wait()
        finally:
            self._queue._waiting.discard(waiter)

    async def __aiter__(self) -> AsyncIterator[Any]:
        for position in itertools.count():
            while position >= len(self._parts):  # more only after a retry()
                if self._outcome is not None or self.no_response:
                    await self.result()  # raises if the handler failed
                    return
                await self._wait()
            yield self._parts[position]

    def _receive(self, properties: dict[str, Any], body: bytes) -> None:
        headers = properties.get('headers', {})
        try:
            error, result = unpack(body)
        except Exception as malformed:
            error, result = f'the reply is not [error, result]: {malformed}', None
        if error is not None:
            error = RemoteException(error, headers.get('type'),
                                    headers.get('traceback'))
        if properties.get('message_type') != 'part':
            parts = self._parts[:_count(headers.get('parts'), 0)]
            self._finish(error, parts if 'parts' in headers else result)
        # A retry, or a second worker after a crash, begins again at part 0.
        elif headers.get('part') == len(self._parts):
            self._parts.append(result)
            self._wake()

    def _finish(self, error: Exception | None, result: Any) -> None:
        self._outcome = self._outcome or (error, result)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news.clear()  # those who wait now are on their way; others wait for more


class _Link:
    """Two connections and their channels: what is dropped and built again as one.

    A broker in a memory alarm stops reading from connections that publish. On a
    connection of its own, a worker's acknowledgements still drain the queues then.
    """

    def __init__(self, queue: Queue, options: dict[str, Any]) -> None:
        self.queue, self.options = queue, options
        self.address = f'{options["host"]}:{options["port"]}'
        self.broken: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # One at a time: for what sets up consumers, and for the channel 'spare'.
        self.lock, self.spare = asyncio.Lock(), asyncio.Lock()
        self.protocols: list[_Protocol] = []
        self.channels: dict[str, _Channel] = {}  # by purpose
        self.consumers: dict[str, _Channel] = {}  # by queue

    async def connect(self) -> None:
        for role in ('publish', 'consume'):
            factory = functools.partial(_Protocol, self, role)
            async with asyncio.timeout(CONNECT_DEADLINE):
                await aioamqp.connect(protocol_factory=factory, **self.options)
            # When its reader ends, its heartbeats alone must not keep it up.
            self.protocols[-1].worker.add_done_callback(
                lambda _: self.drop('its reader ended'))

    def drop(self, why: object) -> None:
        """Give it up, once. A late signal of this one can't touch its successor.

        The first reason counts: what the broker says (Connection.Close) comes before
        what that makes aioamqp stumble over.
        """
        lost = ConnectionError(str(why) or f'no AMQP from the peer: {why!r}')
        _resolve(self.broken, why if _is_final(why) else lost)
        if self.queue._link is self:
            self.queue._link = None
            self.queue._up = asyncio.get_running_loop().create_future()
        for protocol in self.protocols:
            if protocol.transport:
                protocol.transport.abort()

    async def channel(self, purpose: str) -> '_Channel':
        """The channel for a purpose; a new one if the broker has closed it."""
        if purpose not in self.channels or not self.channels[purpose].is_open:
            channel = await self.protocols[0].channel()
            await channel.confirm_select()
            self.channels[purpose] = channel
        return self.channels[purpose]

    async def alone(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Do one thing at a time, on a channel that the broker may close over it."""
        async with self.spare:
            channel = await self.channel('spare')
            try:
                return await getattr(channel, method)(*args, **kwargs)
            except Refused:
                if channel.is_open:  # a nack: it may have lost sight of the leader
                    await channel.close()
                raise

    async def consume(self, name: str, receive: Callable[..., None],
                      options: dict[str, Any], qos: tuple[int, int] = (0, 0)) -> None:
        """Declare a queue and consume from it, on a channel of its own."""
        if name not in self.consumers:
            channel = await self.protocols[1].channel()
            channel.link, channel.name, channel.receive = self, name, receive
            await channel.queue_declare(name, **options)
            await channel.basic_qos(*qos)
            await channel.basic_consume(None, name, consumer_tag='aioqueue')
            self.consumers[name] = channel

    async def stop_consuming(self, *names: str) -> None:
        with contextlib.suppress(*LOST):
            for name in self.consumers.keys() & names:
                await self.consumers[name].basic_cancel('aioqueue', no_wait=True)

    async def close(self, deadline: float, reply_queue: str) -> None:
        """Wait for what is unconfirmed, until `deadline`; then say goodbye."""
        unconfirmed = [future for channel in self.channels.values()
                       for future, _ in channel.unconfirmed.values()]
        await _ended(*unconfirmed, timeout=deadline - asyncio.get_running_loop().time())
        await self.stop_consuming(reply_queue)
        with contextlib.suppress(Exception):  # whatever is broken, it is over
            async with asyncio.timeout(CLOSE_DEADLINE):
                if reply_queue in self.consumers:
                    channel = self.consumers[reply_queue]
                    await channel.queue_delete(reply_queue, no_wait=True)
                for protocol in reversed(self.protocols):  # what publishes may block
                    protocol.flush()
                    await protocol.close(no_wait=True)
                    await protocol.connection_closed.wait()


# From here on: what corrects aioamqp, and is on the way of every message. The frames of
# Basic.Publish, Deliver, Return, Ack and Nack are packed and parsed here, all others by
# aioamqp.

FRAME = struct.Struct('>BHI')  # type, channel, size; payload and CE follow
METHOD, HEADER, BODY = 1, 2, 3  # the kinds; a frame ends with the octet CE
BASIC_RETURN, BASIC_DELIVER = b'\x00\x3c\x00\x32', b'\x00\x3c\x00\x3c'
BASIC_ACK, BASIC_NACK = b'\x00\x3c\x00\x50', b'\x00\x3c\x00\x78'
# With the delivery tag and the bits: 1 is multiple (all up to this one), 2 requeue.
ACK, ACK_ALL, REQUEUE = BASIC_ACK + b'%b\0', BASIC_ACK + b'%b\1', BASIC_NACK + b'%b\2'
MANY = 72  # frames that are gathered: those of 24 small messages
OURS = frozenset((BASIC_RETURN, BASIC_DELIVER, BASIC_ACK, BASIC_NACK))
CONTENT = struct.Struct('>HHQH')  # class, weight, body size, property flags
# The content header of nearly every message: class, weight, body size, flags that say
# which properties follow, and these, each after its length: content_type, delivery_mode
# (2: on disk), correlation_id and perhaps reply_to.
USUAL = re.compile(
    rb'\x00\x3c\x00\x00.{8}[\x94\x96]\x00'
    rb'[\x13\x18](application/msgpack|application/octet-stream)\x02\x20(.{32})'
    rb'(?:\x2f(.{47}))?', re.DOTALL)
NO_REPLY, REPLY = 0x9400, 0x9600  # the flags


class _Channel(Channel):  # type: ignore[misc]
    """A channel with a map of publisher confirms, and its own way to deliver.

    aioamqp ignores `multiple` in a confirm, takes a returned message for a confirmed
    one, and reads on only when a consumer's callback has ended.
    """

    link: _Link | None = None  # of a consumer: it falls with its channel
    name = ''
    receive: Callable[['_Channel', int, bytes, bytes], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.room = (self.protocol.server_frame_max or 2**31) - 8  # in a frame
        self.published = 0
        self.unconfirmed: dict[int, tuple[asyncio.Future[bool], tuple[str, str]]] = {}
        self.returned: list[tuple[str, str]] = []
        # Delivery tags. The first key of a dict takes long to find after many removals.
        self.unsettled: OrderedDict[int, None] = OrderedDict()
        self.method = self.header = b''  # of the message that is coming in
        self.chunks: list[bytes] = []
        self.missing = 0

    def publish(self, routing_key: str, header: bytes, body: bytes,
                correlation_id: str) -> asyncio.Future[bool]:
        """Publish to the default exchange; the future is False for what came back."""
        room = self.room
        if len(header) > room:
            raise ValueError(f'headers of {len(header)} bytes, the broker takes {room}')
        if not self.is_open:
            raise Refused('the broker has closed the channel over another message')
        frames = [_publish_frame(self.channel_id, routing_key)]
        frames.append(self.frame(HEADER, header))
        for at in range(0, len(body), room):
            frames.append(self.frame(BODY, body[at:at + room]))
        self.protocol.send(*frames)
        self.published += 1
        future: asyncio.Future[bool] = asyncio.Future()
        self.unconfirmed[self.published] = future, (routing_key, correlation_id)
        return future

    def settle(self, delivery_tag: int, requeue: bool = False) -> None:
        """Acknowledge a message, or hand it back.

        Each frame costs the broker some time: what is settled in the order of arrival
        is acknowledged when frames are written, with one frame for all until then.
        """
        if not self.is_open:  # then the broker delivers the message again
            return
        oldest = next(iter(self.unsettled))
        del self.unsettled[delivery_tag]
        if delivery_tag == oldest and not requeue:
            self.protocol.acks[self] = delivery_tag
            self.protocol.send(b'')  # so that it will be flushed
        else:
            method = (REQUEUE if requeue else ACK) % delivery_tag.to_bytes(8)
            self.protocol.send(self.frame(METHOD, method))

    def frame(self, kind: int, payload: bytes) -> bytes:
        return b'%b%b\xce' % (FRAME.pack(kind, self.channel_id, len(payload)), payload)

    def frame_received(self, kind: int, payload: bytes) -> None:
        if kind == METHOD:
            self.method = payload
            if payload.startswith((BASIC_ACK, BASIC_NACK)):
                self.confirmed(int.from_bytes(payload[4:12]))
            return
        if kind == HEADER:
            self.header = payload
            self.missing = int.from_bytes(payload[4:12])
        else:
            self.chunks.append(payload)
            self.missing -= len(payload)
        if not self.missing:
            body = b''.join(self.chunks)
            self.chunks.clear()
            if self.method.startswith(BASIC_RETURN):
                self.message_returned()
            else:  # the delivery tag comes after the consumer tag
                start = 5 + self.method[4]
                delivery_tag = int.from_bytes(self.method[start:start + 8])
                self.unsettled[delivery_tag] = None
                self.receive(self, delivery_tag, self.header, body)

    def confirmed(self, delivery_tag: int) -> None:
        tags = [delivery_tag]
        if self.method[12] & 1:  # multiple: all up to this one
            tags = list(itertools.takewhile(delivery_tag.__ge__, self.unconfirmed))
        acked = self.method.startswith(BASIC_ACK)
        for tag in tags:
            future, message = self.unconfirmed.pop(tag)
            returned = message in self.returned
            if returned:
                self.returned.remove(message)
            if acked:
                _resolve(future, not returned)
            elif not future.done():
                future.set_exception(Refused('refused, without a word: queue full?'))

    def message_returned(self) -> None:
        """Note an unroutable message: its ack comes next, and doesn't mention it.

        A return has no delivery tag; but messages of one id to one queue are alike.
        """
        method = self.method  # class, method, code, text, exchange, routing key
        exchange = 7 + method[6]
        key = exchange + 1 + method[exchange]
        properties = _unpack_properties(self.header) or {}
        routing_key = method[key + 1:key + 1 + method[key]].decode()
        self.returned.append((routing_key, properties.get('correlation_id', '')))

    async def server_channel_close(self, frame: Any) -> None:
        # After Close-Ok this channel is none: what was gathered for it goes out before,
        # and nothing is published until it is opened again. aioamqp would wait between.
        self.protocol.flush()
        self.protocol.transport.write(marshal(ChannelMethod.CloseOk(), self.channel_id))
        self.connection_closed(frame.reply_code, frame.reply_text)

    async def server_basic_cancel(self, frame: Any) -> None:
        """The queue was deleted, or its node died: the channel stays, but deaf."""
        if self.link:
            self.link.drop(f'the broker ended the consumer of {self.name!r}')

    def connection_closed(self, server_code: Any = None, server_reason: Any = None,
                          exception: Any = None) -> None:
        """The broker closed this channel, or the connection is gone."""
        error: Exception = ConnectionError('connection lost')
        if 'timed out' in str(server_reason):
            server_reason += ' (RabbitMQ calls it consumer_timeout)'
        if server_code and not self.protocol.why:
            error = Refused(f'{server_reason} (channel of {self.name!r})', server_code)
        super().connection_closed(server_code, server_reason, error)
        for future, _ in self.unconfirmed.values():
            if not future.done():
                future.set_exception(error)
        self.unconfirmed.clear()
        if self.link:
            self.link.drop(error)


class _Protocol(AmqpProtocol):  # type: ignore[misc]
    """A connection that gathers what it writes, and says why it ended.

    `data_received` takes whole frames out of what the socket gives, wherever it was
    cut. Those of confirms and messages go to their channel at once and in their order,
    so a return stays before its ack; all others go to aioamqp's reader.
    """

    CHANNEL_FACTORY = _Channel

    def __init__(self, link: _Link, role: str, **options: Any) -> None:
        name = f'aioqueue {os.uname().nodename}:{os.getpid()} {role}'
        properties = {'product': 'aioqueue', 'version': __version__,
                      'connection_name': name, **options.pop('client_properties', {})}
        # This replaces all capabilities that aioamqp announces by itself.
        properties['capabilities'] = dict.fromkeys((
            'authentication_failure_close', 'basic.nack', 'consumer_cancel_notify',
            'publisher_confirms'), True)
        super().__init__(client_properties=properties, **options)
        link.protocols.append(self)
        self.link = link
        self.why: Exception | None = None
        self.transport: Any = None  # aioamqp forgets it when the connection is lost
        self._outgoing: list[bytes] = []
        self.acks: dict[_Channel, int] = {}  # the latest delivery tag of each channel
        self._incomplete = b''

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.link.drop(self.why or exc or 'closed by the peer')

    async def server_close(self, frame: Any) -> None:
        # 320 connection forced, 541 internal error: reasons of its own, that pass.
        passing, text = frame.reply_code in (320, 541), frame.reply_text
        self.why = ConnectionError(text) if passing else Refused(text, frame.reply_code)
        _resolve(self.link.broken, self.why)
        await super().server_close(frame)

    def send(self, *frames: bytes) -> None:
        """Write after all that can run now: one system call for many frames.

        Not for all of them: the broker works on the first while we make the next.
        """
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self.flush)
        self._outgoing += frames
        if len(self._outgoing) > MANY or len(frames) > 3:  # a body of several frames
            self.flush()

    def flush(self) -> None:
        for channel, tag in self.acks.items():
            self._outgoing.append(channel.frame(METHOD, ACK_ALL % tag.to_bytes(8)))
        self.acks.clear()
        if self._outgoing and not self.transport.is_closing():
            self.transport.write(b''.join(self._outgoing))
        self._outgoing.clear()

    def data_received(self, data: bytes) -> None:
        self._heartbeat_timer_recv_reset()
        data = self._incomplete + data
        start, size = 0, len(data)
        while size - start > 7:
            kind, channel_id, length = FRAME.unpack_from(data, start)
            end = start + 7 + length  # of the payload; the frame-end octet follows
            if end >= size:
                break
            payload = data[start + 7:end]
            if kind in (HEADER, BODY) or (kind == METHOD and payload[:4] in OURS):
                self.channels[channel_id].frame_received(kind, payload)
            else:
                super().data_received(data[start:end + 1])
            start = end + 1
        self._incomplete = data[start:]


def _message(body: bytes, correlation_id: str, content_type: str = MSGPACK,
             reply_to: str = '', **unusual: Any) -> Message:
    """A message to publish: the payload of its content header frame, body and id."""
    if any(unusual.values()):  # left to pamqp
        # RabbitMQ can't read inf and nan, and closes the connection over them.
        json.dumps(unusual, allow_nan=False, default=repr)
        properties = Basic.Properties(
            content_type=content_type, correlation_id=correlation_id, delivery_mode=2,
            reply_to=reply_to or None, **unusual)
        header = ContentHeader(0, len(body), properties).marshal()
        return header, body, correlation_id
    kind, ident = content_type.encode(), correlation_id.encode()
    reply = reply_to.encode()
    header = CONTENT.pack(60, 0, len(body), REPLY if reply else NO_REPLY)
    header = b'%b%c%b\x02%c%b' % (header, len(kind), kind, len(ident), ident)
    if reply:
        header += b'%c%b' % (len(reply), reply)
    return header, body, correlation_id


@functools.lru_cache(1024)  # one for each queue and each caller
def _publish_frame(channel: int, routing_key: str) -> bytes:
    publish = Basic.Publish(routing_key=routing_key, mandatory=True)
    return marshal(publish, channel)


def _unpack_properties(header: bytes) -> dict[str, Any] | None:
    """Decode the payload of a content header frame; None if it is malformed."""
    try:
        if usual := USUAL.fullmatch(header):
            kind, ident, reply = usual.groups(b'')
            return {'content_type': kind.decode(), 'correlation_id': ident.decode(),
                    'reply_to': reply.decode()}
        content = ContentHeader()
        content.unmarshal(header)
        return {name: value for name, value in content.properties if value is not None}
    except Exception:
        return None


def _job(name: str, header: bytes, body: bytes, room: int) -> SimpleNamespace:
    """A delivery as its handler sees it, and what its reply needs."""
    properties = _unpack_properties(header)
    known = properties or {}
    headers = known.get('headers', {})
    return SimpleNamespace(
        id=known.get('correlation_id') or os.urandom(16).hex(), name=name,
        headers=headers, attempt=_count(headers.get('x-attempt'), 1),
        deliveries=_count(headers.get('x-delivery-count'), 0), properties=properties,
        body=body, reply_to=known.get('reply_to', ''), parts=None,
        # Characters (of up to four bytes) of an error, of its type and its traceback:
        # they go in headers, which have to fit one frame.
        limit=min(room // 16, 10_000))


def _count(value: Any, least: int) -> int:
    return value if isinstance(value, int) and value > least else least


def _address(host: Any, port: int | None, ssl: bool | tls.SSLContext,
             options: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `aioamqp.connect()` for a host name or a URL."""
    if not isinstance(host, str):
        raise TypeError(f'host is a name, a URL or a list of them, not {host!r}')
    if not isinstance(ssl, (bool, tls.SSLContext)):
        raise TypeError(f'ssl is True or an ssl.SSLContext, not {ssl!r}')
    _check('port', port, (int, NoneType), 1, 65535)
    url = urlsplit(host if '://' in host else f'amqp://{host}')
    if url.scheme not in ('amqp', 'amqps') or not url.hostname or url.query:
        raise ValueError('host is a name or amqp(s)://user:password@host:port/vhost, '
                         f'not {url.scheme}://{url.hostname}?{url.query}')
    parts = {'login': url.username, 'password': url.password, 'host': url.hostname,
             'virtualhost': url.path[1:]}
    secure = ssl or url.scheme == 'amqps'
    return {**options, **{name: unquote(part) for name, part in parts.items() if part},
            'ssl': secure or None,
            'port': url.port or port or (5671 if secure else 5672)}


def _check_name(name: str, suffix: str = '') -> None:
    if not isinstance(name, str):
        raise TypeError(f"a queue name is a str, as in @q.on('name'), not {name!r}")
    if not NAME.fullmatch(name) or len(name + suffix) > 255:
        raise ValueError(f'a queue name is up to {255 - len(suffix)} letters, digits, '
                         "spaces or -_.:@#,/+, no delay queue's (NAME.delay.MS) and no "
                         f'amq.rabbitmq.*, not {name!r}')


def _check(what: str, value: Any, kind: Any, least: float, most: float) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f'{what} is a number from {least} to {most}, not {value!r}')
    if value is not None and not least <= value <= most:
        raise ValueError(f'{what} is a number from {least} to {most}, not {value!r}')


def _is_final(error: Any) -> bool:
    """Waiting can't mend it: the broker refuses us, or TLS does."""
    return (isinstance(error, Refused)
            or type(error) in (tls.SSLError, tls.SSLCertVerificationError))


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


async def _ended(*futures: Any, timeout: float | None = None) -> None:
    if pending := [future for future in futures if future and not future.done()]:
        await asyncio.wait(pending, timeout=timeout)


def _text(value: Any) -> str:
    """`str(value)`, whatever a handler raised, as text that can be sent."""
    try:
        return str(value).encode('utf-8', 'backslashreplace').decode()
    except BaseException:
        return f'{type(value).__name__}, whose str() fails'
