"""The tests of aioqueue, against a real RabbitMQ: `make test`.

In the order of the README, then the failures. They use the broker on localhost:5672
(`PORT` in the environment names another port); those that kill or strain a broker start
nodes of their own, with `make rabbit`.
"""

import asyncio
import contextlib
import datetime
import decimal
import gc
import itertools
import logging
import os
import pathlib
import pickle
import random
import re
import runpy
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
import uuid
from random import Random
from types import SimpleNamespace

import aioamqp
import docutils.core
import msgpack
import pamqp.body
import pamqp.commands
import pamqp.frame
import pamqp.header
import pytest
import trustme
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.frame import marshal
from pamqp.header import ContentHeader

import aioqueue
from aioqueue import Queue, Refused, RemoteException

HERE = pathlib.Path(__file__).resolve().parent
PORT = int(os.environ.get('PORT', '5672'))
# Those of the nodes that the tests start: one to kill, one with TLS, a cluster.
PRIVATE_PORT = int(os.environ.get('PRIVATE_PORT', PORT + 1))
TLS_PORT, CLUSTER_PORT = PRIVATE_PORT + 2, PRIVATE_PORT + 8
DEADLINE = 30  # seconds that anything awaited here may take


# What the tests are made of: names, a look at the broker, workers, a socket to cut.


class Broker:
    """A connection beside aioqueue's: it looks at queues, and writes raw messages."""

    def __init__(self, channel):
        self.channel = channel

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, port=PORT, **options):
        transport, protocol = await aioamqp.connect(port=port, **options)
        try:
            yield cls(await protocol.channel())
        finally:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(protocol.close(), 5)
            transport.abort()

    async def count(self, name):
        """The number of messages that are ready in a queue."""
        return (await self.channel.queue_declare(name, passive=True))['message_count']

    async def get(self, name):
        """Take a message: its body and its properties."""
        got = await self.channel.basic_get(name, no_ack=True)
        return got['message'], got['properties']

    async def publish(self, name, body, **properties):
        await self.channel.basic_publish(body, '', name, properties)

    async def until(self, name, count):
        """Wait until a queue exists and holds so many messages."""
        async with asyncio.timeout(DEADLINE):
            while True:
                try:
                    if await self.count(name) == count:
                        return
                except aioamqp.ChannelClosed:  # 404: there is none yet
                    self.channel = await self.channel.protocol.channel()
                await asyncio.sleep(0.02)


async def delete_queues(*names, port=PORT):
    async with Broker.connected(port) as broker:
        for name in names:
            await broker.channel.queue_delete(name)


@pytest.fixture
async def broker():
    async with Broker.connected() as connected:
        yield connected


@pytest.fixture
async def name():
    """The name of a queue that no other test has, and that is gone afterwards."""
    unique = f'test.{uuid.uuid4().hex[:12]}'
    yield unique
    await delete_queues(unique, f'{unique}.dead')


@contextlib.asynccontextmanager
async def queue_on(port):
    """A Queue that nothing has connected yet; it is closed afterwards."""
    q = Queue(port=port, retry=0.1)
    yield q
    await q.close(timeout=5)


@pytest.fixture
async def queue():
    """A Queue on the broker of the tests."""
    async with queue_on(PORT) as q:
        yield q


@pytest.fixture
async def caller():
    """A second one, that only sends."""
    async with queue_on(PORT) as q:
        yield q


@pytest.fixture
def spawn(tmp_path):
    """Start worker processes from source text; they are gone afterwards."""
    processes = []

    def start(source, *arguments, **environment):
        script = tmp_path / f'script{len(processes)}.py'
        script.write_text(
            'import asyncio, os, signal, sys, time\nimport aioqueue\n'
            f'q = aioqueue.Queue(port={PORT}, retry=0.2)\n' + textwrap.dedent(source)
        )
        process = subprocess.Popen(
            [sys.executable, script, *map(str, arguments)],
            env={**os.environ, 'PYTHONPATH': str(HERE), **environment},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


async def ended(process, deadline=DEADLINE):
    """Wait for the end of a process: its status, and what it printed."""
    output = await asyncio.to_thread(process.communicate, timeout=deadline)
    return process.returncode, *output


async def line(process):
    """Wait for the next line that a process prints."""
    reading = asyncio.to_thread(process.stdout.readline)
    return (await asyncio.wait_for(reading, DEADLINE)).strip()


async def true(condition, deadline=DEADLINE):
    """Wait until `condition()` is true."""
    async with asyncio.timeout(deadline):
        while not condition():
            await asyncio.sleep(0.01)


class Forwarder:
    """A port that forwards to the broker: connections through it can be cut or frozen."""

    def __init__(self, port=PORT):
        self.target = port
        self.pairs = set()
        self.flowing = asyncio.Event()
        self.flowing.set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.accept, '127.0.0.1', 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        self.flowing.set()
        self.cut()

    async def accept(self, reader, writer):
        try:
            there = await asyncio.open_connection('127.0.0.1', self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, there[1])
        self.pairs.add(pair)
        await asyncio.gather(
            self.pump(reader, there[1]),
            self.pump(there[0], writer),
            return_exceptions=True,
        )
        self.pairs.discard(pair)
        for each in pair:
            each.transport.abort()

    async def pump(self, reader, writer):
        while data := await reader.read(65536):
            await self.flowing.wait()
            writer.write(data)
            await writer.drain()
        writer.transport.abort()

    def cut(self):
        """Reset every connection."""
        for pair in list(self.pairs):
            for writer in pair:
                sock = writer.get_extra_info('socket')
                with contextlib.suppress(OSError, AttributeError):
                    linger = b'\x01\x00\x00\x00\x00\x00\x00\x00'  # on, 0 seconds: RST
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()


def raises_remote(text):
    return pytest.raises(RemoteException, match=text)


# The first example, and the life of a Queue.


async def test_a_task_runs_in_another_process_and_its_result_comes_back(
    name, queue, spawn
):
    spawn("""
        @q.on(sys.argv[1])
        async def add(numbers):
            return [sum(numbers), os.getpid()]
        q.start()
        """, name)  # fmt: skip
    task = await queue.task(name, [1, 2, 3])
    total, pid = await task.result(DEADLINE)
    assert total == 6
    assert pid != os.getpid()


@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_lets_running_tasks_finish_and_ends_with_status_0(
    signum, name, queue, spawn
):
    worker = spawn("""
        @q.on(sys.argv[1])
        async def slow(data):
            print('running', flush=True)
            await asyncio.sleep(0.5)
            return 'finished'
        q.start()
        print('returned')
        """, name)  # fmt: skip
    task = await queue.task(name)
    assert await line(worker) == 'running'
    worker.send_signal(signum)
    assert await task.result(DEADLINE) == 'finished'
    status, out, err = await ended(worker)
    assert (status, out) == (0, 'returned\n'), err


async def test_a_signal_ends_a_worker_that_finds_no_broker(spawn, tmp_path):
    worker = spawn("""
        import logging
        logging.basicConfig(stream=sys.stdout, format='%(message)s')
        q = aioqueue.Queue(port=1, retry=0.1)
        q.start()
        """)  # fmt: skip
    assert await line(worker)
    worker.send_signal(signal.SIGTERM)
    assert (await ended(worker))[0] == 0


async def test_a_second_signal_ends_a_worker_at_once(name, queue, spawn):
    worker = spawn("""
        @q.on(sys.argv[1])
        async def endless(data):
            print('running', flush=True)
            try:
                await asyncio.sleep(3600)
            finally:
                print('cancelled', flush=True)
        import logging
        logging.basicConfig(level='INFO', stream=sys.stdout, format='%(message)s')
        q.start()
        """, name)  # fmt: skip
    await queue.task(name, no_response=True)
    while await line(worker) != 'running':
        pass
    worker.send_signal(signal.SIGTERM)
    while 'stopping' not in await line(worker):
        assert worker.poll() is None
    worker.send_signal(signal.SIGTERM)
    status, out, err = await ended(worker, 5)
    assert status != 0
    assert 'cancelled' not in out


async def test_a_queue_works_as_a_context_manager(name):
    async with Queue(port=PORT) as q:
        assert isinstance(q, Queue)
        await q.task(name, no_response=True)
    with pytest.raises(ConnectionError, match='closed'):
        await q.task(name)
    await q.close()
    await q.close()
    async with q:  # it can be opened again
        await q.task(name, no_response=True)


async def test_connect_and_start_async_are_idempotent(name, queue):
    calls = []
    queue.on(name)(calls.append)
    await queue.connect()
    await queue.connect()
    await queue.start_async()
    await queue.start_async()
    await queue.connect()
    task = await queue.task(name, 1)
    await task.result(DEADLINE)
    assert calls == [1]
    async with Broker.connected() as broker:
        declared = await broker.channel.queue_declare(name, passive=True)
    assert declared['consumer_count'] == 1


async def test_close_before_connect_does_nothing():
    await Queue().close()


def test_a_queue_made_outside_of_any_loop_serves_several():
    q, other = Queue(port=PORT), Queue(port=PORT)
    name = f'test.{uuid.uuid4().hex[:12]}'

    async def once():
        async with q:
            return await (await q.task(name, 1)).result(DEADLINE)

    async def left_open():
        return await (await other.task(f'{name}.x', 1, no_response=True)).result()

    q.on(name)(lambda data: data + 1)
    assert [asyncio.run(once()), asyncio.run(once())] == [2, 2]
    asyncio.run(left_open())
    asyncio.run(left_open())
    asyncio.run(delete_queues(name, f'{name}.x'))


async def test_tasks_wait_for_a_worker_that_does_not_exist_yet(name, caller, queue):
    tasks = [await caller.task(name, number) for number in range(5)]
    with pytest.raises(TimeoutError):
        await tasks[0].result(0.1)

    @queue.on(name)
    async def double(number):
        return number * 2

    await queue.start_async()
    assert [await task.result(DEADLINE) for task in tasks] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    'host',
    [
        'localhost',
        '127.0.0.1',
        f'amqp://localhost:{PORT}',
        f'amqp://guest:guest@127.0.0.1:{PORT}/',
        f'amqp://g%75est:guest@localhost:{PORT}/%2F',
        ['amqp://127.0.0.1:1', f'amqp://localhost:{PORT}'],
        [f'localhost:{PORT}'],
    ],
)
async def test_hosts_are_names_urls_or_lists(host, name):
    port = PORT if host in ('localhost', '127.0.0.1') else None
    async with Queue(host, port, retry=False) as q:
        await q.task(name, no_response=True)


async def test_connect_kwargs_reach_the_broker(name):
    q = Queue(port=PORT, login='guest', password='guest', virtualhost='/', heartbeat=7,
              client_properties={'app': 'mine'})  # fmt: skip
    async with q:
        await q.task(name, no_response=True)
        # In a thread: on a slow machine it outlasts the heartbeats that are missed here.
        listing = await asyncio.to_thread(
            subprocess.run,
            ['make', '-s', 'ctl', f'PORT={PORT}', 'ARGS=list_connections timeout client_properties'],
            cwd=HERE, capture_output=True, text=True,
        )  # fmt: skip
    if not (HERE / '.rabbit' / f'aioqueue-{PORT}').exists():
        pytest.skip('the broker was not started by `make rabbit`')
    ours = [row for row in listing.stdout.splitlines() if '{"app","mine"}' in row]
    assert len(ours) == 2  # one that publishes, one that consumes
    for row in ours:
        assert row.startswith('7\t')
        assert '{"product","aioqueue"}' in row
        assert aioqueue.__version__ in row
        assert f':{os.getpid()} ' in row


def test_log_level_sets_the_level_and_the_import_adds_no_handler():
    level = aioqueue.logger.level
    try:
        Queue(log_level='ERROR')
        assert logging.getLogger('aioqueue').level == logging.ERROR
        Queue(log_level=logging.DEBUG)
        assert logging.getLogger('aioqueue').level == logging.DEBUG
    finally:
        aioqueue.logger.setLevel(level)
    assert logging.getLogger('aioqueue').handlers == []


# Handlers.


async def test_the_decorated_function_stays_as_it_was(queue):
    def handler(data):
        return data + 1

    assert queue.on('any')(handler) is handler
    assert handler(1) == 2


@pytest.mark.parametrize('plain', [False, True])
async def test_prefetch_count_tasks_run_at_once_and_no_more(plain, name, queue, caller):
    running, most, gate = 0, 0, threading.Event()
    lock = threading.Lock()

    def enter():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)

    def leave():
        nonlocal running
        with lock:
            running -= 1

    if plain:

        @queue.on(name, prefetch_count=3)
        def handler(data):
            enter()
            gate.wait(DEADLINE)
            leave()
    else:

        @queue.on(name, prefetch_count=3)
        async def handler(data):
            enter()
            await true(gate.is_set)
            leave()

    await queue.start_async()
    tasks = [await caller.task(name) for _ in range(10)]
    await true(lambda: running == 3)
    with pytest.raises(TimeoutError):
        await tasks[0].result(0.2)
    gate.set()
    await asyncio.gather(*(task.result(DEADLINE) for task in tasks))
    assert most == 3


async def test_a_blocking_handler_stops_no_heartbeat_and_no_other_task(name):
    release = threading.Event()
    q = Queue(port=PORT, heartbeat=1)

    @q.on(f'{name}.slow')
    def slow(data):
        return release.wait(DEADLINE)

    @q.on(name)
    async def quick(data):
        return data

    async with q:
        blocked = await q.task(f'{name}.slow')
        until = (
            time.monotonic() + 3.5
        )  # more than two heartbeats and the broker's patience
        while time.monotonic() < until:
            assert await (await q.task(name, 1)).result(DEADLINE) == 1
        release.set()
        assert await blocked.result(DEADLINE) is True
    await delete_queues(f'{name}.slow')


async def test_a_handler_sends_tasks_and_awaits_their_results(name, queue, caller):
    @queue.on(name)
    async def factorial(number):
        if number <= 1:
            return 1
        return number * await (await queue.task(name, number - 1)).result(DEADLINE)

    await queue.start_async()
    assert await (await caller.task(name, 8)).result(DEADLINE) == 40320


@pytest.mark.parametrize('plain', [False, True])
async def test_current_is_the_task_being_run(plain, name, queue, caller):
    def describe(data):
        job = aioqueue.current.get()
        return [job.id, job.name, job.attempt, job.headers]

    async def describe_async(data):
        await asyncio.sleep(0)
        return describe(data)

    queue.on(name)(describe if plain else describe_async)
    await queue.start_async()
    task = await caller.task(name, headers={'tenant': 'blue', 'n': 1})
    assert await task.result(DEADLINE) == [task.id, name, 1, {'tenant': 'blue', 'n': 1}]
    with pytest.raises(LookupError):
        aioqueue.current.get()


class Awkward(Exception):
    def __str__(self):
        raise ZeroDivisionError


FAILURES = {
    'exception': (ValueError('no'), 'ValueError', 'no'),
    'key': (KeyError('k'), 'KeyError', "'k'"),
    'empty': (RuntimeError(), 'RuntimeError', ''),
    'exit': (SystemExit(3), 'SystemExit', '3'),
    'interrupt': (KeyboardInterrupt(), 'KeyboardInterrupt', ''),
    'cancelled': (asyncio.CancelledError('c'), 'CancelledError', 'c'),
    'group': (
        ExceptionGroup('g', [ValueError(1)]),
        'ExceptionGroup',
        'g (1 sub-exception)',
    ),
    'generator': (GeneratorExit(), 'GeneratorExit', ''),
    'unicode': (ValueError('\udc80 \u20ac'), 'ValueError', '\\udc80 \u20ac'),
    'awkward': (Awkward(), 'Awkward', 'Awkward, whose str() fails'),
    'stop': (StopIteration('s'), None, None),
    'long': (ValueError('x' * 300_000), 'ValueError', 'x' * 300_000),
}


@pytest.mark.parametrize('plain', [False, True])
async def test_nothing_that_a_handler_raises_ends_the_worker(
    plain, name, queue, caller
):
    def fail(key):
        if key == 'fine':
            return key
        raise FAILURES[key][0]

    async def fail_async(key):
        return fail(key)

    queue.on(name)(fail if plain else fail_async)
    await queue.start_async()
    for key, (_, type, text) in FAILURES.items():
        task = await caller.task(name, key)
        with pytest.raises(RemoteException) as raised:
            await task.result(DEADLINE)
        assert type is None or (raised.value.type, str(raised.value)) == (type, text)
        if key != 'long' and type:  # the end of a traceback is kept
            assert type in raised.value.traceback
    assert await (await caller.task(name, 'fine')).result(DEADLINE) == 'fine'


async def test_a_handler_that_cancels_its_own_task_is_answered(name, queue, caller):
    @queue.on(name, prefetch_count=1)
    async def cancel(data):
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    await queue.start_async()
    for _ in range(3):
        with pytest.raises(RemoteException) as raised:
            await (await caller.task(name)).result(DEADLINE)
        assert raised.value.type == 'CancelledError'


