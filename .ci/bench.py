"""Measure aioqueue next to other libraries, on the RabbitMQ of `make rabbit`.

    make bench                               everything, a few minutes
    make bench ARGS='--rounds 3 --only aioqueue,aio-pika,limit'
    make bench ARGS='--flat'                 does the cost of a task grow? (--million)
    make bench ARGS='--workers 1,2,4'        several worker processes
    make bench ARGS='--tiny'                 only: does all of this still run?

Each contender is measured as one worker process and one caller process, which share the
cores with the broker. All contenders take their turn in every round, in another order
each time. Four kinds of work:

- enqueue: 50 coroutines, each of which sends one small dict after the other and wants
  no result. Tasks a second, until the broker has confirmed the last one.
- drain: one worker process works those off, with a prefetch of 100 and a handler that
  does nothing. Tasks a second, from the first one handled to the last.
- call: 50 coroutines, each of which sends one and awaits its result, again and again.
- latency: one call and its result after the other. Median, in milliseconds.

How to read the table: in each cell the median of all rounds, below it the smallest and
the largest. The third line of the other libraries is how many times faster aioqueue is,
that of aioqueue is how much of the broker's limit it reaches (latency: how many times
as long it takes). Both are the medians of the ratios within one round, so what slows
the whole machine down for a while spoils them less than it spoils the rates.

The broker's limit is not a library, but what this broker can do: frames encoded
beforehand and written to a raw socket, nothing decoded, no tasks, no futures.
It acknowledges each message with a frame of its own, as the others do; aioqueue needs
one frame for many, so it may drain a queue faster than this.

The second table is the processor time of a task (user and system, without the
broker's) and the peak memory (ru_maxrss) of either process. Where broker, worker and
caller share the cores, that is what decides.

What the peers are configured for is the promise that aioqueue makes, as far as they
can: tasks are persistent, in a durable classic queue, confirmed by the broker, and
acknowledged after they ran and their result was sent. What a peer can't promise, and
what was chosen in its favour, stands in the comments of its code below.
"""

import argparse
import asyncio
import collections
import contextlib
import importlib.metadata
import itertools
import json
import os
import pathlib
import platform
import resource
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOME = ROOT / '.bench'  # the virtual environment
PEERS = ('aio-pika', 'taskiq', 'taskiq-aio-pika', 'celery', 'uvloop')

AT_ONCE = 50
PREFETCH = 100
START_DEADLINE = 60  # seconds until a process has imported its library and connected
CLOSE_DEADLINE = 15
SLOWEST = 100  # tasks a second: what takes longer than that has failed

Handler = Callable[[Any], Awaitable[Any]]


class Failure(Exception):
    """A contender did not do its work: nothing is measured then."""


# The environment.


def prepare() -> None:
    """Make the virtual environment, unless it is there, and go on in it."""
    python = HOME / 'bin' / 'python'
    stamp = HOME / 'made-of'
    made_of = '\n'.join([sys.version, *PEERS, (ROOT / 'setup.py').read_text()])
    if not stamp.exists() or stamp.read_text() != made_of:
        say('making an environment in .bench, once')
        make = [sys.executable, '-m', 'venv', '--clear', str(HOME)]
        if subprocess.run(make).returncode:  # Debian's python3 comes without venv
            rabbit = str(ROOT / '.ci' / 'rabbit.py')
            subprocess.run([sys.executable, rabbit, 'apt', 'python3-venv'], check=True)
            subprocess.run(make, check=True)
        # Editable: it is the working tree that is measured, as it is now.
        pip = [str(python), '-m', 'pip', '-qq', '--disable-pip-version-check']
        subprocess.run([*pip, 'install', '--editable', str(ROOT), *PEERS], check=True)
        stamp.write_text(made_of)
    os.execv(python, [str(python), __file__, *sys.argv[1:]])


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def versions(contenders: list[str], url: str) -> Iterator[str]:
    connection = RawConnection(url)
    connection.socket.close()
    server = connection.server_properties
    yield f'{platform.python_implementation()} {platform.python_version()}'
    yield f'{server["product"]} {server["version"]}'
    packages = dict.fromkeys(
        package for name in contenders for package in CONTENDERS[name].packages
    )
    for package in packages:
        yield f'{package} {importlib.metadata.version(package)}'
    yield f'{os.cpu_count()} cores for all of them, {platform.system()}'


# What every worker and every caller has in common.


def processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_megabytes() -> float:
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


