"""The tests of aioqueue, against a real RabbitMQ on localhost:5672, or PORT: `make test`.

In the order of the README, then the failures. What they use beside it is in .ci/.
"""

import array
import asyncio
import collections
import concurrent.futures
import contextlib
import contextvars
import dataclasses
import datetime
import decimal
import gc
import itertools
import json
import logging
import os
import pathlib
import random
import re
import runpy
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
import weakref

import docutils.core
import httpx
import msgpack
import pamqp
import pytest
import trustme
from aioamqp.protocol import AmqpProtocol
from hypothesis import HealthCheck, Phase, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from pamqp.commands import Basic, Connection
from pamqp.frame import marshal
from pamqp.header import ContentHeader

import aioqueue
from aioqueue import Queue, Refused, RemoteException

sys.path.append(str(pathlib.Path(__file__).resolve().parent / '.ci'))
from aids import (
    OLD_CALLER,
    OLD_WORKER,
    WORKER,
    Worker,
    call,
    delivered,
    ended,
    failure,
    first,
    frame,
    limited,
    parts_of,
    says,
    true,
)
from tools import DEADLINE, HERE, PORT, Broker, Forwarder, Node, forget, make, peer

# Of the nodes that are started: one to kill (TLS on the next port), a cluster of three.
PRIVATE_PORT = int(os.environ.get('PRIVATE_PORT', PORT + 1))
CLUSTER_PORT = PRIVATE_PORT + 8
KINDS = pytest.mark.parametrize('plain', [False, True], ids=['async', 'plain'])
QUEUES = pytest.mark.parametrize('quorum', [False, True], ids=['classic', 'quorum'])


# What the tests are made of.

@pytest.fixture
async def broker():
    async with Broker.connected() as broker:
        yield broker


def new_name():
    return f'test.{uuid.uuid4().hex[:12]}'


@pytest.fixture
async def name():
    """The name of a queue that no other test has; it is gone then, and what belongs to it."""
    name = new_name()
    yield name
    await forget(name)


@pytest.fixture
async def queues():
    """Make a Queue that nothing has connected yet; all are closed afterwards."""
    made = []

    def make(port=PORT, host='127.0.0.1', **options):
        made.append(Queue(host, port, **{'retry': 0.1, **options}))
        return made[-1]

    yield make
    await asyncio.gather(*(q.close(timeout=0.1) for q in made))


@pytest.fixture
def caller(queues):
    """A Queue that only sends."""
    return queues()


@pytest.fixture
def worker(queues, name):
    return Worker(queues, name)


@pytest.fixture
def other(queues, name):
    """A second worker of the same queue."""
    return Worker(queues, name)


@pytest.fixture
async def spawn():
    """Start a worker process; what it prints and logs can be read from its stdout."""
    processes = []

    async def start(name, port=PORT, clock=0, log=None, on=None,
                    code=WORKER, prefix=(), **options):
        options = {'host': '127.0.0.1', 'port': port, 'retry': 0.1, **options}
        on = {'prefetch_count': 20, **(on or {})}
        arguments = json.dumps([name, options, clock, log, on])
        processes.append(await asyncio.create_subprocess_exec(
            *prefix, sys.executable, '-c', code, arguments,
            env={**os.environ, 'PYTHONPATH': str(HERE)},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT))
        return processes[-1]

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture(scope='session')
def own_nodes():
    if not runpy.run_path(str(HERE / '.ci' / 'rabbit.py'))['sbin']():
        pytest.skip('no rabbitmq-server here: no broker that may be killed')


@pytest.fixture(scope='session')
def authority(tmp_path_factory):
    """Who signs the certificates of the broker and of its clients: also as a file."""
    authority = trustme.CA()
    authority.path = tmp_path_factory.mktemp('tls') / 'ca.pem'
    authority.cert_pem.write_to_path(authority.path)
    return authority


@pytest.fixture(scope='session')
def started_node(own_nodes, authority):
    folder, certificate = authority.path.parent, authority.issue_cert('localhost')
    certificate.private_key_pem.write_to_path(folder / 'key.pem')
    certificate.cert_chain_pems[0].write_to_path(folder / 'cert.pem')
    (folder / 'rabbitmq.conf').write_text(f"""
        max_message_size = 1000000
        listeners.ssl.1 = 127.0.0.1:{PRIVATE_PORT + 1}
        ssl_options.cacertfile = {authority.path}
        ssl_options.certfile = {folder}/cert.pem
        ssl_options.keyfile = {folder}/key.pem
        ssl_options.verify = verify_peer
        ssl_options.fail_if_no_peer_cert = false
        """)
    node = Node(f'test-{PRIVATE_PORT}', PRIVATE_PORT, folder / 'rabbitmq.conf')
    node.tls_port = PRIVATE_PORT + 1
    node.start()
    yield node
    node.stop()


@pytest.fixture
async def node(started_node, name):
    """A broker of our own, with messages of a megabyte at most, and TLS."""
    yield started_node
    await forget(name, started_node.port)


@pytest.fixture
def node_worker(node, queues, name):
    return Worker(queues, name, node.port)


# The first example, and the life of a Queue.


WITHOUT_POSIX = """import asyncio, os, signal
del os.uname, os.fork, os.register_at_fork, asyncio.SelectorEventLoop.add_signal_handler
del signal.SIGHUP, signal.SIGUSR1, signal.pthread_sigmask, signal.set_wakeup_fd"""


@pytest.mark.parametrize(('signum', 'before'), [
    (signal.SIGINT, ''), (signal.SIGTERM, ''), (signal.SIGTERM, WITHOUT_POSIX)])
async def test_a_worker_process_answers_and_a_signal_lets_it_finish(
        signum, before, name, caller, spawn):
    process = await spawn(name, log='WARNING', code=before + WORKER)  # which is left as it is
    assert await call(caller, name, [1, 2]) == [1, 2, 1, 2]
    slow, parts = await caller.task(name, 'slow'), await caller.task(f'{name}.parts', [*range(30)])
    assert await first(parts) == 0
    await says(process, 'running')
    process.send_signal(signum)
    assert await slow.result(DEADLINE) == 'slowslow'
    assert await parts.result(DEADLINE) == [*range(1, 30)]
    assert await ended(process) == (0, 'returned with 1 handlers of the log\n')


async def test_a_signal_ends_a_worker_that_finds_no_broker(spawn):
    process = await spawn('any', port=1)
    await says(process, 'no connection')
    process.terminate()
    assert 'returned with 1 handlers of the log' in (await ended(process))[1]


@pytest.mark.parametrize('prefix', ['', 'unshare --pid --fork --kill-child'])
async def test_a_second_signal_ends_a_worker_at_once(prefix, name, caller, spawn, broker):
    """Also process 1 of a container, which only signals reach that it handles."""
    if subprocess.run(f'{prefix} true', shell=True).returncode:
        pytest.skip('no namespaces for us')
    process = await spawn(name, prefix=prefix.split())
    await broker.until(f'{name}.parts', consumers=1)  # it has started
    await caller.task(name, 'hang', no_response=True)
    await says(process, 'running')
    pid = process.pid
    if prefix:
        pid = int(pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text())
    os.kill(pid, signal.SIGTERM)
    await asyncio.wait_for(broker.until(name, consumers=0), 5)
    os.kill(pid, signal.SIGTERM)
    status, output = await asyncio.wait_for(ended(process), 5)
    assert (status != 0, 'cancelled' in output) == (True, False)


async def test_start_tells_a_person_what_it_does(name, caller, spawn):
    process = await spawn(name)
    await says(process, f'connected to 127.0.0.1:{PORT}')
    await says(process, f'consuming from {name}')
    assert await call(caller, name, 'exit') == 'exitexit'
    await caller.task(name, 'fail', no_response=True)
    await says(process, 'ValueError: as asked')


async def test_a_queue_works_as_a_context_manager_and_can_be_opened_again(name):
    async with Queue(port=PORT) as q:
        await q.task(name, no_response=True)
    with pytest.raises(ConnectionError, match='closed'):
        await q.task(name)
    async with q:
        await q.task(name, no_response=True)
    await q.close()


async def test_connect_and_start_async_are_idempotent(name, worker, broker):
    for start in (worker.q.connect, worker.q.connect, worker.start, worker.q.start_async,
                  worker.q.connect):
        await start()
    assert await worker.call(1) == 1
    await worker.q.close()
    await worker.q.start_async()
    assert await broker.look(name) == {'messages': 0, 'consumers': 1}


async def test_a_second_start_that_is_cancelled_stops_nothing(name, queues, caller):
    async with Forwarder() as forwarder:
        worker = Worker(queues, name, forwarder.port)
        await worker.start()
        forwarder.cut(down=True)
        await true(lambda: not worker.q.connected)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(worker.q.start_async(), 0.2)
        forwarder.down = False
        assert await call(caller, name, 1) == 1


@pytest.mark.timeout(20)  # no end of a loop takes long
def test_a_queue_made_outside_of_any_loop_serves_several():
    q, left_open, name = Queue(port=PORT), Queue(port=PORT), new_name()
    q.on(name)(lambda data: data + 1)

    async def answer():
        async with q:
            return await call(q, name, 1)

    async def is_left(queue):
        async with Broker.connected() as broker:
            await broker.until(queue, consumers=0)

    asyncio.run(q.close())  # it does nothing yet
    assert [asyncio.run(answer()), asyncio.run(answer())] == [2, 2]
    asyncio.run(q.close())
    asyncio.run(left_open.task(f'{name}.x', no_response=True))
    for loop in asyncio.new_event_loop(), asyncio.new_event_loop():
        tasks = [run(left_open.task(f'{name}.x')) for run in (asyncio.run, loop.run_until_complete)]
        loop.close()  # and nothing was cancelled
        for task in tasks:
            with pytest.raises(ConnectionError):  # its loop has ended
                asyncio.run(task.result(DEADLINE))
            task.cancel()
    left_open.run(left_open.task(f'{name}.x'), DEADLINE)
    asyncio.run(is_left(tasks[1]._replies.session.reply_queue))
    left_open.run(left_open.close())
    asyncio.run(left_open.task(f'{name}.x'))
    asyncio.run(forget(name))
    gc.collect()


@pytest.mark.parametrize('host', [
    'localhost', f'127.0.0.1:{PORT}', f'amqp://localhost:{PORT}', [f'localhost:{PORT}'],
    f'amqp://guest:guest@127.0.0.1:{PORT}/', f'amqp://g%75est:g%75est@localhost:{PORT}/%2F',
    ['amqp://127.0.0.1:1', f'amqp://localhost:{PORT}'],
])
async def test_hosts_are_names_urls_or_lists(host, name, queues):
    await queues(PORT if host == 'localhost' else None, host, retry=False).task(name, no_response=True)


async def test_connect_kwargs_reach_the_broker(name, node, queues):
    q = queues(node.port, login='guest', password='guest', virtualhost='/', heartbeat=7,
               frame_max=9000, client_properties={'app': 'mine'})
    await q.task(name)
    listing = await node.ctl('list_connections timeout frame_max client_properties')
    ours = [row for row in listing.splitlines() if '{"app","mine"}' in row]
    assert len(ours) == 2  # one that publishes, one that consumes
    for row in ours:
        assert re.match('7\t9000\t.*{"product","aioqueue"}', row)
        assert f'{{"version","{aioqueue.__version__}"}}' in row
        assert re.search(rf'"connection_name","aioqueue .*:{os.getpid()}', row)


def test_log_level_sets_the_level_and_the_import_adds_no_handler(monkeypatch):
    logger = logging.getLogger('aioqueue')
    monkeypatch.setattr(logger, 'level', logger.level)
    for level, number in ('ERROR', logging.ERROR), (logging.DEBUG, logging.DEBUG):
        Queue(log_level=level)
        assert logger.level == number
    assert logger.handlers == []


async def test_entering_in_vain_leaves_nothing_behind():
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), Queue(port=1):
            pass
    assert asyncio.all_tasks() == before


# Handlers.


@KINDS
async def test_prefetch_count_tasks_run_at_once_and_no_more(plain, name, worker, broker):
    worker.q.on(f'{name}.x', prefetch_count=1)(worker.function)
    await worker.start(plain=plain, prefetch_count=3)
    tasks = [await worker.task('wait') for _ in range(10)]
    tasks += [await worker.caller.task(f'{name}.x', 'wait') for _ in range(3)]
    await true(lambda: len(worker.runs) == 4)
    await broker.until(name, messages=7)  # these are not even fetched
    await broker.until(f'{name}.x', messages=2)
    with pytest.raises(TimeoutError):
        await tasks[3].result(0.2)
    assert len(worker.runs) == 4
    worker.opened = 1
    assert await asyncio.gather(*(task.result(DEADLINE) for task in tasks)) == ['wait'] * 13


async def test_a_blocking_handler_stops_no_heartbeat_and_no_other_task(name, queues, caplog):
    worker = Worker(queues, name, heartbeat=1)
    worker.q.on(f'{name}.x')(worker.function)
    await worker.start(plain=True)
    blocked = await worker.task('wait')
    until = time.monotonic() + 3.5  # longer than the broker waits for a heartbeat
    while time.monotonic() < until:
        assert await call(worker.caller, f'{name}.x', 1) == 1
    worker.opened = 1
    assert await blocked.result(DEADLINE) == 'wait'
    assert 'connection to' not in caplog.text


@KINDS
async def test_a_handler_sends_tasks_and_awaits_their_results(plain, worker):
    async def factorial(number):
        return number * await call(worker.q, worker.name, number - 1) if number > 1 else 1

    await worker.start((lambda data: worker.q.run(factorial(data))) if plain else factorial)
    assert await worker.call(8) == 40320


@KINDS
async def test_current_is_the_task_being_run(plain, name, worker):
    await worker.start(plain=plain)
    task = await worker.task(headers={'tenant': 'blue', 'n': 1})
    await task.result(DEADLINE)
    job = worker.runs[0].job
    expected = task.id, name, 1, {'tenant': 'blue', 'n': 1}
    assert (job.id, job.name, job.attempt, job.headers) == expected
    assert repr(job) == f'<Delivery {task.id!r} of {name!r}, attempt 1>'
    assert repr(task) == f'<Task {task.id!r} of {name!r}>'
    assert repr(worker.q) == f'<Queue at 127.0.0.1:{PORT}, connected>'
    q = Queue(['amqp://me:secret@one:1/', 'two', 'amqps:///v'], password='secret')
    assert repr(q) == '<Queue at one:1, two:5672, localhost:5671, not connected>'
    assert aioqueue.current.get(None) is None


def awful(attribute):
    """An exception that can't be formatted: a look at this attribute raises."""
    return type('Awful', (ExceptionGroup,), {attribute: property(lambda self: 1 / 0)})(
        'awful', [ValueError()])


FAILURES = {  # what a handler raises, and the text of the RemoteException
    'exception': (ValueError('no'), 'no'),
    'key': (KeyError('k'), "'k'"),
    'empty': (RuntimeError(), ''),
    'exit': (SystemExit(3), '3'),
    'interrupt': (KeyboardInterrupt(), ''),
    'cancelled': (asyncio.CancelledError('c'), 'c'),
    'itself': (asyncio.CancelledError(), ''),
    'timeout': (TimeoutError('of mine'), 'of mine'), 'told': (ValueError('told'), 'told'),
    'group': (ExceptionGroup('g', [ValueError(1)]), 'g (1 sub-exception)'),
    'generator': (GeneratorExit(), None),
    'unicode': (ValueError('\udc80 \u20ac'), '\\udc80 \u20ac'),
    'awkward': (type('Awkward', (Exception,), {'__str__': lambda self: 1 / 0})(), None),
    'stop': (StopIteration('s'), None),  # Python makes it a RuntimeError
    'syntax': (SyntaxError('bad', ('f', 3, 5, b'x')), None),
    **{attribute: (awful(attribute), None)
       for attribute in ('__notes__', '__cause__', '__context__', 'exceptions')},
    'long': (ValueError('x' * 5_000_000), 'x' * 500_000),
}


@KINDS
async def test_nothing_that_a_handler_raises_ends_the_worker(plain, name, worker, broker, caplog):
    def fail(key):
        raise FAILURES[key][0]

    async def fail_async(key):
        if key == 'itself':
            asyncio.current_task().cancel()
            await asyncio.sleep(DEADLINE)
        if key == 'told' and not worker.runs:  # it is cancelled while its caller is told
            worker.runs.append(asyncio.get_running_loop().call_soon(asyncio.current_task().cancel))
        fail(key)

    options = {} if plain else {'timeout': DEADLINE}
    await worker.start(fail if plain else fail_async, prefetch_count=1, **options)
    for key, (raised, text) in FAILURES.items():
        error = await failure(worker.call(key))
        assert text is None or str(error) == text
        assert key in ('stop', 'generator') or error.type == type(raised).__qualname__
        assert key == 'long' or error.type in error.traceback
        await worker.task(key, no_response=True)
        assert msgpack.unpackb((await broker.get(f'{name}.dead'))[0]) == key
    await true(lambda: caplog.text.count('failed, i') == 2 * len(FAILURES))