async def test_a_result_that_msgpack_cannot_carry_is_an_error(name, queue, caller):
    queue.on(name)(lambda data: object() if data else 'fine')
    await queue.start_async()
    with raises_remote('msgpack cannot carry the result'):
        await (await caller.task(name, 1)).result(DEADLINE)
    assert await (await caller.task(name, 0)).result(DEADLINE) == 'fine'


async def test_a_callable_object_or_a_wrapped_coroutine_is_a_handler(
    name, queue, caller
):
    class Handler:
        async def __call__(self, data):
            return data + 1

    queue.on(name)(Handler())
    await queue.start_async()
    assert await (await caller.task(name, 1)).result(DEADLINE) == 2


# Tasks and results.


async def test_a_task_has_attributes(name, caller):
    task = await caller.task(name, {'a': 1}, no_response=True)
    assert (task.name, task.data, task.raw, task.no_response) == (
        name,
        {'a': 1},
        False,
        True,
    )
    other = await caller.create(name, b'raw', raw=True)
    assert (other.data, other.raw, other.no_response) == (b'raw', True, False)
    assert isinstance(task.id, str)
    assert task.id != other.id


async def test_no_response_gives_none_at_once(name, caller, broker):
    task = await caller.task(name, 1, no_response=True)
    assert await task.result() is None
    _, properties = await broker.get(name)
    assert properties.reply_to is None


async def test_a_result_is_the_same_each_time_and_for_all_who_ask(name, queue, caller):
    queue.on(name)(lambda data: [data])
    await queue.start_async()
    task = await caller.task(name, 1)
    results = await asyncio.gather(*(task.result(DEADLINE) for _ in range(5)))
    results.append(await task.result())
    assert all(result is results[0] for result in results)
    assert results[0] == [1]


async def test_a_result_can_still_be_had_after_a_timeout(name, queue, caller):
    gate = threading.Event()

    @queue.on(name)
    def wait(data):
        gate.wait(DEADLINE)
        return 'late'

    await queue.start_async()
    task = await caller.task(name)
    with pytest.raises(TimeoutError):
        await task.result(0.05)
    with pytest.raises(TimeoutError):
        await task.result(timeout=0)
    gate.set()
    assert await task.result(DEADLINE) == 'late'


async def test_retry_sends_the_same_task_again(name, queue, caller):
    ids = []

    @queue.on(name)
    async def count(data):
        ids.append(aioqueue.current.get().id)
        if len(ids) == 1:
            raise ValueError('the first time')
        return len(ids)

    await queue.start_async()
    task = await caller.task(name)
    with raises_remote('the first time'):
        await task.result(DEADLINE)
    await task.retry()
    assert await task.result(DEADLINE) == 2
    assert ids == [task.id, task.id]


DATA = [
    None, True, 0, -1, 2**63, -(2**63), 1.5, 'text', '\u20ac', '', b'bytes', b'', [], {},
    [1, [2, [3]]], {'a': {'b': [1, None, b'x']}}, {1: 'integer', 2.5: 'float', b'k': 'bytes'},
    {None: 1, True: 2}, datetime.datetime(2024, 5, 17, 12, 30, 1, 250, datetime.UTC),
    {'when': [datetime.datetime(1950, 1, 1, tzinfo=datetime.UTC)]},
]  # fmt: skip


async def test_all_that_msgpack_carries_arrives(name, queue, caller):
    queue.on(name)(lambda data: data)
    await queue.start_async()
    for data in DATA:
        result = await (await caller.task(name, data)).result(DEADLINE)
        assert result == data
        assert type(result) is type(data)
    assert await (await caller.task(name, (1, (2,)))).result(DEADLINE) == [1, [2]]


async def test_raw_tasks_are_bytes_untouched(name, queue, caller, broker):
    got = []

    @queue.on(name, raw=True)
    async def take(body):
        got.append(body)
        return {'size': len(body)}

    body = bytes(range(256))
    for data in (body, bytearray(body), memoryview(body)):
        await caller.task(name, data, raw=True, no_response=True)
    assert (await broker.get(name))[0] == body
    await queue.start_async()
    task = await caller.task(name, body, raw=True)
    assert await task.result(DEADLINE) == {'size': 256}
    await (await caller.task(name, {'packed': 1})).result(DEADLINE)
    assert set(got) == {body, msgpack.packb({'packed': 1})}


async def test_a_body_of_20_megabytes_arrives_both_ways(name, queue, caller):
    @queue.on(name)
    async def echo(data):
        return data

    await queue.start_async()
    for size in (131_064, 131_065, 20 * 2**20):  # around the size of a frame
        data = os.urandom(size)
        assert await (await caller.task(name, data)).result(DEADLINE) == data


async def test_ten_thousand_tasks_sent_with_one_gather_all_return(name, caller, broker):
    tasks = await asyncio.gather(
        *(caller.task(name, number, no_response=True) for number in range(10_000))
    )
    assert len(tasks) == 10_000
    assert await broker.count(name) == 10_000


async def test_thousands_of_results_arrive(name, queue, caller):
    @queue.on(name, prefetch_count=100)
    async def double(number):
        return number * 2

    await queue.start_async()
    tasks = await asyncio.gather(*(caller.task(name, number) for number in range(3000)))
    results = await asyncio.gather(*(task.result(DEADLINE) for task in tasks))
    assert results == [number * 2 for number in range(3000)]


async def test_tasks_are_durable_and_look_as_documented(name, caller, broker):
    task = await caller.task(name, {'a': 1})
    body, properties = await broker.get(name)
    assert msgpack.unpackb(body) == {'a': 1}
    assert properties.delivery_mode == 2
    assert properties.content_type == 'application/msgpack'
    assert properties.correlation_id == task.id
    await broker.channel.queue_declare(properties.reply_to, passive=True)
    await caller.task(name, b'x', raw=True)
    _, properties = await broker.get(name)
    assert properties.content_type == 'application/octet-stream'
    # 0.2 declares the queue like this before each task: it must be what is there.
    await broker.channel.queue_declare(name, durable=True)


async def test_the_reply_queue_is_made_when_needed_and_goes_with_close(name, broker):
    q = Queue(port=PORT)
    await q.connect()
    await q.task(name, no_response=True)
    _, first = await broker.get(name)
    assert first.reply_to is None
    await q.task(name)
    reply_to = (await broker.get(name))[1].reply_to
    await broker.channel.queue_declare(
        reply_to, durable=True, arguments={'x-expires': 3_600_000}
    )
    await q.close()
    with pytest.raises(aioamqp.ChannelClosed, match='NOT_FOUND'):
        await broker.channel.queue_declare(reply_to, passive=True)


# 0.2 and this one understand each other.

OLD_PYTHON = next(
    iter(pathlib.Path.home().glob('.pyenv/versions/3.6.*/bin/python')), None
)


@pytest.fixture(scope='session')
def old_python(tmp_path_factory):
    """A Python 3.6 with aioqueue 0.2.0."""
    if OLD_PYTHON is None:
        pytest.skip('aioqueue 0.2 needs a Python 3.6')
    folder = tmp_path_factory.mktemp('old')
    subprocess.run([OLD_PYTHON, '-m', 'venv', folder], check=True)
    python = folder / 'bin' / 'python'
    subprocess.run([python, '-m', 'pip', '-q', 'install', 'aioqueue==0.2.0'], check=True,
                   capture_output=True)  # fmt: skip
    return python


