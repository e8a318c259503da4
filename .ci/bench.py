"""Measure aioqueue next to other libraries, on the RabbitMQ of `make rabbit`.

    make bench                                 everything, some ten minutes
    make bench ARGS='--rounds 3 --only aioqueue,aio-pika,limit'
    make bench ARGS='--module ../old'          another aioqueue.py beside this one
    make bench ARGS='--only aioqueue --tasks 1000,1000000'  does the cost of one grow?
    make bench ARGS='--only aioqueue --workers 1,2,4'       several worker processes
    make bench ARGS=--tiny                     does all of this still run?

One worker process and one caller process share the cores with the broker. The
contenders take turns in every round, in another order each time:

- enqueue: 50 coroutines send one small task after the other and want no result.
  Tasks a second until the broker has confirmed the last one.
- drain: a worker with a prefetch of 100 and a handler that does nothing works off what
  was enqueued. Tasks a second from the first one handled to the last.
- call: 50 coroutines send a task, await its result, send the next.
- latency: the median of one call after the other.
- delayed: enqueue, with a delay that ends when all are sent.

The first table has medians over the rounds. Below them: how many times better aioqueue
was, the median of the ratios within a round. The second table has the processor time of
a task (without the broker's) and the peak memory.
"""

import argparse
import asyncio
import contextlib
import importlib.metadata
import itertools
import json
import os
import pathlib
import re
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
import warnings

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOME = ROOT / '.bench'  # the virtual environment
PEERS = ('aio-pika', 'celery', 'taskiq', 'taskiq-aio-pika')
PORT = int(os.environ.get('PORT', '5672'))  # of `make bench PORT=...`
URL = f'amqp://guest:guest@localhost:{PORT}/'
AT_ONCE = 50
PREFETCH = 100
DEADLINE = 120  # seconds that what should take a few may take


def numbers(count, seconds):
    """Count from 1 to `count`, or until `seconds` are over."""
    end = time.monotonic() + seconds
    for number in range(1, count + 1):
        yield number
        if time.monotonic() > end:
            break


def data_of(number):
    return {'id': number, 'name': 'x'}


# The contenders. All are set up for what aioqueue promises, as far as they can:
# persistent tasks in a durable classic queue, confirmed by the broker, acknowledged
# after they ran and their reply was sent.