class Progress:
    """Counts what a worker has handled."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.count, self.first, self.last, self.processor = 0, 0.0, 0.0, 0.0

    def seen(self) -> None:
        self.last = time.monotonic()  # one clock for all processes of the machine
        if not self.count:
            self.first, self.processor = self.last, processor_seconds()
        self.count += 1

    def report(self) -> dict[str, float]:
        return {
            'count': self.count,
            'first': self.first,
            'last': self.last,
            'processor': processor_seconds() - self.processor,
            'megabytes': peak_megabytes(),
        }


def data_of(number: int, body: bytes = b'') -> dict[str, Any]:
    data = {'id': number, 'name': 'x'}
    return data | {'body': body} if body else data


class Caller:
    """The coroutines of a caller. A contender has to say how it sends and calls."""

    def __init__(self, url: str, queue: str) -> None:
        self.url, self.queue = url, queue

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, data: Any) -> None:
        raise NotImplementedError

    async def call(self, data: Any) -> Any:
        raise NotImplementedError

    async def enqueue(self, count: int, at_once: int, size: int = 0) -> None:
        numbers, body = iter(range(count)), b'x' * size

        async def send_some() -> None:
            for number in numbers:
                await self.send(data_of(number, body))

        await asyncio.gather(*(send_some() for _ in range(at_once)))

    async def calls(self, count: int, at_once: int) -> None:
        numbers = iter(range(count))

        async def call_some() -> None:
            for number in numbers:
                check(number, await self.call(data_of(number)))

        await asyncio.gather(*(call_some() for _ in range(at_once)))

    async def latencies(self, count: int) -> list[float]:
        seconds = []
        for number in range(count):
            start = time.perf_counter()
            check(number, await self.call(data_of(number)))
            seconds.append(time.perf_counter() - start)
        return seconds


def check(sent: int, result: Any) -> None:
    if result != sent:
        raise Failure(f'the result of {sent} is {result!r}')


# aioqueue.


class AioqueueCaller(Caller):
    async def open(self) -> None:
        import aioqueue

        self.q = aioqueue.Queue(self.url)
        await self.q.connect()

    async def close(self) -> None:
        await self.q.close()

    async def send(self, data: Any) -> None:
        await self.q.task(self.queue, data, no_response=True)

    async def call(self, data: Any) -> Any:
        task = await self.q.task(self.queue, data)
        return await task.result()


async def aioqueue_worker(
    url: str, queue: str, prefetch: int, handler: Handler
) -> None:
    import aioqueue

    q = aioqueue.Queue(url)

    @q.on(queue, prefetch_count=prefetch)
    async def handle(data: Any) -> Any:
        return await handler(data)

    await q.start_async()


# aio-pika, as its tutorial has it ("Remote procedure call"), with what its reference
# recommends: a robust connection, persistent messages, publisher confirms (on by
# default), a callback and not an iterator, so that PREFETCH messages run at once. In
# its favour: the reply queue is exclusive, so a lost connection loses the replies, and
# replies are not acknowledged.


class AioPikaCaller(Caller):
    async def open(self) -> None:
        import aio_pika

        self.connection = await aio_pika.connect_robust(self.url)
        self.channel = await self.connection.channel()
        await self.channel.declare_queue(self.queue, durable=True)
        replies = await self.channel.declare_queue(exclusive=True)
        self.reply_queue = replies.name
        self.results: dict[str, asyncio.Future[Any]] = {}
        await replies.consume(self.on_reply, no_ack=True)

    async def close(self) -> None:
        await self.connection.close()

    async def on_reply(self, message: Any) -> None:
        import msgpack

        result = self.results.pop(message.correlation_id)
        result.set_result(msgpack.unpackb(message.body))

    async def send(self, data: Any, **properties: Any) -> None:
        import aio_pika
        import msgpack

        message = aio_pika.Message(
            msgpack.packb(data),
            content_type='application/msgpack',
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            **properties,
        )
        await self.channel.default_exchange.publish(message, routing_key=self.queue)

    async def call(self, data: Any) -> Any:
        correlation_id = os.urandom(16).hex()
        result = asyncio.get_running_loop().create_future()
        self.results[correlation_id] = result
        await self.send(data, correlation_id=correlation_id, reply_to=self.reply_queue)
        return await result


async def aio_pika_worker(
    url: str, queue: str, prefetch: int, handler: Handler
) -> None:
    import aio_pika
    import msgpack

    connection = await aio_pika.connect_robust(url)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=prefetch)
    tasks = await channel.declare_queue(queue, durable=True)

    async def on_message(message: Any) -> None:
        async with message.process():  # acknowledges at its end
            result = await handler(msgpack.unpackb(message.body))
            if message.reply_to:
                reply = aio_pika.Message(
                    msgpack.packb(result),
                    content_type='application/msgpack',
                    correlation_id=message.correlation_id,
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                )
                await channel.default_exchange.publish(
                    reply, routing_key=message.reply_to
                )

    await tasks.consume(on_message)


# Plain aioamqp, without what aioqueue corrects in it. It doesn't understand a confirm
# of several messages, so a second unconfirmed message on a channel may wait for ever:
# there are as many channels as messages at once. What it can't promise: a message that
# reached no queue passes for confirmed, a closed channel or a cancelled consumer is not
# noticed, and a lost connection stays lost. In its favour: replies as in aio-pika.


class AioamqpPublisher:
    def __init__(self) -> None:
        self.channels: asyncio.LifoQueue[Any] = asyncio.LifoQueue()

    async def open(self, protocol: Any) -> None:
        for _ in range(AT_ONCE):
            channel = await protocol.channel()
            await channel.confirm_select()
            self.channels.put_nowait(channel)

    async def publish(self, queue: str, data: Any, **properties: Any) -> None:
        import msgpack

        channel = await self.channels.get()
        properties |= {'content_type': 'application/msgpack', 'delivery_mode': 2}
        await channel.publish(msgpack.packb(data), '', queue, properties)
        self.channels.put_nowait(channel)


async def connect_aioamqp(url: str) -> Any:
    import aioamqp

    parts = Address.of(url)
    _, protocol = await aioamqp.connect(
        parts.host,
        parts.port,
        login=parts.user,
        password=parts.password,
        virtualhost=parts.virtual_host,
    )
    return protocol


class AioamqpCaller(Caller):
    async def open(self) -> None:
        self.protocol = await connect_aioamqp(self.url)
        self.publisher = AioamqpPublisher()
        await self.publisher.open(self.protocol)
        self.results: dict[str, asyncio.Future[Any]] = {}
        channel = await self.protocol.channel()
        await channel.queue_declare(self.queue, durable=True)
        replies = await channel.queue_declare(exclusive=True)
        self.reply_queue = replies['queue']
        await channel.basic_consume(self.on_reply, self.reply_queue, no_ack=True)

    async def close(self) -> None:
        await self.protocol.close()

    async def on_reply(
        self, channel: Any, body: bytes, envelope: Any, properties: Any
    ) -> None:
        import msgpack

        result = self.results.pop(properties.correlation_id)
        result.set_result(msgpack.unpackb(body))

    async def send(self, data: Any) -> None:
        await self.publisher.publish(self.queue, data)

    async def call(self, data: Any) -> Any:
        correlation_id = os.urandom(16).hex()
        result = asyncio.get_running_loop().create_future()
        self.results[correlation_id] = result
        await self.publisher.publish(
            self.queue, data, correlation_id=correlation_id, reply_to=self.reply_queue
        )
        return await result


async def aioamqp_worker(url: str, queue: str, prefetch: int, handler: Handler) -> None:
    import msgpack

    protocol = await connect_aioamqp(url)
    publisher = AioamqpPublisher()
    await publisher.open(protocol)
    running: set[asyncio.Task[None]] = set()

    async def work(channel: Any, body: bytes, envelope: Any, properties: Any) -> None:
        result = await handler(msgpack.unpackb(body))
        if properties.reply_to:
            await publisher.publish(
                properties.reply_to, result, correlation_id=properties.correlation_id
            )
        await channel.basic_client_ack(envelope.delivery_tag)

    async def on_message(*delivery: Any) -> None:
        # A task: the connection is not read while this callback runs.
        task = asyncio.create_task(work(*delivery))
        running.add(task)
        task.add_done_callback(running.discard)

    channel = await protocol.channel()
    await channel.queue_declare(queue, durable=True)
    await channel.basic_qos(prefetch_count=prefetch)
    await channel.basic_consume(on_message, queue)


# taskiq on taskiq-aio-pika. Its workers can't send a result through RabbitMQ (that
# takes Redis, say), so it has no calls here. Its queues are quorum queues unless asked
# otherwise; like all others here it gets a classic one.


def taskiq_broker(url: str, queue: str, prefetch: int, handler: Handler | None) -> Any:
    from taskiq_aio_pika import AioPikaBroker, Exchange, Queue, QueueType

    broker = AioPikaBroker(
        url,
        qos=prefetch,
        exchange=Exchange(name=queue),
        task_queues=[Queue(name=queue, type=QueueType.CLASSIC)],
        dead_letter_queue=Queue(name=f'{queue}.dead', type=QueueType.CLASSIC),
    )

    async def handle(data: Any) -> Any:
        assert handler
        return await handler(data)

    return broker, broker.register_task(handle, 'handle')


class TaskiqCaller(Caller):
    async def open(self) -> None:
        self.broker, self.task = taskiq_broker(self.url, self.queue, PREFETCH, None)
        await self.broker.startup()

    async def close(self) -> None:
        await self.broker.shutdown()

    async def send(self, data: Any) -> None:
        await self.task.kiq(data)


async def taskiq_worker(url: str, queue: str, prefetch: int, handler: Handler) -> None:
    from taskiq.api import run_receiver_task

    broker, _ = taskiq_broker(url, queue, prefetch, handler)
    # What `taskiq worker` runs in its processes.
    await run_receiver_task(broker, max_async_tasks=prefetch, run_startup=True)


# Celery, with publisher confirms and late acknowledgement switched on. Its handlers are
# not async. Of its pools `solo` is the fastest for tasks that do nothing, and is one
# process like all others here; it runs one task at a time. 50 at once are ten threads
# to enqueue (as many as its pool has connections; more are slower), and 50 sent and not
# yet awaited for the calls: threads that await results disturb each other. In its
# favour: its reply queue goes away with a lost connection, and so do the results.


def celery_app(url: str, queue: str) -> Any:
    import celery

    app = celery.Celery(queue, broker=url, backend='rpc://')
    app.conf.update(
        broker_transport_options={'confirm_publish': True},
        broker_connection_retry_on_startup=True,
        result_persistent=True,
        task_acks_late=True,
        task_default_queue=queue,
        worker_enable_remote_control=False,
        worker_prefetch_multiplier=PREFETCH,
    )
    return app


class CeleryCaller(Caller):
    async def open(self) -> None:
        self.app = celery_app(self.url, self.queue)

        def handle(data: Any) -> None: ...

        self.task = self.app.task(handle, name='handle')
        self.app.finalize()

    async def close(self) -> None:
        self.app.close()

    async def enqueue(self, count: int, at_once: int, size: int = 0) -> None:
        numbers, lock = iter(range(count)), threading.Lock()

        def send_some() -> None:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                self.task.apply_async((data_of(number),), ignore_result=True)

        senders = min(at_once, self.app.conf.broker_pool_limit)
        await asyncio.gather(*(asyncio.to_thread(send_some) for _ in range(senders)))

    async def calls(self, count: int, at_once: int) -> None:
        pending: collections.deque[Any] = collections.deque()
        for number in range(count):
            if len(pending) == at_once:
                check(number - at_once, pending.popleft().get(CLOSE_DEADLINE))
            pending.append(self.task.apply_async((data_of(number),)))
        for number in range(count - len(pending), count):
            check(number, pending.popleft().get(CLOSE_DEADLINE))

    async def call(self, data: Any) -> Any:
        return self.task.apply_async((data,)).get(CLOSE_DEADLINE)


async def celery_worker(url: str, queue: str, prefetch: int, handler: Handler) -> None:
    import warnings

    app = celery_app(url, queue)
    warnings.filterwarnings(
        'ignore', message="You're running the worker with superuser"
    )

    @app.task(name='handle')
    def handle(data: Any) -> Any:
        try:
            handler(data).send(None)  # it awaits nothing, so it needs no loop
        except StopIteration as result:
            return result.value

    worker = app.Worker(
        hostname=queue,
        pool='solo',
        concurrency=1,
        prefetch_multiplier=prefetch,
        loglevel='ERROR',
        quiet=True,
        without_gossip=True,
        without_heartbeat=True,
        without_mingle=True,
    )
    worker.start()  # returns at the end of the worker


# The broker's limit.


class Address(NamedTuple):
    host: str
    port: int
    user: str
    password: str
    virtual_host: str

    @classmethod
    def of(cls, url: str) -> 'Address':
        parts = urlsplit(url)
        return cls(
            parts.hostname or 'localhost',
            parts.port or 5672,
            unquote(parts.username or 'guest'),
            unquote(parts.password or 'guest'),
            unquote(parts.path[1:]) or '/',
        )


class RawConnection:
    """A blocking connection with one channel, to set up what is measured later."""

    def __init__(self, url: str) -> None:
        from pamqp import commands

        address = Address.of(url)
        self.socket = socket.create_connection((address.host, address.port), 10)
        self.received = b''
        self.socket.sendall(b'AMQP\x00\x00\x09\x01')
        self.server_properties = self.read().server_properties
        login = f'\0{address.user}\0{address.password}'
        tune = self.ask(
            commands.Connection.StartOk({'product': 'bench'}, 'PLAIN', login), 0
        )
        self.frame_max = tune.frame_max
        self.send(commands.Connection.TuneOk(tune.channel_max, tune.frame_max, 0), 0)
        self.ask(commands.Connection.Open(address.virtual_host), 0)
        self.ask(commands.Channel.Open())

    def send(self, frame: Any, channel: int = 1) -> None:
        from pamqp.frame import marshal

        self.socket.sendall(marshal(frame, channel))

    def read(self) -> Any:
        from pamqp.exceptions import UnmarshalingException
        from pamqp.frame import unmarshal

        while True:
            try:
                size, _, frame = unmarshal(self.received)
            except UnmarshalingException:  # not all of it is here yet
                if not (data := self.socket.recv(65536)):
                    raise Failure('the broker closed the connection') from None
                self.received += data
            else:
                self.received = self.received[size:]
                return frame

    def ask(self, frame: Any, channel: int = 1) -> Any:
        self.send(frame, channel)
        answer = self.read()
        if answer.name in ('Connection.Close', 'Channel.Close'):
            raise Failure(answer.reply_text)
        return answer

    def message(self, queue: str, body: bytes, **properties: Any) -> bytes:
        """All frames of a message."""
        from pamqp import commands
        from pamqp.body import ContentBody
        from pamqp.frame import marshal
        from pamqp.header import ContentHeader

        frames = [
            commands.Basic.Publish(exchange='', routing_key=queue),
            ContentHeader(
                body_size=len(body),
                properties=commands.Basic.Properties(delivery_mode=2, **properties),
            ),
        ]
        room = self.frame_max - 8
        frames += [
            ContentBody(body[at : at + room]) for at in range(0, len(body), room)
        ]
        return b''.join(marshal(frame, 1) for frame in frames)

    def consume(self, queue: str, prefetch: int) -> None:
        from pamqp import commands

        self.ask(commands.Basic.Qos(prefetch_count=prefetch))
        # The first messages may be right behind its answer: nobody may read them here.
        self.send(commands.Basic.Consume(queue=queue, consumer_tag='c', nowait=True))

    def declare(self, queue: str) -> None:
        from pamqp import commands

        self.ask(commands.Queue.Declare(queue=queue, durable=True))

    def confirm(self) -> None:
        from pamqp import commands

        self.ask(commands.Confirm.Select())

    def remove(self, queue: str) -> int:
        """Delete all that is named after a queue; return how many tasks it held."""
        from pamqp import commands

        held = self.ask(commands.Queue.Delete(queue=queue)).message_count
        for suffix in ('reply', 'dead'):
            self.ask(commands.Queue.Delete(queue=f'{queue}.{suffix}'))
        self.ask(commands.Exchange.Delete(exchange=queue))
        return held

    async def hand_over(self, protocol: asyncio.Protocol) -> None:
        """The rest is asyncio's."""
        self.socket.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: protocol, sock=self.socket)
        if self.received:
            protocol.data_received(self.received)