async def test_a_worker_of_0_2_answers_our_tasks(name, caller, old_python, tmp_path):
    worker = subprocess.Popen(
        [old_python, '-c', textwrap.dedent(f"""
            import aioqueue
            q = aioqueue.Queue(port={PORT})
            @q.on({name!r}, prefetch_count=5)
            def handler(data):
                if data == 'fail':
                    raise ValueError('as asked')
                return {{1: data}}
            q.start()
            """)],
        cwd=tmp_path, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        task = await caller.task(name, {'key': [1, b'x'], 2: None})
        assert await task.result(DEADLINE) == {1: {'key': [1, b'x'], 2: None}}
        with raises_remote('as asked') as raised:
            await (await caller.task(name, 'fail')).result(DEADLINE)
        assert raised.value.type is None
    finally:
        worker.terminate()
        worker.wait(10)


async def test_a_caller_of_0_2_gets_our_results(name, queue, old_python, tmp_path):
    @queue.on(name)
    async def handler(data):
        if data == 'fail':
            raise ValueError('as asked')
        return {1: data}

    @queue.on(f'{name}.parts')
    async def parts(data):
        yield 'first'
        yield 'second'

    await queue.start_async()
    caller = subprocess.Popen(
        [old_python, '-c', textwrap.dedent(f"""
            import asyncio, aioqueue
            q = aioqueue.Queue(port={PORT})
            async def main():
                await q.connect()
                t = await q.task({name!r}, {{'key': [1, b'x'], 2: None}})
                print(await t.result(20))
                t = await q.task({name!r}, 'fail')
                try:
                    await t.result(20)
                except Exception as error:
                    print(repr(error))
                t = await q.task({name + '.parts'!r}, 1)
                print(await t.result(20))
                t = await q.task({name!r}, 1, no_response=True)
                print(await t.result(20))
            asyncio.get_event_loop().run_until_complete(main())
            """)],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    status, out, _ = await ended(caller)
    assert status == 0
    first, second, third, fourth = out.splitlines()
    assert first == "{1: {'key': [1, b'x'], 2: None}}"
    assert second in ("RemoteException('as asked',)", "RemoteException('as asked')")
    assert (third, fourth) == ('first', 'None')
    await delete_queues(f'{name}.parts', f'{name}.parts.dead')


# Bad input.


@pytest.mark.parametrize('data', [object(), {1, 2}, 2**64, [1, [print]], '\ud800',
                                  datetime.datetime(2024, 1, 1), 1j])  # fmt: skip
async def test_data_that_msgpack_cannot_carry_is_a_type_error(
    data, name, caller, broker
):
    with pytest.raises(TypeError, match='cannot be sent'):
        await caller.task(name, data)
    with pytest.raises(aioamqp.ChannelClosed):  # nothing was declared, nothing was sent
        await broker.count(name)


@pytest.mark.parametrize('data', ['text', 1, None, [b'x']])
async def test_raw_data_that_is_not_bytes_is_a_type_error(data, name, caller):
    with pytest.raises(TypeError, match='cannot be sent: .*bytes-like'):
        await caller.task(name, data, raw=True)


@pytest.mark.parametrize(
    ('bad', 'error'),
    [(1, TypeError), (None, TypeError), (b'x', TypeError), ('', ValueError),
     ('x' * 256, ValueError), ('tab\t', ValueError), ('line\n', ValueError),
     ('\u20ac', ValueError), ('a*b', ValueError), ('mine.delay.300', ValueError),
     ('amq.rabbitmq.reply-to', ValueError)],
)  # fmt: skip
async def test_a_bad_name_is_an_error(bad, error, caller):
    with pytest.raises(error, match='queue'):
        await caller.task(bad)
    with pytest.raises(error, match='queue'):
        caller.on(bad)


async def test_a_name_of_255_bytes_is_sent(caller):
    longest = uuid.uuid4().hex * 7 + 'x' * 31
    assert len(longest) == 255
    await caller.task(longest, no_response=True)
    await delete_queues(longest)


@pytest.mark.parametrize(
    ('options', 'error'),
    [({'prefetch_count': 0}, ValueError), ({'prefetch_count': -1}, ValueError),
     ({'prefetch_count': '1'}, TypeError), ({'prefetch_count': 70_000}, ValueError),
     ({'prefetch_count': True}, TypeError), ({'retries': -1}, ValueError),
     ({'retries': 1.5}, TypeError), ({'retry_delay': -1}, ValueError),
     ({'timeout': 0}, ValueError), ({'timeout': '1'}, TypeError)],
)  # fmt: skip
def test_bad_options_of_a_handler_are_errors(options, error):
    with pytest.raises(error, match=next(iter(options))):
        Queue().on('name', **options)


async def test_misuse_of_on_says_what_to_do(name, queue):
    with pytest.raises(TypeError, match=r"@q\.on\('name'\)"):

        @queue.on
        async def forgot_the_parentheses(data):
            pass

    queue.on(name)(print)
    with pytest.raises(ValueError, match='has a handler already'):
        queue.on(name)(print)
    with pytest.raises(ValueError, match='make it async'):
        queue.on(f'{name}.x', timeout=1)(print)
    with pytest.raises(TypeError, match='a handler is a function'):
        queue.on(f'{name}.x')(5)
    for unusable in (float('inf'), 1e300, object()):
        with pytest.raises(TypeError, match='arguments of'):
            queue.on(f'{name}.x', arguments={'x-max-length': unusable})
    await queue.start_async()
    with pytest.raises(RuntimeError, match='before the start'):
        queue.on(f'{name}.y')(print)


@pytest.mark.parametrize(
    ('options', 'error'),
    [({'delay': -1}, ValueError), ({'delay': '1'}, TypeError), ({'delay': 1e9}, ValueError),
     ({'expires': -1}, ValueError), ({'expires': 'x'}, TypeError),
     ({'priority': 256}, ValueError), ({'priority': 1.5}, TypeError),
     ({'delay': 1, 'expires': 2}, ValueError), ({'headers': {'x': object()}}, TypeError),
     ({'headers': {'x': [float('inf')]}}, TypeError), ({'headers': {'x': 1e300}}, TypeError),
     ({'headers': {1: 2}}, TypeError), ({'headers': ['x']}, TypeError),
     ({'headers': {'x': 'y' * 200_000}}, ValueError), ({'delay': float('nan')}, ValueError)],
)  # fmt: skip
async def test_bad_options_of_a_task_are_errors(options, error, name, caller):
    with pytest.raises(error):
        await caller.task(name, **options)
    await caller.task(name, no_response=True)


@pytest.mark.parametrize(
    ('arguments', 'error'),
    [({'host': 'http://localhost'}, ValueError), ({'host': 'redis://localhost'}, ValueError),
     ({'host': 5}, TypeError), ({'host': []}, TypeError), ({'host': ['x', 5]}, TypeError),
     ({'port': 0}, ValueError), ({'port': '5672'}, TypeError), ({'retry': -1}, ValueError),
     ({'retry': 'x'}, TypeError), ({'retry': True}, TypeError), ({'vhost': '/'}, TypeError),
     ({'host': 'amqp://localhost/?heartbeat=1'}, ValueError), ({'ssl': 'yes'}, TypeError),
     ({'heartbeat': 0}, ValueError), ({'heartbeat': 0.5}, TypeError),
     ({'frame_max': 10}, ValueError), ({'channel_max': None}, TypeError),
     ({'virtualhost': 5}, TypeError), ({'client_properties': 'x'}, TypeError)],
)  # fmt: skip
def test_bad_arguments_of_a_queue_are_errors(arguments, error):
    with pytest.raises(error):
        Queue(**arguments)


async def test_a_refused_login_is_raised_at_once_in_the_words_of_the_broker():
    for options in ({'password': 'wrong'}, {'login': 'nobody'}):
        with pytest.raises(Refused, match='ACCESS_REFUSED') as raised:
            await asyncio.wait_for(Queue(port=PORT, **options).connect(), DEADLINE)
        assert raised.value.code == 403


async def test_a_missing_vhost_is_raised_at_once_in_the_words_of_the_broker(name):
    with pytest.raises(Refused, match='vhost missing not found') as raised:
        await asyncio.wait_for(
            Queue(port=PORT, virtualhost='missing').task(name), DEADLINE
        )
    assert raised.value.code == 530


async def test_with_retry_false_the_first_failure_raises(unused_tcp_port):
    for start in (Queue.connect, Queue.start_async):
        with pytest.raises(OSError, match=str(unused_tcp_port)):
            await start(Queue(port=unused_tcp_port, retry=False))


async def test_with_retry_false_a_peer_that_hangs_up_raises():
    async def hang_up(reader, writer):
        await reader.readexactly(len(b'AMQP0091'))
        writer.close()

    async with await asyncio.start_server(hang_up, '127.0.0.1', 0) as server:
        port = server.sockets[0].getsockname()[1]
        q = Queue(port=port, retry=False)
        with pytest.raises(ConnectionError, match='closed by the peer'):
            await asyncio.wait_for(q.connect(), DEADLINE)


async def test_without_a_broker_it_tries_again_until_there_is_one(name, caplog):
    """A port where nothing answers, then one that forwards to the broker."""
    forwarder = Forwarder()
    async with forwarder:
        port = forwarder.port
    q = Queue('127.0.0.1', port, retry=0.1)
    sending = asyncio.create_task(q.task(name, no_response=True))
    await true(lambda: caplog.text.count('no connection') >= 2)
    server = await asyncio.start_server(forwarder.accept, '127.0.0.1', port)
    await asyncio.wait_for(sending, DEADLINE)
    await q.close()
    server.close()


async def test_a_port_where_something_else_answers_does_not_hang(monkeypatch, name):
    monkeypatch.setattr(aioqueue, 'CONNECT_DEADLINE', 0.3)

    async def silent(reader, writer):
        await reader.read()
        writer.close()  # or the server waits for it

    async def chatty(reader, writer):
        writer.write(b'SSH-2.0-OpenSSH_9.2\r\n' * 10)
        await reader.read()
        writer.close()  # or the server waits for it

    for peer in (silent, chatty):
        async with await asyncio.start_server(peer, '127.0.0.1', 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(OSError, match='no AMQP|closed|lost'):
                await Queue('127.0.0.1', port, retry=False).connect()
            # In a list it is one that is down.
            hosts = [f'amqp://127.0.0.1:{port}', f'amqp://127.0.0.1:{PORT}']
            async with Queue(hosts) as q:
                await q.task(name, no_response=True)


async def test_a_queue_with_other_arguments_is_refused_by_name(name, broker):
    await broker.channel.queue_declare(name, durable=False)
    for connect_first in (False, True):
        q = Queue(port=PORT)
        q.on(name)(print)
        if connect_first:
            await q.connect()
        with pytest.raises(Refused, match='PRECONDITION_FAILED') as raised:
            await q.start_async()
        assert name in str(raised.value)
        await q.close()


async def test_a_queue_that_cannot_be_declared_is_refused_by_name():
    q = Queue(port=PORT)
    q.on('amq.reserved')(print)
    with pytest.raises(Refused, match=r'ACCESS_REFUSED.*amq\.reserved'):
        await q.start_async()
    with pytest.raises(Refused, match='ACCESS_REFUSED'):
        await q.task('amq.reserved.too')
    await q.close()


@pytest.mark.parametrize('connect_first', [False, True])
async def test_a_start_that_costs_the_connection_is_refused_too(
    connect_first, name, queue
):
    queue.on(name, prefetch_size=1)(print)
    if connect_first:
        await queue.connect()
    with pytest.raises(Refused, match='NOT_IMPLEMENTED') as raised:
        await asyncio.wait_for(queue.start_async(), DEADLINE)
    assert raised.value.code == 540


async def test_a_start_while_it_closes_waits_for_that(name, queue):
    release, ran = asyncio.Event(), asyncio.Event()

    @queue.on(name)
    async def wait(data):
        ran.set()
        await release.wait()

    await queue.start_async()
    await queue.task(name, no_response=True)
    await asyncio.wait_for(ran.wait(), DEADLINE)
    closing = asyncio.create_task(queue.close())
    await true(lambda: queue._closing)
    starting = asyncio.create_task(queue.start_async())
    release.set()
    await asyncio.wait_for(asyncio.gather(closing, starting), DEADLINE)
    assert await (await queue.task(name)).result(DEADLINE) is None


async def test_a_second_start_that_is_cancelled_stops_nothing(name, queue, caller):
    queue.on(name)(lambda data: data)
    await queue.start_async()
    again = asyncio.create_task(queue.start_async())
    await asyncio.sleep(0)
    again.cancel()
    with pytest.raises(asyncio.CancelledError):
        await again
    assert await (await caller.task(name, 1)).result(DEADLINE) == 1


def test_the_end_of_its_event_loop_ends_the_wait_for_a_result():
    q = Queue(port=PORT)
    name = f'test.{uuid.uuid4().hex[:12]}'
    task = asyncio.run(q.task(name))

    async def result():
        with pytest.raises(ConnectionError):
            await task.result(DEADLINE)
        await delete_queues(name)

    asyncio.run(result())


async def test_an_undecodable_body_does_not_stop_the_worker(
    name, queue, caller, broker
):
    queue.on(name)(lambda data: data)
    await queue.start_async()
    for body in (b'', b'\xc1', b'\x93\x01', b'no msgpack'):
        await broker.publish(name, body)
    assert await (await caller.task(name, 1)).result(DEADLINE) == 1
    await broker.until(f'{name}.dead', 4)


async def test_a_handler_may_be_registered_between_connect_and_start(name, queue):
    await queue.connect()
    queue.on(name)(lambda data: data + 1)
    await queue.start_async()
    assert await (await queue.task(name, 1)).result(DEADLINE) == 2


async def test_close_needs_a_number_of_seconds(queue):
    await queue.connect()
    with pytest.raises(TypeError, match='timeout'):
        await queue.close(timeout=None)


def test_close_in_another_loop_does_nothing():
    closed, left_open = Queue(port=PORT), Queue(port=PORT)
    for q in (closed, left_open):
        asyncio.run(q.connect())
    asyncio.run(closed.close())
    asyncio.run(closed.close())
    asyncio.run(left_open.close())


async def test_entering_in_vain_leaves_nothing_behind(unused_tcp_port):
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), Queue(port=unused_tcp_port):
            pass
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize('text', ['\U0001f600', '\udcff'])
async def test_the_longest_error_is_a_dead_letter(text, name, queue, caller, broker):
    @queue.on(name)
    async def fail(data):
        raise type('Long' * 20_000, (Exception,), {})(text * 30_000)

    await queue.start_async()
    await caller.task(name, no_response=True)
    await broker.until(f'{name}.dead', 1)


async def test_a_small_frame_max_shortens_what_describes_a_failure(name):
    async with Queue(port=PORT, frame_max=4096) as q:
        pass

    @q.on(name)
    async def fail(data):
        raise ValueError('x' * 30_000)

    async with q:
        with raises_remote('x' * 30_000):
            await (await q.task(name)).result(DEADLINE)


async def test_who_awaits_a_result_is_not_forgotten(name, queue, caller):
    gate, results = asyncio.Event(), []

    @queue.on(name)
    async def handler(data):
        await gate.wait()
        yield data

    async def wait(number):
        results.append(await (await caller.task(name, number)).result())

    async def iterate(number):
        results.append([value async for value in await caller.task(name, number)])

    await queue.start_async()
    for number in range(3):
        asyncio.create_task(wait(number))
        asyncio.create_task(iterate(number))
    await true(lambda: len(queue._running) == 6)
    gc.collect()
    gate.set()
    await true(lambda: len(results) == 6)


# No -1: pamqp 3 can't encode small negative numbers, which is an error of `on`.
@pytest.mark.parametrize(
    'arguments', [{'x-message-ttl': -(2**40)}, {'x-max-length': 'no'}]
)
async def test_bad_queue_arguments_are_refused(arguments, name, queue, caller):
    caller.on(name, arguments=arguments)(print)
    with pytest.raises(Refused, match='PRECONDITION_FAILED'):
        await asyncio.wait_for(caller.task(name), DEADLINE)
    queue.on(name, arguments=arguments)(print)
    with pytest.raises(Refused, match=name):
        await queue.start_async()


@pytest.mark.parametrize('odd', ['consume', 'publish', 'replies', 'spare', 'aioqueue'])
async def test_a_queue_may_have_any_name(odd, queue):
    await asyncio.gather(*(queue.task(odd, 1, no_response=True) for _ in range(5)))
    queue.on(odd)(lambda data: data)
    await queue.start_async()
    assert await (await queue.task(odd, 2)).result(DEADLINE) == 2
    await delete_queues(odd)


async def test_a_retry_that_fails_leaves_the_result_as_it_was(name, queue, caller):
    queue.on(name)(lambda data: data)
    await queue.start_async()
    task = await caller.task(name, 1)
    assert await task.result(DEADLINE) == 1
    await caller.close()
    with pytest.raises(ConnectionError):
        await task.retry()
    assert await task.result(DEADLINE) == 1


def test_exceptions_can_be_pickled():
    error = pickle.loads(pickle.dumps(RemoteException('no', 'ValueError', 'Traceback')))
    assert (str(error), error.type, error.traceback) == (
        'no',
        'ValueError',
        'Traceback',
    )
    refused = pickle.loads(pickle.dumps(Refused('no', 403)))
    assert (str(refused), refused.code) == ('no', 403)


# For the failures: a broker to kill, a load, workers that carry it.


class Node:
    """A broker of the tests' own, that may be killed and strained."""

    port = PRIVATE_PORT
    name = f'test-private-{port}'

    def __init__(self, config):
        self.config = config
        config.write_text('max_message_size = 1000000\n')

    def make(self, *arguments):
        made = subprocess.run(
            ['make', '-s', *arguments, f'PORT={self.port}', f'NODE={self.name}',
             f'CONFIG={self.config}'],
            cwd=HERE, capture_output=True, text=True,
        )  # fmt: skip
        assert made.returncode == 0, made.stdout + made.stderr
        return made.stdout

    async def start(self):
        await asyncio.to_thread(self.make, 'rabbit')

    async def ctl(self, *arguments):
        return await asyncio.to_thread(self.make, 'ctl', 'ARGS=' + ' '.join(arguments))

    async def sync(self):
        """Have the queues on disk that the broker has said to be declared.

        RabbitMQ answers up to two seconds before Mnesia writes down that its transaction
        is committed. Killed in between it forgets the queue, whoever declared it.
        """
        await self.ctl("eval 'mnesia:sync_log().'")

    def kill(self):
        pid = int((HERE / '.rabbit' / self.name / 'pid').read_text())
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):  # until the port is free for its successor
            while True:
                socket.create_connection(('127.0.0.1', self.port)).close()


@pytest.fixture(scope='session')
def started_node(tmp_path_factory):
    if not runpy.run_path(str(HERE / '.ci' / 'rabbit.py'))['sbin']():
        pytest.skip(
            'no rabbitmq-server is installed here: no broker that may be killed'
        )
    node = Node(tmp_path_factory.mktemp('node') / 'config')
    node.make('rabbit')
    yield node
    node.make('stop')


@pytest.fixture
async def node(started_node, name):
    yield started_node
    await delete_queues(name, f'{name}.dead', port=started_node.port)


@pytest.fixture
async def node_queue(node):
    async with queue_on(node.port) as q:
        yield q


@pytest.fixture
async def node_caller(node):
    async with queue_on(node.port) as q:
        yield q


@pytest.fixture
async def other():
    """One more Queue, for a second worker."""
    async with queue_on(PORT) as q:
        yield q


@pytest.fixture
async def echo(name, queue, caller):
    """A worker that returns what it gets, and dead-letters what it can't read."""

    @queue.on(name)
    async def handler(data):
        return data

    await queue.start_async()
    await caller.connect()
    return name


DOUBLE = """
    q = aioqueue.Queue(port=int(sys.argv[2]), retry=0.1)
    @q.on(sys.argv[1], prefetch_count=20)
    async def double(number):
        await asyncio.sleep(0.005)
        return number * 2
    q.start()
    """


async def load(q, name, count, done, at_once=100):
    """Send so many tasks and wait for their results, which are noted in `done`."""
    slots = asyncio.Semaphore(at_once)

    async def call(number):
        async with slots:
            task = await q.task(name, number)
            assert await task.result(DEADLINE) == number * 2
            done.append(number)

    await asyncio.gather(*(call(number) for number in range(count)))
    assert sorted(done) == list(range(count))


async def gone(name, every=0.02):
    """Wait until there is no such queue. Each look counts as use for x-expires."""
    async with Broker.connected() as broker, asyncio.timeout(DEADLINE):
        with contextlib.suppress(aioamqp.ChannelClosed):
            while True:
                await broker.count(name)
                await asyncio.sleep(every)


async def dead_letter(broker, name):
    """Wait for the next dead letter: its body and its headers."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                body, properties = await broker.get(f'{name}.dead')
                return body, properties.headers
            except aioamqp.EmptyQueue:
                pass
            except aioamqp.ChannelClosed:  # 404: there is none yet
                broker.channel = await broker.channel.protocol.channel()
            await asyncio.sleep(0.02)


PLACE_OF_A_DOUBLE = 1_000_000_000  # a timestamp: write() puts 64 bits in its place


def write(broker, name, body, **properties):
    """Publish what aioamqp can't: it loses its step over what pamqp can't encode."""
    content = ContentHeader(0, len(body), Basic.Properties(**properties))
    frames = [Basic.Publish(routing_key=name), content]
    frames += [ContentBody(body)] if body else []
    written = b''.join(marshal(each, broker.channel.channel_id) for each in frames)
    written = written.replace(b'PLACEHOLDER', b'\xff' * len('PLACEHOLDER'))  # not UTF-8
    written = written.replace(
        struct.pack('>cQ', b'T', PLACE_OF_A_DOUBLE), struct.pack('>cd', b'd', 1e300)
    )
    broker.channel.protocol._stream_writer.write(written)


# Retries.


@pytest.mark.parametrize('plain', [False, True])
async def test_retries_wait_once_twice_four_times_the_delay(plain, name, queue, caller):
    runs = []

    def fail(data):
        runs.append((time.monotonic(), aioqueue.current.get()))
        raise ValueError(f'attempt {aioqueue.current.get().attempt}')

    async def fail_async(data):
        fail(data)

    queue.on(name, retries=3, retry_delay=0.25)(fail if plain else fail_async)
    await queue.start_async()
    task = await caller.task(name)
    with raises_remote('^attempt 4$') as raised:
        await task.result(DEADLINE)
    assert raised.value.type == 'ValueError'
    times, jobs = zip(*runs, strict=True)
    assert [job.attempt for job in jobs] == [1, 2, 3, 4]
    assert {job.id for job in jobs} == {task.id}
    waits = [after - before for before, after in zip(times, times[1:], strict=False)]
    for wait, least in zip(waits, (0.25, 0.5, 1), strict=True):
        assert least - 0.01 <= wait < least + 0.24


async def test_the_caller_waits_through_retries_for_the_result(name, queue, caller):
    @queue.on(name, retries=5, retry_delay=0.05)
    async def handler(data):
        if aioqueue.current.get().attempt < 3:
            raise ValueError
        return data, aioqueue.current.get().headers['tenant']

    await queue.start_async()
    task = await caller.task(name, 'kept', headers={'tenant': 'blue'})
    assert await task.result(DEADLINE) == ['kept', 'blue']


async def test_without_a_delay_retries_run_at_once(name, queue, caller):
    attempts = []

    @queue.on(name, retries=50, retry_delay=0)
    async def handler(data):
        attempts.append(aioqueue.current.get().attempt)
        raise ValueError

    await queue.start_async()
    with pytest.raises(RemoteException):
        await (await caller.task(name)).result(DEADLINE)
    assert attempts == list(range(1, 52))


async def test_a_waiting_retry_survives_the_death_of_its_worker(
    name, queue, caller, broker, spawn
):
    worker = spawn("""
        @q.on(sys.argv[1], retries=1, retry_delay=1)
        async def fail(data):
            raise ValueError
        q.start()
        """, name)  # fmt: skip
    task = await caller.task(name)
    await broker.until(f'{name}.delay.1000', 1)
    worker.kill()

    @queue.on(name, retries=1, retry_delay=1)
    async def succeed(data):
        # It was killed before it had acknowledged, if this is the first attempt again.
        if aioqueue.current.get().attempt == 1:
            raise ValueError
        return aioqueue.current.get().attempt

    await queue.start_async()
    assert await task.result(DEADLINE) == 2


# Delays, expiry, priority.


async def test_delays_are_exact_and_a_long_one_holds_up_no_short_one(
    name, queue, caller
):
    waits, started = {}, {}

    @queue.on(name)
    async def note(delay):
        waits[delay] = time.monotonic() - started[delay]

    await queue.start_async()
    for delay in (30, 1.5, 0.75, 0.25, 0):
        started[delay] = time.monotonic()
        await caller.task(name, delay, delay=delay, no_response=True)
    await true(lambda: len(waits) == 4)
    for delay, wait in waits.items():
        assert delay - 0.01 <= wait < delay + 0.24
    await delete_queues(f'{name}.delay.30000')


async def test_the_result_of_a_delayed_task_arrives(name, queue, caller):
    queue.on(name)(lambda data: data)
    await queue.start_async()
    task = await caller.task(name, 'late', delay=0.2)
    with pytest.raises(TimeoutError):
        await task.result(0)
    assert await task.result(DEADLINE) == 'late'


async def test_a_delayed_task_reaches_a_queue_that_did_not_exist(name, caller, broker):
    await caller.task(name, 'late', delay=0.1, no_response=True)
    await broker.until(name, 1)
    assert msgpack.unpackb((await broker.get(name))[0]) == 'late'


async def test_delay_queues_go_away_by_themselves(name, caller, broker, monkeypatch):
    monkeypatch.setattr(aioqueue, 'DELAY_QUEUE_LEASE', 300)
    for _ in range(2):  # it can be used again, before and after it went away
        await caller.task(name, delay=0.1, no_response=True)
        await caller.task(name, delay=0.1, no_response=True)
        await broker.channel.queue_declare(f'{name}.delay.100', passive=True)
        await gone(f'{name}.delay.100', every=0.6)  # seconds: longer than it is kept
    await broker.until(name, 4)


async def test_a_delay_queue_outlives_what_reached_it_late(
    name, node, node_caller, monkeypatch
):
    # Less than the alarm lasts: to end it takes a whole run of rabbitmqctl.
    monkeypatch.setattr(aioqueue, 'DELAY_QUEUE_LEASE', 100)
    await node.ctl('set_vm_memory_high_watermark absolute 1')
    # The broker takes the first, and lets the others wait until the alarm is over.
    sending = [
        node_caller.task(name, number, delay=3, no_response=True)
        for number in range(20)
    ]
    sending = asyncio.gather(*sending)
    await node.ctl('set_vm_memory_high_watermark 0.4')
    await asyncio.wait_for(sending, DEADLINE)
    async with Broker.connected(node.port) as broker:
        await broker.until(name, 20)


async def test_a_delay_and_confirmed_tasks_survive_a_killed_broker(
    name, node, node_queue, node_caller
):
    ran = {}

    @node_queue.on(name)
    async def note(data):
        ran[data] = time.monotonic()

    await node_caller.task(name, 'early', delay=6, no_response=True)
    await node.sync()
    started = time.monotonic()
    await node_caller.task(name, 'late', delay=6, no_response=True)
    for number in range(20):
        await node_caller.task(name, number, no_response=True)
    node.kill()
    await node.start()
    await node_queue.start_async()
    await true(lambda: len(ran) == 22)
    assert set(ran) == {'early', 'late', *range(20)}
    assert ran['late'] - started >= 6


async def test_an_expired_task_is_dropped(name, queue, caller, broker):
    await caller.task(name, 'expired', expires=0.05, no_response=True)
    await caller.task(name, 'never expires', no_response=True)
    await caller.task(name, 'fresh', expires=60, no_response=True)
    await broker.until(name, 2)
    got = []
    queue.on(name)(got.append)
    await queue.start_async()
    await true(lambda: len(got) == 2)
    assert sorted(got) == ['fresh', 'never expires']


async def test_a_higher_priority_goes_first(name, queue, caller, broker):
    order, gate = [], asyncio.Event()

    @queue.on(name, prefetch_count=1, arguments={'x-max-priority': 10})
    async def handler(priority):
        order.append(priority)
        await gate.wait()

    await queue.start_async()
    await caller.task(name, 'first', no_response=True)
    await true(lambda: order)
    for priority in (1, 9, 5):
        await caller.task(name, priority, priority=priority, no_response=True)
    await caller.task(name, None, no_response=True)
    gate.set()
    await true(lambda: len(order) == 5)
    assert order == ['first', 9, 5, 1, None]


# Timeouts of handlers.


async def test_a_handler_that_exceeds_its_timeout_fails(name, queue, caller, broker):
    ended_early = []

    @queue.on(name, timeout=0.2, retries=1, retry_delay=0.05)
    async def slow(seconds):
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            ended_early.append(aioqueue.current.get().attempt)
            raise
        return 'done'

    await queue.start_async()
    assert await (await caller.task(name, 0)).result(DEADLINE) == 'done'
    with raises_remote('longer than 0.2 seconds') as raised:
        await (await caller.task(name, 60)).result(DEADLINE)
    assert raised.value.type == 'TimeoutError'
    assert ended_early == [1, 2]
    await caller.task(name, 60, no_response=True)
    body, headers = await dead_letter(broker, name)
    assert msgpack.unpackb(body) == 60
    assert (headers['type'], headers['attempts']) == ('TimeoutError', 2)
    assert 'longer than 0.2 seconds' in headers['error']


async def test_a_timeout_raised_by_the_handler_is_its_own(name, queue, caller):
    @queue.on(name, timeout=30)
    async def handler(data):
        raise TimeoutError('of mine')

    await queue.start_async()
    with raises_remote('^of mine$'):
        await (await caller.task(name)).result(DEADLINE)


# Dead letters.


@pytest.mark.parametrize('plain', [False, True])
async def test_a_failure_that_nobody_awaits_is_a_dead_letter(
    plain, name, queue, caller, broker
):
    def fail(data):
        raise ValueError('no \u20ac')

    async def fail_async(data):
        fail(data)

    options = {'arguments': {'x-max-priority': 5}}
    queue.on(name, retries=1, retry_delay=0.05, **options)(
        fail if plain else fail_async
    )
    await queue.start_async()
    await caller.task(name, {'a': [1]}, no_response=True, priority=3,
                      headers={'tenant': 'blue'})  # fmt: skip
    await broker.until(f'{name}.dead', 1)
    await broker.channel.queue_declare(f'{name}.dead', durable=True)
    body, properties = await broker.get(f'{name}.dead')
    assert msgpack.unpackb(body) == {'a': [1]}
    assert properties.delivery_mode == 2
    assert properties.priority == 3
    assert properties.content_type == 'application/msgpack'
    traceback = properties.headers.pop('traceback')
    assert 'raise ValueError' in traceback
    assert properties.headers == {
        'error': 'no \u20ac', 'type': 'ValueError', 'attempts': 2, 'tenant': 'blue'
    }  # fmt: skip


async def test_a_failure_that_is_awaited_is_no_dead_letter(name, queue, caller):
    @queue.on(name, prefetch_count=1)
    async def fail(data):
        raise ValueError('no')

    await queue.start_async()
    for task in [await caller.task(name) for _ in range(3)]:
        with raises_remote('no'):
            await task.result(DEADLINE)
    await asyncio.wait_for(gone(f'{name}.dead'), DEADLINE)


async def test_a_caller_with_direct_reply_to_is_answered(name, queue, broker):
    """Of other languages, mostly: RabbitMQ returns a mandatory reply that it delivers."""
    replies = asyncio.Queue()

    @queue.on(name)
    async def count_down(number):
        for each in range(number, 0, -1):
            yield each
        raise ValueError('boom')

    async def on_reply(channel, body, envelope, properties):
        replies.put_nowait(msgpack.unpackb(body))

    await queue.start_async()
    direct = 'amq.rabbitmq.reply-to'
    await broker.channel.basic_consume(on_reply, direct, no_ack=True)
    await broker.publish(name, msgpack.packb(2), correlation_id='7', reply_to=direct,
                         content_type='application/msgpack')  # fmt: skip
    async with asyncio.timeout(DEADLINE):
        got = [await replies.get() for _ in range(3)]
    assert got == [[None, 2], [None, 1], ['boom', None]]
    await asyncio.wait_for(gone(f'{name}.dead'), DEADLINE)


async def test_what_has_no_content_type_is_sent_on_without(name, queue, broker):
    @queue.on(name, retries=1, retry_delay=0.05, raw=True)
    async def fail(body):
        raise ValueError('no')

    await queue.start_async()
    await broker.publish(name, b'foreign')
    await broker.until(f'{name}.dead', 1)
    body, properties = await broker.get(f'{name}.dead')
    assert (body, properties.content_type) == (b'foreign', None)
    assert properties.headers['attempts'] == 2


async def test_a_failure_whose_caller_is_gone_is_a_dead_letter(
    name, queue, caller, broker
):
    started, gate = [], asyncio.Event()

    @queue.on(name)
    async def handler(data):
        started.append(data)
        await gate.wait()
        if data == 'fail':
            raise ValueError('too late')

    await queue.start_async()
    await caller.task(name, 'fine')
    await caller.task(name, 'fail')
    await true(lambda: len(started) == 2)
    await caller.close()
    gate.set()
    body, headers = await dead_letter(broker, name)
    assert msgpack.unpackb(body) == 'fail'
    assert headers['error'] == 'too late'
    assert await broker.count(f'{name}.dead') == 0


async def test_an_undecodable_body_is_a_dead_letter_and_not_retried(
    name, queue, broker
):
    queue.on(name, retries=3, retry_delay=60)(print)
    await queue.start_async()
    for bad in (b'\xc1', b'', b'\x93\x01', b'not msgpack'):
        await broker.publish(name, bad, content_type='text/plain')
        body, headers = await dead_letter(broker, name)
        assert body == bad
        assert 'cannot be decoded' in headers['error']
        assert headers['attempts'] == 1


async def test_an_unpackable_result_that_nobody_awaits_is_a_dead_letter(
    name, queue, caller, broker
):
    runs = []

    @queue.on(name, retries=3, retry_delay=0.05)
    async def handler(data):
        runs.append(data)
        return object()

    await queue.start_async()
    await caller.task(name, 'x', no_response=True)
    body, headers = await dead_letter(broker, name)
    assert msgpack.unpackb(body) == 'x'
    assert headers['type'] == 'TypeError'
    assert 'msgpack cannot carry' in headers['error']
    assert runs == ['x']  # it did its work: it isn't run again


async def test_dead_letters_are_sent_back_more_than_once(name, queue, caller):
    """The recipe of the README. The body is at its place again, untouched."""
    runs, dead, done = [], [], asyncio.Event()

    @queue.on(name, retries=1, retry_delay=0.05)
    async def handler(data):
        job = aioqueue.current.get()
        runs.append((data, job.attempt))
        if len(dead) < 3:
            raise ValueError('not yet')
        done.set()

    @queue.on(f'{name}.dead', raw=True)
    async def send_back(body):
        headers = aioqueue.current.get().headers
        dead.append(headers)
        await queue.task(name, body, raw=True, no_response=True, headers=headers)

    await queue.start_async()
    await caller.task(name, {'a': 1}, no_response=True)
    await asyncio.wait_for(done.wait(), DEADLINE)
    assert runs == [({'a': 1}, 1), ({'a': 1}, 2)] * 3 + [({'a': 1}, 1)]
    assert not any('x-death' in key for headers in dead for key in headers)


ODD_HEADERS = [
    {'nested': {'table': {'list': [1, 'x', {'y': None}]}}},
    {'bytes': bytearray(b'\xff\x00')},
    {'not utf-8': 'PLACEHOLDER'},
    {'when': datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), 'half': 0.5, 'no': None},
    {'decimal': decimal.Decimal('1.25'), 'big': 2**62, 'negative': -(2**62), 'yes': True},
    {'x-attempt': 'text'}, {'x-attempt': -(2**62)}, {'x-attempt': {'a': 1}},
    {'x-attempt': 2**62}, {'x-delivery-count': 'x'}, {'x-delivery-count': 10**9},
    {'error': [1], 'type': {}, 'traceback': bytearray(b'x'), 'attempts': None, 'part': 'x', 'parts': []},
    {'': 'empty key', '\u20ac': '\u20ac', 'k' * 250: 'long key', 'spaces and \n': ''},
    {'large': 'x' * 130_000},
    {'CC': ['amq.nowhere'], 'x-delay': 'x', 'x-match': 1},
    {'double': datetime.datetime.fromtimestamp(PLACE_OF_A_DOUBLE, datetime.UTC)},
]  # fmt: skip


async def test_odd_headers_are_retried_and_dead_lettered(name, queue, broker):
    attempts = []

    @queue.on(name, retries=1, retry_delay=0.05, raw=True)
    async def fail(body):
        attempts.append((body, aioqueue.current.get().attempt))
        raise ValueError('no')

    await queue.start_async()
    for number, headers in enumerate(ODD_HEADERS):
        write(broker, name, b'%02d' % number, headers=headers)
    await broker.until(f'{name}.dead', len(ODD_HEADERS))
    for number, headers in enumerate(ODD_HEADERS):
        body, got = await dead_letter(broker, name)
        assert {'error', 'type', 'traceback', 'attempts'} <= set(got), headers
        original = ODD_HEADERS[int(body)]
        for key in ('nested', 'bytes', 'when', 'decimal', '\u20ac'):
            assert got.get(key) == original.get(key)
    assert (b'00', 2) in attempts


async def test_a_foreign_x_death_does_not_make_a_retry_vanish(name, queue, broker):
    """The broker drops what it takes for a cycle of dead letters, without a word."""
    attempts = []

    @queue.on(name, retries=2, retry_delay=0.05, raw=True)
    async def fail(body):
        attempts.append(aioqueue.current.get().attempt)
        raise ValueError('no')

    await queue.start_async()
    death = {'queue': name, 'reason': 'expired', 'count': 1, 'exchange': '',
             'routing-keys': [name]}  # fmt: skip
    await broker.publish(name, b'x', headers={
        'x-death': [death, death | {'queue': f'{name}.delay.50'}],
        'x-first-death-queue': name, 'x-last-death-reason': 'expired'})  # fmt: skip
    _, headers = await dead_letter(broker, name)
    assert attempts == [1, 2, 3]
    assert set(headers) == {'error', 'type', 'traceback', 'attempts'}


async def test_an_id_makes_a_handler_idempotent(name, queue, caller):
    """What runs twice has the same id: a set here, a table with a key elsewhere."""
    done, charged = set(), []

    @queue.on(name)
    async def charge(amount):
        job = aioqueue.current.get()
        if job.id not in done:
            charged.append(amount)
            done.add(job.id)
        return 'charged'

    await queue.start_async()
    task = await caller.task(name, 100)
    assert await task.result(DEADLINE) == 'charged'
    await task.retry()
    assert await task.result(DEADLINE) == 'charged'
    assert charged == [100]


# Closing.


async def test_close_waits_for_running_handlers(name, queue, caller):
    started, gate = asyncio.Event(), asyncio.Event()

    @queue.on(name)
    async def handler(data):
        started.set()
        await gate.wait()
        return 'finished'

    await queue.start_async()
    task = await caller.task(name)
    await asyncio.wait_for(started.wait(), DEADLINE)
    closing = asyncio.create_task(queue.close())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(closing), 0.2)
    gate.set()
    await asyncio.wait_for(closing, DEADLINE)
    assert await task.result(DEADLINE) == 'finished'


@pytest.mark.parametrize('plain', [False, True])
async def test_what_close_cuts_short_runs_elsewhere(plain, name, queue, other, caller):
    started, release = threading.Event(), threading.Event()

    def handler(data):
        started.set()
        release.wait(DEADLINE)
        return 'first'

    async def handler_async(data):
        started.set()
        await asyncio.sleep(DEADLINE)

    queue.on(name, retries=5)(handler if plain else handler_async)
    other.on(name)(lambda data: ['second', aioqueue.current.get().attempt])
    await queue.start_async()
    task = await caller.task(name)
    await true(started.is_set)
    await asyncio.wait_for(queue.close(timeout=0.1), 3)
    await other.start_async()
    assert await task.result(DEADLINE) == ['second', 1]
    release.set()


@pytest.mark.parametrize('disorder', [0, 2, 5, 20, 100])
async def test_only_what_has_ended_is_acknowledged(
    disorder, name, queue, other, caller
):
    """Tasks end in any order, and one frame acknowledges several of them."""
    started, ended, again = [], [], []
    gates = [asyncio.Event() for _ in range(40)]

    @queue.on(name, prefetch_count=40)
    async def handler(number):
        started.append(number)
        await gates[number].wait()
        ended.append(number)

    other.on(name)(again.append)
    await queue.start_async()
    for number in range(40):
        await caller.task(name, number, no_response=True)
    await true(lambda: len(started) == 40)
    chance = random.Random(disorder)
    ending = [*range(8), *chance.sample(range(8, 40), 17)]
    ending.sort(key=lambda number: number + chance.uniform(0, disorder))
    while len(ended) < 25:
        at_once = chance.randint(1, 8)  # in one loop turn
        now = ending[: len(ended) + at_once]
        for number in now:
            gates[number].set()
        await true(lambda now=now: len(ended) == len(now))
    await queue.close(timeout=0)
    await other.start_async()
    await true(lambda: len(again) == 15)
    await other.close()
    assert sorted(again) == sorted(set(range(40)) - set(ending))
    assert len(started) == 40


async def test_tasks_not_yet_begun_go_elsewhere_at_once(name, queue, other, caller):
    started, gate = asyncio.Event(), asyncio.Event()

    @queue.on(name, prefetch_count=1)
    async def first(data):
        started.set()
        await gate.wait()
        return 'first'

    other.on(name)(lambda data: 'second')
    await queue.start_async()
    tasks = [await caller.task(name) for _ in range(20)]
    await asyncio.wait_for(started.wait(), DEADLINE)
    closing = asyncio.create_task(queue.close())
    await other.start_async()
    results = [await task.result(DEADLINE) for task in tasks[1:]]
    assert results == ['second'] * 19
    assert not closing.done()
    gate.set()
    assert await tasks[0].result(DEADLINE) == 'first'
    await closing


async def test_deliveries_that_wait_for_a_slot_go_elsewhere_at_once(
    name, other, caller
):
    """After a loss a task that still runs is delivered again, and has to wait."""
    started, gate = [], asyncio.Event()
    async with Forwarder() as forwarder:
        q = Queue(port=forwarder.port, retry=0.1)

        @q.on(name, prefetch_count=1)
        async def handler(data):
            started.append(data)
            await gate.wait()

        other.on(name)(lambda data: 'second')
        await q.start_async()
        task = await caller.task(name)
        await true(lambda: started)
        forwarder.cut()
        async with Broker.connected() as broker, asyncio.timeout(DEADLINE):
            declared = {'consumer_count': 0}
            while declared['consumer_count'] == 0 or declared['message_count']:
                declared = await broker.channel.queue_declare(name, passive=True)
                await asyncio.sleep(0.02)
        closing = asyncio.create_task(q.close())
        await other.start_async()
        assert await task.result(5) == 'second'
        gate.set()
        await closing


@pytest.mark.parametrize('consuming', [False, True])
async def test_a_connection_lost_before_close_ends_brings_no_new_tasks(
    consuming, name, caller, broker
):
    """Also when it begins to close while the next connection begins to consume."""
    started, gate = asyncio.Event(), asyncio.Event()
    armed, held = asyncio.Event(), asyncio.Event()

    class Holding(Forwarder):
        async def pump(self, reader, writer):
            while data := await reader.read(65536):
                if armed.is_set() and b'\x00\x3c\x00\x15' in data:  # consume-ok
                    self.flowing.clear()
                    held.set()
                await self.flowing.wait()
                writer.write(data)
            writer.transport.abort()

    async with Holding() as forwarder:
        q = Queue(port=forwarder.port, retry=0.1)

        @q.on(name, prefetch_count=1)
        async def handler(data):
            started.set()
            await gate.wait()
            return 'first'

        await q.start_async()
        task = await caller.task(name)
        await asyncio.wait_for(started.wait(), DEADLINE)
        if consuming:
            armed.set()
            forwarder.cut()
            await asyncio.wait_for(held.wait(), DEADLINE)
        closing = asyncio.create_task(q.close())
        await asyncio.sleep(0)  # now it closes
        if consuming:
            armed.clear()
            forwarder.flowing.set()
        else:
            forwarder.cut()
        # It has another connection when this returns.
        await asyncio.wait_for(q.task(name, no_response=True), DEADLINE)
        await broker.until(name, 2)
        declared = await broker.channel.queue_declare(name, passive=True)
        assert declared['consumer_count'] == 0
        gate.set()
        assert await task.result(DEADLINE) == 'first'
        await closing


async def test_close_may_be_called_twice_or_cancelled(name, queue, caller):
    started, gate = asyncio.Event(), asyncio.Event()

    @queue.on(name)
    async def handler(data):
        started.set()
        await gate.wait()
        return 'finished'

    await queue.start_async()
    task = await caller.task(name)
    await asyncio.wait_for(started.wait(), DEADLINE)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.close(), 0.1)
    closing = [asyncio.create_task(queue.close()) for _ in range(3)]
    gate.set()
    await asyncio.wait_for(asyncio.gather(*closing), 5)
    assert await task.result(DEADLINE) == 'finished'
    await asyncio.wait_for(queue.close(), 5)


async def test_awaited_results_raise_when_the_queue_closes(name, caller):
    tasks = [await caller.task(name, number) for number in range(3)]
    waiting = [asyncio.create_task(task.result()) for task in tasks]
    await asyncio.sleep(0)
    await caller.close()
    for each in waiting:
        with pytest.raises(ConnectionError, match='closed'):
            await asyncio.wait_for(each, DEADLINE)
    with pytest.raises(ConnectionError, match='closed'):
        await tasks[0].result()


async def test_close_ends_what_waits_for_a_broker_that_is_down(name, caplog):
    async with Forwarder() as forwarder:
        q = Queue(port=forwarder.port, retry=0.1)
        task = await q.task(name, 1)
    await true(lambda: 'no connection' in caplog.text)
    waiting = [asyncio.create_task(wait) for wait in (
        q.task(name, 2), q.task(name, 3, delay=5), q.connect(), task.result(),
        task.retry())]  # fmt: skip
    done, _ = await asyncio.wait(waiting, timeout=0.2)
    assert not done
    await asyncio.wait_for(q.close(), 3)
    for each in waiting:
        with pytest.raises(ConnectionError, match='closed'):
            await asyncio.wait_for(each, DEADLINE)


async def test_close_before_there_was_a_broker_ends_what_waits(name):
    q = Queue(port=1, retry=0.1)
    waiting = asyncio.create_task(q.task(name))
    await asyncio.wait([waiting], timeout=0.1)
    await asyncio.wait_for(q.close(), 3)
    with pytest.raises(ConnectionError, match='closed'):
        await waiting


async def test_close_of_a_queue_whose_peer_is_silent_is_bounded(name, monkeypatch):
    monkeypatch.setattr(aioqueue, 'CLOSE_DEADLINE', 0.3)
    async with Forwarder() as forwarder:
        q = Queue(port=forwarder.port, retry=0.1)
        await q.task(name, no_response=True)
        forwarder.flowing.clear()
        sending = asyncio.create_task(q.task(name, b'x' * 20_000_000, no_response=True))
        await asyncio.wait([sending], timeout=0.1)
        await asyncio.wait_for(q.close(timeout=0.1), 3)
        with pytest.raises(ConnectionError, match='closed'):
            await sending


# Faults.


async def test_killed_workers_lose_no_task(name, caller, spawn):
    done = []
    loading = asyncio.create_task(load(caller, name, 2000, done))
    workers = [spawn(DOUBLE, name, PORT) for _ in range(2)]
    for killed in range(6):
        reached = 200 * (killed + 1)
        await true(lambda reached=reached: len(done) >= reached or loading.done())
        workers.pop(0).kill()
        workers.append(spawn(DOUBLE, name, PORT))
    assert not loading.done()
    await asyncio.wait_for(loading, DEADLINE)


async def test_reset_connections_lose_no_task(name):
    done = []
    async with Forwarder() as forwarder:
        worker = Queue(port=forwarder.port, retry=0.05)
        caller = Queue(port=forwarder.port, retry=0.05)

        @worker.on(name, prefetch_count=20)
        async def double(number):
            return number * 2

        await worker.start_async()
        loading = asyncio.create_task(load(caller, name, 3000, done))
        for cut in range(10):
            reached = 250 * (cut + 1)
            await true(lambda reached=reached: len(done) >= reached or loading.done())
            assert not loading.done()
            forwarder.cut()
        await asyncio.wait_for(loading, DEADLINE)
        await worker.close()
        await caller.close()


async def test_a_killed_broker_loses_no_task(name, node, node_caller, spawn):
    done = []
    workers = [spawn(DOUBLE, name, node.port) for _ in range(2)]
    assert await (await node_caller.task(name, 1)).result(DEADLINE) == 2
    await node.sync()
    loading = asyncio.create_task(load(node_caller, name, 3000, done))
    await true(lambda: len(done) >= 1000)
    node.kill()
    await node.start()
    await asyncio.wait_for(loading, DEADLINE)
    assert [worker.poll() for worker in workers] == [None, None]


async def test_in_a_memory_alarm_senders_wait_and_workers_drain(
    name, node, node_queue, node_caller
):
    ran, gate = [], asyncio.Event()

    @node_queue.on(name, prefetch_count=50)
    async def note(number):
        await gate.wait()
        ran.append(number)

    # The worker has published too: by its acks alone it isn't known.
    await node_queue.start_async()
    await asyncio.gather(*(
        q.task(name, number, no_response=True)
        for number in range(1000) for q in (node_queue, node_caller)))  # fmt: skip
    await node.ctl('set_vm_memory_high_watermark absolute 1')
    sending = [asyncio.create_task(node_caller.task(name, number, no_response=True))
               for number in range(1000, 1050)]  # fmt: skip
    gate.set()
    await true(lambda: len(ran) >= 2000)
    async with Broker.connected(node.port) as broker:
        await broker.until(name, 0)
    # The broker notes the alarm at the first message that comes: that one it takes.
    assert sum(each.done() for each in sending) <= 5
    await node.ctl('set_vm_memory_high_watermark 0.4')
    await asyncio.wait_for(asyncio.gather(*sending), DEADLINE)
    await true(lambda: len(ran) >= 2050)
    assert sorted(ran) == sorted([*range(1000), *range(1050)])


async def test_a_worker_whose_queue_is_deleted_consumes_again(echo, caller, broker):
    for number in range(3):
        assert await (await caller.task(echo, number)).result(DEADLINE) == number
        await broker.channel.queue_delete(echo)
        async with asyncio.timeout(DEADLINE):
            while True:
                try:
                    declared = await broker.channel.queue_declare(echo, passive=True)
                    if declared['consumer_count']:
                        break
                except aioamqp.ChannelClosed:
                    broker.channel = await broker.channel.protocol.channel()
                await asyncio.sleep(0.02)
    assert await (await caller.task(echo, 'again')).result(DEADLINE) == 'again'


async def test_a_queue_deleted_between_two_sends_loses_no_task(name, caller, broker):
    for delay in (0, 0.05):
        await caller.task(name, 1, delay=delay, no_response=True)
        await broker.until(name, 1)
        await broker.channel.queue_delete(name)
    sent = [caller.task(name, number, no_response=True) for number in range(100)]
    await asyncio.gather(*sent)
    assert await broker.count(name) == 100


async def test_a_reply_queue_deleted_meanwhile_comes_back(name, caller, broker):
    await caller.task(name)
    _, properties = await broker.get(name)
    await broker.channel.queue_delete(properties.reply_to)
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                await broker.count(properties.reply_to)
                break
            except aioamqp.ChannelClosed:
                broker.channel = await broker.channel.protocol.channel()
                await asyncio.sleep(0.02)
    task = await caller.task(name)
    await broker.get(name)
    await broker.publish(properties.reply_to, msgpack.packb([None, 7]),
                         correlation_id=task.id)  # fmt: skip
    assert await task.result(DEADLINE) == 7


async def test_a_handler_longer_than_consumer_timeout_runs_again_and_the_log_says_why(
    name, node, node_queue, node_caller, caplog
):
    """The broker closes the channel of the consumer."""
    ids = []
    await node.ctl(
        """eval 'application:set_env(rabbit, consumer_timeout, 700),
        application:set_env(rabbit, channel_tick_interval, 200).'""".replace('\n', ' ')
    )

    @node_queue.on(name)
    async def handler(data):
        ids.append(aioqueue.current.get().id)
        if len(ids) == 1:
            await true(lambda: len(ids) > 1)
        return len(ids)

    try:
        await node_queue.start_async()
        task = await node_caller.task(name)
        assert await task.result(DEADLINE) == 2
    finally:
        await node.ctl("""eval 'application:set_env(rabbit, consumer_timeout, 1800000),
            application:set_env(rabbit, channel_tick_interval, 60000).'"""
                       .replace('\n', ' '))  # fmt: skip
    assert ids == [task.id] * 2
    lines = [record.getMessage() for record in caplog.records]
    assert any('consumer_timeout' in each and name in each for each in lines), lines


