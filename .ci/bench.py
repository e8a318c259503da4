"""Measure aioqueue next to other libraries, on the RabbitMQ of `make rabbit`.

    make bench                                   everything, some minutes
    make bench ARGS='--rounds 3 --only aioqueue,aio-pika,limit'
    make bench ARGS='--module ../old'            another aioqueue.py beside this one
    make bench ARGS='--flat --million'           does the cost of a task grow?
    make bench ARGS='--workers 1,2,4'            several worker processes
    make bench ARGS=--tiny                       does all of this still run?

One worker process and one caller process share the cores with the broker. All
contenders take their turn in every round, in another order each time:

- enqueue: 50 coroutines send one small task after the other, and want no result.
  Tasks a second until the broker has confirmed the last one.
- delayed: the same, with a delay that ends when all are sent.
- drain: a worker with a prefetch of 100 and a handler that does nothing works off what
  was enqueued. Tasks a second from the first one handled to the last.
- call: 50 coroutines send a task, await its result, send the next. Calls a second.
- latency: one call after the other. The median.
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
import re
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
import traceback
import warnings

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOME = ROOT / '.bench'  # the virtual environment
PEERS = ('aio-pika', 'celery', 'taskiq', 'taskiq-aio-pika')
PORT = int(os.environ.get('PORT', '5672'))  # of `make bench PORT=...`
URL = f'amqp://guest:guest@localhost:{PORT}/'
AT_ONCE = 50
PREFETCH = 100


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
# after they ran and their reply was confirmed.


class Contender:
    rows = ('call', 'latency')  # besides enqueue and drain

    def __init__(self, queue):
        self.queue = queue
        self.results = {}
        self.took = []  # seconds of each call

    async def enqueue(self, count, seconds, at_once, **options):
        """Send `count` tasks, or as many as fit in; return how many."""

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

    # For libraries without calls of their own: replies are matched by correlation id.

    async def send(self, data):
        await self.publish(self.queue, data)

    async def call(self, data):
        correlation_id = os.urandom(16).hex()
        result = asyncio.get_running_loop().create_future()
        self.results[correlation_id] = result
        await self.publish(
            self.queue, data, correlation_id=correlation_id, reply_to=self.reply_queue
        )
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

        q = aioqueue.Queue(URL)

        @q.on(self.queue, prefetch_count=PREFETCH)
        async def handle(data):
            if pause:
                await asyncio.sleep(pause)
            return handler(data)

        await q.start_async()


class Limit(Contender):
    """The broker's: a raw socket, frames encoded beforehand, nothing decoded.

    It acknowledges each message with a frame of its own, as most libraries do; aioqueue
    needs one for many, so it may drain a queue faster than this.
    """

    ACK = b'\1\0\1\0\0\0\x0d\0\x3c\0\x50%b\0\xce'

    def connect(self, consume):
        from pamqp.commands import Basic, Channel, Confirm, Connection, Queue
        from pamqp.frame import marshal

        self.tasks, task = self.message(1, self.queue)
        self.requests, request = self.message(2, self.queue, f'{self.queue}.reply')
        self.reply, _ = self.message(1, f'{self.queue}.reply')
        confirm = re.escape(self.ACK[:11]) + b'(?P<confirmed>.{8}).\xce'
        request = b'(?P<request>' + re.escape(request) + b')'
        self.pattern = re.compile(
            b'|'.join([confirm, request, re.escape(task)]), re.DOTALL
        )
        self.sent = self.confirmed = self.received = 0
        self.rest = b''
        # The broker's answers are not awaited: it takes all of this in its order.
        self.socket = socket.create_connection(('localhost', PORT))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(b'AMQP\0\0\x09\1')
        for channel, frame in (
            (0, Connection.StartOk({}, 'PLAIN', '\0guest\0guest')),
            (0, Connection.TuneOk(1, 131072, 0)),
            (0, Connection.Open('/')),
            (1, Channel.Open()),
            (1, Confirm.Select()),
            (1, Basic.Qos(prefetch_count=PREFETCH)),
            (1, Queue.Declare(queue=self.queue, durable=True)),
            (1, Queue.Declare(queue=f'{self.queue}.reply', durable=True)),
            (1, Basic.Consume(queue=consume)),
        ):
            self.socket.sendall(marshal(frame, channel))

    def message(self, number, routing_key, reply_to=None):
        """Return the frames of a message, and the last of them, its body."""
        import msgpack
        from pamqp.body import ContentBody
        from pamqp.commands import Basic
        from pamqp.frame import marshal
        from pamqp.header import ContentHeader

        body = msgpack.packb(data_of(number))
        properties = Basic.Properties(
            content_type='application/msgpack', correlation_id='0' * 32,
            delivery_mode=2, reply_to=reply_to,
        )
        content = marshal(ContentBody(body), 1)
        header = marshal(ContentHeader(0, len(body), properties), 1)
        method = marshal(Basic.Publish(routing_key=routing_key), 1)
        return method + header + content, content

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
                # The messages are in one queue: it confirms them in their order.
                delivery_tag = int.from_bytes(found['confirmed'])
                self.confirmed = max(self.confirmed, delivery_tag)
                continue
            self.received += 1
            answers.append(self.ACK % self.received.to_bytes(8))
            if found['request']:
                answers.append(self.reply)
        self.rest = data[end:]
        return b''.join(answers)

    def exchange(self, count, seconds, at_once, message, done):
        """Keep `at_once` messages on their way until the last is `done`."""
        before = self.sent
        answers = b''
        more = numbers(count, seconds)
        while True:
            on_the_way = self.sent - getattr(self, done)
            sending = len(list(itertools.islice(more, at_once - on_the_way)))
            self.socket.sendall(answers + message * sending)
            if not sending + on_the_way:
                return self.sent - before
            self.sent += sending
            start = time.perf_counter()
            answers = b''
            while self.sent - getattr(self, done) == sending + on_the_way:
                answers += self.read()
            self.took.append(time.perf_counter() - start)

    async def open(self):
        self.connect(f'{self.queue}.reply')

    async def close(self):
        # Not at once: acknowledgements that the broker has not read would be lost.
        from pamqp.commands import Connection
        from pamqp.frame import marshal

        self.socket.sendall(marshal(Connection.Close(0, '', 0, 0), 0))
        with contextlib.suppress(ConnectionResetError):
            while self.socket.recv(65536):
                pass

    async def enqueue(self, count, seconds, at_once):
        return self.exchange(count, seconds, at_once, self.tasks, 'confirmed')

    async def calls(self, count, seconds, at_once):
        return self.exchange(count, seconds, at_once, self.requests, 'received')

    async def work(self, handler, pause):
        self.connect(self.queue)
        while True:
            before = self.received
            answers = self.read()
            for number in range(before, self.received):
                handler({'id': number})
            self.socket.sendall(answers)


CONTENDERS = {
    'aioqueue': Aioqueue,
    'limit': Limit,
}


# The child processes. What they measure of themselves they print as lines of JSON.


def usage():
    used = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if sys.platform == 'darwin' else 1024
    return {
        'processor': used.ru_utime + used.ru_stime,
        'megabytes': used.ru_maxrss * unit / 1e6,
    }


async def caller(answer, contender, row, count, seconds):
    work = contender.calls if row in ('call', 'latency') else contender.enqueue
    at_once = 1 if row == 'latency' else AT_ONCE
    options = {'delay': seconds + 1} if row == 'delayed' else {}
    await contender.open()
    # The first ones, which find everything cold, are not measured.
    await work(at_once, 60, at_once, **options)
    before, start = usage(), time.perf_counter()
    done = await work(count, seconds, at_once, **options)
    after, seconds = usage(), time.perf_counter() - start
    if row == 'latency':
        found = {'latency, ms': statistics.median(contender.took) * 1e3}
    else:
        found = {f'{row}, {"calls" if row == "call" else "tasks"}/s': done / seconds}
        cost = (after['processor'] - before['processor']) / done
        found[f'{row}, caller, µs'] = cost * 1e6
    answer(count=at_once + done, found=found, megabytes=after['megabytes'])
    await contender.close()


async def worker(answer, contender, pause):
    """Handle tasks; answer each line of standard input with a report."""
    report = {'count': 0, 'first': 0, 'last': 0, 'idle': 0}

    def handler(data):
        report['last'] = time.monotonic()  # one clock for all processes
        if not report['count']:
            report['first'] = report['last']
            report['idle'] = usage()['processor']
        report['count'] += 1
        return data['id']

    def listen():
        for _ in sys.stdin:
            answer(**report, **usage())
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    await contender.work(handler, pause)
    await asyncio.Event().wait()


async def remover(answer, contender):
    """Delete all that is named after a queue; tell how many tasks it held."""
    import aio_pika

    queue = contender.queue
    async with await aio_pika.connect(URL) as connection:
        channel = await connection.channel()
        left = await channel.queue_delete(queue)
        await channel.queue_delete(f'{queue}.reply')
        await channel.queue_delete(f'{queue}.dead')
        await channel.exchange_delete(queue)
        server = connection.transport.connection.server_properties
    answer(left=left.message_count, server=f'{server["product"]} {server["version"]}')


def be_child(role, name, folder, queue, **options):
    # Libraries print what they like; the parent is told nothing but answers.
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    sys.path.insert(0, folder)

    def answer(**fields):
        print(json.dumps(fields), file=answers, flush=True)

    role = {'caller': caller, 'worker': worker, 'remover': remover}[role]
    contender = CONTENDERS.get(name, Aioqueue)(queue)
    status = 1
    try:
        asyncio.run(role(answer, contender, **options))
        status = 0
    except Exception:
        traceback.print_exc()
    os._exit(status)  # whatever threads of a library are left


# The parent. It imports no library: what it has in memory counts for its children.




def command(role, about, **more):
    return [sys.executable, __file__, '--child', json.dumps({'role': role} | about | more)]


def ask(role, about, **more):
    """Run a child to its end, and return its answer."""
    timeout = 120 + more.get('seconds', 0)
    child = command(role, about, **more)
    done = subprocess.run(child, stdout=subprocess.PIPE, check=True, timeout=timeout)
    return json.loads(done.stdout)


@contextlib.contextmanager
def working(number, about, pause):
    """Have `number` workers meanwhile."""
    child = command('worker', about, pause=pause)
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
    workers = [subprocess.Popen(child, bufsize=0, **pipes) for _ in range(number)]
    try:
        yield workers
        time.sleep(0.5)  # the last acknowledgements are on their way
        for each in workers:
            each.stdin.close()
            if each.wait(10):
                raise RuntimeError(f'a worker ended with status {each.returncode}')
    finally:
        for each in workers:
            each.kill()


def handled(workers, count):
    """Wait until the workers have handled so many tasks; return their reports."""
    deadline = time.monotonic() + 120 + count / 100
    while True:
        for each in workers:
            each.stdin.write(b'\n')
        lines = [each.stdout.readline() for each in workers]
        if not all(lines):
            raise RuntimeError('a worker ended too early')
        reports = [json.loads(line) for line in lines]
        total = sum(report['count'] for report in reports)
        if total >= count:
            return [report for report in reports if report['count']]
        if time.monotonic() > deadline:
            raise RuntimeError(f'{total} of {count} tasks handled')
        time.sleep(0.1)


def measure(about, rows, workers, pause, **limits):
    """Return a contender's numbers of one round."""
    found = {}
    memory = []

    def called(row):
        answer = ask('caller', about, row=row, **limits)
        found.update(answer['found'])
        memory.append(answer['megabytes'])
        return answer['count']

    try:
        count = called('enqueue')
        with working(workers, about, pause) as running:
            reports = handled(running, count)
            first = min(each['first'] for each in reports)
            last = max(each['last'] for each in reports)
            busy = sum(each['processor'] - each['idle'] for each in reports)
            found['drain, tasks/s'] = count / (last - first)
            found['drain, worker, µs'] = busy / count * 1e6
            for row in rows:
                before = reports[0]['processor']
                called_now = called(row)
                count += called_now
                reports = handled(running, count)
                if row == 'call':
                    cost = (reports[0]['processor'] - before) / called_now
                    found['call, worker, µs'] = cost * 1e6
            memory += [each['megabytes'] for each in reports]
    finally:
        left = ask('remover', about)['left']
    if left:
        raise RuntimeError(f'{left} tasks were left in the queue')
    if 'delayed' in rows:
        share = found['delayed, tasks/s'] / found['enqueue, tasks/s']
        found['delayed, % of enqueue'] = share * 100
    found['peak memory, MB'] = max(memory)
    return found


