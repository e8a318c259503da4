"""What the tests are made of: waiting, a worker, frames as bytes, a user, programs."""

import asyncio
import collections
import itertools
import os
import struct
import threading
import time

import pytest
from pamqp.commands import Basic
from pamqp.frame import marshal
from pamqp.header import ContentHeader
from tools import DEADLINE

import aioqueue
from aioqueue import RemoteException


async def true(condition, deadline=DEADLINE):
    """Wait until `condition()` is true."""
    async with asyncio.timeout(deadline):
        while not condition():
            await asyncio.sleep(0.01)


async def call(q, name, data=None, **options):
    """Send a task and wait for its result."""
    return await (await q.task(name, data, **options)).result(DEADLINE)


async def failure(result):
    """The RemoteException that awaiting this raises."""
    with pytest.raises(RemoteException) as raised:
        await result
    return raised.value


async def first(task):
    """The first part that a generator yields."""
    return await asyncio.wait_for(anext(aiter(task)), DEADLINE)


async def parts_of(task):
    """All that a generator yields; the exception at the end if there is one."""
    parts = []
    try:
        async with asyncio.timeout(DEADLINE):
            async for part in task:
                parts.append(part)
    except (RemoteException, ConnectionError) as error:
        parts.append(error)
    return parts


Run = collections.namedtuple('Run', 'data job time')


class Worker:
    """A Queue with a handler that does what a task says and notes it, and a caller.

    A task is words (a str) or steps (a list): 'wait' number n until `opened` is n,
    'fail', 'flaky' (fails twice), 'odd' (what msgpack can't carry), 'endless'. A
    function returns its data then; a generator (`parts=True`) yields all steps that
    mean nothing here.
    """

    def __init__(self, queues, name, *args, **options):
        self.q, self.caller = queues(*args, **options), queues(*args, **options)
        self.name, self.runs, self.opened = name, [], 0
        self.closed = threading.Event()  # a generator came to its end, or was closed

    async def start(self, handler=None, *, plain=False, parts=False, **options):
        handlers = self.function, self.plain, self.generator, self.plain_generator
        self.q.on(self.name, **options)(handler or handlers[2 * parts + plain])
        await self.q.start_async()

    async def task(self, data=None, **options):
        return await self.caller.task(self.name, data, **options)

    async def call(self, data=None, **options):
        return await call(self.caller, self.name, data, **options)

    @property
    def data(self):
        return [run.data for run in self.runs]

    @property
    def attempts(self):
        return [run.job.attempt for run in self.runs]

    def script(self, data):
        """What to yield; what can be called is a condition to wait for."""
        job, waits = aioqueue.current.get(), 0
        self.runs.append(Run(data, job, time.monotonic()))
        data = data.split() if isinstance(data, str) else data
        for step in data if isinstance(data, list) else [data]:
            if step == 'wait':
                waits += 1
                yield lambda number=waits: self.opened >= number
            elif step == 'fail' or (step == 'flaky' and job.attempt < 3):
                raise ValueError('as asked: \u20ac')
            elif step == 'endless':
                yield from itertools.count()
            elif step != 'flaky':
                yield object() if step == 'odd' else step

    async def generator(self, data):
        try:
            for step in self.script(data):
                if callable(step):
                    await true(step)
                else:
                    yield step
        finally:
            self.closed.set()

    def plain_generator(self, data):
        try:
            for step in self.script(data):
                until = time.monotonic() + DEADLINE
                while callable(step) and not step() and time.monotonic() < until:
                    time.sleep(0.005)
                if not callable(step):
                    yield step
        finally:
            self.closed.set()

    async def function(self, data):
        async for _ in self.generator(data):
            pass
        return object() if data == 'odd' else data

    def plain(self, data):
        for _ in self.plain_generator(data):
            pass
        return object() if data == 'odd' else data


def frame(kind, channel, payload=b'', size=None, end=b'\xce'):
    size = len(payload) if size is None else size
    return struct.pack('>BHI', kind, channel, size) + payload + end


def delivered(name, size):
    """The frames of a delivery before its body."""
    deliver = Basic.Deliver(name, 10**9, False, '', name)
    return marshal(deliver, 1) + marshal(ContentHeader(0, size), 1)