@pytest.mark.parametrize('parts', [False, True], ids=['returns', 'yields'])
async def test_timeout_ends_a_run_that_takes_longer(parts, name, worker, broker):
    await worker.start(parts=parts, timeout=0.2, retries=1, retry_delay=0.05)
    assert await worker.call([1]) == [1]
    *got, error = await parts_of(await worker.task([1, 2, 'wait', 3]))
    assert got == [1, 2] * parts
    assert (error.type, str(error)) == ('TimeoutError', 'it ran longer than 0.2 seconds')
    assert 'await true(step)' in error.traceback  # where it hung
    assert (worker.attempts, worker.closed.is_set()) == ([1, 1, 2], True)
    await worker.task(['wait'], no_response=True)
    assert (await broker.get(f'{name}.dead'))[1].headers['type'] == 'TimeoutError'


async def test_a_result_that_msgpack_cannot_carry_is_a_failure(name, worker, broker):
    await worker.start(retries=1, retry_delay=0.05)
    error = await failure(worker.call('odd'))
    assert error.type == 'TypeError'
    assert 'object' in str(error)
    assert worker.attempts == [1, 2]
    await worker.task('odd', no_response=True)
    body, properties = await broker.get(f'{name}.dead')
    assert (msgpack.unpackb(body), properties.headers['type']) == ('odd', 'TypeError')
    assert await worker.call('fine') == 'fine'


# Tasks and results.


async def test_a_task_has_attributes(name, caller):
    task = await caller.task(name, {'a': 1}, no_response=True)
    other = await caller.create(name, b'raw', raw=True)
    assert (task.name, task.data, task.raw, task.no_response) == (name, {'a': 1}, False, True)
    assert (other.data, other.raw, other.no_response) == (b'raw', True, False)
    assert isinstance(task.id, str) and task.id != other.id
    assert await task.result() is None


async def test_tasks_with_one_id_at_the_same_time_all_get_a_result(name, worker):
    await worker.start()
    for ident in ('order-17', '7', 'x' * 255, '\u20ac' * 85):
        worker.opened = 0
        tasks = [await worker.task(data, id=ident) for data in ('wait', 'wait', 'wait')]
        assert {task.id for task in tasks} == {ident}
        worker.opened = 1
        assert [await task.result(DEADLINE) for task in tasks] == ['wait'] * 3
        assert {run.job.id for run in worker.runs[-3:]} == {ident}


async def test_a_result_is_the_same_each_time_and_for_all_who_ask(worker):
    await worker.start()
    task = await worker.task('wait')
    for timeout in (0.05, 0):
        with pytest.raises(TimeoutError):
            await task.result(timeout=timeout)  # a later call can still get it
    waiting = [asyncio.create_task(task.result(DEADLINE)) for _ in range(5)]
    await asyncio.sleep(0)
    waiting.pop().cancel()
    task.cancel()  # it is none that yields
    worker.opened = 1
    results = [*await asyncio.gather(*waiting), await task.result()]
    assert results == ['wait'] * 5


async def test_retry_sends_the_same_task_again(worker):
    ids = []

    async def generate(data):
        ids.append(aioqueue.current.get().id)
        yield len(ids)
        if len(ids) == 1:
            raise ValueError('the first time')

    await worker.start(generate)
    task = await worker.task()
    assert str(await parts_of(task)) == "[1, RemoteException('the first time')]"
    await task.retry()
    assert await task.result(DEADLINE) == [2]
    assert ids == [task.id] * 2
    await worker.caller.close()
    with pytest.raises(ConnectionError):
        await task.retry()
    assert await task.result() == [2]  # still
    await worker.caller.connect()
    await task.retry()
    assert await task.result(DEADLINE) == [3]


@pytest.mark.parametrize(('parts', 'own_id'), [(False, False), (True, False), (False, True)])
async def test_a_result_confirms_its_task(parts, own_id, worker, queues):
    """But a part does not, nor what may be the result of another one with this id."""
    await worker.start(parts=parts)
    async with Forwarder() as forwarder, asyncio.timeout(DEADLINE):
        q = queues(forwarder.port, retry=0.1)
        # The confirm is held back, if not by itself then by the acknowledgement of the part.
        forwarder.freezing, forwarder.freeze_at = 0, aioqueue.BASIC_ACK
        ident = worker.name if own_id else None
        sending = asyncio.create_task(q.task(worker.name, [1, 'wait', 2], id=ident))
        await true(lambda: worker.runs and not forwarder.freeze_at)
        worker.opened = not parts
        if parts or own_id:  # then it is sent again
            await true(lambda: parts or worker.closed.is_set())
            if own_id:
                await worker.call(0)  # by now the result has come
            forwarder.cut()
            forwarder.flowing.set()
            await true(lambda: len(worker.runs) == 2 + own_id)
        worker.opened = 1
        assert await (await sending).result() == ([1, 2] if parts else [1, 'wait', 2])


async def test_what_another_run_still_sends_is_no_result(name, caller, broker):
    """A generator's task is sent again while it runs: first comes the end of that run."""
    task = await caller.task(name)
    _, request = await broker.get(name)
    for headers, value in [({'part': 3}, 'c'), ({'parts': 4}, []), ({'part': 0}, 'a'),
                           ({'part': 4}, 'e'), ({'parts': 5}, []), ({'part': 1}, 'b'),
                           ({'parts': 2}, [])]:
        await broker.put(request.reply_to, msgpack.packb([None, value]), headers=headers,
                         correlation_id=request.correlation_id)
    assert await task.result(DEADLINE) == ['a', 'b']


async def test_who_awaits_a_result_is_not_forgotten(worker):
    """Though nobody keeps the asyncio tasks in which they wait."""
    waiting, results = [], []

    async def wait(number):
        task = await worker.task(['wait', 1])
        waiting.append(number)
        results.append([part async for part in task] if number % 2 else await task.result())

    await worker.start(parts=True)
    for number in range(6):
        asyncio.create_task(wait(number))
    await true(lambda: len(worker.runs) == len(waiting) == 6)
    gc.collect()
    worker.opened = 1
    await true(lambda: results == [[1]] * 6)


DATA = [
    None, True, 0, -1, 2**63, -(2**63), 1.5, 'text', '\u20ac', '', b'bytes', b'', [], {},
    [1, [2, [3]]], {'a': {'b': [1, None, b'x']}}, {None: 1, True: 2},
    {1: 'integer', 2.5: 'float', b'k': 'bytes'},
    datetime.datetime(2024, 5, 17, 12, 30, 1, 250, datetime.UTC),
    {'when': [datetime.datetime(1950, 1, 1, tzinfo=datetime.UTC)]},
]


async def test_all_that_msgpack_carries_arrives(worker):
    await worker.start()
    for data in DATA:
        result = await worker.call(data)
        assert (result, type(result)) == (data, type(data))
    assert await worker.call((1, (2,))) == [1, [2]]


async def test_raw_tasks_are_bytes_untouched(name, worker, broker):
    body = bytes(range(256))
    for data in (body, bytearray(body), memoryview(body)):
        await worker.task(data, raw=True, no_response=True)
    assert (await broker.get(name))[0] == body
    await worker.start(raw=True)
    assert await worker.call(body, raw=True) == body
    assert await worker.call({'packed': 1}) == msgpack.packb({'packed': 1})
    assert worker.data[:3] == [body] * 3


async def test_a_body_of_15_megabytes_arrives_both_ways(name, queues):
    worker = Worker(queues, name, frame_max=1_000_000)  # the broker's is lower
    await worker.start()
    for size in (131_064, 131_065, 15 * 2**20):  # around the size of a frame
        data = os.urandom(size)
        assert await worker.call(data) == data


async def test_thousands_of_tasks_sent_at_once_all_return(worker):
    await worker.start(prefetch_count=100)
    tasks = await asyncio.gather(*(worker.task(number) for number in range(5000)))
    results = await asyncio.gather(*(task.result(DEADLINE) for task in tasks))
    assert results == [*range(5000)]


# On the wire.


@QUEUES
async def test_queues_and_tasks_look_as_documented(quorum, name, queues, broker):
    q, kind = queues(quorum=quorum), {'x-queue-type': 'quorum'} if quorum else {}
    await q.task(name, {'a': 1}, no_response=True)
    assert (await broker.get(name))[1].reply_to is None
    task = await q.task(name, {'a': 1}, headers={'tenant': 7}, priority=3)
    body, properties = await broker.get(name)
    assert msgpack.unpackb(body) == {'a': 1}
    assert (properties.delivery_mode, properties.priority) == (2, 3)
    assert properties.content_type == 'application/msgpack'
    assert properties.correlation_id == task.id
    assert properties.headers['tenant'] == 7
    await q.task(name, b'x', raw=True)
    body, raw_properties = await broker.get(name)
    assert (body, raw_properties.content_type) == (b'x', 'application/octet-stream')
    assert (raw_properties.reply_to, 'x-death' in str(raw_properties.headers)) == (properties.reply_to, False)
    await broker.declare(name, **kind)
    await broker.declare(properties.reply_to, **kind, **{'x-expires': 600_000})
    await q.close()
    await broker.until(properties.reply_to, messages=None)


@QUEUES
async def test_a_delay_queue_looks_as_documented(quorum, name, queues, broker):
    await queues(quorum=quorum).task(name, delay=40)
    arguments = {'x-message-ttl': 40_000, 'x-dead-letter-exchange': '',
                 'x-dead-letter-routing-key': name}
    if quorum:
        arguments |= {'x-queue-type': 'quorum', 'x-dead-letter-strategy': 'at-least-once',
                      'x-overflow': 'reject-publish'}
    await broker.until(f'{name}.delay.40000', messages=1)
    await broker.declare(f'{name}.delay.40000', **arguments)


async def test_replies_look_as_documented(name, worker, broker):
    replies, reply_to = asyncio.Queue(), f'{name}.replies'

    async def on_reply(channel, body, envelope, properties):
        assert properties.correlation_id == '7'
        replies.put_nowait((msgpack.unpackb(body), properties))

    async def ask(queue, data, count=1):
        await broker.put(queue, msgpack.packb(data), correlation_id='7', reply_to=reply_to)
        return [await asyncio.wait_for(replies.get(), DEADLINE) for _ in range(count)]

    await broker.channel.queue_declare(reply_to, exclusive=True)
    await broker.channel.basic_consume(on_reply, reply_to, no_ack=True)
    worker.q.on(f'{name}.x')(worker.generator)
    await worker.start()
    [(body, properties)] = await ask(name, {'a': 1})
    assert body == [None, {'a': 1}]
    assert (properties.message_type, properties.delivery_mode) == (None, 2)
    [(body, properties)] = await ask(name, 'fail')
    assert (body, properties.headers['type']) == (['as asked: \u20ac', None], 'ValueError')
    assert 'raise ValueError' in properties.headers['traceback']
    *parts, (end, properties) = await ask(f'{name}.x', ['a', 'b', 'fail'], 3)
    assert [body for body, _ in parts] == [[None, 'a'], [None, 'b']]
    assert [each.message_type for _, each in parts] == ['part', 'part']
    assert [[*each.headers.values()] for _, each in parts] == [[0], [1]]
    assert (end[0], properties.message_type) == ('as asked: \u20ac', None)
    (end, properties) = (await ask(f'{name}.x', ['a', 'b'], 3))[2]
    assert (end, properties.headers) == ([None, []], {'parts': 2})
    await worker.q.close()
    dead = [await broker.look(each) for each in (f'{name}.dead', f'{name}.x.dead')]
    assert (dead[0]['messages'], dead[1]['messages'], replies.empty()) == (None, None, True)


# 0.2 and this one understand each other.


@pytest.fixture(scope='session')
def old_python(tmp_path_factory):
    """A Python 3.6 with aioqueue 0.2.0."""
    found = [*pathlib.Path.home().glob('.pyenv/versions/3.6.*/bin/python')]
    if not found:
        pytest.skip('aioqueue 0.2 needs a Python 3.6')
    python = tmp_path_factory.mktemp('old') / 'bin' / 'python'
    subprocess.run([found[0], '-m', 'venv', python.parent.parent], check=True)
    subprocess.run([python, '-m', 'pip', '-q', 'install', 'aioqueue==0.2.0'], check=True,
                   capture_output=True)
    return python


@pytest.fixture
async def old(old_python, tmp_path, name):
    """Start a script of 0.2."""
    async def start(script):
        return await asyncio.create_subprocess_exec(
            old_python, '-c', script, str(PORT), name, cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL)

    return start


async def test_a_worker_of_0_2_answers_our_tasks(name, caller, old):
    process = await old(OLD_WORKER)
    try:
        data = {'key': [1, b'x'], 2: None}
        assert await call(caller, name, data) == {1: data}
        error = await failure(call(caller, name, 'fail'))
        assert (str(error), error.type) == ('as asked', None)
    finally:
        process.terminate()
        await ended(process)


async def test_a_caller_of_0_2_gets_our_results(name, worker, old):
    worker.q.on(f'{name}.x')(worker.generator)
    await worker.start()
    status, printed = await ended(await old(OLD_CALLER))
    # It takes any part of a generator for the result.
    expected = r"{'key': \[1, b'x'\], 2: None}\nas asked\n(first|second|\[\])\nNone\n"
    assert (status, bool(re.fullmatch(expected, printed))) == (0, True), printed


# Bad input.

MISUSE, REFUSED = (TypeError, ValueError), (ValueError, Refused)
# What msgpack and pamqp raise by themselves.
UNSENDABLE = TypeError, ValueError, OverflowError, AttributeError, struct.error


@pytest.mark.parametrize(('arguments', 'error'), [
    ({'data': object()}, TypeError), ({'data': {1, 2}}, TypeError), ({'data': 1j}, TypeError),
    ({'data': 2**64}, UNSENDABLE), ({'data': [1, [print]]}, TypeError),
    ({'data': '\ud800'}, UNSENDABLE), ({'data': datetime.datetime(2024, 1, 1)}, UNSENDABLE),
    ({'data': 'text', 'raw': True}, TypeError), ({'data': 1, 'raw': True}, TypeError),
    ({'data': None, 'raw': True}, TypeError), ({'data': [b'x'], 'raw': True}, TypeError),
    ({'name': 1}, MISUSE), ({'name': None}, MISUSE), ({'name': b'x'}, MISUSE),
    ({'name': ''}, ValueError), ({'name': 'x' * 231}, ValueError), ({'name': 'a\t'}, ValueError),
    ({'name': 'a\n'}, ValueError), ({'name': '\u20ac'}, ValueError), ({'name': 'a*'}, ValueError),
    ({'name': 'amq.reserved'}, ValueError), ({'data': (lambda a: a.append(a) or a)([])}, ValueError),
    ({'id': 17}, MISUSE), ({'id': b'x'}, MISUSE), ({'id': ''}, ValueError),
    ({'id': 'x' * 256}, ValueError), ({'id': '\u20ac' * 86}, ValueError),
    ({'delay': -1}, ValueError), ({'delay': '1'}, TypeError), ({'delay': 1e9}, REFUSED),
    ({'delay': float('nan')}, ValueError), ({'delay': 1, 'expires': 2}, ValueError),
    ({'expires': -1}, REFUSED), ({'expires': 'x'}, TypeError),
    ({'priority': 256}, UNSENDABLE), ({'priority': 'x'}, UNSENDABLE),
    ({'headers': {'x': object()}}, UNSENDABLE), ({'headers': {1: 2}}, UNSENDABLE),
    ({'headers': ['x']}, UNSENDABLE), ({'headers': {'x': 'y' * 200_000}}, ValueError),
    ({'headers': {'x': [float('inf')]}}, UNSENDABLE), ({'headers': {'x': 1e300}}, UNSENDABLE),
    ({'headers': {'CC': ['x']}}, ValueError), ({'headers': {'BCC': []}}, ValueError),
    ({'headers': {'x-death': 'x'}}, ValueError), ({'headers': {'x': [{'y': 0.5}]}}, TypeError),
    ({'headers': {'x': datetime.datetime(2200, 1, 1, tzinfo=datetime.UTC)}}, TypeError),
])
async def test_a_task_that_cannot_be_sent_is_an_error(arguments, error, name, caller, broker):
    with pytest.raises(error):
        await asyncio.wait_for(caller.task(**{'name': name, **arguments}), DEADLINE)
    assert error is REFUSED or (await broker.look(name))['messages'] is None  # not declared
    await caller.task(name, no_response=True)