class RawProtocol(asyncio.Protocol):
    """Finds the confirms and the messages in what arrives, and looks no closer.

    What is appended to `outgoing` meanwhile goes out in one write.
    """

    FRAME = struct.Struct('>BHI')  # type, channel, size; then payload and frame end
    DELIVER, CONFIRM = b'\x00\x3c\x00\x3c', b'\x00\x3c\x00\x50'
    ACK = b'\x01\x00\x01\x00\x00\x00\x0d\x00\x3c\x00\x50%b\x00\xce'
    REPLY_TO = 0x0200  # the property flag

    def __init__(self) -> None:
        self.outgoing: list[bytes] = []
        self.incomplete = self.delivery_tag = b''
        self.missing = 0
        self.wants_reply = False

    def confirmed(self, delivery_tag: int, multiple: bool) -> None: ...

    def message_received(self) -> None: ...

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        say(f'limit: connection lost: {exc}')
        os._exit(1)

    def data_received(self, data: bytes) -> None:
        data = self.incomplete + data if self.incomplete else data
        at, size = 0, len(data)
        while size - at > 7:
            kind, _, length = self.FRAME.unpack_from(data, at)
            if at + length + 8 > size:
                break
            payload, at = at + 7, at + length + 8
            if kind == 1:
                method = data[payload : payload + 4]
                if method == self.DELIVER:  # the consumer tag is one octet and its size
                    self.delivery_tag = data[payload + 6 : payload + 14]
                elif method == self.CONFIRM:
                    tag = int.from_bytes(data[payload + 4 : payload + 12], 'big')
                    self.confirmed(tag, data[payload + 12] == 1)
                else:
                    say(f'limit: unexpected {data[payload : payload + length]!r}')
                    os._exit(1)
            elif kind == 2:
                self.missing = int.from_bytes(data[payload + 4 : payload + 12], 'big')
                flags = int.from_bytes(data[payload + 12 : payload + 14], 'big')
                self.wants_reply = bool(flags & self.REPLY_TO)
            elif kind == 3:
                self.missing -= length
                if not self.missing:
                    self.outgoing.append(self.ACK % self.delivery_tag)
                    self.message_received()
        self.incomplete = data[at:]
        self.flush()

    def flush(self) -> None:
        if self.outgoing:
            self.transport.write(b''.join(self.outgoing))
            self.outgoing.clear()


