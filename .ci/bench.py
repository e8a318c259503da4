"""Measure aioqueue next to other libraries, on the RabbitMQ of `make rabbit`.

    make bench ARGS='--rounds 3 --only aioqueue,aio-pika,limit'
    make bench ARGS='--module ../old'  # another aioqueue.py beside this one
    make bench ARGS='--only aioqueue --tasks 1000,1000000'  # does the cost of one grow?
    make bench ARGS=--tiny             # does all of this still run?

One worker process and one caller process share the cores with the broker; the
contenders take turns in every round, in another order each time. The rows:

- enqueue: 50 at once send one small task after the other, and want no result.
- drain: a worker with a prefetch of 100 and a handler that does nothing handles those.
- call: 50 at once send a task, await its result, send the next.
- latency: the median of one call after the other.
- delayed: enqueue, with a delay that ends when all are sent.

Below the medians stands how many times better aioqueue was: the median of the ratios
within a round. Processor times are those of a task, without the broker's.
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
        import msgpack

        self.queue = queue
        self.pack, self.unpack = msgpack.packb, msgpack.unpackb
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
        sent = {'correlation_id': os.urandom(16).hex(), 'reply_to': self.reply_queue}
        result = asyncio.get_running_loop().create_future()
        self.results[sent['correlation_id']] = result
        await self.publish(self.queue, data, **sent)
        return await result

    def replied(self, body, request):
        self.results.pop(request.correlation_id).set_result(self.unpack(body))

    async def handle(self, handler, body, request):
        result = handler(self.unpack(body))
        if request.reply_to:
            await self.publish(
                request.reply_to, result, correlation_id=request.correlation_id)


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

    async def work(self, handler):
        import aioqueue

        self.q = aioqueue.Queue(URL)

        @self.q.on(self.queue, prefetch_count=PREFETCH)
        async def handle(data):
            return handler(data)

        await self.q.start_async()


class AioPika(Contender):
    """As its tutorial on remote calls has it, with a robust connection.

    In its favour: replies are not acknowledged, and are lost with the connection.
    """

    async def connect(self):
        import aio_pika

        self.message = aio_pika.Message
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
            self.replied(message.body, message)

        await replies.consume(on_reply, no_ack=True)

    async def work(self, handler):
        tasks = await self.connect()
        await self.channel.set_qos(PREFETCH)

        async def on_message(message):
            async with message.process():  # acknowledges at its end
                await self.handle(handler, message.body, message)

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
            self.replied(body, properties)

        await channel.basic_consume(on_reply, self.reply_queue, no_ack=True)

    async def work(self, handler):
        running = set()

        async def finish(channel, body, envelope, properties):
            await self.handle(handler, body, properties)
            await channel.basic_client_ack(envelope.delivery_tag)

        async def on_message(*delivery):
            # A task: the connection is not read while this callback runs.
            task = asyncio.create_task(finish(*delivery))
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

    async def work(self, handler):
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
                start = time.perf_counter()
                result = self.task.apply_async((data_of(number),))
                pending.append((number, start, result))
            if not pending:
                return number
            sent, start, result = pending.pop(0)
            assert result.get(DEADLINE) == sent
            self.took.append(time.perf_counter() - start)

    async def work(self, handler):
        warnings.filterwarnings('ignore', message='.*superuser')
        await self.open(handler)
        self.app.Worker(
            hostname=self.queue, pool='solo', concurrency=1, loglevel='ERROR',
            prefetch_multiplier=PREFETCH, quiet=True, without_gossip=True,
            without_heartbeat=True, without_mingle=True,
        ).start()


class Limit(Contender):
    """The broker's: a raw socket, frames encoded beforehand, nothing decoded.

    A worker acknowledges each message with a frame of its own, as most libraries do;
    aioqueue needs one for many, so it may drain a queue faster than this.
    """

    ACK = b'\1\0\1\0\0\0\x0d\0\x3c\0\x50%b\0\xce'  # the broker's confirms, too

    def message(self, number, routing_key, reply_to=None):
        """Return the frames of a message, and the last of them: its body."""
        from pamqp import body, commands, frame, header

        data = self.pack(data_of(number))
        properties = commands.Basic.Properties(
            content_type='application/msgpack', correlation_id='0' * 32,
            delivery_mode=2, reply_to=reply_to)
        parts = (commands.Basic.Publish(routing_key=routing_key),
                 header.ContentHeader(0, len(data), properties), body.ContentBody(data))
        frames = [frame.marshal(part, 1) for part in parts]
        return b''.join(frames), frames[-1]

    def connect(self, queue, no_ack):
        from pamqp import commands, frame

        replies = f'{self.queue}.reply'
        self.task, task = self.message(1, self.queue)
        self.request, request = self.message(2, self.queue, replies)
        self.reply, _ = self.message(1, replies)
        confirm = re.escape(self.ACK[:11]) + b'(?P<confirmed>.{8}).\xce'
        request = b'(?P<request>' + re.escape(request) + b')'
        pattern = b'|'.join([confirm, request, re.escape(task)])
        self.pattern = re.compile(pattern, re.DOTALL)
        self.sent = self.confirmed = self.received = 0
        self.rest = b''
        self.socket = socket.create_connection(('localhost', PORT))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(b'AMQP\0\0\x09\1')
        # The broker's answers are not awaited: it takes all of this in its order.
        for channel, method in (
            (0, commands.Connection.StartOk({}, 'PLAIN', '\0guest\0guest')),
            (0, commands.Connection.TuneOk(1, 131072, 0)),
            (0, commands.Connection.Open('/')),
            (1, commands.Channel.Open()),
            (1, commands.Confirm.Select()),
            (1, commands.Basic.Qos(prefetch_count=PREFETCH)),
            (1, commands.Queue.Declare(queue=self.queue, durable=True)),
            (1, commands.Queue.Declare(queue=replies, durable=True)),
            (1, commands.Basic.Consume(queue=queue, no_ack=no_ack)),
        ):
            self.socket.sendall(frame.marshal(method, channel))

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
        more = numbers(count, seconds)
        while True:
            on_the_way = self.sent - getattr(self, done)
            sending = len(list(itertools.islice(more, at_once - on_the_way)))
            self.sent += sending
            on_the_way += sending
            if not on_the_way:
                return self.sent - before
            start = time.perf_counter()
            self.socket.sendall(message * sending)
            while self.sent - getattr(self, done) == on_the_way:
                self.read()
            self.took.append(time.perf_counter() - start)

    async def open(self):
        self.connect(f'{self.queue}.reply', no_ack=True)

    async def enqueue(self, count, seconds, at_once):
        return self.exchange(count, seconds, at_once, self.task, 'confirmed')

    async def calls(self, count, seconds, at_once):
        return self.exchange(count, seconds, at_once, self.request, 'received')

    async def work(self, handler):
        self.connect(self.queue, no_ack=False)
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
    await contender.open()
    cold = await work(at_once, DEADLINE, at_once, **options)  # not measured
    start, (idle, _) = time.perf_counter(), usage()
    done = await work(count, seconds, at_once, **options)
    value = done / (time.perf_counter() - start)
    busy, megabytes = usage()
    if row == 'latency':
        value = statistics.median(contender.took) * 1e3
    print(json.dumps([cold + done, value, (busy - idle) / done * 1e6, megabytes]))
    await contender.close()


async def worker(contender):
    """Handle tasks; report when there were as many as each line of the input says."""
    report = {'count': 0, 'first': 0, 'last': 0, 'idle': 0}

    def handler(data):
        report['last'] = time.monotonic()
        if not report['count']:
            report['first'] = report['last']
            report['idle'], _ = usage()
        report['count'] += 1
        return data['id']

    def listen():
        for line in sys.stdin:
            end = time.monotonic() + DEADLINE + int(line) / 100
            while report['count'] < int(line) and time.monotonic() < end:
                time.sleep(0.05)
            report['busy'], report['MB'] = usage()
            print(json.dumps(report), flush=True)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    await contender.work(handler)
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
    what = json.dumps({'role': role, **about, **more})
    return [sys.executable, __file__, '--child', what]


def ask(role, about, **more):
    """Run a child to its end, and return its answer."""
    done = subprocess.run(
        command(role, about, **more), stdout=subprocess.PIPE, check=True,
        timeout=DEADLINE + more.get('seconds', 0))
    return json.loads(done.stdout)


@contextlib.contextmanager
def working(about):
    """Have a worker; give a function that waits until it has handled `count` tasks."""
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'bufsize': 0}
    process = subprocess.Popen(command('worker', about), **pipes)

    def report_at(count):
        process.stdin.write(f'{count}\n'.encode())
        report = json.loads(process.stdout.readline() or '{"count": "none"}')
        if report['count'] != count:
            raise RuntimeError(f'{report["count"]} of {count} tasks handled')
        return report

    try:
        yield report_at
        time.sleep(0.5)  # the last acknowledgements are on their way
        process.stdin.close()
        if process.wait(DEADLINE):
            raise RuntimeError(f'the worker ended with {process.returncode}')
    finally:
        process.kill()


def measure(about, rows, **limits):
    """Return what was found of a contender in a round."""
    found = {}
    total, rate, cost, memory = ask('caller', about, row='enqueue', **limits)
    found['enqueue, tasks/s'] = rate
    found['enqueue, caller, µs'] = cost
    with working(about) as report_at:
        report = report_at(total)
        found['drain, tasks/s'] = total / (report['last'] - report['first'])
        found['drain, worker, µs'] = (report['busy'] - report['idle']) / total * 1e6
        for row in rows:
            count, value, cost, megabytes = ask('caller', about, row=row, **limits)
            idle, total = report['busy'], total + count
            report = report_at(total)
            found[f'{row}, {"ms" if row == "latency" else "tasks/s"}'] = value
            found[f'{row}, caller, µs'] = cost
            found[f'{row}, worker, µs'] = (report['busy'] - idle) / count * 1e6
            memory = max(memory, megabytes, report['MB'])
    if 'delayed' in rows:
        found['delayed, % of enqueue'] = (
            found['delayed, tasks/s'] / found['enqueue, tasks/s'] * 100)
    found['peak memory, MB'] = max(memory, report['MB'])
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


def compare(options, tasks):
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
            rows = () if tasks else CONTENDERS.get(name, Aioqueue).rows
            try:
                found = measure(about, rows, **limits)
            except Exception as failure:
                found, options.failed = {}, True
                say(f'{name} FAILED: {failure!r}')
            left = ask('remover', about)['left']
            if left:
                options.failed = True
                say(f'{name} FAILED: it left {left} tasks in the queue')
            rounds[-1][name] = found
            values = '; '.join(f'{each} {text(found[each])}' for each in found)
            say(f'round {number + 1}: {name}: {values}')
    print(f'\n{tasks or "As many as fit"}, {options.rounds} rounds:')
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
    add('--tasks', type=integers, default=[0], help='enqueue and drain only, so many')
    add('--tiny', action='store_true', help='everything once, and briefly')
    options = parser.parse_args()
    if options.tiny:
        options.rounds, options.seconds = 1, 0.1
        options.tasks = [0, 100]
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
        compare(options, tasks)
    print(f'\n{what}.')
    sys.exit(options.failed)


if __name__ == '__main__':
    main()