Point = dataclasses.make_dataclass('Point', ['x'])


@pytest.mark.parametrize(('arguments', 'words'), [
    ({'priority': 300}, 'priority.*300'), ({'delay': datetime.timedelta(1)}, 'delay.*timedelta'),
    ({'data': 'text', 'raw': True}, 'raw.*str'),
    ({'data': {'a': [1, decimal.Decimal(1)]}}, r"data\['a'\]\[1\] is of type Decimal.*str\(\)"),
    ({'data': [{2: uuid.UUID(int=1)}]}, r'data\[0\]\[2\] is of type UUID.*str\(\)'),
    ({'data': [{uuid.UUID(int=1): 2}]}, r'data\[0\] .*UUID.*str\(\)'),
    ({'data': Point(1)}, r'data is of type Point.*asdict\(\).*model_dump\(mode=.json'),
    ({'data': (1, datetime.datetime(2024, 1, 1))}, r'data\[1\] is of type datetime.*time zone')])
async def test_what_cannot_be_sent_is_named(arguments, words, name, caller):
    with pytest.raises(MISUSE, match=words):
        await caller.task(name, **arguments)
    with pytest.raises(TypeError, match='positional'):
        await caller.task(name, 1, 2)


@pytest.mark.parametrize(('arguments', 'error'), [
    ({'name': 5}, MISUSE), ({'name': ''}, ValueError), ({'name': 'x' * 231}, ValueError),
    ({'name': 'a\n'}, ValueError), ({'name': 'a*'}, ValueError),
    ({'prefetch_count': 0}, ValueError), ({'prefetch_count': -1}, ValueError),
    ({'prefetch_count': 65_536}, ValueError), ({'prefetch_count': '1'}, TypeError),
    ({'retries': -1}, ValueError), ({'retry_delay': -1}, ValueError),
    ({'timeout': 'x'}, TypeError), ({'timeout': 1}, ValueError),  # no thread can be stopped
])
def test_bad_options_of_a_handler_are_errors(arguments, error):
    with pytest.raises(error):
        Queue().on(**{'name': 'name', **arguments})(len)


async def test_misuse_of_on_is_an_error(name, queues):
    q = queues()
    with pytest.raises(MISUSE):
        q.on(len)  # without the parentheses
    assert q.on(name)(len) is len
    with pytest.raises(ValueError, match=name):
        q.on(name)(print)
    for odd in (lambda: 1, lambda a, b: 1, lambda *, data: 1, lambda data, *, more: 1):
        with pytest.raises(TypeError, match=f'{name}.x.*one argument'):
            q.on(f'{name}.x')(odd)
    q.on(f'{name}.x')(lambda data, more=1, *rest, **options: 1)
    with pytest.raises(RuntimeError, match=r'await start_async\(\)'):
        q.start()
    await q.start_async()
    without_handlers = queues()
    await without_handlers.start_async()
    for each in q, without_handlers:
        with pytest.raises(RuntimeError, match='start'):
            each.on(f'{name}.y')(print)


@pytest.mark.parametrize('odd', [
    'aioqueue', 'x.delay.300', 'a-b.c:d' + ' /,@#+' * (pamqp.__version__ > '3.1.0'), uuid.uuid4().hex * 7 + 'x' * 6])  # 230
async def test_a_queue_may_have_any_name(odd, queues, broker):
    worker = Worker(queues, odd)
    await worker.task(1, no_response=True)
    await worker.start(retries=2, retry_delay=0.01)
    assert await worker.call('flaky', delay=0.01) == 'flaky'
    await broker.delete(odd)


# Starts that fail.


@pytest.mark.parametrize(('options', 'words', 'code'), [
    ({'password': 'wrong'}, 'ACCESS_REFUSED', 403), ({'login': 'nobody'}, 'ACCESS_REFUSED', 403),
    ({'virtualhost': 'missing'}, 'vhost missing not found', 530),
])
async def test_what_the_broker_refuses_is_raised_at_once(options, words, code, name, queues):
    q = queues(retry=DEADLINE, **options)
    for attempt in (q.connect, q.start_async, lambda: q.task(name)):
        with pytest.raises(Refused, match=words) as raised:
            await asyncio.wait_for(attempt(), DEADLINE / 2)
        assert raised.value.code == code


async def test_with_retry_false_the_first_failure_raises(name, unused_tcp_port, queues):
    q = queues(unused_tcp_port, retry=False)
    for attempt in (q.connect, q.start_async, lambda: q.task(name)):
        with pytest.raises(OSError, match=str(unused_tcp_port)):
            await attempt()


@pytest.mark.parametrize(('other', 'words'), [
    (peer(), 'no answer in 0.3 s'), (peer(hang_up=True), 'closed by the peer'),
    (peer(b'SSH-2.0-OpenSSH_9.2\r\n' * 10), 'no AMQP.*SSH'),
    (peer(b'HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n'), 'no AMQP.*HTTP/1.1 400'),
], ids=['silent', 'hangs up', 'chatty', 'HTTP'])
async def test_where_something_else_answers_is_no_broker(other, words, name, queues, monkeypatch):
    monkeypatch.setattr(aioqueue, 'CONNECT_DEADLINE', 0.3)
    async with other as port:
        with pytest.raises(OSError, match=words):
            await queues(port, retry=False).connect()
        q = queues(None, [f'127.0.0.1:{port}', f'127.0.0.1:{PORT}'])
        await q.task(name, no_response=True)


async def test_without_a_broker_it_tries_again_until_there_is_one(name, queues, caplog):
    caplog.set_level(logging.INFO)
    async with Forwarder() as forwarder:
        forwarder.down, q = True, queues(forwarder.port)
        for _ in range(2):  # at the start, and after a loss
            caplog.clear()
            sending = asyncio.create_task(q.task(name, no_response=True))
            await true(lambda: caplog.text.count('no connection to') >= 3)
            assert 'lost the' not in caplog.text
            assert (q.connected, sending.done()) == (False, False)
            assert caplog.records[-1].created - caplog.records[0].created > 0.09  # `retry`
            forwarder.down = False
            await asyncio.wait_for(sending, DEADLINE)
            assert q.connected is True
            await q.start_async()
            forwarder.cut(down=True)
            await true(lambda: 'lost the connection to' in caplog.text)
            assert q.connected is False
            assert {each.name for each in caplog.records} == {'aioqueue'}  # aioamqp is quiet
            assert 'consuming from' not in caplog.text  # it has no handlers


async def test_hosts_that_are_down_are_passed_over(name, queues, monkeypatch, caplog):
    monkeypatch.setattr(aioqueue, 'CONNECT_DEADLINE', 0.5)
    async with peer() as silent:
        ends = f'guest:wrong@HOST:{PORT}', 'HOST:1', f'HOST:{silent}', f'HOST:{PORT}/missing'
        hosts = [f'amqp://{end}'.replace('HOST', '127.0.0.1') for end in (*ends, f'HOST:{PORT}')]
        await asyncio.wait_for(queues(None, hosts, retry=DEADLINE).task(name), DEADLINE / 2)
        assert caplog.text.count('no connection') == 4
        # When nothing is left to hope for, the refusal is what is raised.
        with pytest.raises(Refused, match='ACCESS_REFUSED'):
            await asyncio.wait_for(queues(None, hosts[:3]).connect(), DEADLINE)


@pytest.mark.parametrize('connect_first', [False, True])
@pytest.mark.parametrize('arguments', [{}, {'x-max-length': 'no'}])
async def test_a_queue_is_refused_by_its_name(connect_first, arguments, name, queues, broker):
    q = queues()
    if not arguments:  # there is one with others
        await broker.declare(name, **{'x-max-length': 7})
    q.on(name, arguments=arguments)(print)
    if connect_first:
        await q.connect()
    with pytest.raises(Refused, match=f'PRECONDITION_FAILED.*{name}') as raised:
        await asyncio.wait_for(q.start_async(), DEADLINE)
    assert (raised.value.code, q.connected) == (406, False)


async def test_a_start_that_is_refused_runs_nothing(name, worker, broker):
    await broker.declare(f'{name}.x', **{'x-max-length': 7})
    await worker.task('early', no_response=True)
    worker.q.on(name)(worker.function)
    worker.q.on(f'{name}.x')(worker.function)
    with pytest.raises(Refused):
        await worker.q.start_async()
    assert not worker.runs
    await broker.until(name, messages=1)


async def test_a_queue_that_is_declared_anew_with_other_arguments_is_consumed(name, queues, broker):
    async with Forwarder() as forwarder:
        worker = Worker(queues, name, forwarder.port)
        await worker.start()
        forwarder.cut(down=True)
        await true(lambda: not worker.q.connected)
        await broker.delete(name)
        await broker.declare(name, **{'x-max-length': 7})
        forwarder.down = False
        assert await worker.call(1) == 1


async def test_a_task_whose_queue_cannot_be_declared_is_refused(name, queues):
    q = queues()
    q.on(name, arguments={'x-max-length': 'no'})(print)
    sending = asyncio.gather(*(q.task(f'{name}{end}') for end in ('', '.x') * 5), return_exceptions=True)
    outcomes = await asyncio.wait_for(sending, DEADLINE)
    assert [type(each) for each in outcomes] == [Refused, aioqueue.Task] * 5


# Retries, delays, expiry, priority.


@KINDS
async def test_retries_wait_once_twice_four_times_the_delay(plain, worker):
    await worker.start(plain=plain, retries=3, retry_delay=0.27)
    task = await worker.task('fail', headers={'tenant': 'blue'})
    assert str(await failure(task.result(DEADLINE))) == 'as asked: \u20ac'
    assert worker.attempts == [1, 2, 3, 4]
    assert {(run.job.id, run.job.headers['tenant']) for run in worker.runs} == {(task.id, 'blue')}
    waits = [after.time - before.time for before, after in itertools.pairwise(worker.runs)]
    for wait, least in zip(waits, (0.27, 0.54, 1.08), strict=True):
        assert least - 0.01 <= wait < least + 0.24


@QUEUES
async def test_all_delays_share_few_queues_that_nobody_declared(quorum, name, node, queues, caplog):
    worker = Worker(queues, name, node.port, quorum=quorum)
    delays = *(random.uniform(60, 900) for _ in range(2000)), *(0.3 + n / 1500 for n in range(1000))
    await asyncio.gather(*(worker.task(delay, delay=delay, no_response=True) for delay in delays))
    rungs = re.findall(rf'^{name}\.delay\.(\d+)$', await node.ctl('list_queues name'), re.M)
    assert 10 < len([rung for rung in rungs if int(rung) >= 60_000]) <= 40
    await worker.start(prefetch_count=100)
    await true(lambda: {*worker.data} == {*delays[2000:]})
    assert 'lost' not in caplog.text


async def test_delays_are_exact_and_a_long_one_holds_up_no_short_one(worker):
    await worker.start()
    delays, sent = (30, 4.049, 2.571, 1.234, 0.757, 0.3, 0), time.monotonic()
    await asyncio.gather(*(worker.task(delay, delay=delay, no_response=True) for delay in delays))
    await true(lambda: len(worker.runs) == 6)
    for run in worker.runs:
        assert -0.012 <= run.time - sent - run.data < 0.3


@pytest.mark.parametrize('clock', [-5, 5])
async def test_a_wrong_clock_costs_at_most_what_was_cut_off(clock, name, caller, spawn, broker):
    await spawn(name, clock=clock)
    await broker.until(f'{name}.parts', consumers=1)
    sent = time.monotonic()
    await call(caller, name, 1, delay=1.234)  # 1 s, then 230 ms
    assert 0.99 <= time.monotonic() - sent < 1.234 + 0.234 + 0.3


async def test_what_is_due_waits_in_its_queue_and_is_not_delayed_again(name, worker, broker):
    due = time.monotonic() + 0.38
    await worker.task(1, delay=0.38, no_response=True)
    await broker.until(name, messages=1)  # after 350 ms
    await true(lambda: time.monotonic() > due)
    await worker.start()
    await true(lambda: worker.runs)
    assert (await broker.look(f'{name}.delay.30'))['messages'] is None


async def test_nothing_of_a_task_changes_on_the_ladder(name, queues, broker):
    worker, due = Worker(queues, name, quorum=True), time.monotonic() + 1.499
    task = await worker.task(1, id='mine', delay=1.499, priority=3, headers={'tenant': 'blue'})
    await broker.until(name, messages=1)  # after 1 s
    for _ in range(aioqueue.DELIVERY_LIMIT):
        tag = (await broker.channel.basic_get(name))['delivery_tag']
        await broker.channel.basic_reject(tag, requeue=True)
    await worker.start(retries=1, retry_delay=0)
    assert '10 deliveries' in str(await failure(task.result(DEADLINE)))
    assert time.monotonic() > due - 0.012
    _, properties = await broker.get(f'{name}.dead')
    assert (properties.correlation_id, properties.priority, properties.reply_to) == ('mine', 3, None)
    assert properties.headers.items() >= {'tenant': 'blue', 'attempts': 1}.items()


@QUEUES
async def test_a_full_or_deleted_queue_holds_up_no_other_delays(quorum, name, queues, broker):
    worker, kind = Worker(queues, name, quorum=quorum), {'x-queue-type': 'quorum'} if quorum else {}
    await worker.start(retries=2, retry_delay=0.05)
    await broker.declare(f'{name}.x', **FULL, **kind)
    for queue in [f'{name}.x', f'{name}.parts'] * 50:
        await worker.caller.task(queue, delay=0.05, no_response=True)
    await broker.delete(f'{name}.parts')
    for _ in range(2):
        assert await asyncio.wait_for(worker.call('flaky', delay=0.1), 5) == 'flaky'
        await broker.delete(f'{name}.delay.50', f'{name}.delay.100')  # as an operator may


async def test_a_stream_of_delays_and_retries_loses_nothing(name, queues, spawn):
    """While workers are killed and connections cut."""
    async with Forwarder() as forwarder:
        calls, workers, on = [], [], {'retries': 1, 'retry_delay': 0.26}
        streams = [(name, queues(forwarder.port)),
                   (f'{name}.x', queues(forwarder.port, quorum=True))]
        for number in range(250):
            if number % 50 == 0:
                workers += [await spawn(queue, forwarder.port, quorum=queue != name, on=on)
                            for queue, _ in streams]
                [process.kill() for process in workers[-4:-2]]
                forwarder.cut()
            calls += [asyncio.create_task(call(q, queue, 'flaky', delay=random.choice(
                (0.1, 0.374, 0.861)))) for queue, q in streams]
            await asyncio.sleep(0.02)
        assert await asyncio.gather(*calls) == ['flakyflaky'] * 500


async def test_an_expired_task_is_dropped(name, worker, broker):
    await worker.task('expired', expires=0.05, no_response=True)
    await worker.task('never expires', no_response=True)
    await worker.task('fresh', expires=60, no_response=True)
    await broker.until(name, messages=2)
    await worker.start(prefetch_count=1)
    await true(lambda: worker.data == ['never expires', 'fresh'])


async def test_a_higher_priority_goes_first(worker):
    await worker.start(prefetch_count=1, arguments={'x-max-priority': 10})
    await worker.task('wait', no_response=True)
    await true(lambda: worker.runs)
    for priority in (1, 9, 5, None):
        await worker.task(priority, priority=priority, no_response=True)
    worker.opened = 1
    await true(lambda: worker.data == ['wait', 9, 5, 1, None])
    # A caller that delays knows nothing of the queue's arguments.
    assert await worker.call('late', delay=0.01) == 'late'


# Dead letters.


@KINDS
@QUEUES
async def test_a_failure_that_nobody_awaits_is_a_dead_letter(plain, quorum, name, queues, broker):
    worker = Worker(queues, name, quorum=quorum)
    await worker.start(plain=plain, retries=1, retry_delay=0.05)
    task = await worker.task('fail', no_response=True, priority=3, headers={'tenant': 'blue'})
    body, properties = await broker.get(f'{name}.dead')
    await broker.declare(f'{name}.dead', **{'x-queue-type': 'quorum'} if quorum else {})
    assert (msgpack.unpackb(body), properties.correlation_id) == ('fail', task.id)
    assert (properties.delivery_mode, properties.priority) == (2, 3)
    assert properties.content_type == 'application/msgpack'
    headers = properties.headers
    headers.pop('x-delivery-count', None)  # of the dead letter itself
    assert 'raise ValueError' in headers.pop('traceback')
    assert headers == {
        'error': 'as asked: \u20ac', 'type': 'ValueError', 'attempts': 2, 'tenant': 'blue'}