class LimitSender(RawProtocol):
    """Keeps `window` messages on their way, until `count` of them are done."""

    def __init__(self) -> None:
        super().__init__()
        self.tag = 0
        self.unconfirmed: set[int] = set()

    def start(
        self, message: bytes, count: int, window: int, calls: bool
    ) -> asyncio.Future[None]:
        self.message, self.calls = message, calls
        self.unsent, self.undone = count, count
        self.done = asyncio.get_running_loop().create_future()
        self.times = [time.perf_counter()]
        self.send(window)
        self.flush()
        return self.done

    def send(self, count: int) -> None:
        count = min(count, self.unsent)
        self.unsent -= count
        for _ in range(count):
            self.tag += 1
            self.unconfirmed.add(self.tag)
            self.outgoing.append(self.message)

    def confirmed(self, delivery_tag: int, multiple: bool) -> None:
        tags = {delivery_tag}
        if multiple:
            tags = {tag for tag in self.unconfirmed if tag <= delivery_tag}
        self.unconfirmed -= tags
        if not self.calls:
            self.advance(len(tags))

    def message_received(self) -> None:
        self.advance(1)

    def advance(self, count: int) -> None:
        self.times.append(time.perf_counter())
        self.undone -= count
        if not self.undone:
            self.done.set_result(None)
        self.send(count)