async def says(process, text):
    """Wait until a process prints a line with this text."""
    async with asyncio.timeout(DEADLINE):
        while text not in (line := (await process.stdout.readline()).decode()):
            assert line, f'it has ended without {text!r}'


async def ended(process):
    """Wait for the end of a process: its status, and what else it printed."""
    output, _ = await asyncio.wait_for(process.communicate(), DEADLINE)
    return process.returncode, output.decode()


async def limited(node, configure='.*', read='.*', channels=-1, channel_max=2047,
                  heartbeat=60):
    """A user who may not do all, and settings of the broker: options that log in."""
    user = os.urandom(8).hex()
    await node.eval(f"""A = rabbit_auth_backend_internal, U = <<"{user}">>, \
        A:add_user(U, <<"secret">>, U), \
        A:set_permissions(U, <<"/">>, <<"{configure}">>, <<".*">>, <<"{read}">>, U), \
        A:set_user_limits(U, #{{<<"max-channels">> => {channels}}}, U), \
        application:set_env(rabbit, channel_max, {channel_max}), \
        application:set_env(rabbit, frame_max, {131_072 if heartbeat else 0}), \
        application:set_env(rabbit, heartbeat, {heartbeat}).""")
    return {'login': user, 'password': 'secret'}


# A worker as a process; its arguments are in JSON.
WORKER = """
import asyncio, json, logging, os, signal, sys, time, warnings
import aioqueue, multiprocessing
warnings.simplefilter('ignore')  # of forks beside threads

name, options, clock, log, on = json.loads(sys.argv[1])
right = time.time
time.time = lambda: right() + clock
if log:
    logging.basicConfig(level=log)
q = aioqueue.Queue(**options)
@q.on(name, **on)
async def double(data):
    if data == 'kill':
        os.kill(os.getpid(), signal.SIGKILL)
    if data == 'fail' or data == 'flaky' and aioqueue.current.get().attempt == 1:
        raise ValueError('as asked')
    if data == 'exit':
        asyncio.get_running_loop().call_soon(sys.exit, 3)  # as in a task of its own
    if data == 'slow':
        print('running', flush=True)
        await asyncio.sleep(0.5)
    if data == 'hang':
        print('running', flush=True)
        try:
            await asyncio.sleep(3600)
        finally:
            print('cancelled', flush=True)
    await asyncio.sleep(0.005)
    return data * 2
@q.on(f'{name}.parts')
def generate(steps):
    for step in steps:
        time.sleep(3600 if step == 'hang' else 0.02)
        yield end_of_child() if step == 'fork' else step
def end_of_child():
    context = multiprocessing.get_context('fork')
    child = context.Process(target=be_child, args=[used := context.Event()])
    child.start()
    assert used.wait(10)
    child.terminate()
    child.join(10)
    return child.exitcode
def be_child(used):
    q.run(q.task(f'{name}.x', no_response=True))
    used.set()
    while True:  # Python may miss a signal that comes right before a long sleep
        time.sleep(0.1)
q.start()
print(f'returned with {len(logging.root.handlers)} handlers of the log')
"""


# Programs of 0.2: the port and the name are their arguments.
OLD_WORKER = """
import sys, aioqueue
q = aioqueue.Queue(port=int(sys.argv[1]))
@q.on(sys.argv[2], prefetch_count=5)
def handler(data):
    if data == 'fail':
        raise ValueError('as asked')
    return {1: data}
q.start()
"""
OLD_CALLER = """
import asyncio, sys, aioqueue
q = aioqueue.Queue(port=int(sys.argv[1]))
name = sys.argv[2]
async def main():
    await q.connect()
    print(await (await q.task(name, {'key': [1, b'x'], 2: None})).result(20))
    try:
        await (await q.task(name, 'fail')).result(20)
    except Exception as error:
        print(str(error)[:8])
    print(await (await q.task(name + '.x', ['first', 'second'])).result(20))
    print(await (await q.task(name, 1, no_response=True)).result(20))
asyncio.get_event_loop().run_until_complete(main())
"""
