"""Measure aioqueue next to other libraries, on the RabbitMQ of `make rabbit`.

    make bench ARGS='--rounds 3 --only aioqueue,aio-pika,limit'
    make bench ARGS='--module ../old'  # another aioqueue.py beside this one
    make bench ARGS='--only aioqueue --tasks 1000,1000000'  # does the cost of one grow?

A worker and a caller process share the cores with the broker. The contenders (uvloop:
aioqueue on it) take turns in every round, in another order each time. The rows:

- enqueue: 50 at once send one small task after the other, and want no result.
- drain: a worker with a prefetch of 100 and a handler that does nothing handles those.
- call: 50 at once send a task, await its result, send the next.
- latency: one call after the other, how long one takes.
- delayed: enqueue, with a delay that ends when all are sent; delays: each with its own.
- caller, worker: the processor time of a task (the worker's of enqueue: of drain).
"""

import argparse
import asyncio
import atexit
import collections
import concurrent.futures
import faulthandler
import importlib.metadata
import json
import os
import random
import resource
import statistics
import struct
import subprocess
import sys
import time

import msgpack

HOST = f'localhost:{os.environ.get("PORT", 5672)}'  # of `make bench PORT=...`
URL = f'amqp://guest:guest@{HOST}/'
LIBRARIES = ('aioqueue', 'uvloop', 'aio-pika', 'aioamqp', 'taskiq', 'taskiq-aio-pika',
             'celery', 'msgpack')
AT_ONCE = 50
PREFETCH = 100
CALLS = ('call', 'latency')
CAPTION = """
Medians of {} rounds, {:,} tasks (a quarter for slow ones). Below: how many times faster
aioqueue was (x 2.99), or what share of the broker's limit it reached (76 %), in latency
how many times as long it took (1.48 times): medians of the ratios within a round.
"""


def task(number):
    return {'id': number, 'name': 'report'}


# The contenders, set up for what aioqueue promises, as far as they can: durable classic
# queues, persistent tasks, confirmed, and acknowledged after their reply was sent.


class Contender:
    """What can `connect` (as a worker, too), `send`, and `call`: await a result."""
    rows = ('enqueue', *CALLS)
    quick = False  # one that needs four times as many tasks to take a second

    def __init__(self, queue):
        self.queue = queue
        self.handled, self.expected = 0, [0]  # in this row, and in each
        self.results = {}

    async def run(self, row, numbers, at_once, **options):
        async def some():
            for number in numbers:
                if row in CALLS:
                    assert await self.call(task(number)) == number
                else:
                    await self.send(task(number), **options)

        numbers = iter(numbers)
        await asyncio.gather(*(some() for _ in range(at_once)))

    def handle(self, data):
        if not self.handled:
            self.began = now()
        self.handled += 1
        if self.handled == self.expected[0]:
            print(json.dumps(used(self.expected.pop(0), self.began)), flush=True)
            self.handled = 0
        return data['id']

    async def close(self):
        """Most leave nothing behind."""


class Aioqueue(Contender):
    rows = ('enqueue', *CALLS, 'delayed', 'delays')
    quick = True

    async def connect(self, serving=False):
        import aioqueue
        self.q = aioqueue.Queue(URL)
        self.close = self.q.close
        if serving:
            @self.q.on(self.queue, prefetch_count=PREFETCH)
            async def work(data):
                return self.handle(data)

            await self.q.start_async()
        await self.q.connect()

    async def send(self, data, spread=0, **options):
        if spread:
            options['delay'] += random.uniform(0, spread)
        await self.q.task(self.queue, data, no_response=True, **options)

    async def call(self, data):
        called = await self.q.task(self.queue, data)
        return await called.result()