class LimitCaller(Caller):
    async def open(self) -> None:
        self.connection = RawConnection(self.url)
        self.connection.declare(self.queue)
        self.connection.declare(f'{self.queue}.reply')
        self.connection.confirm()
        self.connection.consume(f'{self.queue}.reply', PREFETCH)
        self.sender = LimitSender()
        await self.connection.hand_over(self.sender)

    def message(self, size: int = 0, reply_to: str | None = None) -> bytes:
        import msgpack

        return self.connection.message(
            self.queue,
            msgpack.packb(data_of(1, b'x' * size)),
            content_type='application/msgpack',
            correlation_id='0' * 32,
            reply_to=reply_to,
        )

    async def enqueue(self, count: int, at_once: int, size: int = 0) -> None:
        await self.sender.start(self.message(size), count, at_once, calls=False)

    async def calls(self, count: int, at_once: int) -> None:
        request = self.message(reply_to=f'{self.queue}.reply')
        await self.sender.start(request, count, at_once, calls=True)

    async def latencies(self, count: int) -> list[float]:
        await self.calls(count, 1)
        return [end - start for start, end in itertools.pairwise(self.sender.times)]


async def limit_worker(url: str, queue: str, prefetch: int, handler: Handler) -> None:
    connection = RawConnection(url)
    connection.declare(queue)
    connection.confirm()
    reply = connection.message(
        f'{queue}.reply',
        b'\x92\xc0\x01',
        content_type='application/msgpack',
        correlation_id='0' * 32,
    )

    class Worker(RawProtocol):
        def message_received(self) -> None:
            progress.seen()
            if self.wants_reply:
                self.outgoing.append(reply)

    connection.consume(queue, prefetch)
    await connection.hand_over(Worker())


class Contender(NamedTuple):
    caller: type[Caller]
    worker: Callable[[str, str, int, Handler], Awaitable[None]]
    packages: tuple[str, ...]
    share: float = 1.0  # of the tasks: slow ones get fewer
    calls: float = 0.5  # of its tasks


CONTENDERS = {
    'aioqueue': Contender(
        AioqueueCaller, aioqueue_worker, ('aioqueue', 'aioamqp', 'msgpack')
    ),
    'aio-pika': Contender(AioPikaCaller, aio_pika_worker, ('aio-pika',)),
    'aioamqp': Contender(AioamqpCaller, aioamqp_worker, ('aioamqp',)),
    'taskiq': Contender(
        TaskiqCaller, taskiq_worker, ('taskiq', 'taskiq-aio-pika'), 0.3, 0
    ),
    'celery': Contender(CeleryCaller, celery_worker, ('celery',), 0.2, 0.25),
    'limit': Contender(LimitCaller, limit_worker, ()),
}


# The processes. They get a JSON object a line on stdin, and answer each with one.

progress = Progress()


def play(options: argparse.Namespace) -> None:
    """Be the worker or the caller."""
    # Libraries print what they like; the parent is told nothing but answers.
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)

    def answer(**fields: Any) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    part = be_worker if options.role == 'worker' else be_caller
    loop_factory = None
    if options.uvloop:
        import uvloop

        loop_factory = uvloop.new_event_loop
    status = 1
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(part(options, answer))
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)  # whatever threads of a library are left