async def test_a_failure_whose_caller_is_gone_is_a_dead_letter(name, worker, broker):
    await worker.start()
    for data in ('wait', 'wait fail'):
        await worker.task(data, expires=60)
    await true(lambda: len(worker.runs) == 2)
    await worker.caller.close()
    worker.opened = 1
    body, properties = await broker.get(f'{name}.dead')
    assert (msgpack.unpackb(body), properties.expiration) == ('wait fail', None)
    await worker.q.close()
    await broker.until(f'{name}.dead', messages=0)


async def test_a_body_that_cannot_be_decoded_is_a_dead_letter(name, worker, broker):
    await worker.start(retries=1, retry_delay=0.05)
    for bad in (b'\xc1', b'', b'\x93\x01', b'not msgpack'):
        await broker.put(name, bad, content_type='text/plain')
        body, properties = await broker.get(f'{name}.dead')
        assert (body, properties.headers['attempts'], properties.headers['error'] > '') == (bad, 2, True)
    assert await worker.call(1) == 1
    assert worker.data == [1]


@pytest.mark.parametrize('text', ['\U0001f600', '\udcff'], ids=['wide', 'odd'])
@pytest.mark.parametrize('frame_max', [131_072, 8192])
async def test_the_longest_error_fits_a_frame(text, frame_max, name, queues, broker):
    async def fail(data):
        raise type('Long' * 20_000, (Exception,), {})(text * 30_000)

    worker = Worker(queues, name, frame_max=frame_max)
    await worker.start(fail)
    error = await failure(worker.call())
    assert (len(str(error)) >= 30_000, error.type[-8:]) == (True, 'LongLong')
    await worker.task(no_response=True)
    assert len((await broker.get(f'{name}.dead'))[1].headers['error']) > 100


ODD_HEADERS = [
    {'nested': {'table': {'list': [1, 'x', {'y': None}]}}},
    {'bytes': bytearray(b'\xff\x00')}, {'not utf-8': 'NOT UTF-8'},
    {'when': datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), 'half': 0.5, 'no': None},
    {'decimal': decimal.Decimal('1.25'), 'big': 2**62, 'negative': -(2**62), 'yes': True},
    {'x-attempt': 'text'}, {'x-attempt': -(2**62)}, {'x-attempt': {'a': 1}},
    {'x-attempt': 2**62}, {'x-delivery-count': 'x'}, {'x-delivery-count': 10**9},
    {'error': [1], 'type': {}, 'traceback': bytearray(b'x'), 'attempts': None, 'parts': []},
    {'': 'empty key', '\u20ac': '\u20ac', 'k' * 250: 'long key', 'spaces and \n': ''},
    {'large': 'x' * 130_000}, {'CC': ['amq.nowhere'], 'x-delay': 'x', 'x-match': 1},
]


async def test_odd_headers_are_retried_and_dead_lettered(name, worker, broker, monkeypatch):
    monkeypatch.setattr(aioqueue, 'REFUSED_PAUSE', 0.01)  # then without what can't be sent

    async def fail(body):
        raise ValueError('no')

    await worker.start(fail, retries=1, retry_delay=0.05, raw=True)
    for number, headers in enumerate(ODD_HEADERS):
        broker.write(name, b'%d' % number, headers=headers)
    for _ in ODD_HEADERS:
        body, properties = await broker.get(f'{name}.dead')
        original = ODD_HEADERS[int(body)]
        assert {'error', 'type', 'traceback', 'attempts'} <= {*properties.headers}
        assert properties.content_type is None  # as it was
        for key in {'nested', 'bytes', 'decimal', '\u20ac'} & {*original}:
            assert properties.headers[key] == original[key]


FULL = {'x-max-length': 1, 'x-overflow': 'reject-publish'}


async def test_what_is_refused_waits_for_room(name, worker, broker, monkeypatch, caplog):
    """A dead letter does, here; a refused retry is a failure, or it would block its queue."""
    monkeypatch.setattr(aioqueue, 'REFUSED_PAUSE', 0.01)
    await broker.declare(f'{name}.dead', **FULL)
    await broker.put(f'{name}.dead', b'full')
    await worker.start(retries=1, retry_delay=0, prefetch_count=1, arguments=FULL)
    await worker.task('wait fail', no_response=True)
    await true(lambda: worker.runs)
    await worker.task('next', no_response=True)  # no room for a retry now
    worker.opened = 1
    await true(lambda: 'its dead letter is refused' in caplog.text)
    for _ in range(50):  # round trips, in which it is refused again
        assert (await broker.look(name))['messages'] == 1
    assert caplog.text.count('waits') == 1
    assert 'Traceback' not in caplog.text
    assert worker.data == ['wait fail']
    assert (await broker.get(f'{name}.dead'))[0] == b'full'
    body, properties = await broker.get(f'{name}.dead')
    assert (msgpack.unpackb(body), properties.headers['attempts']) == ('wait fail', 1)
    await true(lambda: worker.data == ['wait fail', 'next'])


async def test_a_task_that_kills_its_worker_is_dead_after_the_limit(name, queues, spawn, broker):
    q = queues(quorum=True)
    task = await q.task(name, 'kill', headers={'tenant': 'blue'})
    told, killed = asyncio.create_task(task.result(2 * DEADLINE)), 0
    while not told.done():
        process = await spawn(name, quorum=True)
        death = asyncio.create_task(process.wait())
        await asyncio.wait([told, death], return_when=asyncio.FIRST_COMPLETED)
        killed += process.returncode == -signal.SIGKILL
    assert killed == aioqueue.DELIVERY_LIMIT == 10
    assert '10 deliveries' in str(await failure(told))
    body, properties = await broker.get(f'{name}.dead')
    assert msgpack.unpackb(body) == 'kill'
    assert '10 deliveries' in properties.headers['error']
    assert properties.headers['tenant'] == 'blue'
    assert await call(q, name, 1) == 2  # it goes on
    await broker.until(name, messages=0)


# What a person sees.

USER = """
from aioqueue import Queue, Task, current
q = Queue(['amqp://localhost'], retry=False, quorum=True, heartbeat=5)
@q.on('add', retries=3, retry_delay=lambda error, attempt: None if attempt > 2 else 1.5)
async def add(numbers: list[int]) -> int:
    return sum(numbers) + current.get().attempt
@q.on('main', retry_delay='x')  # wrong
async def main(name: str) -> int:
    task: Task = await q.task(name, [1], delay=0.5, priority=3)
    await q.task('add', 1, 2)  # wrong
    await q.task('add', priority='x')  # wrong
    await q.task('add', dealy=1)  # wrong
    await q.task('add').result()  # wrong
    task.retry()  # wrong
    return await add([part async for part in task]) + len(task.id)
status: int = q.run(main('add'), timeout=3)
"""