class ByHand(Contender):
    """Calls over `publish`, for libraries that have none of their own."""

    async def send(self, data, routing_key=None, **properties):
        properties |= {'content_type': 'application/msgpack', 'delivery_mode': 2}
        await self.publish(routing_key or self.queue, msgpack.packb(data), properties)

    async def call(self, data):
        ident = os.urandom(16).hex()
        self.results[ident] = result = asyncio.get_running_loop().create_future()
        await self.send(data, correlation_id=ident, reply_to=self.reply_queue)
        return await result

    def replied(self, body, reply):
        self.results.pop(reply.correlation_id).set_result(msgpack.unpackb(body))

    async def work(self, body, request):
        result, ident = self.handle(msgpack.unpackb(body)), request.correlation_id
        if request.reply_to:
            await self.send(result, request.reply_to, correlation_id=ident)


class AioPika(ByHand):
    # Promises less: replies are not acknowledged, and are lost with the connection.
    async def connect(self, serving=False):
        import aio_pika
        self.message = aio_pika.Message
        self.connection = await aio_pika.connect_robust(URL)
        self.channel = await self.connection.channel()  # with confirms
        await self.channel.set_qos(PREFETCH)
        tasks = await self.channel.declare_queue(self.queue, durable=True)
        replies = await self.channel.declare_queue(exclusive=True)
        self.reply_queue = replies.name
        await replies.consume(self.on_reply, no_ack=True)
        if serving:
            await tasks.consume(self.on_task)

    async def publish(self, routing_key, body, properties):
        message = self.message(body, **properties)
        await self.channel.default_exchange.publish(message, routing_key)

    async def on_reply(self, message):
        self.replied(message.body, message)

    async def on_task(self, message):
        async with message.process():  # acknowledges at its end
            await self.work(message.body, message)


class Aioamqp(ByHand):
    # Promises less: as aio-pika; returned messages pass, connections stay lost.
    async def connect(self, serving=False):
        import aioamqp
        _, self.connection = await aioamqp.from_url(URL)
        # It misreads a confirm of several messages: a channel sends one at a time.
        self.free = asyncio.LifoQueue()
        for _ in range(AT_ONCE):
            channel = await self.connection.channel()
            await channel.confirm_select()
            self.free.put_nowait(channel)
        channel = await self.connection.channel()
        await channel.basic_qos(prefetch_count=PREFETCH)
        await channel.queue_declare(self.queue, durable=True)
        self.reply_queue = (await channel.queue_declare(exclusive=True))['queue']
        await channel.basic_consume(self.on_reply, self.reply_queue, no_ack=True)
        if serving:
            await channel.basic_consume(self.on_task, self.queue)

    async def publish(self, routing_key, body, properties):
        channel = await self.free.get()
        await channel.publish(body, '', routing_key, properties)
        self.free.put_nowait(channel)

    async def on_reply(self, channel, body, envelope, properties):
        self.replied(body, properties)

    async def on_task(self, *delivery):
        asyncio.create_task(self.settle(*delivery))  # it reads on after this

    async def settle(self, channel, body, envelope, properties):
        await self.work(body, properties)
        await channel.basic_client_ack(envelope.delivery_tag)


class Taskiq(Contender):
    # Promises less: no results by RabbitMQ. Unless asked it would take a quorum queue.
    rows = ('enqueue',)

    async def connect(self, serving=False):
        from taskiq.api import run_receiver_task
        from taskiq_aio_pika import AioPikaBroker, Exchange, Queue, QueueType

        async def work(data):
            return self.handle(data)

        broker = AioPikaBroker(
            URL, qos=PREFETCH, exchange=Exchange(name=self.queue),
            task_queues=[Queue(name=self.queue, type=QueueType.CLASSIC)],
            dead_letter_queue=Queue(name=f'{self.queue}.dead', type=QueueType.CLASSIC))
        self.send = broker.register_task(work, 'work').kiq
        if serving:  # as `taskiq worker` does
            await run_receiver_task(broker, max_async_tasks=PREFETCH, run_startup=True)
        await broker.startup()


