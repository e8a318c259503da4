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
import concurrent.futures
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
SPEEDS = ('/s', 'ms', '%')
COSTS = ('µs', 'MB')
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
    settle = 0.5  # seconds until the last acknowledgements are sent

    def __init__(self, queue):
        import msgpack

        self.queue = queue
        self.pack, self.unpack = msgpack.packb, msgpack.unpackb
        self.results = {}
        self.took = []  # seconds of each call

    async def run(self, calls, count, seconds, at_once, **options):
        """Send or call `count` times, or as `seconds` allow; return how often."""

        async def run_some():
            for number in numbers(count // at_once, seconds):
                if not calls:
                    await self.send(data_of(number), **options)
                    continue
                start = time.perf_counter()
                assert await self.call(data_of(number)) == number
                self.took.append(time.perf_counter() - start)
            return number

        return sum(await asyncio.gather(*(run_some() for _ in range(at_once))))

    async def close(self):
        """Most leave nothing behind."""

    # What follows is for libraries that have no calls of their own.

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

    def __init__(self, queue):
        import aioqueue

        super().__init__(queue)
        self.q = aioqueue.Queue(URL)

    async def open(self):
        await self.q.connect()

    async def close(self):
        await self.q.close()

    async def send(self, data, **options):
        await self.q.task(self.queue, data, no_response=True, **options)

    async def call(self, data):
        task = await self.q.task(self.queue, data)
        return await task.result()

    async def work(self, handler):
        @self.q.on(self.queue, prefetch_count=PREFETCH)
        async def handle(data):
            return handler(data)

        await self.q.start_async()


class AioPika(Contender):
    # As in its tutorial. In its favour: replies are not acknowledged, and are lost with
    # the connection. A callback and not an iterator: PREFETCH messages run at once.
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

        await tasks.consume(on_message)


class Aioamqp(Contender):
    # It doesn't understand a confirm of several messages: one message a channel. In its
    # favour: a returned message passes for confirmed, a lost connection stays lost.
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
    # A classic queue as for all others; unless asked it takes a quorum queue.
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
    # What makes it fastest: the pool `solo`, ten threads to enqueue, one for calls. In
    # its favour: the queue of its results goes away with a lost connection.
    settle = 12  # idle, it keeps its last acknowledgements for some ten seconds

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

    async def run(self, calls, count, seconds, at_once):
        def send_some():
            for number in numbers(count // threads, seconds):
                self.task.apply_async((data_of(number),), ignore_result=True)
            return number

        if not calls:
            threads = self.app.conf.broker_pool_limit
            with concurrent.futures.ThreadPoolExecutor(threads) as pool:
                return sum(each.result() for each in [
                    pool.submit(send_some) for _ in range(threads)])
        pending = []
        more = numbers(count, seconds)
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
    # The broker's: frames encoded beforehand, nothing decoded. It acknowledges each one
    # with a frame; aioqueue needs one for many, so it may drain faster than this.
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

    async def open(self):
        self.connect(f'{self.queue}.reply', no_ack=True)

    async def run(self, calls, count, seconds, at_once):
        message = self.request if calls else self.task
        done = 'received' if calls else 'confirmed'
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
    calls = row in ('call', 'latency')
    at_once = 1 if row == 'latency' else AT_ONCE
    options = {'delay': seconds + 1} if row == 'delayed' else {}
    await contender.open()
    # The first ones, which find everything cold, are not measured.
    cold = await contender.run(calls, at_once, DEADLINE, at_once, **options)
    start, (idle, _) = time.perf_counter(), usage()
    done = await contender.run(calls, count, seconds, at_once, **options)
    value = done / (time.perf_counter() - start)
    busy, megabytes = usage()
    if row == 'latency':
        value = statistics.median(contender.took) * 1e3
    print(json.dumps([cold + done, value, (busy - idle) / done * 1e6, megabytes]))
    await contender.close()


async def worker(contender):
    """Handle tasks; report when there were as many as each line of the input says."""
    report = {'count': 0}

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
        time.sleep(contender.settle)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    await contender.work(handler)
    await asyncio.Event().wait()


async def remover(contender):
    """Delete all that is named after a queue, which must be empty."""
    import aio_pika

    async with await aio_pika.connect(URL) as connection:
        channel = await connection.channel()
        deleted = await channel.queue_delete(contender.queue)
        for suffix in ('reply', 'dead'):
            await channel.queue_delete(f'{contender.queue}.{suffix}')
        await channel.exchange_delete(contender.queue)
        server = connection.transport.connection.server_properties
    assert not deleted.message_count, f'{deleted.message_count} tasks are left'
    print(json.dumps(server['version']))


# The parent. It imports no library: its memory would count for its children.


def command(role, name, folder, **more):
    what = {'name': name, 'queue': f'bench.{os.getpid()}.{name}', **more}
    return [sys.executable, __file__, '--child', str(folder), role, json.dumps(what)]


def ask(*about, **more):
    """Run a child to its end, and return its answer."""
    timeout = DEADLINE + more.get('seconds', 0)
    line = command(*about, **more)
    done = subprocess.run(line, stdout=subprocess.PIPE, check=True, timeout=timeout)
    return json.loads(done.stdout)


def report_at(process, count):
    """Wait until a worker has handled so many tasks."""
    process.stdin.write(f'{count}\n'.encode())
    report = json.loads(process.stdout.readline() or '{"count": 0}')
    if report['count'] != count:
        raise RuntimeError(f'{report["count"]} of {count} tasks handled')
    return report


def measure(name, folder, rows, **limits):
    """Return what was found of a contender in a round."""
    found = {}
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'bufsize': 0}
    total, rate, cost, memory = ask('caller', name, folder, row='enqueue', **limits)
    found['enqueue, tasks/s'] = rate
    found['enqueue, caller, µs'] = cost
    with subprocess.Popen(command('worker', name, folder), **pipes) as process:
        report = report_at(process, total)
        found['drain, tasks/s'] = total / (report['last'] - report['first'])
        found['drain, worker, µs'] = (report['busy'] - report['idle']) / total * 1e6
        for row in rows:
            count, value, cost, peak = ask('caller', name, folder, row=row, **limits)
            total += count
            idle = report['busy']
            report = report_at(process, total)
            found[f'{row}, {"ms" if row == "latency" else "tasks/s"}'] = value
            found[f'{row}, caller, µs'] = cost
            found[f'{row}, worker, µs'] = (report['busy'] - idle) / count * 1e6
            memory = max(memory, peak)
    if 'delayed' in rows:
        share = found['delayed, tasks/s'] / found['enqueue, tasks/s']
        found['delayed of enqueue, %'] = share * 100
    found['peak memory, MB'] = max(memory, report['MB'])
    return found


def text(values):
    """The median of values, if there are any."""
    if not values:
        return ''
    value = statistics.median(values)
    return f'{value:,.0f}' if value >= 100 else f'{value:#.3g}'


def table(rounds, names, units):
    """Print the medians; below speeds how many times better the first was."""
    titles = dict.fromkeys(
        title for found in rounds for name in names for title in found[name])
    lines = [['..', *names]]
    for title in titles:
        if not title.endswith(units):
            continue
        lines += [[title], ['..']]
        for name in names:
            found = [each for each in rounds if title in each[name]]
            both = [each for each in found if title in each[names[0]]]
            ratios = [each[names[0]][title] / each[name][title] for each in both]
            if title.endswith('ms'):
                ratios = [1 / each for each in ratios]
            lines[-2].append(text([each[name][title] for each in found]))
            first = not ratios or name == names[0]
            lines[-1].append('' if first else f'x {text(ratios)}')
        if units == COSTS or not any(lines[-1][1:]) or title.endswith('%'):
            lines.pop()
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = '  '.join('=' * width for width in widths)
    head, *lines = ['  '.join(map(str.ljust, line, widths)).rstrip() for line in lines]
    print('', rule, head, rule, *lines, rule, sep='\n', flush=True)


def compare(options, tasks):
    """Measure all contenders in turn, print the tables; return how many failed."""
    names = list(options.contenders)
    limits = {'count': tasks or 10**9, 'seconds': 3600 if tasks else options.seconds}
    rounds = []
    failures = 0
    for number in range(options.rounds):
        rounds.append({name: {} for name in names})
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            about = (name, options.contenders[name])
            rows = () if tasks else CONTENDERS.get(name, Aioqueue).rows
            try:
                try:
                    found = measure(*about, rows, **limits)
                finally:
                    ask('remover', *about)
            except Exception as failure:
                failures += 1
                say(f'round {number + 1}: {name} FAILED: {failure!r}')
                continue
            rounds[-1][name] = found
            values = '; '.join(f'{each} {text([found[each]])}' for each in found)
            say(f'round {number + 1}: {name}: {values}')
    print(f'\n{tasks or "As many tasks as fit"}, {options.rounds} rounds:')
    table(rounds, names, SPEEDS)
    table(rounds, names, COSTS)
    return failures


def say(line):
    print(line, file=sys.stderr, flush=True)


def versions(contenders):
    yield f'CPython {sys.version.split()[0]}, {os.cpu_count()} cores'
    yield f'RabbitMQ {ask("remover", "limit", "")}'
    for name, folder in contenders.items():
        if folder:
            source = (folder / 'aioqueue.py').read_text()
            yield f'{name} {re.search("__version__ = .(.+).", source)[1]}'
    for package in ('aioamqp', 'msgpack', *PEERS):
        yield f'{package} {importlib.metadata.version(package)}'


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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--rounds', type=int, default=5)
    add('--seconds', type=float, default=2, help='that a row takes')
    add('--only', default=','.join(CONTENDERS), help=','.join(CONTENDERS))
    add('--module', type=pathlib.Path, action='append', default=[], metavar='PATH',
        help='another aioqueue.py, or its folder, which gives it its name')
    add('--tasks', default='0', help='enqueue and drain only, so many')
    add('--tiny', action='store_true', help='everything once, and briefly')
    options = parser.parse_args()
    if options.tiny:
        options.rounds, options.seconds, options.tasks = 1, 0.1, '0,100'
    folders = [path if path.is_dir() else path.parent for path in options.module]
    modules = {folder.resolve().name: folder.resolve() for folder in folders}
    options.contenders = {}
    for name in options.only.split(','):
        if name not in CONTENDERS or name in modules or len(modules) < len(folders):
            parser.error(f'{name} is unknown, or a --module has the name of another')
        options.contenders[name] = ''
        if name == 'aioqueue':
            options.contenders |= {name: ROOT, **modules}
    return options


def main():
    if sys.argv[1:2] == ['--child']:
        _, _, folder, role, what = sys.argv
        sys.path.insert(0, folder)
        about = json.loads(what)
        contender = CONTENDERS.get(about.pop('name'), Aioqueue)(about.pop('queue'))
        role = {'caller': caller, 'worker': worker, 'remover': remover}[role]
        return asyncio.run(role(contender, **about))
    options = parsed()
    if pathlib.Path(sys.prefix).resolve() != HOME.resolve():
        prepare()
    about = ', '.join(versions(options.contenders))
    failures = sum(compare(options, int(tasks)) for tasks in options.tasks.split(','))
    print(f'\n{about}.')
    return failures


if __name__ == '__main__':
    sys.exit(main())