def number_text(value):
    return f'{value:,.0f}' if value >= 100 else f'{value:#.3g}'


def table(rounds, names, units):
    """Print medians; below each how many times better the first contender was."""
    titles = dict.fromkeys(
        title for each in rounds for name in names for title in each[name]
    )
    lines = [['..', *names]]
    for title in titles:
        if not title.endswith(units):
            continue
        values = [title]
        times = ['..']
        for name in names:
            found = [each for each in rounds if title in each[name]]
            both = [each for each in found if title in each[names[0]]]
            ratios = [each[names[0]][title] / each[name][title] for each in both]
            if not title.endswith('/s'):  # the smaller the better
                ratios = [1 / ratio for ratio in ratios]
            values.append('')
            times.append('')
            if found:
                middle = statistics.median(each[name][title] for each in found)
                values[-1] = number_text(middle)
            if ratios and name == 'limit':
                times[-1] = f'{statistics.median(ratios):.0%}'
            elif ratios and name != names[0]:
                times[-1] = f'x {number_text(statistics.median(ratios))}'
        lines.append(values)
        if any(times[1:]) and '%' not in title:
            lines.append(times)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = '  '.join('=' * width for width in widths)
    lines = ['  '.join(map(str.ljust, line, widths)).rstrip() for line in lines]
    print('', rule, lines[0], rule, *lines[1:], rule, sep='\n', flush=True)