class Celery(Contender):
    # Promises less: the queue of its results goes away with a lost connection.
    async def connect(self, serving=False):
        import celery

        def work(data):
            return self.handle(data)

        app = celery.Celery(self.queue, broker=URL, backend='rpc://')
        app.conf.update(
            broker_transport_options={'confirm_publish': True}, task_acks_late=True,
            broker_connection_retry_on_startup=True, result_persistent=True,
            task_default_queue=self.queue, worker_enable_remote_control=False,
            worker_redirect_stdouts=False)
        self.send = app.task(work, name='work').apply_async
        if serving:  # with its fastest pool
            sys.exit(app.Worker(
                hostname=self.queue, pool='solo', concurrency=1, loglevel='ERROR',
                prefetch_multiplier=PREFETCH, quiet=True, without_gossip=True,
                without_heartbeat=True, without_mingle=True).start())

    async def run(self, row, numbers, at_once):
        if row not in CALLS:  # with a thread for each connection of its pool
            shares = [numbers[first::10] for first in range(10)]
            with concurrent.futures.ThreadPoolExecutor(10) as pool:
                list(pool.map(self.send_all, shares))
            return
        waiting, results = collections.deque(), []
        for number in numbers:
            waiting.append(self.send((task(number),)))
            if len(waiting) == at_once:
                results.append(waiting.popleft().get())
        assert [*results, *(each.get() for each in waiting)] == list(numbers)

    def send_all(self, numbers):
        for number in numbers:
            self.send((task(number),), ignore_result=True)


class Limit(Contender):
    # The broker's, with the same promises: frames made beforehand, and none decoded.
    ACK = struct.Struct('>BHIHHQBB')
    CONFIRM = ACK.pack(1, 1, 13, 60, 80, 0, 0, 0)[:11]  # how the broker's begins
    BODY = slice(-25, None)  # the last frame of a message
    quick = True

    async def connect(self, serving=False):
        import amqp
        replies = f'{self.queue}.reply'
        self.task = self.message(1, self.queue)
        self.request = self.message(2, self.queue, replies)
        self.reply = self.message(1, replies)
        self.confirmed = self.received = self.replies = self.acked = 0
        self.rest = b''
        self.connection = amqp.Connection(HOST)  # with TCP_NODELAY
        self.connection.connect()
        channel = self.connection.channel()
        channel.confirm_select()
        channel.basic_qos(0, PREFETCH, False)
        for queue in (replies, self.queue):
            channel.queue_declare(queue, durable=True, auto_delete=False)
        channel.basic_consume(self.queue if serving else replies)
        while serving:
            self.read()

    def message(self, number, routing_key, reply_to=None):
        from pamqp import body, commands, frame, header
        data = msgpack.packb(task(number))
        properties = commands.Basic.Properties(
            content_type='application/msgpack', correlation_id='0' * 32,
            delivery_mode=2, reply_to=reply_to)
        parts = (commands.Basic.Publish(routing_key=routing_key, mandatory=True),
                 header.ContentHeader(0, len(data), properties), body.ContentBody(data))
        return b''.join(frame.marshal(part, 1) for part in parts)

    def read(self):
        """Look for confirms and bodies in what arrives, reply and acknowledge."""
        data = self.rest + self.connection.sock.recv(65536)
        assert len(data) > len(self.rest), 'the broker closed the connection'
        self.rest = data[self.BODY][1:]  # perhaps the start of a body
        # The last confirm will do: one queue confirms its messages in their order.
        start = data.rfind(self.CONFIRM, 0, len(data) - 8) + len(self.CONFIRM)
        if start >= len(self.CONFIRM):
            self.confirmed = int.from_bytes(data[start:start + 8], 'big')
        requests = data.count(self.request[self.BODY])
        for _ in range(requests + data.count(self.task[self.BODY])):
            self.received += 1
            self.handle(task(1))
        self.replies += requests
        # One by one, as the others do: all but those whose reply is not confirmed yet.
        settled = self.received - (self.replies and self.replies - self.confirmed)
        acks = [self.ACK.pack(1, 1, 13, 60, 80, tag, 0, 0xCE)
                for tag in range(self.acked + 1, settled + 1)]
        self.acked = settled
        self.connection.sock.sendall(self.reply * requests + b''.join(acks))

    async def run(self, row, numbers, at_once):
        message, done = self.task, 'confirmed'
        if row in CALLS:
            message, done = self.request, 'received'
        start, sent = getattr(self, done), 0
        while (finished := getattr(self, done) - start) < len(numbers):
            new = min(finished + at_once, len(numbers)) - sent
            self.connection.sock.sendall(message * new)
            sent += new
            self.read()


