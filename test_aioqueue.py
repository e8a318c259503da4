"""The tests of aioqueue, against a real RabbitMQ: `make test`.

In the order of the README, then the failures. They use the broker on localhost:5672
(`PORT` in the environment names another port); those that kill or strain a broker start
nodes of their own, with `make rabbit`.
"""

import asyncio
import contextlib
import datetime
import inspect
import logging
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import uuid

import aioamqp
import docutils.core
import msgpack
import pytest

import aioqueue
from aioqueue import Queue, Refused, RemoteException

HERE = pathlib.Path(__file__).resolve().parent
PORT = int(os.environ.get('PORT', '5672'))
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


@pytest.fixture
async def queue():
    """A Queue on the broker of the tests, that is closed afterwards."""
    q = Queue(port=PORT, retry=0.2)
    yield q
    await q.close(timeout=5)


@pytest.fixture
async def caller():
    """A second one, that only sends."""
    q = Queue(port=PORT, retry=0.2)
    yield q
    await q.close(timeout=5)


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
            self.pump(reader, there[1]), self.pump(there[0], writer), return_exceptions=True
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
    assert 'stopping' in await line(worker)
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
        listing = subprocess.run(
            ['make', '-s', 'ctl', f'PORT={PORT}', 'ARGS=list_connections timeout client_properties'],
            cwd=HERE, capture_output=True, text=True,
        ).stdout  # fmt: skip
    if not (HERE / '.rabbit' / f'aioqueue-{PORT}').exists():
        pytest.skip('the broker was not started by `make rabbit`')
    ours = [row for row in listing.splitlines() if '{"app","mine"}' in row]
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
        until = time.monotonic() + 3.5  # more than two heartbeats and the broker's patience
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
    'group': (ExceptionGroup('g', [ValueError(1)]), 'ExceptionGroup', 'g (1 sub-exception)'),
    'generator': (GeneratorExit(), 'GeneratorExit', ''),
    'unicode': (ValueError('\udc80 \u20ac'), 'ValueError', '\\udc80 \u20ac'),
    'awkward': (Awkward(), 'Awkward', 'Awkward, whose str() fails'),
    'stop': (StopIteration('s'), None, None),
    'long': (ValueError('x' * 300_000), 'ValueError', 'x' * 300_000),
}


@pytest.mark.parametrize('plain', [False, True])
async def test_nothing_that_a_handler_raises_ends_the_worker(plain, name, queue, caller):
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


async def test_a_callable_object_or_a_wrapped_coroutine_is_a_handler(name, queue, caller):
    class Handler:
        async def __call__(self, data):
            return data + 1

    queue.on(name)(Handler())
    await queue.start_async()
    assert await (await caller.task(name, 1)).result(DEADLINE) == 2


# Tasks and results.


async def test_a_task_has_attributes(name, caller):
    task = await caller.task(name, {'a': 1}, no_response=True)
    assert (task.name, task.data, task.raw, task.no_response) == (name, {'a': 1}, False, True)
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

OLD_PYTHON = next(iter(pathlib.Path.home().glob('.pyenv/versions/3.6.*/bin/python')), None)


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
async def test_data_that_msgpack_cannot_carry_is_a_type_error(data, name, caller, broker):
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
     ('\u20ac', ValueError), ('a*b', ValueError)],
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
    await queue.start_async()
    with pytest.raises(RuntimeError, match='before the start'):
        queue.on(f'{name}.y')(print)


@pytest.mark.parametrize(
    ('options', 'error'),
    [({'delay': -1}, ValueError), ({'delay': '1'}, TypeError), ({'delay': 1e9}, ValueError),
     ({'expires': -1}, ValueError), ({'expires': 'x'}, TypeError),
     ({'priority': 256}, ValueError), ({'priority': 1.5}, TypeError),
     ({'delay': 1, 'expires': 2}, ValueError), ({'headers': {'x': object()}}, TypeError),
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
     ({'host': 'amqp://localhost/?heartbeat=1'}, ValueError)],
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
        await asyncio.wait_for(Queue(port=PORT, virtualhost='missing').task(name), DEADLINE)
    assert raised.value.code == 530


async def test_with_retry_false_the_first_failure_raises(unused_tcp_port):
    for start in (Queue.connect, Queue.start_async):
        with pytest.raises(OSError, match=str(unused_tcp_port)):
            await start(Queue(port=unused_tcp_port, retry=False))


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

    async def chatty(reader, writer):
        writer.write(b'SSH-2.0-OpenSSH_9.2\r\n' * 10)
        await reader.read()

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


async def test_an_undecodable_body_does_not_stop_the_worker(name, queue, caller, broker):
    queue.on(name)(lambda data: data)
    await queue.start_async()
    for body in (b'', b'\xc1', b'\x93\x01', b'no msgpack'):
        await broker.publish(name, body)
    assert await (await caller.task(name, 1)).result(DEADLINE) == 1
    await broker.until(f'{name}.dead', 4)


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