async def test_connections_closed_by_the_broker_come_back(
    name, node, node_queue, node_caller, caplog
):
    node_queue.on(name)(lambda data: data)
    await node_queue.start_async()
    task = await node_caller.task(name, 1)
    assert await task.result(DEADLINE) == 1
    closing = asyncio.create_task(node.ctl('close_all_connections maintenance'))
    while not closing.done():  # and sends are under way
        await node_caller.task(name, 0, no_response=True)
    await closing
    assert await (await node_caller.task(name, 2)).result(DEADLINE) == 2
    lost = [each.getMessage() for each in caplog.records if each.name == 'aioqueue']
    assert lost and all('maintenance' in each for each in lost), lost


@pytest.mark.parametrize('sending', [False, True])
async def test_a_silent_peer_is_found_out_within_two_heartbeats(sending, name, caplog):
    async with Forwarder() as forwarder:
        q = Queue(port=forwarder.port, heartbeat=1, retry=0.1)
        q.on(name)(lambda data: len(data))
        await q.start_async()
        assert await (await q.task(name, b'x')).result(DEADLINE) == 1
        forwarder.flowing.clear()
        silent_since = time.monotonic()
        # What is left to send must not keep the connection open.
        size = 10_000_000 if sending else 1
        task = asyncio.create_task(q.task(name, b'x' * size))
        await true(lambda: 'no connection' in caplog.text)
        assert time.monotonic() - silent_since < 2.5
        assert not task.done()
        forwarder.flowing.set()
        assert await (await task).result(DEADLINE) == size
        await q.close()