async def be_worker(options: argparse.Namespace, answer: Callable[..., None]) -> None:
    async def handler(data: Any) -> Any:
        progress.seen()
        if options.pause:
            await asyncio.sleep(options.pause)
        return data['id']

    def obey() -> None:
        for line in sys.stdin:
            if json.loads(line)['do'] == 'reset':
                progress.reset()
            answer(**progress.report())
        os._exit(0)

    sys.stdin.readline()  # now
    answer()
    threading.Thread(target=obey, daemon=True).start()
    worker = CONTENDERS[options.contender].worker
    await worker(options.url, options.queue, options.prefetch, handler)
    await asyncio.Event().wait()


async def be_caller(options: argparse.Namespace, answer: Callable[..., None]) -> None:
    loop = asyncio.get_running_loop()
    commands: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def listen() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(commands.put_nowait, json.loads(line))
        loop.call_soon_threadsafe(commands.put_nowait, None)
        time.sleep(CLOSE_DEADLINE)  # the parent is gone, or had enough of this
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    caller = CONTENDERS[options.contender].caller(options.url, options.queue)
    await caller.open()
    while command := await commands.get():
        work = getattr(caller, command.pop('do'))
        start, processor = time.perf_counter(), processor_seconds()
        latencies = await work(**command)
        answer(
            seconds=time.perf_counter() - start,
            processor=processor_seconds() - processor,
            megabytes=peak_megabytes(),
            latency=statistics.median(latencies) if latencies else None,
        )
    await caller.close()