CONTENDERS = {
    'aioqueue': Aioqueue, 'uvloop': Aioqueue, 'aio-pika': AioPika, 'aioamqp': Aioamqp,
    'taskiq': Taskiq, 'celery': Celery, 'limit': Limit}


def now():
    return time.perf_counter(), time.process_time()


def used(count, began):
    # The rate, the processor time in µs of one, and the peak memory in MB.
    took, busy = (end - start for end, start in zip(now(), began, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in kB, on Linux
    return count / took, busy / count * 1e6, peak * 1024 / 1e6


async def measure(contender, counts, delay):
    found = {}
    await contender.connect()
    for row, count in counts.items():
        at_once = 1 if row == 'latency' else AT_ONCE
        options = {'delay': delay} if row == 'delayed' else {}
        options = {'delay': delay, 'spread': 10} if row == 'delays' else options
        # The first ones, which find everything cold, are not measured.
        await contender.run(row, range(AT_ONCE), at_once, **options)
        began = now()
        await contender.run(row, range(count), at_once, **options)
        rate, sending, sender = used(count, began)
        if row == 'enqueue':
            command = [sys.executable, __file__, 'worker', *sys.argv[2:]]
            worker = subprocess.Popen(command, stdout=subprocess.PIPE)
            atexit.register(worker.terminate)
        said = json.loads(await asyncio.to_thread(worker.stdout.readline))
        drain, handling, handler = said
        unit, value = ('ms', 1e3 / rate) if row == 'latency' else ('tasks/s', rate)
        found[f'{row}, {unit}'] = value
        found.setdefault('drain, tasks/s', drain)
        if of := {'delayed': 'enqueue', 'delays': 'delayed'}.get(row):
            found[f'{row} of {of}, %'] = rate / found[f'{of}, tasks/s'] * 100
        found |= {f'{row}: caller, µs': sending, f'{row}: worker, µs': handling}
    await contender.close()
    await asyncio.sleep(0.5)  # for the last acknowledgements
    worker.terminate()
    assert b'[' not in worker.stdout.read(), 'more tasks handled than sent'
    return {**found, 'peak memory, MB': max(sender, handler)}


async def child(role, name, queue, tasks, *rows):
    tasks = int(tasks)
    faulthandler.dump_traceback_later(60 + tasks // 50, exit=True)  # if it hangs
    shares = {'call': 5, 'latency': 30, 'delays': 50}
    counts = {row: tasks // shares.get(row, 1) for row in rows}
    contender = CONTENDERS.get(name, Aioqueue)(queue)
    if role == 'caller':
        print(json.dumps(await measure(contender, counts, 5 + tasks // 40_000 * 5)))
        return
    # After the last one another is one too many, and reported, too.
    contender.expected = [*(AT_ONCE + count for count in counts.values()), 1]
    await contender.connect(serving=True)
    await asyncio.Event().wait()


def remove(queue):
    """Delete all that is named after a queue, which must be empty."""
    import amqp  # a small one: the memory of this process counts for its children

    with amqp.Connection(HOST) as connection:
        channel = connection.channel()
        names = [queue, f'{queue}.reply', f'{queue}.dead']
        names += [f'{queue}.delay.{digits * 10**zeros // 10}'
                  for digits in range(10, 100, 5) for zeros in range(6)]
        left = sum(map(channel.queue_delete, names))
        channel.exchange_delete(queue)
    if left:
        raise RuntimeError(f'{left} tasks are left')
    return connection.server_properties['version']


def answer(name, folder, tasks, rows):
    queue = f'bench.{os.getpid()}.{name}'
    kind = CONTENDERS.get(name, Aioqueue)
    tasks = str(tasks if kind.quick else tasks // 4)
    about = [__file__, 'caller', name, queue, tasks, *kind.rows[:rows]]
    env = {**os.environ, 'PYTHONPATH': folder, 'PYTHONWARNINGS': 'ignore'}
    try:
        return json.loads(subprocess.check_output([sys.executable, *about], env=env))
    finally:
        remove(queue)


def text(value):
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def compared(title, name, ours, theirs):
    """Return how aioqueue did next to another: the median of the ratios in a round."""
    in_ms = title.endswith('ms')
    if ours is theirs or not ours or not theirs or not (in_ms or title.endswith('/s')):
        return ''
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    if name == 'limit':
        return f'{ratio:.2f} times' if in_ms else f'{ratio * 100:.0f} %'
    return f'x {text(1 / ratio if in_ms else ratio)}'


def table(results):
    lines, first = [['..', *results]], next(iter(results.values()), None)
    for title in max(results.values(), key=len, default=()):
        lines += [[title], ['..']]
        for name, found in results.items():
            values = found.get(title)
            lines[-2].append(text(statistics.median(values)) if values else '')
            lines[-1].append(compared(title, name, first.get(title), values))
        if not any(lines[-1][1:]):
            del lines[-1]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ['=' * width for width in widths]
    for line in (rule, lines[0], rule, *lines[1:], rule):
        print('  '.join(map(str.ljust, line, widths)).rstrip(), flush=True)


def compare(contenders, rounds, tasks, rows):  # how many failed
    results = {name: {} for name in contenders}
    for number in range(rounds):
        turns = collections.deque(results)
        turns.rotate(-number)
        for name in turns:
            try:
                found = answer(name, contenders[name], tasks, rows)
            except (subprocess.CalledProcessError, RuntimeError) as failure:
                print(f'round {number + 1}: {name} FAILED, is left out: {failure}')
                del results[name]
                continue
            for title, value in found.items():
                results[name].setdefault(title, []).append(value)
            values = (f'{title} {text(value)}' for title, value in found.items())
            print(f'round {number + 1}: {name}: {"; ".join(values)}', flush=True)
    print(CAPTION.format(rounds, tasks))
    table(results)
    return len(contenders) - len(results)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--only', default=','.join(CONTENDERS), metavar='NAME,...')
    parser.add_argument('--module', action='append', default=[], metavar='PATH')
    parser.add_argument('--tasks', metavar='N,...')
    parser.add_argument('--tiny', action='store_true', help='does this still run?')
    options = parser.parse_args()
    rounds, rows = 1 if options.tiny else options.rounds, 1 if options.tasks else None
    sizes = options.tasks or ('1000' if options.tiny else '100000')
    names = sorted(options.only.split(','), key=[*CONTENDERS].index)
    contenders = dict.fromkeys(names, os.getcwd())
    for path in map(os.path.abspath, options.module):
        contenders[f'{os.path.basename(path)}/'] = path
    versions = [f'{name} {importlib.metadata.version(name)}' for name in LIBRARIES]
    print(f'RabbitMQ {remove("bench")}, CPython {sys.version.split()[0]},',
          f'{os.cpu_count()} cores, {", ".join(versions)}', flush=True)
    return sum([compare(contenders, rounds, int(tasks), rows)
                for tasks in sizes.split(',')])


if __name__ == '__main__':
    if sys.argv[1:2] in (['caller'], ['worker']):
        loop = 'uvloop' if sys.argv[2] == 'uvloop' else 'asyncio'
        importlib.import_module(loop).run(child(*sys.argv[1:]))
    else:
        sys.exit(main())