async def test_a_message_too_large_hinders_none_of_those_in_flight(
    name, node, node_queue, node_caller
):
    ran = []

    @node_queue.on(name)
    async def note(data):
        ran.append(data)
        return data

    await node_queue.start_async()
    sending = [node_caller.task(name, number) for number in range(100)]
    sending[50:50] = [node_caller.task(name, b'x' * 1_500_000)]
    tasks = await asyncio.gather(*sending, return_exceptions=True)
    refused = tasks.pop(50)
    assert isinstance(refused, Refused)
    assert refused.code == 406
    assert 'larger than configured max size' in str(refused)
    results = [await task.result(DEADLINE) for task in tasks]
    assert results == list(range(100))
    assert set(ran) == set(range(100))


async def test_what_is_sent_while_another_message_is_refused_is_confirmed(
    name, node, node_caller, caplog
):
    sending = []

    async def send_too_much():
        for _ in range(3):
            with pytest.raises(Refused, match='larger than configured max size'):
                await node_caller.task(name, b'x' * 1_500_000, no_response=True)

    too_much = asyncio.create_task(send_too_much())
    while not too_much.done() and len(sending) < 3000:  # one in each turn of the loop
        sending.append(asyncio.create_task(node_caller.task(name, no_response=True)))
        await asyncio.sleep(0)
    await too_much
    await asyncio.wait_for(asyncio.gather(*sending), DEADLINE)
    async with Broker.connected(node.port) as broker:
        assert await broker.count(name) >= len(sending)
    assert 'no connection' not in caplog.text


async def test_a_result_too_large_is_a_failure(name, node, node_queue, node_caller):
    node_queue.on(name, retries=3, retry_delay=60)(lambda size: b'x' * size)
    await node_queue.start_async()
    tasks = [await node_caller.task(name, size) for size in (1, 1_500_000, 2)]
    assert await tasks[0].result(DEADLINE) == b'x'
    with raises_remote('larger than configured max size'):
        await tasks[1].result(DEADLINE)
    assert await tasks[2].result(DEADLINE) == b'xx'


async def test_a_full_queue_refuses(name, caller, broker):
    arguments = {'x-max-length': 3, 'x-overflow': 'reject-publish'}
    await broker.channel.queue_declare(name, durable=True, arguments=arguments)
    sent = [caller.task(name, number, no_response=True) for number in range(10)]
    sent += [
        caller.task(f'{name}.dead', number, no_response=True) for number in range(10)
    ]
    outcomes = await asyncio.gather(*sent, return_exceptions=True)
    refused = [each for each in outcomes if isinstance(each, Refused)]
    assert len(refused) == 7
    assert (refused[0].code, str(refused[0])) == (
        0,
        'refused, without a word: queue full?',
    )
    assert await broker.count(name) == 3
    assert await broker.count(f'{name}.dead') == 10
    await broker.get(name)
    await caller.task(name, no_response=True)


async def test_a_task_whose_retry_and_dead_letter_are_refused_is_not_lost(
    name, queue, caller, broker, monkeypatch
):
    """Its dead letters are full: it is delivered again, until there is room."""
    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, 'sleep', lambda seconds: sleep(min(seconds, 0.1)))
    arguments = {'x-max-length': 1, 'x-overflow': 'reject-publish'}
    await broker.channel.queue_declare(
        f'{name}.dead', durable=True, arguments=arguments
    )
    await broker.publish(f'{name}.dead', b'full')
    runs = []

    @queue.on(name)
    async def fail(data):
        runs.append(data)
        raise ValueError('no')

    await queue.start_async()
    await caller.task(name, 'kept', no_response=True)
    await true(lambda: len(runs) > 2)
    assert (await broker.get(f'{name}.dead'))[0] == b'full'
    body, headers = await dead_letter(broker, name)
    assert msgpack.unpackb(body) == 'kept'


# A few hundred cases that nobody thought of.