def test_the_wheel_is_typed_and_so_is_a_copy_of_the_file(tmp_path):
    def run(module, *arguments):
        command = [sys.executable, '-m', module, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout

    run('venv', '--without-pip', '.')
    python, site = tmp_path / 'bin/python', next(tmp_path.glob('lib/*/site-packages'))
    run('build', '--no-isolation', f'--outdir={tmp_path}', HERE)  # the wheel from the sdist
    run('pip', f'--python={python}', 'install', '--no-deps', *tmp_path.glob('*.whl'))
    (site / 'others.pth').write_text(str(pathlib.Path(msgpack.__file__).parents[1]))
    (tmp_path / 'user.py').write_text(USER)
    (tmp_path / 'vendored.py').write_text((HERE / 'aioqueue.py').read_text())
    # Some have installed types of msgpack: then an import that is ignored is no error.
    (tmp_path / 'msgpack.pyi').write_text('from typing import Any\nPacker: Any\nunpackb: Any')
    found = run('mypy', '--strict', f'--python-executable={python}', 'user.py', 'vendored.py')
    wrong = [number for number, line in enumerate(USER.split('\n'), 1) if '# wrong' in line]
    assert {*re.findall(r'(.+:\d+): error', found)} == {f'user.py:{each}' for each in wrong}, found
    run('pip', f'--python={python}', 'uninstall', '--yes', 'aioqueue')
    assert [*site.glob('aioqueue*')] == []


@KINDS
async def test_the_log_says_where_a_task_failed_and_what_becomes_of_it(plain, name, worker, caplog):
    await worker.start(plain=plain, retries=1, retry_delay=0.05)
    for options, fate in ({}, 'caller is told'), ({'no_response': True}, f'is in {name}.dead'):
        caplog.clear()
        task = await worker.task('fail', **options)
        await true(lambda: len(caplog.records) == 2)
        again, for_good = caplog.records
        assert (again.levelname, again.exc_info) == ('WARNING', None)
        assert re.search(f'{task.id}.*0.05 s.*ValueError: .as asked', again.getMessage())
        assert (for_good.levelname, for_good.exc_info[0]) == ('ERROR', ValueError)
        assert re.search(f'{task.id}.*{fate}', for_good.getMessage())
        assert "raise ValueError('as asked" in caplog.text  # the code that failed
        assert options or 'raise ValueError' in (await failure(task.result())).__notes__[0]


@pytest.mark.parametrize('text', ['x' * 9999, 'a line\n' * 999], ids=['wide', 'high'])
async def test_the_log_has_what_nobody_awaits_but_no_long_text(text, worker, caplog):
    async def fail(data):
        raise ValueError(text)

    await worker.start(fail, retries=1, retry_delay=0.3)
    await worker.task()  # nobody keeps it
    await true(lambda: len(caplog.records) == 3)
    assert all('\n' not in each.getMessage() for each in caplog.records)
    assert re.search('ERROR.* nobody awaits it any more: .?ValueError.?: .', caplog.text)
    assert 'raise ValueError(text)' in caplog.text
    assert 3 * 900 < len(caplog.text) < 3 * 1000 + 2500  # with the lines of the traceback


async def test_a_failure_that_has_come_but_nobody_asked_for_is_logged(worker, caplog):
    await worker.start()
    tasks = [await worker.task('fail') for _ in range(3)]
    await failure(tasks[0].result())
    await worker.call(1)  # by now the others have come, too
    tasks.clear()
    assert caplog.text.count('nobody awaits it') == 2


async def test_retry_delay_may_be_a_function_or_none(name, worker):
    def delay(error, attempt):
        value = 0.3 if attempt == 1 else error.args[0]
        if isinstance(value, BaseException):
            raise value
        return value

    async def fail(key):
        worker.runs.append(time.monotonic())
        raise ValueError(delays[key])

    delays = {'ValueError': None, 'TypeError': 'x', 'KeyError': KeyError(), 'exit': SystemExit()}
    worker.q.on(f'{name}.x', retries=4, retry_delay=None)(fail)
    await worker.start(fail, retries=4, retry_delay=delay)
    assert (await failure(call(worker.caller, f'{name}.x', 'TypeError'))).type == 'ValueError'
    for key in delays:
        error = await failure(worker.call(key))
        assert key in error.type.replace('SystemExit', 'exit')
        assert 'raise ValueError(' in error.traceback
        assert 0.29 < worker.runs[-1] - worker.runs[-2] < 0.6
    assert len(worker.runs) == 1 + 2 * len(delays)


async def test_a_message_of_others_has_its_id_at_each_delivery(name, worker, other, broker):
    await broker.declare(name)
    for ids in {'message_id': 'm'}, {'message_id': 'x', 'correlation_id': 'c'}, {}:
        await broker.put(name, msgpack.packb('wait fail'), **ids)
    await worker.start()
    await true(lambda: len(worker.runs) == 3)
    await worker.q.close(timeout=0)
    other.opened = 1
    await other.start(retries=1, retry_delay=lambda error, attempt: -1)
    await broker.until(f'{name}.dead', messages=3)
    seen = collections.Counter(run.job.id for run in other.runs)
    assert sorted(seen.values()) == [2, 2, 2]
    assert {'m', 'c'} <= {run.job.id for run in worker.runs} & {*seen}


# Closing.


@pytest.mark.parametrize('options', [{}, {'timeout': None}])
async def test_close_waits_for_running_handlers(options, worker):
    await worker.start()
    task = await worker.task('wait')
    await true(lambda: worker.runs)
    closing = [asyncio.create_task(worker.q.close(**options)) for _ in range(3)]
    assert not (await asyncio.wait(closing, timeout=0.2))[0]
    closing.pop().cancel()  # the others go on
    closing.append(asyncio.create_task(worker.q.start_async()))  # after them
    worker.opened = 1
    await asyncio.wait_for(asyncio.gather(*closing), DEADLINE)
    assert await task.result(DEADLINE) == 'wait'
    assert worker.q.connected


@KINDS
@pytest.mark.parametrize('parts', [False, True], ids=['returns', 'yields'])
async def test_what_close_cuts_short_runs_elsewhere(plain, parts, worker, other, broker):
    await worker.start(plain=plain, parts=parts, retries=5)
    task = await worker.task([1, 'wait', 2])
    await true(lambda: worker.runs)
    await asyncio.wait_for(worker.q.close(timeout=0.1), 3)
    await broker.until(worker.q._session.reply_queue, messages=None)  # which it has deleted
    assert plain or worker.closed.is_set()
    other.opened = 1
    await other.start(plain=plain, parts=parts)
    assert await task.result(DEADLINE) == ([1, 2] if parts else [1, 'wait', 2])
    assert other.attempts == [1]
    worker.opened = 1


@KINDS
async def test_close_ends_a_generator_that_does_not(plain, worker):
    await worker.start(plain=plain, parts=True)
    assert await first(await worker.task(['endless'])) == 0
    await worker.q.close(timeout=0.1)
    await true(worker.closed.is_set)


@pytest.mark.parametrize('disorder', [0, 2, 5, 20, 100])
async def test_only_what_has_ended_is_acknowledged(disorder, worker, other):
    """Tasks end in any order, and one frame acknowledges several of them."""
    gates, running, chance = [asyncio.Event() for _ in range(40)], set(), random.Random(disorder)

    async def handler(number):
        running.add(number)
        await gates[number].wait()
        running.remove(number)

    await worker.start(handler, prefetch_count=40)
    for number in range(40):
        await worker.task(number, no_response=True)
    await true(lambda: len(running) == 40)
    ending = [*range(8), *chance.sample(range(8, 40), 17)]
    ending.sort(key=lambda number: number + chance.uniform(0, disorder))
    left = {*range(40)} - {*ending}
    while ending:
        for number in [ending.pop(0) for _ in range(min(len(ending), chance.randint(1, 8)))]:
            gates[number].set()  # in one loop turn
        await true(lambda: running == left | {*ending})
    await worker.q.close(timeout=0)
    await other.start()
    await true(lambda: len(other.runs) == len(left))
    await other.q.close()
    assert {*other.data} == left


async def test_while_it_closes_tasks_go_elsewhere_at_once(worker, other):
    await worker.start(prefetch_count=2)
    begun = await worker.task('wait')
    await true(lambda: worker.runs)
    closing = asyncio.create_task(worker.q.close())
    await other.start()
    tasks = [await worker.task(number) for number in range(20)]
    assert [await task.result(DEADLINE) for task in tasks] == [*range(20)]
    assert not closing.done()
    worker.opened = 1
    assert await begun.result(DEADLINE) == 'wait'
    await closing


async def test_a_close_that_waits_spares_the_next_start(worker, monkeypatch):
    monkeypatch.setattr(aioqueue, 'CLOSE_DEADLINE', 0.3)
    began, leave, cancelled = asyncio.Event(), asyncio.Event(), 0

    async def stubborn(data):
        nonlocal cancelled
        began.set()
        while not leave.is_set():
            try:
                await leave.wait()
            except asyncio.CancelledError:
                cancelled += 1

    await worker.start(stubborn)
    await worker.task()
    await asyncio.wait_for(began.wait(), DEADLINE)
    closing = asyncio.gather(worker.q.close(), worker.q.close(timeout=0.1))
    await asyncio.sleep(0)
    await worker.q.close(timeout=0)
    await worker.q.start_async()
    await worker.task()
    leave.set()
    await asyncio.wait_for(closing, DEADLINE)
    assert (worker.q.connected, cancelled) == (True, 1)
    await worker.q.close()
    assert not worker.q.connected


@pytest.mark.parametrize('consuming', [False, True, None])
async def test_a_loss_while_it_closes_brings_no_new_tasks(consuming, name, queues, caller, broker):
    """Also when the next connection begins to consume; or has, and what it brought waits."""
    async with Forwarder() as forwarder:
        worker = Worker(queues, name, forwarder.port)
        await worker.start(prefetch_count=1)
        task = await caller.task(name, 'wait')
        await true(lambda: worker.runs)
        if consuming is not False:
            forwarder.freeze_at = consuming and b'\x00\x3c\x00\x15'  # Basic.ConsumeOk
            forwarder.cut()
            await true(lambda: worker.q._session.waiting[name] or not forwarder.flowing.is_set())
        closing = asyncio.create_task(worker.q.close())
        await asyncio.sleep(0)  # now it closes
        forwarder.flowing.set()
        if consuming is False:
            forwarder.cut()
        # It has another connection when this returns.
        await asyncio.wait_for(worker.q.task(name, 'next', no_response=True), DEADLINE)
        await broker.until(name, consumers=0, messages=1 + (consuming is False))
        worker.opened = 1
        assert await task.result(DEADLINE) == 'wait'
        await closing
        assert worker.data == ['wait']


async def test_close_ends_what_is_awaited(worker):
    await worker.start(parts=True)
    task, other = await worker.task([1, 'wait']), await worker.task([1, 'wait'])
    waiting = [asyncio.create_task(each) for each in (task.result(), task.result())]
    waiting.append(asyncio.create_task(parts_of(other)))
    assert await first(task) == 1
    await worker.caller.close()
    for each in waiting[:2]:
        with pytest.raises(ConnectionError, match='closed'):
            await asyncio.wait_for(each, DEADLINE)
    assert list(map(str, await waiting[2])) == ['1', str(waiting[0].exception())]
    with pytest.raises(ConnectionError, match='closed'):
        await task.result()


@pytest.mark.parametrize('ever', [True, False])
async def test_close_ends_what_waits_for_a_broker(ever, name, queues, caplog):
    async with Forwarder() as forwarder:
        q = queues(forwarder.port)
        task = await q.task(name) if ever else None
        forwarder.cut(down=True)
        await true(lambda: not ever or 'lost the connection' in caplog.text)
        waiting = [q.task(name, 2), q.task(name, 3, delay=5), q.connect()]
        waiting += [task.result(), task.retry()] if ever else []
        waiting = [asyncio.create_task(each) for each in waiting]
        done, _ = await asyncio.wait(waiting, timeout=0.2)
        assert not done
        waiting.pop().cancel()  # the others wait on
        await asyncio.wait_for(q.close(), 3)
        for each in waiting:
            with pytest.raises(ConnectionError, match='closed'):
                await asyncio.wait_for(each, DEADLINE)


async def test_close_is_polite_to_the_broker(name, node, queues):
    log = next((HERE / '.rabbit' / node.name / 'log').glob(f'{node.name}@*t.log'))
    started = len(log.read_text())
    for _ in range(10):
        async with queues(node.port) as q:
            await q.task(name)
    await true(lambda: len(re.findall('closing.* - aioqueue', log.read_text()[started:])) >= 20)
    assert not re.search('closing.* - aioqueue.*:\n.*unexpectedly', log.read_text()[started:])


async def test_close_of_a_queue_whose_peer_is_silent_is_bounded(name, queues, monkeypatch):
    monkeypatch.setattr(aioqueue, 'CLOSE_DEADLINE', 0.3)
    async with Forwarder() as forwarder:
        q = queues(forwarder.port)
        await q.task(name, no_response=True)
        forwarder.flowing.clear()
        sending = asyncio.create_task(q.task(name, b'x' * 15_000_000, no_response=True))
        await asyncio.wait([sending], timeout=0.1)
        await asyncio.wait_for(q.close(timeout=0.1), 3)
        with pytest.raises(ConnectionError, match='closed'):
            await sending


# Faults.


@pytest.mark.parametrize('fault', ['workers', 'connections', 'all'])
async def test_faults_under_load_lose_no_task(fault, name, node, queues, spawn):
    done, count, slots = [], 3000, asyncio.Semaphore(50)

    async def double(number):
        async with slots:
            assert await call(q, name, number) == number * 2
            done.append(number)

    async with Forwarder(node.port) as here, Forwarder(node.port) as there:
        q = queues(here.port)
        processes = [await spawn(name, there.port) for _ in range(3)]
        assert await call(q, name, 1) == 2
        delayed = await q.task(name, 'late', delay=5 if fault == 'all' else 0.5)
        await node.sync()
        loading = asyncio.gather(*(double(number) for number in range(count)))
        for number in range(8):
            await true(lambda: len(done) >= (number + 1) * count // 10 or loading.done())
            assert not loading.done()
            if fault != 'connections':
                processes.pop(0).kill()
                processes.append(await spawn(name, there.port))
            if fault != 'workers':
                here.cut()
                there.cut()
            if fault == 'all' and number == 4:
                node.kill()
                await asyncio.to_thread(node.start)
        await asyncio.wait_for(loading, DEADLINE)
        assert sorted(done) == [*range(count)]
        assert await delayed.result(DEADLINE) == 'latelate'
        assert {process.returncode for process in processes} == {None}


async def test_in_a_memory_alarm_senders_wait_and_workers_drain(name, node, node_worker, caplog):
    await node_worker.start(prefetch_count=50)
    # The worker publishes, too: by its acks alone it isn't known.
    both = node_worker.q, node_worker.caller
    result = await node_worker.task('wait')
    await asyncio.gather(*(q.task(name, 'wait', no_response=True) for q in both * 1000))
    await node.ctl('set_vm_memory_high_watermark absolute 1')
    sending = [asyncio.create_task(node_worker.task(number, no_response=True))
               for number in range(50)]
    node_worker.opened = 1
    await true(lambda: len(node_worker.runs) >= 2001)
    async with Broker.connected(node.port) as broker:
        await broker.until(name, messages=0)
    # The broker notes the alarm at the first message that comes: that one it takes.
    assert sum(each.done() for each in sending) <= 5
    await true(lambda: 'low on memory' in caplog.text)
    given_up = [node_worker.task(bytes(20_000), no_response=True) for _ in range(1000)]
    await asyncio.gather(*(asyncio.wait_for(each, 0.5) for each in given_up), return_exceptions=True)
    warnings = len(caplog.records)
    await node.ctl('set_vm_memory_high_watermark 0.4')
    await asyncio.wait_for(asyncio.gather(*sending, result.result()), DEADLINE)
    assert await node_worker.call('last') == 'last' and len(caplog.records) > warnings
    assert 2051 < len(node_worker.runs) < 2551  # most of what was given up was not sent


async def test_a_deleted_queue_loses_no_task_and_is_consumed_again(name, worker, broker):
    await worker.task(no_response=True)
    await broker.delete(name)
    await worker.task('delayed', no_response=True, delay=0.05)
    await broker.until(name, messages=1)
    await worker.start()
    for _ in range(3):
        results = await asyncio.gather(*(worker.call(number) for number in range(100)))
        assert results == [*range(100)]
        await broker.delete(name)
        await broker.until(name, consumers=1)  # again
    assert await worker.call('again') == 'again'


@pytest.mark.parametrize('lost', [False, True])
async def test_in_another_loop_whatever_waits_is_an_error_at_once(lost, name, worker, queues):
    await worker.start(parts=True)
    async with Forwarder() as forwarder:
        q = queues(forwarder.port)
        task = await q.task(name, ['wait', 1, 2])
        if lost:
            forwarder.cut(down=True)
            await true(lambda: not q.connected)

        def elsewhere(coroutine):
            with pytest.raises(RuntimeError, match=r'run\(\)'):
                asyncio.run(asyncio.wait_for(coroutine, 5))

        for attempt in (q.connect, q.start_async, q.close, lambda: q.task(name), task.retry,
                        task.result, lambda: anext(aiter(task)), q.__aenter__):
            await asyncio.to_thread(elsewhere, attempt())
        forwarder.down, worker.opened = False, 1
        assert await task.result(DEADLINE) == [1, 2]


async def test_a_late_ack_does_not_hit_the_next_queue_of_that_name(name, queues, caller, broker):
    async with Forwarder() as forwarder:
        worker = Worker(queues, name, forwarder.port)
        await worker.start()
        task = await caller.task(name, 'wait')
        await true(lambda: worker.runs)
        await broker.delete(name)
        await broker.until(name, consumers=1)
        await caller.task(name, 'wait wait', no_response=True)
        await true(lambda: len(worker.runs) == 2)
        worker.opened = 1
        assert await task.result(DEADLINE) == 'wait'
        assert await call(caller, name, 1) == 1
        forwarder.cut(down=True)
        assert msgpack.unpackb((await broker.get(name))[0]) == 'wait wait'
        worker.opened = 2


async def test_a_reply_queue_deleted_meanwhile_comes_back(name, caller, broker):
    await caller.task(name)
    reply_to = (await broker.get(name))[1].reply_to
    await broker.delete(reply_to)
    await broker.until(reply_to, consumers=1)
    task = await caller.task(name)
    assert (await broker.get(name))[1].reply_to == reply_to
    await broker.put(reply_to, msgpack.packb([None, 7]), correlation_id=task.id)
    assert await task.result(DEADLINE) == 7


@QUEUES
async def test_a_handler_that_exceeds_consumer_timeout(quorum, name, node, queues, caplog):
    """The broker closes its channel: it runs again, and the log says why.

    Since 4.3 this limit is one of quorum queues only, and a worker asks for a longer one.
    """
    async with Broker.connected(node.port) as broker:
        limited = broker.version < (4, 3)
    worker = Worker(queues, name, node.port, quorum=quorum)
    setting = ('application:set_env(rabbit, consumer_timeout, {}), '
               'application:set_env(rabbit, channel_tick_interval, {}).')
    await node.eval(setting.format(700, 200))
    try:
        await worker.start()
        task, since = await worker.task('wait'), time.monotonic()
        await true(lambda: len(worker.runs) == 2 or time.monotonic() - since > 3)
        worker.opened = 1
    finally:
        await node.eval(setting.format(1_800_000, 60_000))
    assert await task.result(DEADLINE) == 'wait'
    assert len(worker.runs) == 1 + limited
    assert limited == ('timed out' in caplog.text) == ('lost the connection' in caplog.text)


@pytest.mark.parametrize(('size', 'only'), [  # 10 MB fill the buffer for writes
    (1, None), (10_000_000, None), (10_000_000, 0)], ids=['idle', 'sending', 'one of two'])
async def test_a_silent_peer_is_given_up_after_two_heartbeats(size, only, name, queues, caplog):
    async with Forwarder() as forwarder:
        worker = Worker(queues, name, forwarder.port, heartbeat=1)
        await worker.caller.connect()
        await worker.start()
        assert await worker.call(b'x') == b'x'
        forwarder.freezing = only
        forwarder.flowing.clear()
        since = time.monotonic()
        task = asyncio.create_task(worker.call(b'x' * size))
        await true(lambda: 'lost the connection' in caplog.text)
        assert time.monotonic() - since < 3
        assert not task.done()
        forwarder.flowing.set()
        assert len(await task) == size


# What the broker refuses.

TOO_LARGE = 'larger than configured max size'


async def test_a_message_that_was_refused_is_not_kept(node_worker):
    data = array.array('B', bytes(1_500_000))
    gone = weakref.ref(data)
    with contextlib.suppress(Refused):
        await node_worker.task(data, raw=True)
    del data
    await true(lambda: gc.collect() is not None and gone() is None)


async def test_a_message_too_large_hinders_none_of_those_in_flight(node, node_worker, caplog):
    async def send_too_much():
        for _ in range(3):
            with pytest.raises(Refused, match=TOO_LARGE) as raised:
                await node_worker.task(b'x' * 1_500_000)
            assert raised.value.code == 406

    await node_worker.start()
    calls, too_much = [], asyncio.create_task(send_too_much())
    while not too_much.done() and len(calls) < 3000:  # one in each turn of the loop
        calls.append(asyncio.create_task(node_worker.call(len(calls))))
        await asyncio.sleep(0)
    await too_much
    assert await asyncio.gather(*calls) == [*range(len(calls))]
    assert 'connection to' not in caplog.text


async def test_who_comes_later_does_not_wait_for_those_in_flight(node, node_worker):
    await node_worker.task('first', no_response=True)  # it connects, and declares the queue
    sending = [asyncio.create_task(node_worker.task(data, no_response=True))
               for data in (b'x' * 1_500_000, *range(2000))]
    with pytest.raises(Refused, match=TOO_LARGE):
        await sending[0]
    await node_worker.task('later', no_response=True)
    assert not all(each.done() for each in sending)
    await asyncio.gather(*sending[1:])


async def test_a_culprit_that_takes_long_takes_nobody_along(node, node_worker, monkeypatch):
    monkeypatch.setattr(aioqueue, 'SUSPECT_DEADLINE', 0)
    await node_worker.start()
    for _ in range(10):
        sending = [node_worker.task(b'x' * size) for size in (1_500_000, *[1] * 20)]
        outcomes = await asyncio.gather(*sending, return_exceptions=True)
        assert [type(each) is Refused for each in outcomes] == [True, *[False] * 20]


async def test_a_cut_while_refusals_are_sorted_out_hangs_nobody(name, node, queues):
    async with Forwarder(node.port) as forwarder:
        q = queues(forwarder.port)
        await q.task(name, no_response=True)
        sizes = [*[1] * 300, 1_500_000, *[1] * 300]
        sending = [asyncio.create_task(q.task(name, b'x' * size, no_response=True))
                   for size in sizes]
        await true(lambda: sum(each.done() for each in sending) > 20)
        forwarder.cut()
        outcomes = await asyncio.wait_for(
            asyncio.gather(*sending, return_exceptions=True), DEADLINE)
    assert [type(each) for each in outcomes].count(Refused) == 1


@pytest.mark.parametrize('denied', [{'configure': '^none'}, {'read': '^test'}], ids=str)
async def test_a_worker_may_do_without_a_reply_queue(denied, name, node, queues):
    async with Broker.connected(node.port) as broker:
        await broker.declare(name)  # an operator has made it
    worker = Worker(queues, name, node.port, **await limited(node, **denied))
    await worker.start(parts=True)
    await node.ctl('close_all_connections again')
    for _ in range(2):
        with pytest.raises(Refused, match='aioqueue.reply'):
            await worker.q.task(name, 'no')
        task = await queues(node.port).task(name, [0, 'wait', 1])  # a stream, too
        assert await first(task) == 0
        task.cancel()  # of which the worker can't hear
        worker.opened = 1
        assert await task.result(DEADLINE) == [1]
    with contextlib.suppress(Refused):  # one may not declare it
        await worker.caller.task(f'{name}.x', no_response=True)
    await worker.caller.task(name, 'fine', no_response=True)
    await true(lambda: worker.data[2:] == ['fine'])


async def test_who_may_have_a_reply_queue_later_can_call_then(name, node, node_worker, queues):
    await node_worker.start()
    user = await limited(node, configure=f'{name}.*')
    q = queues(node.port, **user)
    with pytest.raises(Refused, match='aioqueue.reply'):
        await q.task(name)
    await node.ctl(f"set_permissions {user['login']} '.*' '.*' '.*'")
    assert await call(q, name, 1) == 1


async def test_a_result_too_large_is_a_failure(node, node_worker):
    await node_worker.start(lambda size: b'x' * size)
    tasks = [await node_worker.task(size) for size in (1, 1_500_000, 2)]
    assert await tasks[0].result(DEADLINE) == b'x'
    assert TOO_LARGE in str(await failure(tasks[1].result(DEADLINE)))
    assert await tasks[2].result(DEADLINE) == b'xx'


async def test_a_full_queue_refuses_and_others_go_on(name, caller, broker):
    await broker.declare(name, **FULL)
    sent = [caller.task(queue, no_response=True) for queue in (name, f'{name}.x') * 10]
    outcomes = await asyncio.gather(*sent, return_exceptions=True)
    refused = [each for each in outcomes if isinstance(each, Refused)]
    assert [each.code for each in refused] == [0] * 9
    assert [(await broker.look(each))['messages'] for each in (name, f'{name}.x')] == [1, 10]
    await broker.get(name)
    await caller.task(name, no_response=True)


# A few hundred cases that nobody thought of.

HUNDRED = settings(max_examples=100, deadline=None, derandomize=True, database=None,
                   suppress_health_check=list(HealthCheck))
SHORT = st.text(max_size=20)
DATES = st.datetimes(datetime.datetime(1970, 1, 2), datetime.datetime(2100, 1, 1))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | SHORT
    # No inf, no nan: RabbitMQ closes the connection over them.
    | st.floats(width=32, allow_nan=False, allow_infinity=False)
    | st.binary(max_size=20).map(bytearray) | st.decimals(-1000, 1000, places=2)
    | DATES.map(lambda date: date.replace(tzinfo=datetime.UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SHORT, inner, max_size=3),
    max_leaves=5,
)
OURS = st.sampled_from(['x-attempt', 'x-delivery-count', 'x-death', 'part', 'parts', 'type',
                        'traceback', 'error', 'attempts'])
PROPERTIES = st.fixed_dictionaries({}, optional={
    'headers': st.dictionaries(OURS | SHORT, VALUES, max_size=4), 'content_type': SHORT,
    'correlation_id': SHORT, 'reply_to': SHORT, 'message_type': SHORT | st.just('part'),
    'priority': st.integers(0, 255), 'delivery_mode': st.integers(1, 2), 'timestamp': DATES,
})
BODIES = st.binary(max_size=30) | VALUES.map(
    lambda value: msgpack.packb(value, default=str, datetime=True))


def try_to_write(broker, name, body, properties):
    try:
        broker.write(name, body, **properties)
    except (TypeError, ValueError, struct.error):  # pamqp can't encode it
        assume(False)


@pytest.fixture
async def echo(worker):
    """A worker that returns what it gets."""
    await worker.start()
    await worker.caller.connect()
    return worker


@HUNDRED
@given(body=BODIES, properties=PROPERTIES, ours=st.booleans())
@example(body=b'', properties={'headers': {'type': 'x'}}, ours=False)
@example(body=b'', properties={'headers': {'when': 'DATE'}}, ours=False)  # can't be decoded
async def test_no_reply_stops_a_caller(echo, broker, caplog, body, properties, ours):
    task = await echo.caller.task(f'{echo.name}.x')  # it has no worker
    _, sent = await broker.get(f'{echo.name}.x')
    properties |= {'correlation_id': task.id} if ours else {}
    try_to_write(broker, sent.reply_to, body, properties)
    is_part = properties.get('message_type') == 'part' or 'part' in properties.get('headers', ())
    if ours and not is_part:
        with contextlib.suppress(RemoteException, TypeError, ValueError):
            await task.result(DEADLINE)
    assert (await echo.call('fine'), 'connection to' in caplog.text) == ('fine', False)


# Nothing leaks.


def alive(kind):
    gc.collect()
    return sum(issubclass(type(each), kind) for each in gc.get_objects())


async def test_cancelled_sends_and_results_leave_nothing_behind(echo):
    assert await echo.call(0) == 0
    kinds, before = (aioqueue.Task, asyncio.Task, asyncio.Future), asyncio.all_tasks()
    counts = [alive(kind) for kind in kinds]
    for moment in range(300):
        calling = asyncio.create_task(echo.call(moment))
        await asyncio.wait([calling], timeout=moment * 20e-6)
        calling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            assert await calling == moment
    del calling
    assert await echo.call('fine') == 'fine'
    await true(lambda: not asyncio.all_tasks() - before, 5)
    assert all(alive(kind) <= count + 9 for kind, count in zip(kinds, counts, strict=True))


async def test_tasks_that_nobody_awaits_cost_no_memory_and_no_channels(node, node_worker):
    """Neither the caller nor the worker, while a task runs for long."""
    gate = asyncio.Event()

    async def handler(data):
        if data == 'long':
            await gate.wait()
        return data

    async def send(count):
        for _ in range(count // 500):
            await asyncio.gather(*(node_worker.task(number) for number in range(500)))
        assert await node_worker.call('last') == 'last'
        gc.collect()
        return (await node.ctl('list_channels pid')).count('<')

    await node_worker.start(handler, prefetch_count=50)
    task = await node_worker.task('long')
    channels = await send(2_000)
    tracemalloc.start()
    assert await send(10_000) == channels > 0
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 200_000
    gate.set()
    assert await task.result(DEADLINE) == 'long'


# Random lives: what a caller and two workers may do, and what may befall them.


class Lives(RuleBasedStateMachine):
    """What a caller and two workers may do, and what may befall them, in any order."""
    name, errors, numbers = new_name(), [], itertools.count()

    def __init__(self):
        super().__init__()
        self.confirmed, self.ran, self.calls = set(), set(), []
        self.closes, self.open = 0, True  # of the caller: how often, and whether for sure
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self.forwarder = self.loop.run_until_complete(Forwarder().__aenter__())
        self.caller, *self.workers = self.all = [
            Queue('127.0.0.1', self.forwarder.port, retry=0.01) for _ in range(3)]
        for q in self.workers:
            q.on(self.name, prefetch_count=2, retries=1, retry_delay=0.003)(self.handle)
        self.moves = [self.loop.create_task(self.enter(q, 0)) for q in self.all]

    async def handle(self, number):
        await asyncio.sleep((1 + number % 3) / 80)
        if number % 4 == 0 and aioqueue.current.get().attempt == 1:
            raise ValueError('as asked')
        self.ran.add(number)
        return number

    async def call(self, number, closes, was_open):
        try:
            task = await self.caller.task(self.name, number, delay=number % 5 / 1000)
            self.confirmed.add(number)
            assert await task.result() == number
        except ConnectionError:
            assert closes != self.closes or not was_open

    async def enter(self, q, closes):
        with contextlib.suppress(ConnectionError):  # if it was closed meanwhile
            await (q.connect if q is self.caller else q.start_async)()
            self.open = self.open or (q is self.caller and closes == self.closes)

    @rule(move=st.sampled_from(3 * ['send'] + 2 * ['cut', 'start', 'stop', 'connect'] + ['close']),
          worker=st.integers(0, 1), seconds=st.sampled_from([0, 0.002, 0.008]))
    def move(self, move, worker, seconds):
        create_task = self.loop.create_task
        if move == 'send':
            self.calls += [create_task(self.call(next(self.numbers), self.closes, self.open))
                           for _ in range(3)]
        elif move in ('start', 'connect'):
            q = self.workers[worker] if move == 'start' else self.caller
            self.moves.append(create_task(self.enter(q, self.closes)))
        elif move == 'stop':
            self.moves.append(create_task(self.workers[worker].close(0)))
        elif move == 'close':
            self.closes, self.open = self.closes + 1, False
            self.moves.append(create_task(self.caller.close()))
        else:
            self.forwarder.cut()
        self.loop.run_until_complete(asyncio.sleep(seconds))

    async def end(self):
        async with asyncio.timeout(10):
            await asyncio.gather(*self.moves)
            await asyncio.gather(*(q.start_async() for q in self.workers))
            await asyncio.gather(*self.calls)
            await true(lambda: self.confirmed <= self.ran)
            await asyncio.gather(*(q.close() for q in self.all))
            await self.forwarder.__aexit__()
            await true(lambda: len(asyncio.all_tasks()) == 1)

    def teardown(self):
        for move in ('connect', 'start', 'send', 'stop', 'start', 'send', 'cut'):
            self.move(move, 0, 0.01)  # in the middle of it
        self.loop.run_until_complete(self.end())
        self.loop.close()


def test_random_lives_lose_nothing_and_leave_nothing_behind():
    run_state_machine_as_test(Lives, settings=settings(
        HUNDRED, max_examples=25, stateful_step_count=12, phases=[Phase.generate]))
    gc.collect()
    assert Lives.errors == []
    asyncio.run(forget(Lives.name))


# Nothing that comes in stops it.


async def test_a_reply_to_that_crashes_the_broker_is_found_alone(name, worker, broker, caplog):
    """RabbitMQ 3.10.8 closes the connection over it (541); ten at once, beside others."""
    async def send():
        while True:
            await worker.q.task(f'{name}.x', no_response=True)

    await worker.start()
    sending = [asyncio.create_task(send()) for _ in range(5)]
    dead, lost = set(), 0
    for number in [*range(10), 11]:
        broker.write(name, msgpack.packb(f'{number} fail'), correlation_id=f'{number}',
                     reply_to=f'amq.rabbitmq.reply-to.x.y{number % 2}')
        if number >= 9:
            assert await asyncio.wait_for(worker.call('fine'), DEADLINE / 2) == 'fine'
            while len(dead) <= number - number // 11:  # some run again when a link is lost
                dead.add((await broker.get(f'{name}.dead'))[0])
            lost = lost or caplog.text.count('lost the connection')
    assert caplog.text.count('lost the connection') == lost <= 4  # it isn't asked again
    assert all(each.cancel() for each in sending)  # none of them has raised


async def test_links_lost_again_and_again_leave_nothing_behind(name, queues, broker, caplog):
    caplog.set_level(logging.CRITICAL, 'aioqueue')  # records hold exceptions, these frames
    tasks, kinds = asyncio.all_tasks(), (aioqueue.Delivery, AmqpProtocol)
    before = [alive(kind) for kind in kinds]
    async with Forwarder() as forwarder:
        worker = Worker(queues, name, forwarder.port)
        await worker.start(prefetch_count=5)
        for _ in range(20):
            await broker.put(name, msgpack.packb(['wait', b'x' * 1_000_000]))
        await true(lambda: len(worker.runs) == 5)
        for _ in range(10):
            forwarder.cut(down=True)  # or it may be back before we look
            await true(lambda: not worker.q.connected)
            forwarder.down = False
            await true(lambda: worker.q.connected)
            await broker.until(name, consumers=1, messages=15)  # five more wait here
            assert alive(aioqueue.Delivery) <= before[0] + 10
        worker.opened = 1
        await true(lambda: len(worker.runs) == 25)
        await worker.q.close()
    await broker.until(name, messages=0)
    assert len(worker.runs) == 25
    worker.runs.clear()
    await true(lambda: [alive(kind) for kind in kinds] == before, 5)
    await true(lambda: not asyncio.all_tasks() - tasks, 5)


async def test_a_reply_that_is_refused_is_a_dead_letter(name, worker, broker):
    await broker.declare(f'{name}.x', **FULL)
    await broker.put(f'{name}.x', b'full')
    await worker.start(prefetch_count=1, retries=1, retry_delay=0)
    for data in (5, '6 fail'):
        await broker.put(name, msgpack.packb(data), reply_to=f'{name}.x')
        assert msgpack.unpackb((await broker.get(f'{name}.dead'))[0]) == data
        assert await worker.call('fine') == 'fine'
    assert worker.data == [5, 'fine', '6 fail', '6 fail', 'fine']


LEFT_OUT = [{'headers': {'bad': 'DBLE'}}, {'headers': {'large': 'x' * 130_900}},
            {'headers': {}, 'app_id': 'a cluster_id'}]
if pamqp.__version__ > '3.1.0':  # which can't decode it, either
    LEFT_OUT.append({'headers': {'bad': 'NOT UTF-8'}})


async def test_what_cannot_be_sent_again_is_left_out_at_once(name, worker, broker):
    await worker.start(retries=1, retry_delay=0, prefetch_count=1)
    for properties in LEFT_OUT * 8:
        headers = {**properties['headers'], 'small': 'kept'}
        broker.write(name, msgpack.packb('fail'), **{**properties, 'headers': headers})
    assert await asyncio.wait_for(worker.call(1), aioqueue.REFUSED_PAUSE) == 1
    for _ in LEFT_OUT * 8:
        _, properties = await broker.get(f'{name}.dead')
        assert properties.headers.keys() == {'small', 'error', 'type', 'traceback', 'attempts'}
        assert properties.headers['attempts'] == 2


async def test_properties_that_cannot_be_decoded_are_a_failure(name, worker, broker):
    await worker.start(retries=1, retry_delay=0)
    odd = [{'headers': {'when': 'DATE'}}, {'content_type': 'FLAGS'}]
    for properties in odd[:1 if broker.version >= (4, 0) else 2]:  # 4.3 refuses these flags
        broker.write(name, msgpack.packb(0), **properties)
        body, properties = await broker.get(f'{name}.dead')
        assert (msgpack.unpackb(body), properties.headers['attempts']) == (0, 1)
        assert await worker.call(1) == 1
    assert {*worker.data} == {1}


BROKEN = [
    *(frame(kind, channel, b'\0\x0a\0\x28', end=b'\0') for kind in (1, 8) for channel in (0, 1)),
    *(frame(kind, channel, size=2**32 - 1) for kind in (1, 3) for channel in (0, 1, 9)),
    *(frame(kind, 1, b'x') for kind in (0, 1, 2, 3, 8)), frame(1, 1), frame(1, 9, b'\0\x14\0\x0b'),
    delivered('missing', 0), delivered('missing', 1) + frame(3, 1, b'too long'),
    marshal(Basic.Ack(7), 1), marshal(Basic.ConsumeOk('x'), 2),
    marshal(Basic.Ack(7, True), 1)[:-1] + b'\0', delivered('x', 0)[:-22] + marshal(Basic.Ack(2**60), 1),
    *(random.Random(seed).randbytes(1024) for seed in range(3))]


async def test_a_broken_frame_costs_a_link_that_is_back_within_seconds(name, queues, caplog):
    async with Forwarder() as forwarder:
        worker = Worker(queues, name, forwarder.port)
        await worker.start()
        for number, data in enumerate(BROKEN, 1):
            assert await worker.call(number) == number
            await forwarder.inject(data)  # of both, worker and caller
            await true(lambda: caplog.text.count('lost the connection') >= 2 * number, 5)
        assert await worker.call('back') == 'back'
        for kind in (1, 2, 3):  # which mean nothing there
            await forwarder.inject(frame(kind, 0, b'\0\x3c\0\x50' + bytes(20)))
        await forwarder.inject(marshal(Connection.OpenOk(), 0))  # again
        assert [await worker.call(number) for number in range(9)] == [*range(9)]
        assert caplog.text.count('lost the connection') == 2 * len(BROKEN)
        await forwarder.inject(marshal(Connection.Blocked('x\nforged'), 0))
        await true(lambda: 'forged' in caplog.text)
        forwarder.spoil_at = b'\x00\x3c\x00\x15'  # Basic.ConsumeOk: it is up, and broken
        forwarder.cut()
        assert (await worker.call('on'), forwarder.spoil_at) == ('on', None)
        assert not re.search("\nforged|: b'", caplog.text)


@pytest.mark.parametrize('heartbeats', [True, False], ids=['heartbeats', 'silence'])
async def test_a_peer_that_opens_and_says_no_more_is_left(heartbeats, name, queues, monkeypatch):
    monkeypatch.setattr(aioqueue, 'CONNECT_DEADLINE', 0.5)
    opened = (Connection.Start(server_properties={}), Connection.Tune(0, 131_072, 60),
              Connection.OpenOk())
    async with Forwarder() as forwarder, peer(
            b''.join(marshal(each, 0) for each in opened), beat=frame(8, 0)) as port:
        forwarder.freeze_at = b'\x00\x32\x00\x0b'  # Queue.DeclareOk: it opens its channels
        port = port if heartbeats else forwarder.port
        worker = Worker(queues, name, None, [f'127.0.0.1:{port}', f'127.0.0.1:{PORT}'])
        await asyncio.wait_for(worker.start(), DEADLINE / 3)


async def test_what_rabbitmq_makes_something_of_is_not_passed_on(name, worker, broker):
    """It routes by CC and BCC; by x-death it drops a message, or its queue falls over it."""
    await broker.declare(f'{name}.x')
    await worker.start(retries=1, retry_delay=0.5)
    death = {'queue': name, 'reason': 'expired', 'count': 1, 'exchange': ''}
    cycle = {'x-death': [death, death | {'queue': f'{name}.delay.500'}],
             'x-first-death-queue': name, 'x-last-death-reason': 'expired'}
    for headers in ({'CC': [f'{name}.x']}, {'BCC': [f'{name}.x']}, {'x-death': 'x'},
                    {'x-death': [1, {'count': 'x', 'queue': 7}]}, cycle):
        broker.write(name, msgpack.packb('fail'), headers=headers)
    assert await worker.call('beside the retries', delay=0.5) == 'beside the retries'
    for _ in range(5):
        _, properties = await broker.get(f'{name}.dead')
        assert properties.headers.keys() == {'error', 'type', 'traceback', 'attempts'}
    assert len(worker.runs) == 11
    await broker.until(f'{name}.x', messages=2)


@pytest.mark.parametrize('body', [json.dumps({'secret': 'x' * 10**6}).encode(), b'secret' * 10**5,
                                  b'\xa9secret\xff\xff\xff', b'\xd9\xffsecret'])
async def test_no_contents_and_no_forged_lines_are_told(body, name, worker, broker, caplog):
    await broker.declare(f'{name}.x')
    await worker.start()
    await broker.put(name, body, correlation_id='x\nforged \x1b[2J', reply_to=f'{name}.x')
    reply, properties = await broker.get(f'{name}.x')
    await true(lambda: 'failed, ' in caplog.text)
    told = f'{reply}{properties.headers}{caplog.text}'
    assert len(told) < 20_000
    assert not re.search('secret|\x1b|\nforged', told)


@pytest.mark.parametrize('password', ['p?1', '2?1', 'p#1', '2#1', 'p/1', '2/1', '/1', '[1'])
@pytest.mark.parametrize('end', ['host', 'host/', 'host:5672/vhost', 'a@host'])
def test_a_password_that_is_not_encoded_is_not_shown(password, end):
    with pytest.raises(ValueError, match='^[^0-9]*percent-encoded[^0-9]*$') as raised:
        Queue(f'amqp://user:{password}@{end}')
    assert raised.value.__suppress_context__


HOSTILE = st.sampled_from([*LEFT_OUT, *({'headers': each} for each in ODD_HEADERS)])


@settings(HUNDRED, max_examples=10)
@given(messages=st.lists(st.tuples(BODIES, PROPERTIES | HOSTILE), min_size=5, max_size=15))
async def test_each_message_is_answered_or_a_dead_letter(messages, queues, broker):
    """Some 600, to handlers of all kinds: deliveries = outcomes = acknowledgements."""
    worker, sent, ends = Worker(queues, new_name()), 0, set()
    replies, names = f'{worker.name}.replies', [f'{worker.name}.{n}' for n in range(6)]

    async def note(body):
        if (job := aioqueue.current.get()).name != replies or 'part' not in job.headers:
            ends.add(job.id)

    for n, handler in enumerate([worker.function, worker.plain, worker.generator, len,
                                 worker.plain_generator, lambda data: 1 / 0]):
        worker.q.on(names[n], raw=n == 3, retries=n, retry_delay=0)(handler)
    for name in (replies, *(dead := [f'{name}.dead' for name in names])):
        worker.q.on(name, raw=True)(note)
    await worker.q.start_async()
    for (body, properties), name in itertools.product(messages, names):
        with contextlib.suppress(TypeError, ValueError, struct.error):  # pamqp can't encode it
            properties |= {'reply_to': replies, 'correlation_id': uuid.uuid4().hex}
            broker.write(name, body, **properties)
            sent += 1
    await true(lambda: len(ends) >= sent)
    await worker.q.close()  # what isn't acknowledged is in its queue now
    assert (len(ends), sum([(await broker.look(each))['messages'] for each in names])) == (sent, 0)
    await broker.delete(replies, *names, *dead)


# Results while they grow: handlers that yield.


@KINDS
async def test_parts_arrive_in_order_while_the_handler_runs(plain, worker):
    await worker.start(plain=plain, parts=True)
    task, got = await worker.task([1, 'wait', 2, 'wait', 3]), []
    async with asyncio.timeout(DEADLINE):
        async for part in task:
            got.append(part)
            worker.opened = len(got)
    assert (got, await task.result(DEADLINE)) == ([1, 2, 3], [])


@KINDS
async def test_a_part_is_taken_once_and_the_result_is_what_was_not(plain, worker):
    await worker.start(plain=plain, parts=True)
    parts = [None, 0, '', [], {'done': 1}, b'x', None]
    task, empty = await worker.task(parts), await worker.task([])
    assert await first(task) is None  # an iteration may be left
    assert await task.result(DEADLINE) == await task.result() == parts[1:]
    assert await parts_of(task) == parts[1:]
    assert await parts_of(task) == await task.result() == []
    assert await empty.result(DEADLINE) == await parts_of(empty) == []


async def test_what_is_returned_is_no_part_unless_it_is_a_generator(worker):
    await worker.start(lambda data: range(3)[data] if data < 3 else (each for each in range(data)))
    task = await worker.task(2)
    assert (await parts_of(task), await task.result()) == ([], 2)
    assert await parts_of(await worker.task(3)) == [0, 1, 2]


@KINDS
@pytest.mark.parametrize(('end', 'type'), [('fail', 'ValueError'), ('odd', 'TypeError')])
async def test_what_came_before_a_failure_is_given_then_it_raises(plain, end, type, worker):
    await worker.start(plain=plain, parts=True)
    task = await worker.task([1, 2, end, 'never'])
    *parts, error = await parts_of(task)
    assert (parts, error.type) == ([1, 2], type)
    assert (await failure(task.result(DEADLINE))).type == type
    assert worker.closed.is_set()


@KINDS
async def test_retries_repeat_no_part(plain, worker):
    await worker.start(plain=plain, parts=True, retries=2, retry_delay=0.05)
    task = await worker.task([1, 2, 'flaky', 3])
    assert await parts_of(task) == [1, 2, 3]
    assert worker.attempts == [1, 2, 3]


async def test_a_worker_killed_between_two_parts_is_not_noticed(name, queues, spawn):
    process, worker = await spawn(name), Worker(queues, f'{name}.parts')
    task = await worker.task([1, 2, 'hang', 3])
    parts = aiter(task)
    assert [await anext(parts), await anext(parts)] == [1, 2]
    process.kill()
    await worker.start(parts=True)
    async with asyncio.timeout(DEADLINE):
        assert [part async for part in parts] == ['hang', 3]
    assert await task.result() == []


@KINDS
@pytest.mark.parametrize('whose', ['worker', 'caller', 'both'])
async def test_a_connection_cut_between_two_parts_is_not_noticed(whose, plain, name, queues):
    async with Forwarder() as forwarder:
        worker = Worker(queues, name, PORT if whose == 'caller' else forwarder.port)
        caller = queues(PORT if whose == 'worker' else forwarder.port)
        await worker.start(plain=plain, parts=True)
        task, got = await caller.task(name, [0, 1, 'wait', 2, 3, 'wait', 4, 5]), []
        async with asyncio.timeout(DEADLINE):
            async for part in task:
                got.append(part)
                if part in (1, 3):
                    forwarder.cut()
                    worker.opened += 1
        assert got == [*range(6)]


@KINDS
async def test_when_the_caller_is_gone_the_generator_is_closed(plain, name, worker, broker):
    await worker.start(plain=plain, parts=True)
    task = await worker.task(['first', 'wait', 'endless'])
    assert await first(task) == 'first'
    await worker.caller.close()
    worker.opened = 1
    await true(worker.closed.is_set)
    await worker.q.close()  # it is done: no failure, no second run
    assert await broker.look(name) == {'messages': 0, 'consumers': 0}
    assert (await broker.look(f'{name}.dead'))['messages'] is None


@pytest.mark.parametrize('again', [False, True])
async def test_handlers_that_block_the_event_loop_hold_up_no_start(
        again, name, worker, queues, monkeypatch):
    async def block(data):
        worker.runs.append(data)
        time.sleep(0.05)

    monkeypatch.setattr(aioqueue, 'CONNECT_DEADLINE', 0.3)
    async with Forwarder() as forwarder:
        q = queues(forwarder.port)
        for queue in name, f'{name}.x':
            q.on(queue)(block)
        if again:
            await q.start_async()
            forwarder.cut(down=True)
        for number in range(10):
            await worker.caller.task(name, number, no_response=True)
            await worker.caller.task(f'{name}.x', number, no_response=True)
        forwarder.down = False
        await q.start_async()
        await true(lambda: len(worker.runs) == 20)
        await q.close()
    assert sorted(worker.runs) == sorted([*range(10)] * 2)


async def test_a_log_that_raises_costs_no_task_and_no_link(name, queues, broker, monkeypatch):
    monkeypatch.setattr(logging.Logger, 'handle', lambda *_: 1 / 0)
    async with Forwarder() as forwarder:
        worker = Worker(queues, name, forwarder.port)
        await worker.start()
        for task in 'fail', 'next':
            await worker.task(task, no_response=True)
            forwarder.cut() if task == 'next' else await broker.get(f'{name}.dead')
        assert await worker.call('last') == 'last'
        assert worker.data[0] == 'fail' not in worker.data[1:]


@QUEUES
async def test_no_second_consumer_is_active_while_the_first_one_closes(quorum, worker, other):
    kind = {'x-queue-type': 'quorum'} if quorum else {}
    for each in worker, other:
        await each.start(prefetch_count=1, arguments={'x-single-active-consumer': True, **kind})
    tasks = [await worker.task(data) for data in ('wait', 'next')]
    await true(lambda: worker.runs)
    closing = asyncio.create_task(worker.q.close())
    with pytest.raises(TimeoutError):
        await true(lambda: other.runs, 0.3)
    worker.opened = 1
    assert [await task.result(DEADLINE) for task in tasks] == ['wait', 'next']
    assert (worker.data, other.data, await closing) == (['wait'], ['next'], None)


async def test_headers_that_outgrow_a_frame_on_their_way_arrive(worker):
    await worker.start()
    headers = {'long': 'x' * 130_800}  # RabbitMQ adds those of a dead letter
    assert await worker.call(1, headers=headers, delay=0.05) == 1
    assert worker.runs[0].job.headers == headers


async def test_who_is_cancelled_while_it_sends_leaves_no_generator(name, queues, worker):
    await worker.start(parts=True)
    async with Forwarder() as forwarder:
        q = queues(forwarder.port)
        await q.connect()
        forwarder.freezing, forwarder.freeze_at = 0, aioqueue.BASIC_ACK
        sending = asyncio.create_task(q.task(name, 'endless'))
        await true(lambda: worker.runs and not forwarder.freeze_at)
        sending.cancel()  # nobody gets the Task
        forwarder.flowing.set()
        await true(worker.closed.is_set)


@KINDS
async def test_a_clean_up_that_fails_is_a_failure(plain, name, worker, broker):
    worker.closed = None  # which it fails to set
    await worker.start(plain=plain, parts=True)
    await worker.task(['wait', 'endless'])
    await worker.caller.close()
    worker.opened = 1
    assert "'NoneType' object" in (await broker.get(f'{name}.dead'))[1].headers['error']


@KINDS
async def test_a_generator_that_is_forgotten_runs_to_its_end(plain, worker, caplog):
    await worker.start(plain=plain, parts=True)
    steps = [*range(100), 'wait', *range(100), 'fail']
    task = await worker.task(steps, no_response=True)
    assert await task.result() is None
    assert await parts_of(task) == []
    task.cancel()
    task = await worker.task(steps)
    assert await first(task) == 0
    del task
    gc.collect()
    worker.opened = 1
    await true(lambda: caplog.text.count('nobody awaits it') == caplog.text.count('.dead') == 1)


async def test_a_plain_generator_runs_in_one_thread(worker):
    """What belongs to a thread, a connection of sqlite3 for instance, works there."""
    def generate(data):
        local = threading.local()
        local.value = 0
        while local.value < 5:
            local.value += 1
            yield [local.value, threading.get_ident()]

    await worker.start(generate)
    parts = await worker.call()
    assert [value for value, _ in parts] == [1, 2, 3, 4, 5]
    assert {thread for _, thread in parts} & {threading.get_ident()} == set()


# At home wherever people put it.


@pytest.mark.parametrize('open_here', [True, False])
async def test_run_serves_eight_threads_at_once(open_here, name, worker, queues, recwarn):
    gc.collect()
    recwarn.clear()  # of what other tests have left
    await worker.start()
    q, barrier = queues(), threading.Barrier(8)

    def ask(number):
        barrier.wait(DEADLINE)
        return q.run(call(q, name, number), DEADLINE)

    if open_here:
        await q.connect()
        with pytest.raises(RuntimeError, match='await it'):
            q.run(call(q, name))
    asyncio.get_running_loop().set_default_executor(concurrent.futures.ThreadPoolExecutor(8))
    asking = [asyncio.to_thread(ask, number) for number in range(8)]
    assert await asyncio.gather(*asking) == [*range(8)]
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(q.run, asyncio.sleep(5), 0.1)
    await asyncio.to_thread(q.run, q.close())
    gc.collect()
    assert [str(each.message) for each in recwarn] == []  # of what was never awaited


async def test_a_program_that_used_run_ends_politely_and_so_does_its_fork(name, broker):
    program = f"""import aioqueue, os
q = aioqueue.Queue(port={PORT})
q.run(q.task('{name}'))
child = os.fork()
q.run(q.task('{name}'))
assert not child or os.wait()[1] == 0"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, '-W', 'ignore', '-c', program, cwd=HERE, stdout=-1, stderr=-2)
    assert await ended(process) == (0, '')
    reply_queues = {(await broker.get(name))[1].reply_to for _ in range(3)}
    assert len(reply_queues) == 2
    for each in reply_queues:
        await broker.until(each, messages=None)


async def test_an_exit_in_what_run_runs_is_that_of_the_program(name):
    program = f"""import aioqueue, sys
q = aioqueue.Queue(port={PORT})
async def main():
    await q.task('{name}', no_response=True)
    sys.exit('enough')
q.run(main())"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, '-c', program, cwd=HERE, stdout=-1, stderr=-2)
    assert await ended(process) == (1, 'enough\n')


def test_queues_that_run_in_the_background_share_a_thread(name):
    threads = []
    for _ in range(3):
        q = Queue(port=PORT)
        q.run(q.task(name, no_response=True))
        q.run(q.close())
        threads.append(threading.active_count())
    assert threads[0] == threads[2]


@pytest.mark.filterwarnings('ignore:coroutine .* was never awaited')
def test_an_event_loop_that_ends_keeps_nobody_in_run(monkeypatch):
    q, scheduled, told = Queue(port=PORT), threading.Event(), threading.Event()
    loop = asyncio.new_event_loop()
    schedule = loop.call_soon_threadsafe

    def ask():
        with pytest.raises(ConnectionError):
            q.run(asyncio.sleep(0))
        told.set()

    def end():  # before it begins what has just been scheduled
        thread.start()
        assert scheduled.wait(DEADLINE)
        loop.stop()

    thread = threading.Thread(target=ask, daemon=True)
    loop.run_until_complete(q.connect())
    monkeypatch.setattr(loop, 'call_soon_threadsafe',
                        lambda *args: (schedule(*args), scheduled.set()))
    loop.call_soon(end)
    loop.run_forever()
    loop.close()
    assert told.wait(DEADLINE)


async def test_a_thread_that_hangs_keeps_no_process_alive(name):
    program = f"""import aioqueue, asyncio, threading, time
q, began = aioqueue.Queue(port={PORT}), threading.Event()
q.on('{name}')(lambda data: began.set() or time.sleep(3600))
async def main():
    await q.start_async()
    await q.task('{name}', no_response=True)
    await asyncio.to_thread(began.wait)
    await q.close(timeout=0)
asyncio.run(main())"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, '-c', program, cwd=HERE, stdout=-1, stderr=-2)
    assert (await asyncio.wait_for(ended(process), 10))[0] == 0


async def test_a_plain_handler_may_fork_and_end_its_child(name, caller, spawn):
    process = await spawn(name, log='WARNING')
    ends = await parts_of(await caller.task(f'{name}.parts', ['fork', 'fork']))
    assert set(ends) <= {-signal.SIGTERM, 128 + signal.SIGTERM}
    process.terminate()
    assert await asyncio.wait_for(ended(process), 5) == (0, 'returned with 1 handlers of the log\n')


async def test_a_silent_address_of_a_name_does_not_hold_up_the_others(queues, monkeypatch):
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(('127.0.0.1', 0), backlog=0))
        for _ in range(3):  # until its queue is full
            stack.enter_context(waiting := socket.socket()).setblocking(False)
            waiting.connect_ex(silent.getsockname())
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, '', address)
                 for address in (silent.getsockname(), ('127.0.0.1', PORT))]
        monkeypatch.setattr(socket, 'getaddrinfo', lambda *_, **options: found)
        await asyncio.wait_for(queues(host='name').connect(), 3)


OPTIONS = {
    'heartbeat': [0, 30.0, 70_000], 'frame_max': [8191, 10_000.0, 2**40],
    'channel_max': [1, 2.0, 70_000], 'port': [0, '5672', 5672.0], 'ssl': [1, 'yes'],
    'retry': [-1, 0, 'x', float('nan'), 1e300], 'vhost': ['/'], 'virtualhost': [7, 'x' * 300],
    'login': [5, 'x' * 300, 'secret\udcff'], 'password': [5, 'secret\udcff'],
    'client_properties': [5, {'x': object()}, {1: 2}, {'x': 2**70}],
    'host': [5, None, [], ('127.0.0.1',), ['x', 5], 'http://localhost', 'redis://localhost',
             'amqp://localhost/?heartbeat=1', '127.0.0.1\0', f'amqp://127.0.0.1/{"x" * 300}', *(
                 f'amqp://guest:{password}@127.0.0.1:{PORT}{path}' for path in ('', '/', '/v')
                 for password in ('sec/ret', '12/34', 'sec#ret', '12#34', 'sec?ret', '12?34',
                                  'sec[ret', 'sec@ret', 'sec%ret', 'sec:ret'))],
}


@pytest.mark.parametrize('option', OPTIONS)
async def test_what_cannot_be_used_is_an_error_at_once(option, queues, caplog):
    for value in OPTIONS[option]:
        with pytest.raises((TypeError, ValueError, Refused)) as raised:
            await asyncio.wait_for(queues(**{'retry': DEADLINE, option: value}).connect(), 5)
        logging.warning('%r', raised.value, exc_info=raised.value)
    assert not re.search('sec.{0,3}ret|12.{0,3}34', caplog.text)  # no part of a password


async def test_too_few_channels_are_refused_at_the_start(name, node, queues):
    for channels, channel_max in (2, 2047), (4, 1), (4, 2):
        user = await limited(node, channels=channels, channel_max=channel_max)
        q, enough = queues(node.port, channel_max=9, **user), (channels, channel_max) == (4, 2)
        with contextlib.nullcontext() if enough else pytest.raises(Refused):
            await asyncio.wait_for(q.start_async(), 5)
    await limited(node)


async def test_where_the_broker_wants_no_heartbeats_we_do(name, node, queues, caplog):
    async with Forwarder(node.port) as forwarder:
        q = queues(forwarder.port, heartbeat=1, **await limited(node, heartbeat=0))
        await q.connect()
        await limited(node)
        forwarder.flowing.clear()
        await true(lambda: 'lost the connection' in caplog.text, 4)
        forwarder.target, sending = PORT, asyncio.create_task(q.task(name))
        forwarder.flowing.set()
        await true(lambda: 'ACCESS_REFUSED' in caplog.text)  # nobody knows this user there
        forwarder.target = node.port
        await asyncio.wait_for(sending, DEADLINE)


async def test_no_context_variable_of_who_connects_is_one_of_the_handlers(worker):
    variable = contextvars.ContextVar('request', default='none')
    variable.set('of a request')
    await worker.q.connect()
    await worker.start(lambda data: variable.get())
    assert await worker.call() == 'none'


async def test_many_that_lose_a_broker_do_not_come_back_at_once(queues, caplog):
    def times(text):
        return [each.created for each in caplog.records if text in each.getMessage()]

    caplog.set_level(logging.INFO)
    async with Forwarder() as forwarder:
        await asyncio.gather(*(queues(forwarder.port, retry=1).connect() for _ in range(20)))
        forwarder.cut()
        await true(lambda: len(times('connected to')) == 40)
        assert times('connected to')[39] - times('connected to')[20] > 0.3
        forwarder.down = True
        connecting = asyncio.create_task(queues(forwarder.port, retry=0.2).connect())
        await true(lambda: len(times('no connection')) == 7)
    pauses = [b - a for a, b in itertools.pairwise(times('no connection'))]
    assert 0.2 <= min(pauses) < max(pauses) - 0.01
    connecting.cancel()


# Streams that nobody wants any more.


@KINDS
@pytest.mark.parametrize('begun', [True, False])
async def test_cancel_ends_a_generator_at_its_next_yield(plain, begun, name, worker, broker):
    await worker.start(plain=plain, parts=True, prefetch_count=2)
    asyncio.get_running_loop().set_debug(True)  # it hears of threads
    other = await worker.q.task(name, ['wait', 'wait', 7, 8], id=name)
    task = await worker.task([1, 'wait', 'endless'] if begun else ['wait', 'endless'], id=name)
    await (first(task) if begun else true(lambda: len(worker.runs) == 2))
    for _ in range(3):
        task.cancel()
        await asyncio.to_thread(task.cancel)
    worker.opened, since = 1, time.monotonic()
    assert await worker.call(['free']) == ['free']  # the other one has the other slot
    assert time.monotonic() - since < 1
    worker.opened = 2
    assert await other.result(DEADLINE) == [7, 8]
    await parts_of(task)  # it has an end
    task.cancel()
    await worker.q.close()  # and is done: no failure, no second run
    assert await broker.look(name) == {'messages': 0, 'consumers': 0}
    assert (await broker.look(f'{name}.dead'))['messages'] is None


async def test_a_cancelled_stream_can_be_sent_again(worker):
    await worker.start(parts=True)
    task, other = [await worker.task(['wait', *range(500)]) for _ in range(2)]
    task.cancel()
    worker.opened = 1
    assert len(await parts_of(task)) < 500
    assert await parts_of(other) == [*range(500)]
    await task.retry()
    assert await parts_of(task) == [*range(500)]


async def test_parts_that_were_read_cost_no_memory(worker):
    await worker.start(lambda _: (bytes(500_000) for _ in range(300)))
    task, before = await worker.task(), alive(asyncio.Future)
    tracemalloc.start()
    async with asyncio.timeout(DEADLINE):
        assert [len(part) async for part in task] == [500_000] * 300
    assert tracemalloc.get_traced_memory()[1] < 70_000_000  # at most
    assert alive(asyncio.Future) < before + 50
    tracemalloc.stop()


# A cluster, TLS.


@pytest.fixture(scope='session')
def cluster(own_nodes):
    """Three joined nodes, that tests may kill: by port."""
    name = f'test-{CLUSTER_PORT}'
    make('cluster', f'PORT={CLUSTER_PORT}', f'NODE={name}')
    nodes = {CLUSTER_PORT + number: Node(f'{name}-{number + 1}', CLUSTER_PORT + number)
             for number in range(3)}
    yield nodes
    for node in nodes.values():
        node.stop()


async def test_nodes_killed_under_load_are_not_noticed(cluster, queues, spawn, caplog):
    caplog.set_level(logging.INFO)
    name, hosts = new_name(), [f'amqp://127.0.0.1:{port}' for port in cluster]
    process = await spawn(name, None, host=hosts, quorum=True, log='INFO')
    await says(process, f'connected to 127.0.0.1:{CLUSTER_PORT}')
    q, done, enough = queues(None, hosts, quorum=True), [], asyncio.Event()

    async def double(number):
        while not enough.is_set():
            assert await call(q, name, number) == number * 2
            done.append(number)

    async def more():
        count = len(done) + 200
        await true(lambda: len(done) >= count)
        return int(re.findall(r'connected to 127\.0\.0\.1:(\d+)', caplog.text)[-1])

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(double(number))
        for _ in range(2):
            port = await more()
            cluster[port].kill()
            killed_at = time.monotonic()
            assert await more() != port  # with the other two
            assert time.monotonic() - killed_at < 20
            await asyncio.to_thread(cluster[port].start)
        await more()
        enough.set()
    await q.task(f'{name}.x', delay=30)
    listing = await cluster[port].ctl('list_queues --silent name type')
    types = dict(row.split() for row in listing.splitlines() if name in row or '.reply.' in row)
    assert {name, f'{name}.x', f'{name}.x.delay.30000'} <= {*types}
    assert {*types.values()} == {'quorum'}
    process.terminate()
    status, output = await ended(process)
    assert (status, 'Traceback' in output) == (0, False), output


async def test_a_node_in_maintenance_is_left_for_another(cluster, queues, caplog):
    caplog.set_level(logging.INFO)
    hosts = [f'127.0.0.1:{port}' for port in cluster]
    worker = Worker(queues, new_name(), None, hosts, quorum=True)
    await worker.start()
    assert await worker.call(1) == 1
    assert f'connected to 127.0.0.1:{CLUSTER_PORT}' in caplog.text
    caplog.clear()
    await cluster[CLUSTER_PORT].eval('catch rabbit_maintenance:drain().')
    assert await worker.call(2) == 2
    assert f'connected to 127.0.0.1:{CLUSTER_PORT + 1}' in caplog.text
    await worker.q.close()
    await worker.q.start_async()  # on start-up it counts as down
    assert await worker.call(3) == 3
    await cluster[CLUSTER_PORT].eval('rabbit_maintenance:revive().')


@pytest.fixture
def trusting(authority):
    """A context that trusts the authority of the broker's certificate."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def raises_at_once(q, match, error=ssl.SSLCertVerificationError):
    """Start-up fails with this error, whatever `retry` says."""
    for start in (q.connect, q.start_async):
        with pytest.raises(error, match=match):
            await asyncio.wait_for(start(), 4)


@pytest.mark.parametrize('by_system', [False, True])
@pytest.mark.parametrize('url', ['localhost:{}', 'amqps://guest:guest@localhost:{}/%2F'])
async def test_tls_runs_tasks(url, by_system, name, node, trusting, authority, queues, monkeypatch):
    """With the authorities of the system, or with a context; and after a loss."""
    options = {'ssl': trusting}
    authority.issue_cert('a@example.org', common_name=name).configure_cert(trusting)
    if by_system:
        monkeypatch.setenv('SSL_CERT_FILE', str(authority.path))
        options = {} if 'amqps' in url else {'ssl': True}
    async with Forwarder(node.tls_port) as forwarder:
        worker = Worker(queues, name, None, url.format(forwarder.port), **options)
        await worker.start()
        for size in (900_000, 1, 2):
            task = await worker.task(b'x' * size)
            forwarder.cut()
            assert await task.result(DEADLINE) == b'x' * size
        # Over TLS the broker doesn't notice every reset: it may list what was cut, too.
        listing = await node.ctl('list_connections peer_cert_subject')
        assert listing.count(name) >= 4 if not by_system else name not in listing


async def test_a_wrong_certificate_is_an_error_at_once(node, trusting, queues):
    port, unknown = node.tls_port, 'issuer|self.signed'
    stranger = ssl.create_default_context()
    trustme.CA().configure_trust(stranger)
    await raises_at_once(queues(port, 'localhost', ssl=True, retry=5), unknown)
    await raises_at_once(queues(port, 'localhost', ssl=stranger, retry=5), unknown)
    hosts = [f'amqps://localhost:{port}', 'amqps://localhost:1']
    await raises_at_once(queues(None, hosts, ssl=stranger, retry=5), unknown)
    await raises_at_once(queues(port, ssl=trusting, retry=5), "not valid for '127")
    await raises_at_once(queues(node.port, 'localhost', ssl=trusting, retry=5), None, ssl.SSLError)
    with pytest.raises(OSError, match='no AMQP|closed|lost|reset'):
        await queues(port, retry=False).connect()


async def test_a_client_certificate_that_is_refused_is_an_error_at_once(node, trusting, queues):
    trustme.CA().issue_cert('a@example.org').configure_cert(trusting)
    # A reset may come before the alert that says why: then the next attempt tells.
    q = queues(node.tls_port, 'localhost', ssl=trusting, retry=0.05)
    await raises_at_once(q, '(?i)unknown.ca', ssl.SSLError)


# Frames, however they are cut; uvloop.


@HUNDRED
@given(size=st.integers(0, 2**60), ident=SHORT, kind=SHORT, reply_to=SHORT,
       headers=st.dictionaries(SHORT, VALUES, max_size=3))
def test_content_headers_are_what_pamqp_makes_of_them(size, ident, kind, reply_to, headers):
    given = {'correlation_id': ident, 'content_type': kind, 'reply_to': reply_to}
    for unusual in {}, {'headers': headers, 'message_type': 'part'}:
        header = aioqueue.content_header(size, ident, kind, reply_to, **unusual)
        content = ContentHeader()
        content.unmarshal(header)
        expected = {key: value or '' for key, value in content.properties if key in given}
        assert (content.body_size, expected) == (size, given)
        got = aioqueue.unpack_properties(header)
        assert {key: got.get(key, '') for key in given} == given
        assert got.get('headers', {}) == (content.properties.headers or {})


@pytest.mark.parametrize('sizes', [[1], [7], [1, 8, 3, 2, 50, 6, 7, 300], [4096, 1]])
async def test_tasks_run_however_the_stream_is_cut(sizes, name, queues):
    """Bodies of many sizes, parts, a queue that is not there."""
    async with Forwarder(sizes=sizes) as forwarder:
        worker = Worker(queues, name, forwarder.port, frame_max=8192)
        worker.q.on(f'{name}.x')(worker.generator)
        await worker.start(raw=True)
        bodies = [b'x' * size for size in (0, 1, 8183, 8184, 8185, 17000)]
        tasks = await asyncio.gather(
            *(worker.task(body, raw=True) for body in bodies),
            *(worker.caller.task(f'{name}.x', [1, 2]) for _ in 'ab'))
        results = [await task.result(DEADLINE) for task in tasks]
        assert results == [*bodies, [1, 2], [1, 2]]
        await worker.caller.task(f'{name}.parts', no_response=True)


async def test_worker_and_caller_run_under_uvloop(name, spawn):
    uvloop = pytest.importorskip('uvloop')
    process = await spawn(name, code='import uvloop\nuvloop.install()' + WORKER)

    async def main():
        async with Forwarder() as forwarder, Queue('127.0.0.1', forwarder.port, retry=0.1) as q:
            for _ in range(2):
                assert await call(q, name, 'x' * 1_000_000) == 'x' * 2_000_000
                assert await parts_of(await q.task(f'{name}.parts', [1, 2, 3])) == [1, 2, 3]
                forwarder.cut()

    await asyncio.to_thread(uvloop.run, main())
    process.terminate()
    status, output = await ended(process)
    assert (status, 'Traceback' in output) == (0, False), output


# The README tells the truth.

README = (HERE / 'README.rst').read_text()


BLOCKS = [textwrap.dedent(block) for block in re.findall(
    r'\.\. code-block:: python\n\n((?:(?: {4}.*)?\n)+)', README)]


@pytest.fixture
async def readme(tmp_path, broker):
    """Start what it shows, by what stands in it: a worker (that calls `q.start()`) or not."""
    names = {*re.findall(r"@q\.on\('([^']+)'", README)}
    names |= {f'{name}.dead' for name in names} | {f'{name}.dead.dead' for name in names}
    await broker.delete(*names)
    processes = []

    async def start(words, port=PORT, *command):
        [block] = [each for each in BLOCKS if words in each]
        (tmp_path / 'block.py').write_text(
            block.replace(':5672', f':{port}').replace('Queue()', f'Queue(port={port})'))
        processes.append(await asyncio.create_subprocess_exec(
            sys.executable, *(command or ['block.py']), cwd=tmp_path, stdout=asyncio.subprocess.PIPE,
            env={**os.environ, 'PYTHONPATH': str(HERE), 'PYTHONUNBUFFERED': '1'}))
        for name in re.findall(r"@q\.on\('([^']+)'", block):
            await broker.until(name, consumers=1)
        return processes[-1]

    yield start
    for process in processes:
        if process.returncode is None:
            process.terminate()
        assert (await ended(process))[0] in (0, -signal.SIGTERM)  # as uvicorn ends
    await broker.delete(*names)


async def test_the_scripts_of_the_readme_run(readme):
    assert len(BLOCKS) == README.count('code-block:: python')
    for words in "@q.on('add')", "@q.on('mail'":
        await readme(words)
    mender = await readme("@q.on('mail.dead')")
    output = [await ended(await readme(words)) for words in ('[1, 2, 3]', "'healthy'")]
    assert (await asyncio.wait_for(mender.stdout.readline(), DEADLINE)
            == b'again, after no address: nobody\n')
    assert output == [(0, '6\n'), (0, """cat.png [5, 'dog.png']
TypeError unsupported operand type(s) for +: 'int' and 'str'
cat.png is done
dog.png is done
healthy
""")]


async def test_the_web_app_of_the_readme_runs(readme, broker, unused_tcp_port):
    """It starts while no broker answers, and a client that leaves ends its generator."""
    async def answers(request, status):
        async with asyncio.timeout(DEADLINE):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await request()).status_code == status:
                        return
                await asyncio.sleep(0.05)

    async with Forwarder() as forwarder, httpx.AsyncClient(
            base_url=f'http://127.0.0.1:{unused_tcp_port}', timeout=DEADLINE) as client:
        forwarder.down = True
        await readme("@q.on('mail'")
        await readme('FastAPI', forwarder.port, '-m', 'uvicorn', 'block:app', '--port',
                     str(unused_tcp_port), '--log-level', 'critical')
        await answers(lambda: client.post('/mail?to=a@b'), 500)
        forwarder.down = False
        await answers(lambda: client.post('/mail?to=a@b'), 200)
        for _ in range(10):  # the handler has ten slots
            async with client.stream('GET', '/resize?path=a&times=100000') as response:
                async for line in response.aiter_lines():
                    assert line == 'data: a is done'
                    break
        assert (await client.get('/resize?path=a&times=2')).text == 'data: a is done\n\n' * 2


def test_the_readme_is_plain_restructuredtext():
    docutils.core.publish_string(
        README, settings_overrides={'halt_level': 2, 'report_level': 2})