def compare(options, workers, count, seconds, few):
    """Measure all contenders in turn, print the tables, return whether all went well."""
    names = list(options.contenders)
    rounds = []
    for turn in range(options.rounds):
        rounds.append(dict.fromkeys(names, {}))
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            about = {'name': name, 'folder': str(options.contenders[name])}
            about['queue'] = f'bench.{os.getpid()}.{name}'
            rows = () if few else CONTENDERS.get(name, Aioqueue).rows
            try:
                found = measure(
                    about, rows, workers, options.pause, count=count, seconds=seconds
                )
            except (RuntimeError, OSError, subprocess.SubprocessError) as failure:
                say(f'round {turn + 1}: {name} FAILED: {failure}')
                options.failed = True
                continue
            rounds[-1][name] = found
            values = (f'{title} {number_text(found[title])}' for title in found)
            say(f'round {turn + 1}: {name}: {"; ".join(values)}')
    table(rounds, names, ('/s', 'ms', '%'))
    table(rounds, names, ('µs', 'MB'))


def prepare():
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
        pip = [str(python), '-m', 'pip', '-qq', '--disable-pip-version-check']
        subprocess.run([*pip, 'install', '--editable', str(ROOT), *PEERS], check=True)
        stamp.write_text(made_of)
    os.execv(python, [str(python), __file__, *sys.argv[1:]])