class Contender:
    rows = ('call', 'latency')  # besides enqueue and drain

    def __init__(self, queue):
        self.queue = queue
        self.results = {}
        self.took = []  # seconds of each call

    async def enqueue(self, count, seconds, at_once, **options):
        """Send `count` tasks, or as many as `seconds` allow; return how many."""

        async def send_some():
            for number in numbers(count // at_once, seconds):
                await self.send(data_of(number), **options)
            return number

        return sum(await asyncio.gather(*(send_some() for _ in range(at_once))))

    async def calls(self, count, seconds, at_once):
        async def call_some():
            for number in numbers(count // at_once, seconds):
                start = time.perf_counter()
                assert await self.call(data_of(number)) == number
                self.took.append(time.perf_counter() - start)
            return number

        return sum(await asyncio.gather(*(call_some() for _ in range(at_once))))

    async def close(self):
        """Most leave nothing behind."""

    # For libraries without calls: replies are told apart by their correlation id.

    async def send(self, data):
        await self.publish(self.queue, data)

    async def call(self, data):
        correlation_id = os.urandom(16).hex()
        result = asyncio.get_running_loop().create_future()
        self.results[correlation_id] = result
        await self.publish(
            self.queue, data, correlation_id=correlation_id, reply_to=self.reply_queue)
        return await result


class Aioqueue(Contender):
    rows = ('call', 'latency', 'delayed')

    async def open(self):
        import aioqueue

        self.q = aioqueue.Queue(URL)
        await self.q.connect()

    async def close(self):
        await self.q.close()

    async def send(self, data, **options):
        await self.q.task(self.queue, data, no_response=True, **options)

    async def call(self, data):
        task = await self.q.task(self.queue, data)
        return await task.result()

    async def work(self, handler, pause):
        import aioqueue

        self.q = aioqueue.Queue(URL)

        @self.q.on(self.queue, prefetch_count=PREFETCH)
        async def handle(data):
            if pause:
                await asyncio.sleep(pause)
            return handler(data)

        await self.q.start_async()


class AioPika(Contender):
    """As its tutorial on remote calls has it, with a robust connection.

    In its favour: replies are not acknowledged, and are lost with the connection.
    """

    async def connect(self):
        import aio_pika
        import msgpack

        self.pack, self.unpack, self.message = (
            msgpack.packb, msgpack.unpackb, aio_pika.Message)
        self.connection = await aio_pika.connect_robust(URL)
        self.channel = await self.connection.channel()  # with confirms
        return await self.channel.declare_queue(self.queue, durable=True)

    async def publish(self, routing_key, data, **properties):
        properties |= {'content_type': 'application/msgpack', 'delivery_mode': 2}
        message = self.message(self.pack(data), **properties)
        await self.channel.default_exchange.publish(message, routing_key)

    async def open(self):
        await self.connect()
        replies = await self.channel.declare_queue(exclusive=True)
        self.reply_queue = replies.name

        async def on_reply(message):
            result = self.results.pop(message.correlation_id)
            result.set_result(self.unpack(message.body))

        await replies.consume(on_reply, no_ack=True)

    async def work(self, handler, pause):
        tasks = await self.connect()
        await self.channel.set_qos(PREFETCH)

        async def on_message(message):
            async with message.process():  # acknowledges at its end
                result = handler(self.unpack(message.body))
                if message.reply_to:
                    await self.publish(
                        message.reply_to, result, correlation_id=message.correlation_id)

        # A callback and not an iterator: PREFETCH messages run at once.
        await tasks.consume(on_message)


class Aioamqp(Contender):
    """Plain aioamqp, without what aioqueue corrects in it.

    It doesn't understand a confirm of several messages: each that is sent at the same
    time gets a channel of its own. In its favour: a returned message passes for
    confirmed, a lost connection stays lost, and replies are as in aio-pika.
    """

    async def connect(self):
        import aioamqp
        import msgpack

        self.pack, self.unpack = msgpack.packb, msgpack.unpackb
        _, self.connection = await aioamqp.connect('localhost', PORT)
        self.free = asyncio.LifoQueue()
        for _ in range(AT_ONCE):
            channel = await self.connection.channel()
            await channel.confirm_select()
            self.free.put_nowait(channel)
        channel = await self.connection.channel()
        await channel.queue_declare(self.queue, durable=True)
        return channel

    async def publish(self, routing_key, data, **properties):
        properties |= {'content_type': 'application/msgpack', 'delivery_mode': 2}
        channel = await self.free.get()
        await channel.publish(self.pack(data), '', routing_key, properties)
        self.free.put_nowait(channel)

    async def open(self):
        channel = await self.connect()
        replies = await channel.queue_declare(exclusive=True)
        self.reply_queue = replies['queue']

        async def on_reply(channel, body, envelope, properties):
            result = self.results.pop(properties.correlation_id)
            result.set_result(self.unpack(body))

        await channel.basic_consume(on_reply, self.reply_queue, no_ack=True)

    async def work(self, handler, pause):
        running = set()

        async def handle(channel, body, envelope, properties):
            result = handler(self.unpack(body))
            if properties.reply_to:
                await self.publish(properties.reply_to, result,
                                   correlation_id=properties.correlation_id)
            await channel.basic_client_ack(envelope.delivery_tag)

        async def on_message(*delivery):
            # A task: the connection is not read while this callback runs.
            task = asyncio.create_task(handle(*delivery))
            running.add(task)
            task.add_done_callback(running.discard)

        channel = await self.connect()
        await channel.basic_qos(prefetch_count=PREFETCH)
        await channel.basic_consume(on_message, self.queue)


class Taskiq(Contender):
    """With classic queues, as all others; unless asked it makes quorum queues."""

    rows = ()  # it can't send results through RabbitMQ

    async def open(self, handler=None):
        from taskiq_aio_pika import AioPikaBroker, Exchange, Queue, QueueType

        dead, kind = f'{self.queue}.dead', QueueType.CLASSIC
        self.broker = AioPikaBroker(
            URL, qos=PREFETCH, exchange=Exchange(name=self.queue),
            task_queues=[Queue(name=self.queue, type=kind)],
            dead_letter_queue=Queue(name=dead, type=kind))

        async def handle(data):
            return handler(data)

        self.task = self.broker.register_task(handle, 'handle')
        if not handler:
            await self.broker.startup()

    async def send(self, data):
        await self.task.kiq(data)

    async def work(self, handler, pause):
        from taskiq.api import run_receiver_task

        await self.open(handler)
        # What `taskiq worker` runs in its processes.
        await run_receiver_task(self.broker, max_async_tasks=PREFETCH, run_startup=True)


class Celery(Contender):
    """With confirms and late acknowledgement; its handlers are not async.

    It has what makes it fastest: the pool `solo`, ten threads to enqueue (its pool of
    connections has as many), one for the calls. In its favour: the queue of its results
    goes away with a lost connection.
    """

    async def open(self, handler=None):
        import celery

        self.app = celery.Celery(self.queue, broker=URL, backend='rpc://')
        self.app.conf.update(
            broker_transport_options={'confirm_publish': True}, task_acks_late=True,
            broker_connection_retry_on_startup=True, result_persistent=True,
            task_default_queue=self.queue, worker_enable_remote_control=False,
            worker_redirect_stdouts=False)

        def handle(data):
            return handler(data)

        self.task = self.app.task(handle, name='handle')
        self.app.finalize()

    async def enqueue(self, count, seconds, at_once):
        threads = min(at_once, self.app.conf.broker_pool_limit)

        def send_some():
            for number in numbers(count // threads, seconds):
                self.task.apply_async((data_of(number),), ignore_result=True)
            return number

        senders = (asyncio.to_thread(send_some) for _ in range(threads))
        return sum(await asyncio.gather(*senders))

    async def calls(self, count, seconds, at_once):
        more = numbers(count, seconds)
        pending = []
        while True:
            for number in itertools.islice(more, at_once - len(pending)):
                result = self.task.apply_async((data_of(number),))
                pending.append((number, time.perf_counter(), result))
            if not pending:
                return number
            sent, start, result = pending.pop(0)
            assert result.get(DEADLINE) == sent
            self.took.append(time.perf_counter() - start)

    async def work(self, handler, pause):
        warnings.filterwarnings('ignore', message='.*superuser')
        await self.open(handler)
        self.app.Worker(
            hostname=self.queue, pool='solo', concurrency=1, loglevel='ERROR',
            prefetch_multiplier=PREFETCH, quiet=True, without_gossip=True,
            without_heartbeat=True, without_mingle=True,
        ).start()


class Limit(Contender):
    """The broker's: a raw socket, frames encoded beforehand, nothing decoded.

    It acknowledges each message with a frame of its own, as most libraries do; aioqueue
    needs one for many, so it may drain a queue faster than this.
    """

    ACK = b'\1\0\1\0\0\0\x0d\0\x3c\0\x50%b\0\xce'  # of ours, and the broker's confirms

    def connect(self, queue):
        import pamqp.frame
        from pamqp.commands import Basic, Channel, Confirm, Connection, Queue

        self.marshal = pamqp.frame.marshal
        self.commands = pamqp.frame.commands
        reply_queue = f'{self.queue}.reply'
        self.task, task = self.message(1, self.queue)
        self.request, request = self.message(2, self.queue, reply_queue)
        self.reply, _ = self.message(1, reply_queue)
        self.pattern = re.compile(b'|'.join([
            re.escape(self.ACK[:11]) + b'(?P<confirmed>.{8}).\xce',
            b'(?P<request>' + re.escape(request) + b')',
            re.escape(task)]), re.DOTALL)
        self.sent = self.confirmed = self.received = 0
        self.rest = b''
        self.socket = socket.create_connection(('localhost', PORT))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The broker's answers are not awaited: it takes all of this in its order.
        self.socket.sendall(b'AMQP\0\0\x09\1' + b''.join([
            self.marshal(Connection.StartOk({}, 'PLAIN', '\0guest\0guest'), 0),
            self.marshal(Connection.TuneOk(1, 131072, 0), 0),
            self.marshal(Connection.Open('/'), 0),
            self.marshal(Channel.Open(), 1),
            self.marshal(Confirm.Select(), 1),
            self.marshal(Basic.Qos(prefetch_count=PREFETCH), 1),
            self.marshal(Queue.Declare(queue=self.queue, durable=True), 1),
            self.marshal(Queue.Declare(queue=reply_queue, durable=True), 1),
            self.marshal(Basic.Consume(queue=queue), 1)]))

    def message(self, number, routing_key, reply_to=None):
        """Return the frames of a message, and the last of them: its body."""
        import msgpack
        from pamqp.body import ContentBody
        from pamqp.header import ContentHeader

        body = msgpack.packb(data_of(number))
        method = self.commands.Basic.Publish(routing_key=routing_key)
        header = ContentHeader(0, len(body), self.commands.Basic.Properties(
            content_type='application/msgpack', correlation_id='0' * 32,
            delivery_mode=2, reply_to=reply_to))
        frames = [self.marshal(each, 1) for each in (method, header, ContentBody(body))]
        return b''.join(frames), frames[-1]

    def read(self):
        """Look for confirms and bodies in what arrives; return the answers to it."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError('the broker closed the connection')
        data = self.rest + data
        answers = []
        end = 0
        for found in self.pattern.finditer(data):
            end = found.end()
            if found['confirmed']:
                # Of one queue, which confirms its messages in their order.
                tag = int.from_bytes(found['confirmed'], 'big')
                self.confirmed = max(self.confirmed, tag)
                continue
            self.received += 1
            answers.append(self.ACK % self.received.to_bytes(8, 'big'))
            if found['request']:
                answers.append(self.reply)
        self.rest = data[end:]
        return b''.join(answers)

    def exchange(self, count, seconds, at_once, message, done):
        """Keep `at_once` messages on their way until all are `done`."""
        before = self.sent
        answers = b''
        more = numbers(count, seconds)
        while True:
            on_the_way = self.sent - getattr(self, done)
            sending = len(list(itertools.islice(more, at_once - on_the_way)))
            self.socket.sendall(answers + message * sending)
            self.sent += sending
            on_the_way += sending
            if not on_the_way:
                return self.sent - before
            start = time.perf_counter()
            answers = b''
            while self.sent - getattr(self, done) == on_the_way:
                answers += self.read()
            self.took.append(time.perf_counter() - start)

    async def open(self):
        self.connect(f'{self.queue}.reply')

    async def close(self):
        # Not at once: acknowledgements that the broker has not read would be lost.
        connection = self.commands.Connection
        self.socket.sendall(self.marshal(connection.Close(0, '', 0, 0), 0))
        data = b''
        while self.marshal(connection.CloseOk(), 0) not in data:
            data += self.socket.recv(65536)

    async def enqueue(self, count, seconds, at_once):
        return self.exchange(count, seconds, at_once, self.task, 'confirmed')

    async def calls(self, count, seconds, at_once):
        return self.exchange(count, seconds, at_once, self.request, 'received')

    async def work(self, handler, pause):
        self.connect(self.queue)
        while True:
            before = self.received
            answers = self.read()
            for number in range(before, self.received):
                handler({'id': number})
            self.socket.sendall(answers)


CONTENDERS = {
    'aioqueue': Aioqueue, 'aio-pika': AioPika, 'aioamqp': Aioamqp, 'taskiq': Taskiq,
    'celery': Celery, 'limit': Limit,
}


# The child processes. They print lines of JSON.


def usage():
    used = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if sys.platform == 'darwin' else 1024
    return used.ru_utime + used.ru_stime, used.ru_maxrss * unit / 1e6


async def caller(contender, row, count, seconds):
    at_once = 1 if row == 'latency' else AT_ONCE
    work = contender.calls if row in ('call', 'latency') else contender.enqueue
    options = {'delay': seconds + 1} if row == 'delayed' else {}
    unit = {'call': 'calls/s', 'latency': 'ms'}.get(row, 'tasks/s')
    await contender.open()
    cold = await work(at_once, DEADLINE, at_once, **options)  # not measured
    start, (idle, _) = time.perf_counter(), usage()
    done = await work(count, seconds, at_once, **options)
    value = done / (time.perf_counter() - start)
    processor, megabytes = usage()
    if row == 'latency':
        value = statistics.median(contender.took) * 1e3
    found = {f'{row}, {unit}': value,
             f'{row}, caller, µs': (processor - idle) / done * 1e6}
    print(json.dumps({'count': cold + done, 'MB': megabytes, 'found': found}))
    await contender.close()


async def worker(contender, pause):
    """Handle tasks; answer each line of standard input with a report."""
    report = {'count': 0, 'first': 0, 'last': 0, 'idle': 0}

    def handler(data):
        report['last'] = time.monotonic()  # one clock for all processes
        if not report['count']:
            report['first'] = report['last']
            report['idle'], _ = usage()
        report['count'] += 1
        return data['id']

    def listen():
        for _ in sys.stdin:
            report['processor'], report['MB'] = usage()
            print(json.dumps(report), flush=True)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    await contender.work(handler, pause)
    await asyncio.Event().wait()


async def remover(contender):
    """Delete all that is named after a queue; tell how many tasks it held."""
    import aio_pika

    async with await aio_pika.connect(URL) as connection:
        channel = await connection.channel()
        deleted = await channel.queue_delete(contender.queue)
        for suffix in ('reply', 'dead'):
            await channel.queue_delete(f'{contender.queue}.{suffix}')
        await channel.exchange_delete(contender.queue)
        server = connection.transport.connection.server_properties
    print(json.dumps({'left': deleted.message_count, 'RabbitMQ': server['version']}))


def child(role, name, folder, queue, **options):
    sys.path.insert(0, folder)
    contender = CONTENDERS.get(name, Aioqueue)(queue)
    role = {'caller': caller, 'worker': worker, 'remover': remover}[role]
    asyncio.run(role(contender, **options))


# The parent. It imports no library: its memory would count for its children.


def command(role, about, **more):
    return [sys.executable, __file__, '--child', json.dumps({'role': role, **about, **more})]


def ask(role, about, **more):
    """Run a child to its end, and return its answer."""
    done = subprocess.run(
        command(role, about, **more), stdout=subprocess.PIPE, check=True,
        timeout=DEADLINE + more.get('seconds', 0))
    return json.loads(done.stdout)


@contextlib.contextmanager
def working(count, about, pause):
    """Have so many workers meanwhile."""
    line = command('worker', about, pause=pause)
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'bufsize': 0}
    workers = [subprocess.Popen(line, **pipes) for _ in range(count)]
    try:
        yield workers
        time.sleep(0.5)  # the last acknowledgements are on their way
        for each in workers:
            each.stdin.close()
            if each.wait(DEADLINE):
                raise RuntimeError(f'a worker ended with {each.returncode}')
    finally:
        for each in workers:
            each.kill()


def reports_of(workers, count):
    """Wait until the workers have handled `count` tasks; return their reports."""
    deadline = time.monotonic() + DEADLINE + count / 100
    while time.monotonic() < deadline:
        for each in workers:
            each.stdin.write(b'\n')
        reports = [json.loads(each.stdout.readline()) for each in workers]
        if sum(each['count'] for each in reports) >= count:
            return [each for each in reports if each['count']]
        time.sleep(0.1)
    raise RuntimeError(f'after all this time not {count} tasks: {reports}')


def measure(about, rows, workers, pause, **limits):
    """Return what was found of a contender in a round."""
    found = {}
    memory = []

    def called(row):
        answer = ask('caller', about, row=row, **limits)
        found.update(answer['found'])
        memory.append(answer['MB'])
        return answer['count']

    try:
        count = called('enqueue')
        with working(workers, about, pause) as running:
            reports = reports_of(running, count)
            first = min(each['first'] for each in reports)
            last = max(each['last'] for each in reports)
            busy = sum(each['processor'] - each['idle'] for each in reports)
            found['drain, tasks/s'] = count / (last - first)
            found['drain, worker, µs'] = busy / count * 1e6
            for row in rows:
                idle = reports[0]['processor']
                more = called(row)
                count += more
                reports = reports_of(running, count)
                if row == 'call':
                    busy = reports[0]['processor'] - idle
                    found['call, worker, µs'] = busy / more * 1e6
            memory += [each['MB'] for each in reports]
    finally:
        left = ask('remover', about)['left']
    if left:
        raise RuntimeError(f'{left} tasks are left in the queue')
    if 'delayed' in rows:
        share = found['delayed, tasks/s'] / found['enqueue, tasks/s']
        found['delayed, % of enqueue'] = share * 100
    found['peak memory, MB'] = max(memory)
    return found


def text(value):
    return f'{value:,.0f}' if value >= 100 else f'{value:#.3g}'


def table(rounds, names, units):
    """Print the medians; below rates and times, how many times better the first was."""
    titles = dict.fromkeys(
        title for found in rounds for name in names for title in found[name])
    lines = [['..', *names]]
    for title in titles:
        if not title.endswith(units):
            continue
        medians = [title]
        times = ['..']
        for name in names:
            found = [each for each in rounds if title in each[name]]
            values = [each[name][title] for each in found]
            medians.append(text(statistics.median(values)) if values else '')
            both = [each for each in found if title in each[names[0]]]
            ratios = [each[names[0]][title] / each[name][title] for each in both]
            if title.endswith('ms'):
                ratios = [1 / each for each in ratios]
            times.append(f'x {text(statistics.median(ratios))}' if ratios else '')
        times[1] = ''
        lines.append(medians)
        if any(times[1:]) and title.endswith(('/s', 'ms')):
            lines.append(times)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = '  '.join('=' * width for width in widths)
    head, *lines = ['  '.join(map(str.ljust, line, widths)).rstrip() for line in lines]
    print('', rule, head, rule, *lines, rule, sep='\n', flush=True)


def compare(options, tasks, workers):
    """Measure all contenders in turn, and print the tables."""
    names = list(options.contenders)
    limits = {'count': tasks or 10**9, 'seconds': 3600 if tasks else options.seconds}
    rounds = []
    for number in range(options.rounds):
        rounds.append({name: {} for name in names})
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            about = {'name': name, 'folder': str(options.contenders[name])}
            about['queue'] = f'bench.{os.getpid()}.{name}'
            rows = CONTENDERS.get(name, Aioqueue).rows
            if tasks or workers > 1:
                rows = ()
            try:
                found = measure(about, rows, workers, options.pause, **limits)
            except Exception as failure:
                options.failed = True
                say(f'round {number + 1}: {name} FAILED: {failure!r}')
                continue
            rounds[-1][name] = found
            values = '; '.join(f'{each} {text(found[each])}' for each in found)
            say(f'round {number + 1}: {name}: {values}')
    print(f'\n{tasks or "as many"} tasks, {workers} workers, {options.rounds} rounds')
    table(rounds, names, ('/s', 'ms', '%'))
    table(rounds, names, ('µs', 'MB'))


def say(line):
    print(line, file=sys.stderr, flush=True)


def versions(contenders):
    nothing = {'name': 'limit', 'folder': '', 'queue': 'bench.nothing'}
    yield f'CPython {sys.version.split()[0]}'
    yield f'RabbitMQ {ask("remover", nothing)["RabbitMQ"]}'
    for name, folder in contenders.items():
        if folder:
            source = (folder / 'aioqueue.py').read_text()
            yield f'{name} {re.search("__version__ = .(.+).", source)[1]}'
    for package in ('aioamqp', 'msgpack', *PEERS):
        yield f'{package} {importlib.metadata.version(package)}'
    yield f'{os.cpu_count()} cores'


def prepare():
    """Make the virtual environment, unless it is there, and go on in it."""
    python = str(HOME / 'bin' / 'python')
    stamp = HOME / 'made-of'
    made_of = '\n'.join([sys.version, *PEERS, (ROOT / 'setup.py').read_text()])
    if not stamp.exists() or stamp.read_text() != made_of:
        say('making an environment in .bench, once')
        make = [sys.executable, '-m', 'venv', '--clear', str(HOME)]
        if subprocess.run(make).returncode:  # Debian's python3 comes without venv
            rabbit = str(ROOT / '.ci' / 'rabbit.py')
            subprocess.run([sys.executable, rabbit, 'apt', 'python3-venv'], check=True)
            subprocess.run(make, check=True)
        pip = [python, '-m', 'pip', '-qq', '--disable-pip-version-check', 'install']
        subprocess.run([*pip, '--editable', str(ROOT), *PEERS], check=True)
        stamp.write_text(made_of)
    os.execv(python, [python, __file__, *sys.argv[1:]])


def parsed():
    def integers(line):
        return [int(each) for each in line.split(',')]

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--rounds', type=int, default=5)
    add('--seconds', type=float, default=2, help='that each row takes')
    add('--only', default=','.join(CONTENDERS), help=','.join(CONTENDERS))
    add('--module', type=pathlib.Path, action='append', default=[], metavar='PATH',
        help='another aioqueue.py, or its folder, which gives it its name')
    add('--tasks', type=integers, default=[0], help='not seconds: enqueue and drain these')
    add('--workers', type=integers, default=[1], help='so many processes drain')
    add('--pause', type=float, default=0, help='seconds that aioqueue\'s handler sleeps')
    add('--tiny', action='store_true', help='everything once, and briefly')
    options = parser.parse_args()
    if options.tiny:
        options.rounds, options.seconds = 1, 0.1
        options.tasks, options.workers = [0, 100], [1, 2]
    options.failed = False
    options.contenders = {}
    for name in options.only.split(','):
        if name not in CONTENDERS:
            parser.error(f'{name} is none of {", ".join(CONTENDERS)}')
        options.contenders[name] = ''
        if name == 'aioqueue':
            options.contenders[name] = ROOT
            for path in options.module:
                folder = (path if path.is_dir() else path.parent).resolve()
                options.contenders[folder.name] = folder
    if len(options.contenders) != len(options.module) + len(options.only.split(',')):
        parser.error('each --module needs a folder with a name of its own')
    return options


def main():
    if sys.argv[1:2] == ['--child']:
        child(**json.loads(sys.argv[2]))
        return
    options = parsed()
    if pathlib.Path(sys.prefix).resolve() != HOME.resolve():
        prepare()
    what = ', '.join(versions(options.contenders))
    for tasks in options.tasks:
        for workers in options.workers:
            compare(options, tasks, workers)
    print(f'\n{what}.')
    sys.exit(options.failed)


if __name__ == '__main__':
    main()