class Process:
    """A worker or a caller, as its parent sees it."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name, self.process = name, process

    async def ask(self, do: str, **command: Any) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        deadline = START_DEADLINE + command.get('count', 0) / SLOWEST
        try:
            async with asyncio.timeout(deadline):
                self.process.stdin.write(json.dumps({'do': do, **command}).encode())
                self.process.stdin.write(b'\n')
                await self.process.stdin.drain()
                answer = await self.process.stdout.readline()
        except TimeoutError:
            raise Failure(f'{self.name}: no answer to {do} in {deadline} s') from None
        except ConnectionError:
            answer = b''
        if not answer:
            raise Failure(f'{self.name} ended before it had done {do}')
        return json.loads(answer)

    async def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        try:
            async with asyncio.timeout(CLOSE_DEADLINE):
                status = await self.process.wait()
        except TimeoutError:
            raise Failure(f'{self.name} did not end') from None
        if status:
            raise Failure(f'{self.name} ended with status {status}')


@contextlib.asynccontextmanager
async def start(
    options: argparse.Namespace, role: str, contender: str, queue: str, **more: Any
) -> AsyncIterator[Process]:
    more |= {'role': role, 'contender': contender, 'queue': queue, 'url': options.url}
    arguments = [f'--{name}={value}' for name, value in more.items()]
    if options.uvloop and contender == 'aioqueue':
        arguments.append('--uvloop')
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        *arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # with all processes that it may start
    )
    try:
        started = Process(f'{role} of {contender}', process)
        yield started
        await started.end()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


# What the parent measures.


class Measured(NamedTuple):
    """One piece of work, on one side."""

    rate: float  # tasks a second
    microseconds: float  # processor time a task
    megabytes: float  # peak memory
    milliseconds: float = 0.0  # median latency


def queue_of(contender: str) -> str:
    return f'bench.{os.getpid()}.{contender}'


@contextlib.contextmanager
def cleared_queue(options: argparse.Namespace, contender: str) -> Iterator[str]:
    """The name of a queue; in the end it has to be empty, and is removed."""
    queue, held = queue_of(contender), 0
    try:
        yield queue
    finally:
        connection = RawConnection(options.url)
        held = connection.remove(queue)
        connection.socket.close()
    if held:
        raise Failure(f'{contender} left {held} tasks in its queue')


async def ask_caller(caller: Process, do: str, count: int, **more: Any) -> Measured:
    answer = await caller.ask(do, count=count, **more)
    return Measured(
        count / answer['seconds'],
        answer['processor'] / count * 1e6,
        answer['megabytes'],
        (answer['latency'] or 0) * 1e3,
    )


async def wait_for_workers(workers: list[Process], count: int) -> Measured:
    """Wait until all workers together have handled `count` tasks."""
    deadline = time.monotonic() + START_DEADLINE + count / SLOWEST
    handled = 0
    while handled < count:
        if time.monotonic() > deadline:
            raise Failure(f'{workers[0].name}: {handled} of {count} tasks handled')
        await asyncio.sleep(0.1)
        reports = [await worker.ask('report') for worker in workers]
        handled = sum(report['count'] for report in reports)
    busy = [report for report in reports if report['count']]
    seconds = max(each['last'] for each in busy) - min(each['first'] for each in busy)
    return Measured(
        handled / max(seconds, 1e-9),
        sum(each['processor'] for each in busy) / handled * 1e6,
        max(each['megabytes'] for each in busy),
    )


async def measure_enqueue(
    options: argparse.Namespace,
    contender: str,
    queue: str,
    count: int,
    at_once: int = AT_ONCE,
    size: int = 0,
) -> Measured:
    """Leave `count` and `at_once` more tasks in the queue."""
    async with start(options, 'caller', contender, queue) as caller:
        # The first ones, which find everything cold, are not measured.
        await caller.ask('enqueue', count=at_once, at_once=at_once, size=size)
        return await ask_caller(caller, 'enqueue', count, at_once=at_once, size=size)


async def measure_drain(
    options: argparse.Namespace,
    contender: str,
    queue: str,
    count: int,
    prefetch: int = PREFETCH,
    pause: float = 0,
    workers: int = 1,
) -> Measured:
    async with contextlib.AsyncExitStack() as stack:
        started = [
            await stack.enter_async_context(
                start(
                    options,
                    'worker',
                    contender,
                    queue,
                    prefetch=prefetch,
                    pause=pause,
                )
            )
            for _ in range(workers)
        ]
        for worker in started:
            await worker.ask('consume')
        measured = await wait_for_workers(started, count)
        await asyncio.sleep(0.3)  # the last acknowledgements are on their way
        return measured


async def measure(options: argparse.Namespace, contender: str) -> dict[str, Measured]:
    """All four kinds of work; the caller's side unless the key says otherwise."""
    one = CONTENDERS[contender]
    count = max(round(options.tasks * one.share), AT_ONCE)
    found = {}
    with cleared_queue(options, contender) as queue:
        found['enqueue'] = await measure_enqueue(options, contender, queue, count)
        async with start(options, 'worker', contender, queue) as worker:
            await worker.ask('consume')
            found['drain'] = await wait_for_workers([worker], count + AT_ONCE)
            if calls := max(round(count * one.calls), one.calls and AT_ONCE):
                async with start(options, 'caller', contender, queue) as caller:
                    await caller.ask('calls', count=AT_ONCE, at_once=AT_ONCE)
                    await worker.ask('reset')
                    found['call'] = await ask_caller(
                        caller, 'calls', calls, at_once=AT_ONCE
                    )
                    found['call, worker'] = await wait_for_workers([worker], calls)
                    found['latency'] = await ask_caller(
                        caller, 'latencies', max(calls // 10, 10)
                    )
            await asyncio.sleep(0.3)  # the last acknowledgements are on their way
    return found


# What it prints.


def simple_table(head: list[str], rows: list[list[list[str]]]) -> Iterator[str]:
    """A table of reStructuredText; the cells of a row have several lines.

    Only the first line of a row may have text in the first column.
    """
    lines = [[[each] for each in head], *rows]
    widths = [
        max(len(line) for row in lines for line in row[column])
        for column in range(len(head))
    ]
    rule = '  '.join('=' * width for width in widths)
    yield rule
    for number, row in enumerate(lines):
        for at in range(max(len(cell) for cell in row)):
            cells = [cell[at] if at < len(cell) else '' for cell in row]
            yield '  '.join(
                cell.ljust(width) for cell, width in zip(cells, widths, strict=True)
            ).rstrip()
        if number == 0:
            yield rule
    yield rule


def number_text(value: float) -> str:
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def speeds(rounds: list[dict[str, dict[str, Measured]]], names: list[str]) -> list[Any]:
    """The rows of the first table."""
    rows = []
    for work, unit, better in (
        ('enqueue', 'tasks/s', 1),
        ('drain', 'tasks/s', 1),
        ('call', 'calls/s', 1),
        ('latency', 'ms', -1),
    ):
        by_round = [
            {
                name: one.milliseconds if better < 0 else one.rate
                for name, found in each.items()
                if (one := found.get(work))
            }
            for each in rounds
        ]
        row = [[f'{work}, {unit}']]
        for name in names:
            values = [each[name] for each in by_round if name in each]
            if not values:
                row.append(['n/a'])
                continue
            cell = [
                f'| {number_text(statistics.median(values))}',
                f'| {number_text(min(values))}-{number_text(max(values))}',
            ]
            other = 'limit' if name == 'aioqueue' else name
            ratios = [
                (each['aioqueue'] / each[other]) ** better
                for each in by_round
                if {'aioqueue', other} <= each.keys()
            ]
            if ratios and name != 'limit':
                ratio = statistics.median(ratios)
                if name == 'aioqueue' and better > 0:
                    cell.append(f'| {ratio:.0%} of limit')
                elif name == 'aioqueue':
                    cell.append(f'| limit x {1 / ratio:.2f}')
                else:
                    cell.append(f'| x {ratio:.2f}')
            row.append(cell)
        rows.append(row)
    return rows


def costs(rounds: list[dict[str, dict[str, Measured]]], names: list[str]) -> list[Any]:
    """The rows of the second table."""
    rows = []
    for key, title in (
        ('enqueue', 'enqueue, caller'),
        ('drain', 'drain, worker'),
        ('call', 'call, caller'),
        ('call, worker', 'call, worker'),
    ):
        row = [[title]]
        for name in names:
            found = [each[name][key] for each in rounds if key in each.get(name, {})]
            if found:
                microseconds = statistics.median(one.microseconds for one in found)
                megabytes = max(one.megabytes for one in found)
                row.append([f'{microseconds:.0f} µs, {megabytes:.0f} MB'])
            else:
                row.append(['n/a'])
        rows.append(row)
    return rows


def show(head: list[str], rows: list[Any], *legend: str) -> None:
    print()
    print('\n'.join([*simple_table(head, rows), '', *legend]), flush=True)


async def compare(options: argparse.Namespace) -> bool:
    names, count = options.only, options.rounds or 5
    rounds: list[dict[str, dict[str, Measured]]] = []
    failed = False
    for number in range(count):
        rounds.append({})
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            try:
                found = rounds[-1][name] = await measure(options, name)
            except Failure as failure:
                failed = True
                say(f'round {number + 1} of {count}: FAILED: {failure}')
                continue
            rates = [
                f'{work} {number_text(one.milliseconds or one.rate)}'
                for work, one in found.items()
                if work != 'call, worker'
            ]
            say(f'round {number + 1} of {count}: {name:9} {", ".join(rates)}')
    what = ', '.join(versions(names, options.url))
    show(
        ['', *names],
        speeds(rounds, names),
        f'Median of {count} rounds, smallest-largest. x 2: aioqueue is twice as fast.',
        f'{what}{", aioqueue under uvloop" if options.uvloop else ""}.',
    )
    show(
        ['', *names],
        costs(rounds, names),
        'Processor time a task (median) and peak memory of the process (largest).',
    )
    return not failed


async def flat(options: argparse.Namespace) -> bool:
    """Does the cost of a task grow with their number, their size, or those at once?"""
    base = options.tasks
    cases = [(count, AT_ONCE, 0) for count in (base // 10, base, base * 10)]
    if options.million:
        cases.append((1_000_000, AT_ONCE, 0))
    cases += [(base // 2 if n > 1 else base // 10, n, 0) for n in (1, 10, 50, 100, 200)]
    cases += [
        (max(min(base // 2, base * 10_000 // size), 10), AT_ONCE, size)
        for size in (100, 1_000, 10_000, 100_000, 1_000_000)
    ]
    rows = []
    for count, at_once, size in cases:
        say(f'{count:,} tasks, {at_once} at once, {size or "small"} bytes')
        cells = [[f'{count:,}'], [str(at_once)], [f'{size:,} B' if size else 'small']]
        times = 1 if count >= 1_000_000 else options.rounds or 3
        for contender in ('aioqueue', 'limit'):
            runs = []
            for _ in range(times):
                with cleared_queue(options, contender) as queue:
                    run = [
                        await measure_enqueue(
                            options, contender, queue, count, at_once, size
                        ),
                        await measure_drain(
                            options, contender, queue, count + at_once, at_once
                        ),
                    ]
                runs.append(run)
            for side in zip(*runs, strict=True):
                rate = statistics.median(one.rate for one in side)
                cells.append([number_text(rate)])
                if size:
                    cells[-1][0] += f' ({number_text(rate * size / 1e6)} MB/s)'
                if contender == 'aioqueue':
                    cost = statistics.median(one.microseconds for one in side)
                    cells[-1][0] += f', {number_text(cost)} µs'
                    cells[-1][0] += f', {max(one.megabytes for one in side):.0f} MB'
        rows.append(cells)
    show(
        ['tasks', 'at once', 'body', 'enqueue', 'drain', 'limit: enqueue', 'drain'],
        rows,
        'Tasks a second, processor time a task, peak memory of the process.',
        'At once: the coroutines that send, and the prefetch of the worker.',
        ', '.join(versions(['aioqueue'], options.url)) + '.',
    )
    return True


async def several_workers(options: argparse.Namespace) -> bool:
    rows = []
    for workers in options.workers:
        cells = [[str(workers)]]
        for pause in (0, 0.01):
            rates = []
            for _ in range(options.rounds or 3):
                count = options.tasks * 2
                with cleared_queue(options, 'aioqueue') as queue:
                    await measure_enqueue(options, 'aioqueue', queue, count)
                    measured = await measure_drain(
                        options,
                        'aioqueue',
                        queue,
                        count + AT_ONCE,
                        pause=pause,
                        workers=workers,
                    )
                rates.append(measured.rate)
            say(f'{workers} workers, pause {pause} s: {rates}')
            cells.append([number_text(statistics.median(rates))])
        rows.append(cells)
    show(
        ['worker processes', 'no-op, tasks/s', 'asyncio.sleep(0.01), tasks/s'],
        rows,
        f'prefetch_count={PREFETCH}, {os.cpu_count()} cores.',
    )
    return True


async def tiny(options: argparse.Namespace) -> bool:
    options.tasks, options.rounds, options.workers = 200, 1, [2]
    fine = await compare(options)
    return fine and await several_workers(options) and await flat(options)


def parsed() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        chosen = text.split(',')
        if unknown := set(chosen) - CONTENDERS.keys():
            raise argparse.ArgumentTypeError(f'not among {[*CONTENDERS]}: {unknown}')
        return chosen

    def numbers(text: str) -> list[int]:
        return [int(each) for each in text.split(',')]

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--rounds', type=int, help='5, or 3 with --flat and --workers')
    add('--tasks', type=int, default=10_000, help='of the fast ones, in a round')
    add(
        '--only',
        type=names,
        default=[*CONTENDERS],
        metavar='NAME,...',
        help=','.join(CONTENDERS),
    )
    add('--url', default='amqp://guest:guest@localhost:5672/', help='of the broker')
    add('--uvloop', action='store_true', help='run aioqueue under uvloop')
    add('--flat', action='store_true', help='growing counts, sizes, numbers at once')
    add('--million', action='store_true', help='with --flat: up to a million tasks')
    add('--workers', type=numbers, metavar='N,...', help='aioqueue worker processes')
    add('--tiny', action='store_true', help='everything, once, with tiny numbers')
    # How this file starts itself:
    add('--role', choices=['worker', 'caller'], help=argparse.SUPPRESS)
    add('--contender', choices=CONTENDERS, help=argparse.SUPPRESS)
    add('--queue', help=argparse.SUPPRESS)
    add('--prefetch', type=int, default=PREFETCH, help=argparse.SUPPRESS)
    add('--pause', type=float, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


async def run(options: argparse.Namespace) -> bool:
    main: Any = asyncio.current_task()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main.cancel)
    if options.tiny:
        return await tiny(options)
    if options.flat:
        return await flat(options)
    if options.workers:
        return await several_workers(options)
    return await compare(options)


if __name__ == '__main__':
    options = parsed()
    if options.role:
        play(options)
    try:
        if pathlib.Path(sys.prefix).resolve() != HOME.resolve():
            prepare()
        sys.exit(not asyncio.run(run(options)))
    # OSError: there is no broker (any more).
    except (Failure, OSError, subprocess.SubprocessError) as failure:
        sys.exit(f'FAILED: {failure}')
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit('stopped')