def say(text):
    print(text, file=sys.stderr, flush=True)


def versions(contenders):
    nothing = {'name': 'limit', 'folder': '', 'queue': 'bench.nothing'}
    found = [f'CPython {platform.python_version()}', ask('remover', nothing)['server']]
    for name, folder in contenders.items():
        if folder:
            source = (folder / 'aioqueue.py').read_text()
            version = re.search(r"^__version__ = '(.+)'$", source, re.M)[1]
            found.append(f'{name} {version}')
    for package in ('aioamqp', 'msgpack', *PEERS):
        found.append(f'{package} {importlib.metadata.version(package)}')
    return f'{", ".join(found)}; {os.cpu_count()} cores.'


def parsed():
    def names(text):
        return text.split(',')

    def counts(text):
        return [int(each) for each in text.split(',')]

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--rounds', type=int, default=5)
    add('--seconds', type=float, default=2, help='that each row takes')
    add('--only', type=names, default=list(CONTENDERS), help=','.join(CONTENDERS))
    add('--module', type=pathlib.Path, action='append', default=[],
        help='an aioqueue.py or its folder, whose name is that of the contender')
    add('--flat', action='store_true', help='enqueue and drain up to 100,000 tasks')
    add('--million', action='store_true', help='with --flat: and a million')
    add('--workers', type=counts, help='enqueue and drain with so many processes')
    add('--pause', type=float, default=0, help='of the handler, in seconds')
    add('--tiny', action='store_true', help='all of this, once and briefly')
    options = parser.parse_args()
    options.failed = False
    modules = {}
    for path in options.module:
        folder = path.resolve() if path.is_dir() else path.resolve().parent
        if folder.name in CONTENDERS or not (folder / 'aioqueue.py').exists():
            parser.error(f'{folder}: no aioqueue.py, or not a name of its own')
        modules[folder.name] = folder
    options.contenders = {}
    for name in options.only:
        if name not in CONTENDERS:
            parser.error(f'{name} is none of {", ".join(CONTENDERS)}')
        options.contenders[name] = ROOT if name == 'aioqueue' else ''
        if name == 'aioqueue':
            options.contenders |= modules
    return options


def main():
    if sys.argv[1:2] == ['--child']:
        be_child(**json.loads(sys.argv[2]))
    options = parsed()
    if pathlib.Path(sys.prefix).resolve() != HOME.resolve():
        prepare()
    about = versions(options.contenders)
    if options.tiny:
        options.rounds, options.seconds = 1, 0.1
    if options.tiny or not (options.flat or options.workers):
        compare(options, 1, 10**9, options.seconds, few=False)
    for workers in options.workers or [2] * options.tiny:
        print(f'\n{workers} worker processes')
        compare(options, workers, 10**9, options.seconds, few=True)
    counts = [1_000, 10_000, 100_000] if options.flat else []
    counts += [1_000_000] if options.million else []
    for count in counts or [100] * options.tiny:
        print(f'\n{count:,} tasks')
        compare(options, 1, count, 3_600, few=True)
    print(f'\n{about}')
    sys.exit(options.failed)


if __name__ == '__main__':
    main()
