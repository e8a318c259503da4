"""Break one guarding line of the module at a time: do the tests notice?

    python .ci/mutate.py [--port N] [--jobs N] [FILTER]

Needs what the tests need, and a broker on the port (`make rabbit`). Each mutation is
made in a copy of the files that the tests use; then only those tests run that should
fail. FILTER picks mutations by what stands in their row.
"""

import argparse
import concurrent.futures
import contextlib
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILES = ('aioqueue.py', 'test_aioqueue.py', 'README.rst', 'Makefile', 'setup.py',
         '.pytest.ini', '.ci/rabbit.py', '.ci/tools.py')
DEADLINE = 300  # seconds that the tests of one mutation may take

# Tests that should notice (as for `pytest -k`), a text that is there once, a new one.
MUTATIONS = [
    # Queue: what can't be used.
    ('bad_arguments', 'if unknown := connect_kwargs.keys() - OPTIONS:',
     'if unknown := set():'),
    ('bad_arguments', "('heartbeat', 1)", "('heartbeat', 0)"),
    ('bad_arguments', "('frame_max', 8192)", "('frame_max', 1)"),
    ('bad_arguments', 'if not hosts or not retry >= 0:', 'if not hosts:'),
    ('bad_arguments', "('amqp', 'amqps') or url.query:",
     "('amqp', 'amqps', 'http', 'redis'):"),
    ('bad_options', '1 <= prefetch_count <= 65535 and', ''),
    ('bad_options', 'retries >= 0 and', ''),
    ('bad_options', 'and retry_delay >= 0', ''),
    ('bad_options', 'if timeout is not None and not is_async:', 'if False:'),
    ('misuse_of_on', 'if self._started:', 'if False:'),
    ('misuse_of_on', 'if name in self._handlers:\n', 'if False:\n'),
    ('cannot_be_sent', 'if delay < 0 or (delay and expires is not None):',
     'if delay < 0:'),
    ('cannot_be_sent', 'and 0 < len(id.encode()) < 256)', 'and id)'),
    ('cannot_be_sent', 'NAME.fullmatch(name)', 'NAME.match(name)'),
    ('cannot_be_sent', 'if len(header) > self.room:', 'if False:'),
    ('cannot_be_sent', 'allow_nan=False', 'allow_nan=True'),
    ('hosts_are_names', 'unquote(part)', 'part'),
    # Its life.
    ('while_it_closes_waits', '        if self._closing:\n', '        if False:\n'),
    ('tells_a_person', 'if not logger.hasHandlers():', 'if False:'),
    ('signal', 'main.cancel()', 'pass'),
    ('second_signal', 'signal.signal(signum, signal.SIG_DFL)', 'pass'),
    ('while_it_closes_tasks', '            self._link.cancel()\n',
     '            pass\n'),
    ('close_waits', '*self._running, timeout=timeout)', '*self._running, timeout=0)'),
    ('cuts_short or generator_that_does', 'for work in (*self._running, supervisor)',
     'for work in (supervisor,)'),
    ('close_ends', 'for reply in list(self._awaited.values()):', 'for reply in ():'),
    ('what_the_broker_refuses', '(refusal or self._retry is False)',
     'self._retry is False'),
    ('with_retry_false', '(refusal or self._retry is False)', 'refusal'),
    ('without_a_broker', 'asyncio.sleep(began + pause - clock())', 'asyncio.sleep(0)'),
    ('faults and connections', '                continue  # it was lost',
     '                raise  #'),
    ('connected or without_a_broker', 'return self._link is not None', 'return True'),
    # Task: results and parts.
    ('tasks_with_one_id', 'queue._awaited.setdefault(self.id, _Reply())',
     'queue._awaited[self.id] = _Reply()'),
    ('tasks_with_one_id', "if reply.name not in (None, self.name):",
     'if False:'),
    ('who_awaits', 'self._queue._waiting.add(waiting)', 'pass'),
    ('repeat_no_part', "headers.get('part', reply.count) != reply.count", 'False'),
    ('another_run', "_number(headers.get('parts')) > reply.count", 'False'),
    ('cost_no_memory', 'weakref.WeakValueDictionary()', '{}'),
    ('cost_no_memory', '            channel.ack(delivery_tag)\n', ''),
    ('queues_and_tasks', "{'x-expires': REPLY_QUEUE_EXPIRES}", '{}'),
    # Delivery: acknowledged only when all is confirmed.
    ('current_is', 'current.set(self)', 'pass'),
    ('cuts_short or faults',
     '_process()\n                self._channel.ack(self._tag)',
     '_channel.ack(self._tag)\n                await self._process()'),
    ('kills_its_worker', 'if self._deliveries >= DELIVERY_LIMIT:', 'if False:'),
    ('kills_its_worker', 'headers=headers) or poison:', 'headers=headers):'),
    ('timeout_ends', 'async with limit:', 'if True:'),
    ('timeout_ends', 'limit.expired()', 'False'),
    ('cuts_short', 'if self._queue._supervisor.cancelling():', 'if False:'),
    ('raw_tasks', 'self._body if self._handler.raw else unpack', 'unpack'),
    ('caller_is_gone_the', 'if not await self._send_part(value):', 'if False:'),
    ('caller_is_gone_the and plain', 'threadsafe(part, loop).result():',
     'threadsafe(part, loop).result() and False:'),
    ('replies_look', "if 'content_type' not in self._properties:", 'if False:'),
    ('replies_look', "or self._reply_to.startswith('amq.rabbitmq.reply-to.')", ''),
    ('longest_error', 'room = self._channel.room // 16', 'room = 10**6'),
    ('retries_wait', 'self.attempt <= self._handler.retries',
     'self.attempt < self._handler.retries'),
    ('retries_wait', '2 ** min(self.attempt - 1, 32)', '1'),
    ('refused_waits', 'retry = False  # to wait', 'pass  #'),
    ('not_permitted', 'self._consumed.pop(name, None)  # or each', 'pass  #'),
    ('start_that_is_refused',
     'await self._until(_Link.call, _declare(name, settings.arguments))',
     'await self._until(_Link.call, _declare(name, settings.arguments))\n'
     '            self._consumed[name] = settings\n'
     '            await self._until(_Link.consume)'),
    ('anew_with', 'await self.declare(self.queue._consumed)\n        await',
     'for each in self.queue._consumed:\n'
     '            await self.call(_declare(each, {}))\n        await'),
    ('had_delivered', 'or self._channel.closed', ''),
    ('spares', 'if not supervisor.cancelling():', 'if True:'),
    ('takes_longer', 'failure.__cause__ = error', 'pass'),
    ('loop_of_its_own',
     'if living and queue._supervisor.get_loop() is not asyncio.get_running_loop():',
     'if False:'),
    ('confirms_its', '_settle(reply.sent, True)', 'pass'),
    ('confirms_its', '    elif reply.sent:', '    if reply.sent:'),
    ('confirms_its', 'reply if self._first else None', 'reply'),
    ('is_not_kept', '        self.unconfirmed.clear()', '        pass'),
    ('cannot_be_sent_again', "following.name = 'a generator'", 'following.name = reply.name  #'),
    ('not_permitted', 'await self._until(_Link.call, _declare(name, settings.arguments))',
     'pass'),
    ('refused_waits', 'await asyncio.sleep(REFUSED_PAUSE)', 'return'),
    ('x_death', 'if not key.startswith(PAST)', 'if key'),
    ('nobody_awaits_is', "'delivery_mode': 2, 'reply_to': reply_to,\n",
     "'delivery_mode': 1, 'reply_to': reply_to,\n"),
    ('nothing_that', "'utf-8', 'backslashreplace'", "'utf-8'"),
    ('nothing_that and plain', '(StopIteration, GeneratorExit)', 'ZeroDivisionError'),
    # _Link: two connections, delays.
    ('something_else_answers', 'asyncio.timeout(CONNECT_DEADLINE)',
     'asyncio.timeout(100)'),
    ('stream_of_delays', 'int(now // DELAY_SLOT)', '0'),
    ('stream_of_delays or looks', 'round(3_000 * DELAY_SLOT)',
     'round(1_000 * DELAY_SLOT)'),
    ('longer_than_a_slot', 'elif not ms or time.time() - now < DELAY_SLOT:', 'else:'),
    ('too_large_hinders', 'async with self.alone:', 'if True:'),
    ('priority', "if 'inequivalent arg' not in str(refused):", 'if True:'),
    ('delay_queue_looks', '**(AT_LEAST_ONCE if quorum else {})', '**{}'),
    ('not_permitted', 'for answer in itertools.chain(*self.consumers.values()):',
     'for answer in ():'),
    ('brings_no_new', 'self.cancel()  # it closes, perhaps', 'pass'),
    ('queues_and_tasks', 'if (queue := self.queue._reply_queue) in self.consumers:',
     'if False:'),
    ('memory_alarm', "for role in ('publish', 'consume')", "for role in ('publish',)"),
    # _Channel: confirms, returns, acknowledgements.
    ('megabytes', 'body[at:at + self.room])', 'body[at:])'),
    ('has_ended_is_ack', 'if delivery_tag == oldest:', 'if True:'),
    ('too_large_hinders',
     'self.connection.send(marshal(amqp.Channel.CloseOk(), self.number))', ''),
    ('consumer_timeout', 'if self is link.consuming:', 'if False:'),
    ('deleted', 'asyncio.create_task(link.give_up(method.consumer_tag))', 'pass'),
    ('deleted', '_settle(future, False)', '_settle(future, True)'),
    ('thousands', 'if method[12] & 1:', 'if False:'),
    ('full_queue', 'if nacked else True', 'if False else True'),
    # _Connection and bytes.
    ('silent_peer', 'self._stream_writer.close = transport.abort', 'pass'),
    ('broker_refuses', 'self.link.drop(Refused(frame.reply_text, frame.reply_code))',
     "self.link.drop(ConnectionError('closed'))"),
    ('stream_is_cut', 'self.incomplete = data[start:]', "self.incomplete = b''"),
    ('stops_no_heartbeat', 'self._heartbeat_timer_recv_reset()', 'pass'),
    ('deleted', 'mandatory=True', 'mandatory=False'),
    ('queues_and_tasks', 'durable=True', 'durable=False'),
    ('connect_kwargs', "'version': __version__", "'version': ''"),
    ('wrong_certificate', 'isinstance(error, (TypeError, ValueError)) or', ''),
]