HUNDRED = settings(
    max_examples=100, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
SHORT = st.text(max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1)
    # No inf, no nan: RabbitMQ closes the connection over them.
    | st.floats(width=32, allow_nan=False, allow_infinity=False)
    | st.binary(max_size=20).map(bytearray) | SHORT | st.decimals(-1000, 1000, places=2)
    | st.datetimes(datetime.datetime(1970, 1, 2), datetime.datetime(2100, 1, 1),
                   timezones=st.just(datetime.UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SHORT, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
OUR_HEADERS = st.sampled_from(
    ['x-attempt', 'x-delivery-count', 'x-death', 'part', 'parts', 'type', 'traceback',
     'error', 'attempts'])  # fmt: skip
PROPERTIES = st.fixed_dictionaries({}, optional={
    'headers': st.dictionaries(OUR_HEADERS | SHORT, VALUES, max_size=4),
    'content_type': SHORT, 'content_encoding': SHORT, 'correlation_id': SHORT,
    'reply_to': SHORT, 'message_id': SHORT, 'message_type': SHORT | st.just('part'),
    'app_id': SHORT, 'priority': st.integers(0, 255), 'delivery_mode': st.integers(1, 2),
    'timestamp': st.datetimes(datetime.datetime(1970, 1, 2), datetime.datetime(2100, 1, 1)),
})  # fmt: skip
BODIES = st.binary(max_size=30) | VALUES.map(
    lambda value: msgpack.packb(value, default=str, datetime=True)
)


def try_to_write(broker, name, body, properties):
    try:
        write(broker, name, body, **properties)
    except (TypeError, ValueError, struct.error):  # pamqp can't encode it
        assume(False)


@HUNDRED
@given(body=BODIES, properties=PROPERTIES)
async def test_no_message_stops_a_worker(echo, caller, broker, body, properties):
    try_to_write(broker, echo, body, properties)
    task = await caller.task(echo, 'fine')
    assert await task.result(DEADLINE) == 'fine'


@HUNDRED
@given(body=BODIES, properties=PROPERTIES, ours=st.booleans())
async def test_no_reply_stops_a_caller(echo, caller, broker, body, properties, ours):
    held = f'{echo}.dead'  # a queue without a worker
    task = await caller.task(held)
    _, sent = await broker.get(held)
    if ours:
        properties['correlation_id'] = task.id
    try_to_write(broker, sent.reply_to, body, properties)
    if ours and properties.get('message_type') != 'part':
        try:
            await task.result(DEADLINE)
        except RemoteException as error:
            str(error)
    assert await (await caller.task(echo, 'fine')).result(DEADLINE) == 'fine'


# Nothing leaks.


def alive(kind):
    gc.collect()
    return sum(type(each) is kind for each in gc.get_objects())


async def settled(tasks):
    """Wait until no more asyncio tasks are alive than these."""
    await true(lambda: not asyncio.all_tasks() - tasks, 5)


async def test_cancelled_sends_and_results_leave_nothing_behind(echo, caller):
    assert await (await caller.task(echo, 0)).result(DEADLINE) == 0
    before, tasks = asyncio.all_tasks(), alive(aioqueue.Task)
    for moment in range(300):

        async def call(data):
            return await (await caller.task(echo, data)).result()

        calling = asyncio.create_task(call(moment))
        await asyncio.wait([calling], timeout=moment * 20e-6)
        calling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            assert await calling == moment
    assert await (await caller.task(echo, 'fine')).result(DEADLINE) == 'fine'
    del calling
    await settled(before)
    assert alive(aioqueue.Task) <= tasks + 1
    # Others who wait for the same result go on.
    task = await caller.task(echo, 'shared')
    first, second = (asyncio.create_task(task.result(DEADLINE)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 'shared'


async def test_sends_cancelled_while_connecting_leave_nothing_behind(name):
    before, protocols = asyncio.all_tasks(), alive(aioqueue._Protocol)
    for moment in range(25):
        q = Queue(port=PORT, retry=0.1)
        for delay in (0, 0.05):
            sending = asyncio.create_task(q.task(name, moment, delay=delay))
            await asyncio.wait([sending], timeout=moment * 1e-3)
            sending.cancel()
        task = await asyncio.wait_for(q.task(name, 'fine'), 5)
        await asyncio.wait_for(q.close(), 5)
    del q, task, sending
    await settled(before)
    await true(lambda: alive(aioqueue._Protocol) <= protocols, 5)


async def test_tasks_that_nobody_awaits_cost_no_memory_and_no_channels(
    name, node, node_caller, spawn
):
    spawn("""
        q = aioqueue.Queue(port=int(sys.argv[2]), retry=0.1)
        @q.on(sys.argv[1], prefetch_count=200)
        async def handler(data):
            return data
        q.start()
        """, name, node.port)  # fmt: skip

    async def send(count):
        for start in range(0, count, 500):
            await asyncio.gather(*(
                node_caller.task(name, number) for number in range(start, start + 500)))  # fmt: skip
        assert await (await node_caller.task(name, 'last')).result(DEADLINE) == 'last'

    await send(40_000)
    channels = (await node.ctl('list_channels pid')).count('<')
    gc.collect()
    tracemalloc.start()
    await send(10_000)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 500_000, grown
    assert (await node.ctl('list_channels pid')).count('<') == channels > 0


async def test_a_task_that_runs_for_long_lets_nothing_grow(name, queue, caller):
    gate = asyncio.Event()

    @queue.on(name, prefetch_count=50)
    async def handler(data):
        if data == 'long':
            await gate.wait()
        return data

    async def send(count):
        for start in range(0, count, 500):
            await asyncio.gather(*(
                caller.task(name, number) for number in range(start, start + 500)))  # fmt: skip
        assert await (await caller.task(name, 'last')).result(DEADLINE) == 'last'

    await queue.start_async()
    task = await caller.task(name, 'long')
    await send(2_000)
    gc.collect()
    tracemalloc.start()
    await send(8_000)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 200_000, grown
    gate.set()
    assert await task.result(DEADLINE) == 'long'


# All of it at once.


async def test_a_mixed_quarter_of_a_minute_loses_nothing(name, node, spawn):
    done, count = [], 4000
    async with Forwarder(node.port) as there, Forwarder(node.port) as here:
        q = Queue(port=here.port, retry=0.1)
        workers = [spawn(DOUBLE, name, there.port) for _ in range(3)]
        assert await (await q.task(name, 1)).result(DEADLINE) == 2
        await node.sync()
        loading = asyncio.create_task(load(q, name, count, done, at_once=50))
        for fault in range(12):
            reached = count * (fault + 1) // 14
            await true(lambda reached=reached: len(done) >= reached or loading.done())
            assert not loading.done()
            workers.pop(0).kill()
            workers.append(spawn(DOUBLE, name, there.port))
            here.cut()
            there.cut()
            if fault == 6:
                node.kill()
                await node.start()
        await asyncio.wait_for(loading, DEADLINE)
        await q.close()


# Results while they grow: handlers that yield.


@pytest.fixture(params=['async', 'plain'])
def as_handler(request):
    """Make a handler of a plain generator: of the kind that this run tests.

    Where it yields a function, it waits until that returns true.
    """

    def plain(generate):
        def handler(data):
            with contextlib.closing(generate(data)) as values:
                for value in values:
                    if not callable(value):
                        yield value
                        continue
                    until = time.monotonic() + DEADLINE
                    while not value():
                        assert time.monotonic() < until
                        time.sleep(0.005)

        return handler

    def asynchronous(generate):
        async def handler(data):
            with contextlib.closing(generate(data)) as values:
                for value in values:
                    if callable(value):
                        await true(value)
                    else:
                        yield value

        return handler

    return plain if request.param == 'plain' else asynchronous


async def listed(task):
    return [part async for part in task]


async def test_parts_arrive_in_order_while_the_handler_runs(
    as_handler, name, queue, caller
):
    got = []

    def count(data):
        for number in range(data):
            yield number
            yield lambda number=number: len(got) == number + 1  # until it has arrived

    queue.on(name)(as_handler(count))
    await queue.start_async()
    task = await caller.task(name, 20)
    async with asyncio.timeout(DEADLINE):
        async for part in task:
            got.append(part)
    assert got == list(range(20))
    assert await task.result(DEADLINE) == got


async def test_parts_and_result_can_be_had_often_and_in_any_order(
    as_handler, name, queue, caller
):
    @queue.on(name)
    @as_handler
    def generate(data):
        assert aioqueue.current.get().name == name
        yield from data

    await queue.start_async()
    parts = [None, 0, '', [], {'done': 1}, b'x', None]
    first, second, empty = [
        await caller.task(name, data) for data in (parts, parts, [])
    ]
    everything = await asyncio.wait_for(
        asyncio.gather(
            listed(first), listed(first), first.result(), first.result(), listed(first)
        ),
        DEADLINE,
    )
    everything += [await first.result(), await listed(first), await first.result()]
    everything += [
        await second.result(DEADLINE),
        await listed(second),
        await listed(second),
    ]
    assert everything == [parts] * 11
    assert await empty.result(DEADLINE) == []
    assert await listed(empty) == []


async def test_a_function_that_returns_a_generator_is_a_handler_that_yields(
    name, queue, caller
):
    queue.on(name)(lambda data: (number for number in range(data)))
    await queue.start_async()
    assert await (await caller.task(name, 3)).result(DEADLINE) == [0, 1, 2]


async def test_iteration_may_be_left_and_taken_up_again(name, queue, caller):
    queue.on(name)(lambda data: (number for number in range(data)))
    await queue.start_async()
    task = await caller.task(name, 5)
    async for part in task:
        if part == 2:
            break
    assert await asyncio.wait_for(listed(task), DEADLINE) == [0, 1, 2, 3, 4]


async def test_two_callers_at_once_get_their_own_parts(as_handler, name, queue, caller):
    other = Queue(port=PORT, retry=0.2)

    @queue.on(name, prefetch_count=4)
    @as_handler
    def generate(data):
        for number in range(200):
            yield f'{data} {number}'

    await queue.start_async()
    tasks = [
        await q.task(name, f'{which}.{lane}')
        for which, q in enumerate([caller, other])
        for lane in range(2)
    ]
    parts = await asyncio.wait_for(asyncio.gather(*map(listed, tasks)), DEADLINE)
    assert parts == [
        [f'{task.data} {number}' for number in range(200)] for task in tasks
    ]
    await other.close()


async def test_what_came_before_a_failure_is_given_then_it_raises(
    as_handler, name, queue, caller
):
    @queue.on(name)
    @as_handler
    def fail(data):
        yield 1
        yield 2
        raise ValueError('midway')

    await queue.start_async()
    task = await caller.task(name)
    for _ in range(2):
        parts = []
        with raises_remote('midway') as raised:
            async for part in task:
                parts.append(part)
        assert parts == [1, 2]
        assert raised.value.type == 'ValueError'
    with raises_remote('midway'):
        await task.result(DEADLINE)


async def test_retries_repeat_no_part(as_handler, name, queue, caller):
    @queue.on(name, retries=2, retry_delay=0.05)
    @as_handler
    def flaky(data):
        attempt = aioqueue.current.get().attempt
        for number in range(attempt * 2):
            yield [attempt, number]
        if attempt < 3:
            raise ValueError('again')

    await queue.start_async()
    task = await caller.task(name)
    expected = [[1, 0], [1, 1], [2, 2], [2, 3], [3, 4], [3, 5]]
    assert await asyncio.wait_for(listed(task), DEADLINE) == expected
    assert await task.result() == expected


async def test_retry_of_a_task_begins_with_its_first_part(name, queue, caller):
    runs, go = [], asyncio.Event()

    @queue.on(name)
    async def generate(data):
        runs.append(data)
        if len(runs) == 2:
            await go.wait()
        for number in range(3):
            yield [len(runs), number]
        if len(runs) == 1:
            raise ValueError('the first time')

    await queue.start_async()
    task = await caller.task(name)
    with raises_remote('the first time'):
        await task.result(DEADLINE)
    left = aiter(task)
    assert await anext(left) == [1, 0]
    assert await anext(left) == [1, 1]
    await task.retry()
    going_on = asyncio.create_task(anext(left))  # where it was
    await true(lambda: len(runs) == 2)
    go.set()
    assert await task.result(DEADLINE) == [[2, 0], [2, 1], [2, 2]]
    assert await listed(task) == [[2, 0], [2, 1], [2, 2]]
    assert await going_on == [2, 2]


async def test_a_worker_killed_between_two_parts_is_not_noticed(name, caller, spawn):
    source = """
        @q.on(sys.argv[1])
        async def generate(data):
            for number in range(20):
                yield number
                if number == int(sys.argv[2]):
                    print('halfway', flush=True)
                    await asyncio.sleep(3600)
        q.start()
        """
    worker = spawn(source, name, 10)
    task = await caller.task(name)
    parts = aiter(task)
    async with asyncio.timeout(DEADLINE):
        got = [await anext(parts) for _ in range(11)]
    assert await line(worker) == 'halfway'
    worker.send_signal(signal.SIGKILL)
    spawn(source, name, 100)
    async with asyncio.timeout(DEADLINE):
        got += [part async for part in parts]
    assert got == list(range(20))
    assert await task.result() == got


@pytest.mark.parametrize('whose', ['worker', 'caller', 'both'])
async def test_a_connection_cut_between_two_parts_is_not_noticed(
    whose, as_handler, name
):
    async with Forwarder() as forwarder:
        ports = [
            PORT if whose == 'caller' else forwarder.port,
            PORT if whose == 'worker' else forwarder.port,
        ]
        worker, caller = (Queue('127.0.0.1', port, retry=0.05) for port in ports)
        got = []

        @worker.on(name)
        @as_handler
        def generate(data):
            for number in range(30):
                yield number
                if number % 10 == 5:  # a cut is on its way
                    yield lambda number=number: len(got) > number + 1

        await worker.start_async()
        task = await caller.task(name)
        async with asyncio.timeout(DEADLINE):
            async for part in task:
                got.append(part)
                if part % 10 == 5:
                    forwarder.cut()
                    got.append('cut')
        assert [part for part in got if part != 'cut'] == list(range(30))
        await caller.close()
        await worker.close()


async def test_ten_thousand_parts_arrive_in_order(name, queue, caller):
    @queue.on(name)
    async def count(data):
        for number in range(data):
            yield number

    await queue.start_async()
    task = await caller.task(name, 10_000)
    assert await asyncio.wait_for(listed(task), 60) == list(range(10_000))


async def test_slow_parts_hold_up_no_other_task(as_handler, name, queue, caller):
    go = threading.Event()

    @queue.on(name)
    @as_handler
    def generate(data):
        yield 'first'
        if data == 'slow':
            yield go.is_set
        yield 'last'

    await queue.start_async()
    slow = [await caller.task(name, 'slow') for _ in range(3)]
    for task in slow:
        assert await asyncio.wait_for(anext(aiter(task)), DEADLINE) == 'first'
    for _ in range(10):
        assert await (await caller.task(name)).result(DEADLINE) == ['first', 'last']
    go.set()
    for task in slow:
        assert await task.result(DEADLINE) == ['first', 'last']


async def test_when_the_caller_is_gone_the_handler_is_closed(
    as_handler, name, queue, broker
):
    gone, closed = threading.Event(), threading.Event()

    @queue.on(name)
    @as_handler
    def endless(data):
        try:
            yield 'first'
            yield gone.is_set
            for number in itertools.count():
                yield number
        except GeneratorExit:
            closed.set()
            raise

    await queue.start_async()
    async with Queue(port=PORT) as caller:
        task = await caller.task(name)
        assert await asyncio.wait_for(anext(aiter(task)), DEADLINE) == 'first'
    gone.set()
    await true(closed.is_set)
    await queue.close()
    assert await broker.count(name) == 0  # it is done: no failure, no second run
    with pytest.raises(aioamqp.ChannelClosed, match='NOT_FOUND'):
        await broker.count(f'{name}.dead')


async def test_a_clean_up_that_fails_is_a_failure(as_handler, name, queue, broker):
    gone = threading.Event()

    @queue.on(name)
    @as_handler
    def endless(data):
        try:
            yield gone.is_set
            for number in itertools.count():
                yield number
        except GeneratorExit:
            raise OSError('not cleaned up') from None

    await queue.start_async()
    async with queue_on(PORT) as caller:
        await caller.task(name)
    gone.set()
    _, headers = await dead_letter(broker, name)
    assert headers['error'] == 'not cleaned up'


async def test_without_response_the_handler_runs_to_its_end(
    as_handler, name, queue, caller
):
    ended = threading.Event()

    @queue.on(name)
    @as_handler
    def generate(data):
        yield from range(100)
        ended.set()

    await queue.start_async()
    task = await caller.task(name, no_response=True)
    assert await task.result() is None
    assert await listed(task) == []
    await true(ended.is_set)


async def test_timeout_covers_the_whole_run_of_a_generator(name, queue, caller):
    closed = []

    @queue.on(name, timeout=0.5)
    async def endless(data):
        try:
            for number in itertools.count():
                yield number
                await asyncio.sleep(0.1)
        finally:
            closed.append(True)

    await queue.start_async()
    task = await caller.task(name)
    parts = []
    with raises_remote('ran longer than 0.5 seconds') as raised:
        async for part in task:
            parts.append(part)
    assert raised.value.type == 'TimeoutError'
    assert parts == list(range(len(parts)))
    assert 2 <= len(parts) <= 5
    assert closed == [True]


async def test_a_part_that_msgpack_cannot_carry_is_an_error_of_the_handler(
    as_handler, name, queue, caller
):
    closed = []

    @queue.on(name)
    @as_handler
    def generate(data):
        try:
            yield 'fine'
            yield {1, 2}
            yield 'never'
        finally:
            closed.append(True)

    await queue.start_async()
    task, parts = await caller.task(name), []
    with raises_remote('set') as raised:
        async for part in task:
            parts.append(part)
    assert (parts, closed, raised.value.type) == (['fine'], [True], 'TypeError')


async def test_the_timeout_of_result_is_as_ever_with_parts(name, queue, caller):
    go = asyncio.Event()

    @queue.on(name)
    async def generate(data):
        yield 1
        await go.wait()
        yield 2

    await queue.start_async()
    task = await caller.task(name)
    assert await asyncio.wait_for(anext(aiter(task)), DEADLINE) == 1
    with pytest.raises(TimeoutError):
        await task.result(timeout=0.05)
    go.set()
    assert await task.result(timeout=DEADLINE) == [1, 2]


async def test_async_for_on_a_handler_that_returns_ends_without_parts(
    name, queue, caller
):
    @queue.on(name)
    async def handler(data):
        if data == 'fail':
            raise ValueError('as asked')
        return [1, 2, 3]

    await queue.start_async()
    task = await caller.task(name)
    assert await asyncio.wait_for(listed(task), DEADLINE) == []
    assert await task.result() == [1, 2, 3]
    with raises_remote('as asked'):
        await asyncio.wait_for(listed(await caller.task(name, 'fail')), DEADLINE)


async def test_close_ends_an_iteration_with_an_error(name, queue, caller):
    @queue.on(name)
    async def generate(data):
        yield 1
        await asyncio.sleep(3600)

    await queue.start_async()
    task = await caller.task(name)
    parts = aiter(task)
    assert await asyncio.wait_for(anext(parts), DEADLINE) == 1
    waiting = asyncio.ensure_future(anext(parts))
    await caller.close()
    with pytest.raises(ConnectionError, match='closed'):
        await asyncio.wait_for(waiting, DEADLINE)
    with pytest.raises(ConnectionError, match='closed'):
        await task.result(DEADLINE)
    await queue.close(timeout=0.1)


async def test_close_ends_a_generator_that_does_not_and_another_worker_goes_on(
    as_handler, name, caller
):
    closed = threading.Event()
    first, second = Queue(port=PORT), Queue(port=PORT)

    @first.on(name)
    @as_handler
    def endless(data):
        try:
            for number in range(5):
                yield number
            while not closed.is_set():
                yield 5
        finally:
            closed.set()

    second.on(name)(lambda data: (number for number in range(10)))
    await first.start_async()
    task = await caller.task(name)
    parts = aiter(task)
    async with asyncio.timeout(DEADLINE):
        got = [await anext(parts) for _ in range(6)]
    await first.close(timeout=0.1)
    await true(closed.is_set)
    async with asyncio.timeout(DEADLINE), second:
        got += [part async for part in parts]
    assert got[:6] == list(range(6))
    # The endless one sent on until it was closed: a number is given once, in order.
    assert got[6:] == [5] * (len(got) - 6) + list(range(len(got), 10))


async def test_a_signal_lets_a_generator_finish(
    as_handler, name, caller, spawn, request
):
    kind = 'async def' if 'async' in request.node.callspec.id else 'def'
    worker = spawn(f"""
        @q.on(sys.argv[1])
        {kind} generate(data):
            for number in range(5):
                yield number
                time.sleep(0.1)
        q.start()
        """, name)  # fmt: skip
    task = await caller.task(name)
    assert await asyncio.wait_for(anext(aiter(task)), DEADLINE) == 0
    worker.send_signal(signal.SIGTERM)
    assert await task.result(DEADLINE) == [0, 1, 2, 3, 4]
    status, _, err = await ended(worker)
    assert (status, err) == (0, '')


# Nodes of our own: a cluster, quorum queues, TLS.


def make(*arguments):
    """Run a target of the Makefile; what it printed."""
    return subprocess.run(
        ['make', '-s', *arguments],
        cwd=HERE,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def kill_node(node):
    """SIGKILL a RabbitMQ node that `make` started."""
    os.kill(int((HERE / '.rabbit' / node / 'pid').read_text()), signal.SIGKILL)


def need_rabbitmq_server():
    if shutil.which('rabbitmq-server') is None:
        pytest.skip('a node of its own needs rabbitmq-server on this machine')


@pytest.fixture(scope='session')
def cluster():
    """Three joined nodes, that tests may kill: port and name."""
    need_rabbitmq_server()
    names = f'test-cluster-{CLUSTER_PORT}'
    nodes = {CLUSTER_PORT + number: f'{names}-{number + 1}' for number in range(3)}
    make('cluster', f'PORT={CLUSTER_PORT}', f'NODE={names}')
    yield nodes
    for node in nodes.values():
        with contextlib.suppress(OSError):  # it is quicker than to stop it politely
            kill_node(node)
        make('stop', f'NODE={node}')


@pytest.fixture
async def quorum():
    """A Queue whose queues are quorum queues."""
    q = Queue(port=PORT, retry=0.2, quorum=True)
    yield q
    await q.close(timeout=5)


async def assert_quorum(broker, *names, **arguments):
    """Declare what exists as what it should be: the broker refuses all else."""
    for each in names:
        await broker.channel.queue_declare(
            each, durable=True, arguments={'x-queue-type': 'quorum', **arguments}
        )


async def test_all_queues_are_quorum_queues_with_quorum_true(name, quorum, broker):
    @quorum.on(name, retries=1, retry_delay=30)
    async def fail(data):
        raise ValueError(data)

    @quorum.on(f'{name}.final')
    async def final(data):
        raise ValueError(data)

    async with Queue(port=PORT, quorum=True) as caller:
        await caller.task(f'{name}.unknown')
        reply_to = (await broker.get(f'{name}.unknown'))[1].reply_to
        await assert_quorum(broker, f'{name}.unknown')
        await assert_quorum(broker, reply_to, **{'x-expires': 3_600_000})
    await quorum.start_async()
    await quorum.task(name, 'later')
    await quorum.task(f'{name}.final', 'dead', no_response=True)
    await quorum.task(f'{name}.unknown', delay=40)
    await broker.until(f'{name}.final.dead', 1)
    await assert_quorum(broker, name, f'{name}.final', f'{name}.final.dead')
    for queue_name, ms in (name, 30_000), (f'{name}.unknown', 40_000):
        await broker.until(f'{queue_name}.delay.{ms}', 1)
        await assert_quorum(broker, f'{queue_name}.delay.{ms}', **{
            'x-message-ttl': ms, 'x-expires': ms + aioqueue.QUORUM_LEASE,
            'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': queue_name,
            'x-dead-letter-strategy': 'at-least-once', 'x-overflow': 'reject-publish',
        })  # fmt: skip
    await delete_queues(
        f'{name}.delay.30000', f'{name}.unknown', f'{name}.unknown.delay.40000',
        f'{name}.final', f'{name}.final.dead',
    )  # fmt: skip


async def test_retries_delays_and_dead_letters_work_on_quorum_queues(
    name, quorum, broker
):
    attempts = []

    @quorum.on(
        name, retries=2, retry_delay=0.1, prefetch_count=1, connection_global=True
    )
    async def flaky(data):
        attempts.append((data, aioqueue.current.get().attempt, time.monotonic()))
        if data == 'bad' or aioqueue.current.get().attempt < 3:
            raise ValueError(data)
        return data

    await quorum.start_async()
    assert await (await quorum.task(name, 'good')).result(DEADLINE) == 'good'
    runs = [(data, attempt) for data, attempt, _ in attempts]
    assert runs == [('good', 1), ('good', 2), ('good', 3)]
    assert attempts[1][2] - attempts[0][2] >= 0.1
    assert attempts[2][2] - attempts[1][2] >= 0.2

    with raises_remote('bad'):
        await (await quorum.task(name, 'bad')).result(DEADLINE)
    await quorum.task(name, 'bad', no_response=True, priority=1, expires=DEADLINE)
    await broker.until(f'{name}.dead', 1)
    body, properties = await broker.get(f'{name}.dead')
    assert msgpack.unpackb(body) == 'bad'
    assert properties.headers['attempts'] == 3

    sent = time.monotonic()
    task = await quorum.task(name, 'good', delay=0.5)
    assert await task.result(DEADLINE) == 'good'
    assert attempts[-3][2] - sent >= 0.5
    assert len(attempts) == 12


async def test_a_quorum_queue_takes_arguments_and_refuses_with_a_reason(name, quorum):
    quorum.on(name, arguments={'x-max-length': 5, 'x-delivery-limit': 30})(print)
    await quorum.start_async()
    await quorum.close()
    transient = Queue(port=PORT, quorum=True)
    transient.on(f'{name}.transient', durable=False)(print)
    with pytest.raises(Refused, match=f"'{name}.transient'"):
        await transient.start_async()
    await transient.close()


async def test_a_task_that_kills_its_worker_is_dead_after_the_limit(
    name, spawn, broker
):
    caller = Queue(port=PORT, retry=0.2, quorum=True)
    task = await caller.task(name, {'poison': 1}, headers={'tenant': 'blue'})
    told = asyncio.create_task(task.result())
    killed = 0
    async with asyncio.timeout(2 * DEADLINE):
        while not told.done():
            worker = spawn("""
                q = aioqueue.Queue(port=q._addresses[0]['port'], quorum=True)
                @q.on(sys.argv[1])
                def poison(data):
                    os.kill(os.getpid(), signal.SIGKILL)
                q.start()
                """, name)  # fmt: skip
            death = asyncio.create_task(asyncio.to_thread(worker.wait))
            await asyncio.wait([told, death], return_when=asyncio.FIRST_COMPLETED)
            killed += worker.poll() == -signal.SIGKILL
    assert killed == aioqueue.DELIVERY_LIMIT
    with raises_remote(f'{killed} deliveries, and never settled'):
        await told
    await broker.until(f'{name}.dead', 1)
    body, properties = await broker.get(f'{name}.dead')
    assert msgpack.unpackb(body) == {'poison': 1}
    assert f'{killed} deliveries' in properties.headers['error']
    assert properties.headers['tenant'] == 'blue'
    assert worker.poll() is None  # it goes on
    worker.terminate()
    assert (await ended(worker))[0] == 0
    assert await broker.count(name) == 0
    await death
    await caller.close()


async def test_hosts_that_are_down_silent_or_refuse_are_passed_over(
    name, monkeypatch, caplog
):
    monkeypatch.setattr(aioqueue, 'CONNECT_DEADLINE', 0.5)

    async def silent(reader, writer):
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, '127.0.0.1', 0) as server:
        hosts = [
            'amqp://127.0.0.1:1',
            f'amqp://127.0.0.1:{server.sockets[0].getsockname()[1]}',
            f'amqp://guest:wrong@127.0.0.1:{PORT}',
            f'amqp://127.0.0.1:{PORT}/missing',
            f'amqp://127.0.0.1:{PORT}',
        ]
        began = time.monotonic()
        async with Queue(hosts, retry=DEADLINE) as q:
            await q.task(name, no_response=True)
        assert time.monotonic() - began < 10
        assert caplog.text.count('no connection') == 4
        # When nothing is left to hope for, the refusal is what is raised.
        with pytest.raises(Refused, match='ACCESS_REFUSED'):
            await asyncio.wait_for(Queue(hosts[:3]).connect(), DEADLINE)


def running_nodes(node):
    return make('ctl', f'NODE={node}', 'ARGS=cluster_status --formatter json').partition(
        '"running_nodes":')[2].partition(']')[0].count('@')  # fmt: skip


async def test_nodes_killed_under_load_are_not_noticed(cluster, spawn, caplog):
    name = f'test.{uuid.uuid4().hex[:12]}'
    caplog.set_level(logging.INFO)
    hosts = [f'amqp://127.0.0.1:{port}' for port in cluster]
    worker = spawn("""
        import logging
        q = aioqueue.Queue(sys.argv[2:], retry=0.2, log_level='INFO', quorum=True)
        logging.basicConfig(stream=sys.stdout, format='%(message)s')
        @q.on(sys.argv[1])
        async def double(number):
            return number * 2
        q.start()
        """, name, *hosts)  # fmt: skip
    q = Queue(hosts, retry=0.2, quorum=True)
    await q.connect()
    assert await line(worker) == f'connected to 127.0.0.1:{next(iter(cluster))}'
    results, numbers, enough = {}, itertools.count(1), False

    async def load():
        while not enough:
            number = next(numbers)
            results[number] = await (await q.task(name, number)).result(2 * DEADLINE)

    async def more(count=200):
        goal = len(results) + count
        await true(lambda: len(results) >= goal)

    def port_in_use():
        return int(re.findall(r'connected to 127\.0\.0\.1:(\d+)', caplog.text)[-1])

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(load())
        await more()
        killed = []
        for _ in range(2):
            killed.append(port_in_use())
            node = cluster[killed[-1]]
            kill_node(node)
            at = time.monotonic()
            await more()  # with the other two
            assert time.monotonic() - at < 20
            assert port_in_use() != killed[-1]
            await asyncio.to_thread(
                make, 'rabbit', f'PORT={killed[-1]}', f'NODE={node}'
            )
        assert len(set(killed)) == 2
        await more()
        await q.task(f'{name}.nowhere', delay=5)
        assert await asyncio.to_thread(running_nodes, node) == 3
        command = 'ctl', f'NODE={node}', 'ARGS=list_queues --silent name type'
        listing = await asyncio.to_thread(make, *command)
        enough = True
    assert len(results) == next(numbers) - 1
    assert results == {number: number * 2 for number in results}
    ours = [row.split() for row in listing.splitlines() if row.strip()]
    assert {row[1] for row in ours[1:]} == {'quorum'}
    names = {row[0] for row in ours}
    assert {name, f'{name}.nowhere', f'{name}.nowhere.delay.5000'} <= names
    assert any(each.startswith('aioqueue.reply.') for each in names)
    worker.terminate()
    status, _, err = await ended(worker)
    assert (status, err) == (0, '')
    await q.close()


async def test_a_node_in_maintenance_is_left_for_another(cluster, caplog):
    name = f'test.{uuid.uuid4().hex[:12]}'
    caplog.set_level(logging.INFO)
    q = Queue([f'127.0.0.1:{port}' for port in cluster], retry=0.2, quorum=True)
    q.on(name)(lambda data: data)
    port, node = next(iter(cluster.items()))
    async with q:
        assert await (await q.task(name, 1)).result(DEADLINE) == 1
        assert f'connected to 127.0.0.1:{port}' in caplog.text
        caplog.clear()
        drain = "ARGS=eval 'catch rabbit_maintenance:drain().'"
        await asyncio.to_thread(make, 'ctl', f'NODE={node}', drain)
        assert await (await q.task(name, 2)).result(DEADLINE) == 2
        assert f'connected to 127.0.0.1:{port + 1}' in caplog.text
    async with q:  # and on start-up it counts as down
        assert await (await q.task(name, 3)).result(DEADLINE) == 3
    revive = "ARGS=eval 'rabbit_maintenance:revive().'"
    await asyncio.to_thread(make, 'ctl', f'NODE={node}', revive)


# TLS.


@pytest.fixture(scope='session')
def authority(tmp_path_factory):
    """Who signs the certificates of the broker and of its clients: also as a file."""
    ca = trustme.CA()
    ca.path = tmp_path_factory.mktemp('tls') / 'ca.pem'
    ca.cert_pem.write_to_path(ca.path)
    return ca


@pytest.fixture(scope='session')
def tls_port(authority):
    """A node that speaks TLS on this port, and plain AMQP on the one before."""
    need_rabbitmq_server()
    folder, certificate = authority.path.parent, authority.issue_cert('localhost')
    certificate.private_key_pem.write_to_path(folder / 'key.pem')
    certificate.cert_chain_pems[0].write_to_path(folder / 'cert.pem')
    config = folder / 'rabbitmq.conf'
    config.write_text(
        f'listeners.ssl.1 = 127.0.0.1:{TLS_PORT + 1}\n'
        f'ssl_options.cacertfile = {authority.path}\n'
        f'ssl_options.certfile = {folder}/cert.pem\n'
        f'ssl_options.keyfile = {folder}/key.pem\n'
        'ssl_options.verify = verify_peer\n'
        'ssl_options.fail_if_no_peer_cert = false\n'
    )
    node = f'test-tls-{TLS_PORT}'
    make('rabbit', f'PORT={TLS_PORT}', f'NODE={node}', f'CONFIG={config}')
    yield TLS_PORT + 1
    with contextlib.suppress(OSError):
        kill_node(node)
    make('stop', f'NODE={node}')


@pytest.fixture
def trusting(authority):
    """A context that trusts the authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def runs_a_task(q):
    q.on(f'test.{uuid.uuid4().hex[:12]}', arguments={'x-expires': 60_000})(len)
    async with q:
        task = await q.task(*q._handlers, b'x' * 1_000_000)
        assert await task.result(DEADLINE) == 1_000_000


async def raises_at_once(q, error=ssl.SSLCertVerificationError, **match):
    """Start-up fails with this error, though `retry` would go on after 5 seconds."""
    for start in (q.connect, q.start_async):
        with pytest.raises(error, **match):
            await asyncio.wait_for(start(), 4)


async def test_tls_with_a_context(tls_port, trusting):
    await runs_a_task(Queue('localhost', tls_port, ssl=trusting))
    await runs_a_task(
        Queue(f'amqps://guest:guest@localhost:{tls_port}/%2F', ssl=trusting)
    )


@pytest.mark.parametrize('url', [True, False])
async def test_tls_with_the_authorities_of_the_system(
    url, tls_port, authority, monkeypatch
):
    address = f'amqps://localhost:{tls_port}' if url else 'localhost'
    options = {} if url else {'port': tls_port, 'ssl': True}
    with monkeypatch.context() as patch:
        patch.setenv('SSL_CERT_FILE', str(authority.path))
        await runs_a_task(Queue(address, **options))
    await raises_at_once(Queue(address, **options), match='self.signed|local issuer')


async def test_a_certificate_of_another_authority_is_an_error_at_once(tls_port):
    context = ssl.create_default_context()
    trustme.CA().configure_trust(context)
    await raises_at_once(
        Queue('localhost', tls_port, ssl=context), match='issuer|self.signed'
    )
    hosts = [f'amqps://localhost:{tls_port}', 'amqps://localhost:1']
    await raises_at_once(Queue(hosts, ssl=context), match='issuer|self.signed')


async def test_a_certificate_for_another_host_is_an_error_at_once(tls_port, trusting):
    await raises_at_once(
        Queue('127.0.0.1', tls_port, ssl=trusting), match="not valid for '127"
    )


async def test_a_client_shows_its_certificate(tls_port, trusting, authority):
    authority.issue_cert('worker@example.org', common_name='worker 7').configure_cert(
        trusting
    )
    q = Queue('localhost', tls_port, ssl=trusting)
    await runs_a_task(q)
    async with q:
        command = (
            'ctl',
            f'NODE=test-tls-{TLS_PORT}',
            'ARGS=list_connections --silent peer_cert_subject',
        )
        listing = await asyncio.to_thread(make, *command)
    assert listing.count('worker 7') == 2


async def test_a_client_certificate_that_the_broker_refuses_is_an_error(
    tls_port, trusting
):
    trustme.CA().issue_cert('worker@example.org').configure_cert(trusting)
    # A reset may come before the alert that says why: then the next attempt tells.
    q = Queue('localhost', tls_port, ssl=trusting, retry=0.05)
    await raises_at_once(q, ssl.SSLError, match='(?i)unknown.ca')


async def test_tls_with_a_port_that_has_none_is_an_error_at_once(tls_port, trusting):
    await raises_at_once(Queue('localhost', tls_port - 1, ssl=trusting), ssl.SSLError)
    with pytest.raises(OSError, match='no AMQP|closed|lost|reset'):
        await Queue('localhost', tls_port, retry=False).connect()


async def test_a_lost_tls_connection_comes_back(tls_port, trusting):
    async with Forwarder(tls_port) as forwarder:
        q = Queue('localhost', forwarder.port, ssl=trusting, retry=0.1)
        name = f'test.{uuid.uuid4().hex[:12]}'
        q.on(name, arguments={'x-expires': 60_000})(lambda data: data)
        async with q:
            for number in range(4):
                task = await q.task(name, number)
                forwarder.cut()
                assert await task.result(DEADLINE) == number


# The fast path: frames cut anywhere.


class Chopper(Forwarder):
    """Forwards what the broker sends in pieces of these sizes, and keeps it."""

    def __init__(self, *sizes, port=PORT):
        super().__init__(port)
        self.sizes, self.sent = itertools.cycle(sizes), {}

    async def pump(self, reader, writer):
        ours, theirs = (
            writer.get_extra_info(end)[1] for end in ('sockname', 'peername')
        )
        key = (theirs, 'broker') if ours == self.port else (ours, 'client')
        if key[1] == 'client':  # named after the port by which its other end came
            key = (reader._transport.get_extra_info('peername')[1], 'client')
        self.sent[key] = bytearray()
        while data := await reader.read(65536):
            self.sent[key] += data
            while key[1] == 'broker' and data:
                size = next(self.sizes)
                writer.write(data[:size])
                data = data[size:]
                await asyncio.sleep(0)
            writer.write(data)
            await writer.drain()
        writer.transport.abort()


def frames_of(stream):
    """What pamqp makes of a stream: channel, frame and its bytes."""
    stream = bytes(stream)
    if stream.startswith(b'AMQP'):
        stream = stream[8:]
    while stream:
        size, channel, frame = pamqp.frame.unmarshal(stream)
        yield channel, frame, stream[:size]
        stream = stream[size:]


async def run_tasks(q, caller, name):
    """Tasks of two queues with bodies of many sizes, an unknown queue, parts."""

    @q.on(name, raw=True)
    async def size(body):
        return len(body)

    @q.on(f'{name}.parts')
    async def parts(data):
        for part in data:
            yield part

    await q.start_async()
    sizes = [0, 1, 4087, 4088, 4089, 9000]
    sized = [caller.task(name, b'x' * size, raw=True) for size in sizes]
    tasks = await asyncio.gather(
        *sized, *(caller.task(f'{name}.parts', [1, 2]) for _ in 'ab')
    )
    assert [await task.result(DEADLINE) for task in tasks] == [*sizes, [1, 2], [1, 2]]
    await caller.task(f'{name}.unknown', 1, no_response=True)
    await caller.close()
    await q.close()
    await delete_queues(f'{name}.parts', f'{name}.unknown')


@pytest.mark.parametrize('sizes', [[1], [7], [1, 8, 3, 2, 50, 6, 7, 300]])
async def test_tasks_run_however_the_stream_is_cut(sizes, name):
    async with Chopper(*sizes) as chopper:
        q = Queue('127.0.0.1', chopper.port, frame_max=4096)
        caller = Queue('127.0.0.1', chopper.port, frame_max=4096)
        await run_tasks(q, caller, name)


@pytest.fixture
async def recorded(name):
    """What the broker and the client of each connection of a session sent."""
    async with Chopper(65536) as chopper:
        q = Queue('127.0.0.1', chopper.port, frame_max=4096)
        await run_tasks(q, q, name)
        return [
            (bytes(stream), bytes(chopper.sent[port, 'client']))
            for (port, end), stream in chopper.sent.items() if end == 'broker'
        ]  # fmt: skip


class Replay:
    """A protocol that is fed with a recorded stream, and what it makes of that."""

    def __init__(self, stream, client_stream):
        link = SimpleNamespace(protocols=[], drop=lambda why: None)
        self.protocol = aioqueue._Protocol(link, 'replay')
        self.frames = list(frames_of(stream))
        self.published = {}  # by channel: routing key and correlation id, in their order
        for channel, frame, _ in frames_of(client_stream):
            if isinstance(frame, pamqp.commands.Basic.Publish):
                key = frame.routing_key
            elif isinstance(frame, pamqp.header.ContentHeader):
                message = key, frame.properties.correlation_id
                self.published.setdefault(channel, []).append(message)

    def feed(self, pieces):
        """The messages and the confirms by channel; what was left to aioamqp."""
        loop = asyncio.get_running_loop()
        received, confirms = {}, {}
        for number in {channel for channel, *_ in self.frames} - {0}:
            channel = aioqueue._Channel(self.protocol, number)
            channel.receive = lambda channel, tag, header, body: received.setdefault(
                channel.channel_id, []).append((tag, header, body))  # fmt: skip
            futures = confirms[number] = []
            for tag, message in enumerate(self.published.get(number, ()), 1):
                futures.append(loop.create_future())
                channel.unconfirmed[tag] = futures[-1], message
            self.protocol.channels[number] = channel
        for piece in pieces:
            self.protocol.data_received(piece)
        left = bytes(self.protocol._reader._buffer)
        self.protocol._reader._buffer.clear()
        results = {number: [f.done() and f.result() for f in futures]
                   for number, futures in confirms.items() if futures}  # fmt: skip
        return received, results, left

    def expected(self):
        """The same, by pamqp."""
        received, method, returned, left = {}, {}, [], b''
        for channel, frame, data in self.frames:
            if isinstance(
                frame, (pamqp.commands.Basic.Deliver, pamqp.commands.Basic.Return)
            ):
                method[channel], body = frame, b''
            elif isinstance(frame, pamqp.header.ContentHeader):
                header = data[7:-1]
            elif isinstance(frame, pamqp.body.ContentBody):
                body += frame.value
            elif not isinstance(
                frame, (pamqp.commands.Basic.Ack, pamqp.commands.Basic.Nack)
            ):
                left += data
            if isinstance(frame, (pamqp.header.ContentHeader, pamqp.body.ContentBody)):
                size = int.from_bytes(header[4:12], 'big')
                deliver = method[channel]
                if len(body) == size and isinstance(
                    deliver, pamqp.commands.Basic.Return
                ):
                    returned.append(deliver.routing_key)
                elif len(body) == size:
                    received.setdefault(channel, []).append(
                        (deliver.delivery_tag, header, body))  # fmt: skip
        results = {}
        for channel, messages in self.published.items():
            results[channel] = []
            for key, _ in messages:  # the first message to it came back
                results[channel].append(key not in returned)
                if key in returned:
                    returned.remove(key)
        return received, results, left


async def test_the_stream_may_be_cut_at_every_byte(recorded):
    assert len(recorded) == 2  # one publishes, one consumes
    messages = confirms = returns = bodies = 0
    for stream, client_stream in recorded:
        replay = Replay(stream, client_stream)
        expected = replay.expected()
        for cut in range(len(stream) + 1):
            assert replay.feed([stream[:cut], stream[cut:]]) == expected
        assert replay.feed(stream[at : at + 1] for at in range(len(stream))) == expected
        messages += sum(map(len, expected[0].values()))
        confirms += sum(map(len, expected[1].values()))
        returns += str(expected[1]).count('False')
        bodies += sum(frame.name == 'ContentBody' for _, frame, _ in replay.frames)
    # The session had all that the fast path knows.
    assert messages == 8 + 8 + 4
    assert confirms == messages + 2
    assert returns == 1
    assert bodies > messages - 1


async def test_the_stream_may_be_cut_anywhere_and_its_channels_interleaved(recorded):
    for stream, client_stream in recorded:
        replay = Replay(stream, client_stream)
        received, confirms, _ = replay.expected()
        by_channel = {}
        for channel, _, data in replay.frames:
            by_channel.setdefault(channel, []).append(data)

        @settings(max_examples=200, deadline=None, database=None)
        @given(st.integers(0, 2**32), st.sampled_from([2, 9, 40, 5000]))
        def check(seed, longest):
            random = Random(seed)
            queues = {channel: iter(frames) for channel, frames in by_channel.items()}
            order = [channel for channel, frames in by_channel.items() for _ in frames]
            random.shuffle(order)
            mixed = b''.join(next(queues[channel]) for channel in order)
            pieces, start = [], 0
            while start < len(mixed):
                size = random.randint(1, longest)
                pieces.append(mixed[start : start + size])
                start += size
            assert replay.feed(pieces)[:2] == (received, confirms)

        check()


async def test_nothing_that_rabbitmq_4_refuses_is_asked_for(name):
    """By its list of deprecated features, as far as a client can ask for them."""
    async with Chopper(65536) as chopper:
        for quorum in (False, True):
            q = Queue('127.0.0.1', chopper.port, frame_max=8192, quorum=quorum)
            await run_tasks(q, q, f'{name}.{quorum}')
            async with q:
                task = await q.task(f'{name}.{quorum}', b'1', raw=True, delay=0.1)
                assert await task.result(DEADLINE) == 1
            await delete_queues(f'{name}.{quorum}', f'{name}.{quorum}.delay.100')
        declared = 0
        for (_, end), stream in chopper.sent.items():
            for _, frame, _ in frames_of(stream) if end == 'client' else ():
                if (
                    isinstance(frame, pamqp.commands.Queue.Declare)
                    and not frame.passive
                ):
                    declared += 1
                    assert frame.durable  # transient_nonexcl_queues
                    assert not frame.exclusive
                    assert not frame.auto_delete
                    assert 'x-queue-mode' not in frame.arguments
                if isinstance(frame, pamqp.commands.Basic.Qos):
                    assert not frame.global_  # global_qos
    assert declared >= 10


async def test_worker_and_caller_run_under_uvloop(name, spawn):
    async with Forwarder() as forwarder:
        worker = spawn("""
            import uvloop
            q = aioqueue.Queue('127.0.0.1', int(sys.argv[2]), retry=0.1)
            @q.on(sys.argv[1])
            async def double(number):
                assert 'uvloop' in type(asyncio.get_running_loop()).__module__
                return number * 2
            @q.on(sys.argv[1] + '.plain')
            def count(number):
                yield from range(number)
            uvloop.install()
            q.start()
            """, name, forwarder.port)  # fmt: skip
        caller = spawn("""
            import uvloop
            q = aioqueue.Queue('127.0.0.1', int(sys.argv[2]), retry=0.1)
            async def main():
                name = sys.argv[1]
                async def doubled(number):
                    return await (await q.task(name, number)).result(20)
                for _ in range(2):
                    doubles = await asyncio.gather(*map(doubled, range(500)))
                    assert doubles == [number * 2 for number in range(500)]
                    assert await doubled('x' * 1_000_000) == 'x' * 2_000_000
                    task = await q.task(name + '.plain', 10)
                    assert [part async for part in task] == list(range(10))
                    print(type(asyncio.get_running_loop()).__module__, flush=True)
                try:
                    await (await q.task(name, None)).result(20)
                except aioqueue.RemoteException as error:
                    print(error.type)
                await q.close()
            uvloop.run(main())
            """, name, forwarder.port)  # fmt: skip
        assert await line(caller) == 'uvloop'
        forwarder.cut()
        status, out, err = await ended(caller)
        assert (status, out) == (0, 'uvloop\nTypeError\n'), err
        assert 'Traceback' not in err
        worker.send_signal(signal.SIGTERM)
        status, _, err = await ended(worker)
        assert status == 0, err
        assert 'Traceback' not in err
    await delete_queues(f'{name}.plain')


# The README tells the truth.

README = (HERE / 'README.rst').read_text()


def code_blocks():
    found = re.findall(r'\.\. code-block:: python\n\n((?:(?: {4}.*)?\n)+)', README)
    blocks = [textwrap.dedent(block) for block in found]
    assert len(blocks) == README.count('code-block:: python')
    return blocks


async def test_every_python_block_of_the_readme_runs(tmp_path, broker):
    """Workers (that call `q.start()`) stay, the other blocks run to their end."""
    queues = ('add', 'mail', 'thumbnail', 'upload', 'urgent', 'resize_all', 'pay')
    dead = [f'{queue}.dead' for queue in queues]
    await delete_queues(*queues, *dead)
    environment = {**os.environ, 'PYTHONPATH': str(HERE)}
    workers, output = [], ''
    async with Queue(port=PORT) as q:
        await q.task('mail.dead', {'to': 'zoe@example.org'}, no_response=True,
                     headers={'error': 'no route'})  # fmt: skip
    try:
        for number, block in enumerate(code_blocks()):
            script = tmp_path / f'block{number}.py'
            if PORT != 5672:
                block = block.replace(':5672', f':{PORT}')
                block = block.replace('Queue()', f'Queue(port={PORT})')
            script.write_text(block)
            command = [sys.executable, script.name]
            if 'q.start()' in block:
                workers.append(subprocess.Popen(command, cwd=tmp_path, env=environment))
                for queue in re.findall(r"@q\.on\('(\w+)'", block):
                    await broker.until(queue, 0)
                continue
            run = await asyncio.to_thread(
                subprocess.run, command, cwd=tmp_path, env=environment, timeout=DEADLINE,
                check=True, stdout=subprocess.PIPE, text=True)  # fmt: skip
            output += run.stdout
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        statuses = [worker.wait(DEADLINE) for worker in workers]
        await delete_queues(*queues, *dead)
    assert statuses == [0, 0, 0, 0]
    assert output.startswith('6\n')
    assert "'upload', 1, {'tenant': 7}, 5]" in output
    assert 'TypeError unsupported operand' in output
    assert '1 / 3\n2 / 3\n3 / 3\n3 in all\n' in output
    assert output.endswith('again, after no route\n')


def test_the_readme_is_plain_restructuredtext():
    docutils.core.publish_string(
        README, settings_overrides={'halt_level': 2, 'report_level': 2}
    )