def mutated(old: str, new: str) -> str:
    source = (ROOT / 'aioqueue.py').read_text()
    if source.count(old) != 1:
        sys.exit(f'not there once: {old!r}')
    return source.replace(old, new)


def run(tests: str, source: str, port: int, private_port: int) -> str:
    """Run these tests on that module: what became of them."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / '.ci').mkdir()
        for each in FILES:
            shutil.copy(ROOT / each, folder / each)
        (folder / 'aioqueue.py').write_text(source)
        process = subprocess.Popen(
            [sys.executable, '-m', 'pytest', '-xq', '-p', 'no:cacheprovider',
             '--timeout=45', 'test_aioqueue.py', '-k', tests],
            env={**os.environ, 'PORT': str(port), 'PRIVATE_PORT': str(private_port)},
            cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True)
        output = ''
        with contextlib.suppress(subprocess.TimeoutExpired):
            output, _ = process.communicate(timeout=DEADLINE)
        with contextlib.suppress(ProcessLookupError):  # and workers that it has left
            os.killpg(process.pid, signal.SIGKILL)
        if (folder / '.rabbit').exists():
            command = ['make', '-s', 'stop']
            subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL)
    status = process.wait()
    if failed := re.search(r'^FAILED test_aioqueue.py::(\S+)', output, re.M):
        return f'caught by {failed[1]}'
    if status == -signal.SIGKILL:
        return f'caught: the tests did not end in {DEADLINE} seconds'
    return 'NOT CAUGHT' if status == 0 else f'ERROR {status}: {output[-500:]}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--port', type=int, default=5672)
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('filter', nargs='?', default='')
    arguments = parser.parse_args()
    rows = [row for row in MUTATIONS if arguments.filter in str(row)]
    sources = [mutated(old, new) for _, old, new in rows]
    ports: queue.Queue[int] = queue.Queue()
    for job in range(arguments.jobs):
        ports.put(arguments.port + 20 * job + 20)

    def caught(row: tuple[str, str, str], source: str) -> bool:
        private_port = ports.get()
        outcome = run(row[0], source, arguments.port, private_port)
        ports.put(private_port)
        print(f'{row[1].strip()!r} -> {row[2].strip()!r}: {outcome}', flush=True)
        return outcome.startswith('caught')

    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        results = list(pool.map(caught, rows, sources))
    print(f'{sum(results)} of {len(results)} mutations were caught')
    sys.exit(not all(results))


if __name__ == '__main__':
    main()
