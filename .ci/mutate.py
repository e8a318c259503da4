"""Break one guarding line of the module at a time: do the tests notice?

    python .ci/mutate.py [--port N] [--private-port N] [--jobs N] [FILTER]

Needs what the tests need, and a broker on the port (`make rabbit`). Each mutation is
made in a copy of the files that the tests use; then only those tests run that should
fail. FILTER picks mutations by what stands in their row. Nodes that tests start are on
ports from the private one on, 20 for each job.
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
         '.pytest.ini', '.ci/aids.py', '.ci/rabbit.py', '.ci/tools.py')
DEADLINE = 150  # seconds that the tests of one mutation may take

# Tests that should notice (as for `pytest -k`), a text that is there once, a new one.
MUTATIONS = [
    # What is said when it fails.
    ('without_a_broker_it', ".setLevel(logging.CRITICAL)", ''),
    ('the_log_says_where', "self.add_note(f'In the worker: {traceback or error}')", 'pass'),
    # Queue: what can't be used.
    ('log_level_sets', 'logger.setLevel(log_level)', 'pass'),
    ('cannot_be_used and [vhost]', 'if unknown := connect_kwargs.keys() - OPTIONS.keys():',
     'if unknown := set():'),
    ('cannot_be_used and [ssl]', 'if not isinstance(ssl, (bool, tls.SSLContext)):', 'if False:'),
    ('cannot_be_used and [host]', 'if not hosts:', 'if False:'),
    ('cannot_be_used and [host]', 'if not isinstance(host, str):', 'if False:'),
    ('cannot_be_used and [host]', "if url.scheme not in ('amqp', 'amqps') or misread:",
     'if misread:'),
    ('cannot_be_used and [host]', 'misread = url.query or ', 'misread = '),
    ('password_that', "'@' in url.path + url.fragment", "'@' in url.path"),
    ('password_that', "'@' in url.path + url.fragment", "'@' in url.fragment"),
    ('password_that', "parse.quote(password, \"\")') from None",
     "parse.quote(password, \"\")')"),
    ('cannot_be_used and (login or client_properties)', 'fits = len(marshal(start, 0)) < 3500',
     'fits = marshal(start, 0)'),
    ('cannot_be_used and (login or password)',
     '    except Exception:  # its text may hold the password', '    except ZeroDivisionError:'),
    ('cannot_be_used and heartbeat', "'heartbeat': (1, 65_535)", "'heartbeat': (0, 65_535)"),
    ('cannot_be_used and frame_max', "'frame_max': (8192, 2**31)", "'frame_max': (1, 2**31)"),
    ('cannot_be_used and channel_max', "'channel_max': (2, 65_535)", "'channel_max': (2, 2**40)"),
    ('cannot_be_used and [port]', "'port': (1, 65_535)", "'port': (0, 65_535)"),
    ('cannot_be_used and [retry]', "'retry': (0.001, LONGEST)", "'retry': (0.0, LONGEST)"),
    ('cannot_be_used and [retry]', 'and least <= value <= most)', 'and least <= value)'),
    ('cannot_be_used', 'isinstance(value, kind) and least', 'least'),
    ('bad_options', 'error = ValueError if isinstance(value, kind) else TypeError',
     'error = ValueError'),
    ('cannot_be_sent_is_named', "raise error(f'{name} is", "raise error(f'it is"),
    ('bad_options', '        _check_name(name)\n        _check_limits(prefetch',
     '        _check_limits(prefetch'),
    ('bad_options', "'retries': (0, 2**31)", "'retries': (-9, 2**31)"),
    ('bad_options', "'prefetch_count': (1, 65_535)", "'prefetch_count': (0, 65_535)"),
    ('bad_options', "'prefetch_count': (1, 65_535)", "'prefetch_count': (1, 2**31)"),
    ('bad_options', "'retry_delay': (0.0, LONGEST)", "'retry_delay': (-9.0, LONGEST)"),
    ('bad_options', 'retries=retries, timeout=timeout,\n                      retry', 'retries=retries, retry'),
    ('bad_options', 'if timeout is not None and not is_async:', 'if False:'),
    ('misuse_of_on', "self._session.is_open and self._session.started:\n            raise",
     "False:\n            raise"),
    ('misuse_of_on', 'if name in self._handlers:\n', 'if False:\n'),
    ('misuse_of_on', "inspect.signature(function).bind('data')", 'pass'),
    ('misuse_of_on', "if asyncio._get_running_loop():\n", "if False:\n"),
    ('timeout_ends', 'or inspect.isasyncgenfunction(function))', ')'),
    ('queue_is_refused_by', 'self._quorum | (arguments or {})', 'self._quorum'),
    ('all_delays_share or failure_that_nobody',
     'self._quorum | (arguments or {})', '(arguments or {})'),
    ('cannot_be_sent', '_check_name(name)\n        properties: dict', 'properties: dict'),
    ('cannot_be_sent', '_check_limits(delay=delay, expires=expires, priority=priority)', 'pass'),
    ('cannot_be_sent', "'delay': (0.0, LONGEST)", "'delay': (-9.0, LONGEST)"),
    ('cannot_be_sent_is_named', "'priority': (0, 255)", "'priority': (0, 999)"),
    ('cannot_be_sent', 'if delay and expires is not None:', 'if False:'),
    ('cannot_be_sent', "properties['headers'] = _checked(headers)",
     "properties['headers'] = headers"),
    ('cannot_be_sent', 'if RESERVED.fullmatch(key):', 'if False:'),
    ('cannot_be_sent', 'if _has_float(value) or not is_unchanged(key, value):',
     'if not is_unchanged(key, value):'),
    ('cannot_be_sent', 'if _has_float(value) or not is_unchanged(key, value):',
     'if _has_float(value):'),
    ('cannot_be_sent', 'value = list(value.values())', 'pass'),
    ('cannot_be_sent', 'isinstance(value, list) and any(map(_has_float, value))', 'False'),
    ('cannot_be_sent_is_named', 'if raw and isinstance(data, str):', 'if False:'),
    ('cannot_be_sent', 'isinstance(id, str) and 0', '0'),
    ('cannot_be_sent', '0 < len(id.encode()) < 256', 'len(id.encode()) < 256'),
    ('cannot_be_sent', '0 < len(id.encode()) < 256', '0 < len(id) < 256'),
    ('cannot_be_sent', 'NAME.fullmatch(name)', 'NAME.match(name)'),
    ('cannot_be_sent', r'(?!amq\.)', ''),
    ('cannot_be_sent', ' ]{1,230}', ' ]{1,255}'),
    ('cannot_be_sent', 'if len(header) > self.capacity:', 'if False:'),
    ('cannot_be_sent', 'kind = TypeError if isinstance(error, TypeError) else ValueError',
     'kind = ValueError'),
    ('cannot_be_sent_is_named', 'return _unpackable(child, ', 'break  # ('),
    ('hosts_are_names', 'unquote(text)', 'text'),
    ('tls_runs', "secure = ssl or host.startswith('amqps:')", 'secure = ssl'),
    # Its life.
    ('current_is', 'return bool(self._session and self._session.is_open and ',
     'return not bool(self._session and self._session.is_open and '),
    ('without_a_broker_it', 'self._session.is_open and self._session.up.done())',
     'self._session.is_open)'),
    ('close_that_waits', 'self._session.is_open and self._session.up.done())',
     'self._session.up.done())'),
    ('start_while_it_closes', '(session := self._session_here()) and session.closing:',
     '(session := self._session_here()) and False:'),
    ('second_start or cancelled_while_connecting', 'await _outcome(session.up)',
     'await session.up'),
    ('second_start', 'first = session is None or not session.started', 'first = True'),
    ('entering_in_vain', 'first = session is None or not session.started', 'first = False'),
    ('entering_in_vain', 'except BaseException:\n            if first:',
     'except Exception:\n            if first:'),
    ('misuse_of_on', 'session.started = True', 'pass'),
    ('without_a_reply_queue', '[*self._handlers.values()], NOT_PERMITTED, ',
     '[*self._handlers.values()], NOTHING, '),
    ('without_a_broker_it', "if self._handlers:\n            logger.info('consuming",
     "if True:\n            logger.info('consuming"),
    ('tells_a_person', 'if not logger.hasHandlers():', 'if False:'),
    ('second_signal', '            if stopping:\n', '            if False:\n'),
    ('handler_may_fork', 'os.register_at_fork(after_in_child=stack.close)', 'pass'),
    ('second_signal', 'os._exit(128 + signum)', 'signal.signal(signum, signal.SIG_DFL)'),
    ('second_signal', 'os._exit(128 + signum)',
     'signal.signal(signum, signal.SIG_DFL), os.kill(os.getpid(), signum)'),
    ('handler_may_fork', 'loop.call_soon_threadsafe(main.cancel)', 'main.cancel()'),
    ('signal_lets', 'in (signal.SIGINT, signal.SIGTERM):', 'in (signal.SIGTERM,):'),
    ('signal_lets', 'in (signal.SIGINT, signal.SIGTERM):', 'in (signal.SIGINT,):'),
    ('signal_lets', 'with contextlib.suppress(asyncio.CancelledError):',
     'with contextlib.suppress():'),
    ('signal_lets', 'await self.close(timeout)\n\n    async def close',
     'await self.close(0)\n\n    async def close'),
    ('context_manager', 'await self.close()\n\n    async def task', 'pass\n\n    async def task'),
    # run(), loops and forks.
    ('run_serves', 'with BACKGROUND:', 'if True:'),
    ('run_serves', 'if session and session.is_open and session.loop.is_running():', 'if False:'),
    ('program_that_used_run', 'if session and session.is_open and session.loop',
     'if session and session.loop'),
    ('program_that_used_run', '_background_loop(self, os.getpid())', '_background_loop(self, 0)'),
    ('program_that_used_run', 'queue.run(queue.close(CLOSE_DEADLINE))', 'pass'),
    ('program_that_used_run', 'target=loop.run_forever, daemon=True', 'target=loop.run_forever'),
    ('run_serves', 'if asyncio._get_running_loop() is loop:', 'if False:'),
    ('run_serves', '            coroutine.close()\n', ''),
    ('run_serves', 'within = asyncio.wait_for(coroutine, timeout)', 'within = coroutine'),
    ('in_another_loop', "if session.is_open:\n            raise", "if False:\n            raise"),
    ('outside_of_any_loop', 'self.supervisor.done() or self.loop.is_closed()\n',
     'self.supervisor.done()\n'),
    ('program_that_used_run or handler_may_fork', 'or self.process != os.getpid())', ')'),
    ('outside_of_any_loop', 'session.loop is asyncio.get_running_loop()\n                and ', ''),
    ('outside_of_any_loop', '                self._session.hang_up()', '                pass'),
    ('context_variable', 'self._supervise(), context=contextvars.Context())', 'self._supervise())'),
    ('close_ends_what', 'self.supervisor.add_done_callback(self._closed)', 'pass'),
    # _Session: the link is kept up.
    ('loss_while_it_closes', 'for name in self.queue._handlers if self.closing else ():', 'for name in ():'),
    ('queues_and_tasks', 'await _outcome(link.broken)', 'await link.broken'),
    ('queues_and_tasks', 'await link.close(self.reply_queue)', 'pass'),
    ('close_of_a_queue_whose or life or leave', "link.drop(ConnectionError('closed'))", 'pass'),
    ('without_a_broker_it', "lost or 'no', link.name", "'lost the', link.name"),
    ('many_that_lose', 'random.uniform(0, min(1, retry)) + quorum', '0'),
    ('many_that_lose', 'random.uniform(retry, 1.5 * retry)', 'retry'),
    ('without_a_broker_it', 'random.uniform(retry, 1.5 * retry)', '0'),
    ('without_a_broker_it', 'refusal = why if _is_final(why) else refusal', 'refusal = why'),
    ('hosts_that_are_down', 'refusal = why if _is_final(why) else refusal',
     'refusal = why if _is_final(why) else None'),
    ('hosts_that_are_down', 'if count % len(addresses) == 0:', 'if True:'),
    ('with_retry_false', '(refusal or self.queue._retry is False)', 'refusal'),
    ('what_the_broker_refuses', '(refusal or self.queue._retry is False)',
     'self.queue._retry is False'),
    ('no_heartbeats', 'if not ever_up and (refusal', 'if (refusal'),
    ('second_start', 'if self.up.done():\n            self.up = ', 'if False:\n            self.up = '),
    ('links_lost', 'self.waiting.clear()\n\n    def hang_up', '\n    def hang_up'),
    ('close_ends_what', '_settle(self.up, ConnectionError(CLOSED))', 'pass'),
    ('close_ends_what', 'for replies in list(self.replies.values()):', 'for replies in ():'),
    ('start_while_it_closes or close_waits', 'self.closing = True', 'pass'),
    ('loss_while_it_closes', 'self.wanted.pop(name, None)', 'pass'),
    ('while_it_closes_tasks', 'if self.up.done():\n                self.up.result().cancel(',
     'if False:\n                self.up.result().cancel('),
    ('close_waits', 'await _ended(self.running.values(), timeout)', 'pass'),
    ('what_close_cuts', 'work = *self.running.values(), self.supervisor', 'work = self.supervisor,'),
    ('close_that_waits', 'if not self.over:', 'if True:'),
    ('entering_in_vain or a_close_that_waits', 'await _ended(work, 2 * CLOSE_DEADLINE)', 'pass'),
    ('cut_between', '                continue  # by now', '                raise  # by now'),
    ('reply_to_that_crashes', 'self.refused[queue] = error', 'pass'),
    ('reply_to_that_crashes', 'in (ACCESS_REFUSED, INTERNAL_ERROR):', 'in (ACCESS_REFUSED,):'),
    ('without_a_reply_queue', 'in (ACCESS_REFUSED, INTERNAL_ERROR):', 'in (INTERNAL_ERROR,):'),
    ('without_a_reply_queue', 'if queue and error.code in', 'if error.code in'),
    ('without_a_reply_queue', 'NOTHING, wanted.name)', "NOTHING, '')"),
    ('without_a_reply_queue', "        await self.until(_Link.consume, queues, tolerated, queue=queue)",
     '        self.wanted |= {wanted.name: wanted for wanted in queues}\n'
     '        await self.until(_Link.consume, queues, tolerated, queue=queue)'),
    ('second_start', 'self.wanted |= {wanted.name: wanted for wanted in queues}', 'pass'),
    ('queues_and_tasks', "**self.queue._quorum, 'x-expires': REPLY_QUEUE_EXPIRES * 1000}",
     '**self.queue._quorum}'),
    ('queues_and_tasks', "**self.queue._quorum, 'x-expires': REPLY_QUEUE_EXPIRES * 1000}",
     "'x-expires': REPLY_QUEUE_EXPIRES * 1000}"),
    ('queue_cannot_be_declared', 'self.queue._handlers.get(name) or _Wanted(name, quorum)',
     '_Wanted(name, quorum)'),
    ('higher_priority', 'wanted, EXISTS_OTHERWISE)\n            if rung', 'wanted, NOTHING)\n            if rung'),
    ('deleted_queue_loses', 'await self.until(_Link.declare, wanted, EXISTS_OTHERWISE)\n            if rung:',
     'if not rung:\n                await self.until(_Link.declare, wanted, EXISTS_OTHERWISE)\n            else:'),
    ('delay_queue_looks', '(quorum and {**quorum, **AT_LEAST_ONCE})', 'quorum'),
    # Slots: what a lost link had delivered.
    ('cost_no_memory', '            ack()  #', '            pass  #'),
    ('no_reply_stops', "            except Exception as error:\n                logger.warning('a reply that",
     "            except ZeroDivisionError as error:\n                logger.warning('a reply that"),
    ('links_lost', 'if self.busy[queue] < delivery._handler.prefetch_count:', 'if True:'),
    ('links_lost', 'self.busy[queue] += 1', 'pass'),
    ('links_lost', 'self.waiting[queue].append(delivery)', 'pass'),
    ('links_lost', 'if waiting := self.waiting.get(delivery.name):', 'if False:'),
    ('prefetch_count_tasks', 'self.busy[delivery.name] -= 1', 'pass'),
    ('cost_no_memory', '        del self.running[delivery]\n', ''),
    # Replies and streams.
    ('cancel_ends', "if properties.get('message_type') == 'cancel':", 'if False:'),
    ('cancel_ends', 'if (delivery.id, delivery._reply_to) == (ident, caller):', 'if True:'),
    ('cancel_ends', "if 'part' in headers and ident in self.cancelled:", 'if False:'),
    ('cancel_ends', 'self.cancelled.add(ident)', 'pass'),
    ('retry_sends', '            if not replies.end:\n', '            if True:\n'),
    ('log_has_what', "elif 'type' in headers:", 'elif False:'),
    ('retries_repeat_no', "if headers['part'] == self.count:", 'if True:'),
    ('another_run', "elif _number(headers.get('parts')) <= self.count:", 'else:'),
    ('result_confirms', 'if self.message:  # its confirm', 'if False:  # its confirm'),
    ('close_ends_what', 'if self.session.queue._session_here() is not self.session:', 'if False:'),
    ('who_awaits', 'self.session.waiters.add(waiter := asyncio.current_task())', 'waiter = None'),
    ('cancelled_sends_and_results', 'self.session.waiters.discard(waiter)', 'pass'),
    ('cost_no_memory', 'weakref.WeakValueDictionary[str, _Replies]()', '{}'),
    ('result_confirms', 'self._first = id is None', 'self._first = True'),
    ('stream_can_be_sent_again', 'session.cancelled.discard(self.id)', 'pass'),
    ('result_confirms', 'if replies and self._first:', 'if replies:'),
    ('retry_sends', 'and (session.closing or not session', 'and (not session'),
    ('queues_and_tasks', "'content_type': RAW if self.raw else MSGPACK}", "'content_type': MSGPACK}"),
    ('queues_and_tasks', 'if not self.no_response:', 'if True:'),
    ('tasks_with_one_id', 'session.replies.setdefault(self.id, _Replies(session))',
     'session.replies[self.id] = _Replies(session)'),
    ('another_run', 'return [_value({}, part) for part in replies.parts] or value', 'return value'),
    ('before_a_failure', '            _value(*replies.end)\n', '            pass\n'),
    ('is_forgotten', 'if replies and not replies.end and replies.session.is_open:',
     'if not replies.end and replies.session.is_open:'),
    ('outside_of_any_loop', ' and replies.session.is_open:\n', ':\n'),
    ('cancel_ends', 'replies.session.loop.call_soon_threadsafe(\n                replies.session.cancel, ',
     'replies.session.cancel('),
    # Handlers.
    ('no_contents', '{type(error).__name__}: {error}', '{error!r}'),
    ('timeout_ends', 'async with limit:', 'if True:'),
    ('timeout_ends', 'if not limit.expired():', 'if True:'),
    ('nothing_that', 'if not limit.expired():', 'if False:'),
    ('clean_up', 'contextlib.aclosing(result)', 'contextlib.nullcontext()'),
    ('clean_up', 'contextlib.closing(result)', 'contextlib.nullcontext()'),
    ('when_the_caller_is_gone', 'if not await send_part(value):', 'if False and await send_part(value):'),
    ('when_the_caller_is_gone', 'if not await send_part(value):', 'if not await send_part(value) and False:'),
    ('when_the_caller_is_gone', 'threadsafe(part, loop).result():', 'threadsafe(part, loop).result() and False:'),
    ('raw_tasks', 'body if self.raw else unpack(body)', 'unpack(body)'),
    ('current_is', 'current.set(self)', 'pass'),
    ('current_is', 'context = contextvars.copy_context()', 'context = contextvars.Context()'),
    ('nothing_that and plain', '(StopIteration, GeneratorExit)', 'ZeroDivisionError'),
    ('nothing_that and plain', 'except BaseException as error:\n            done.set',
     'except Exception as error:\n            done.set'),
    ('what_close_cuts and plain', 'done.set_running_or_notify_cancel()', 'pass'),
    ('signal or hangs_keeps', 'target=context.run, args=[run], daemon=True', 'target=context.run, args=[run]'),
    ('all_that_msgpack', 'strict_map_key=False', 'strict_map_key=True'),
    ('all_that_msgpack', 'timestamp=3)', 'timestamp=0)'),
    ('all_that_msgpack', 'bytes(msgpack.packb(value, datetime=True))', 'bytes(msgpack.packb(value))'),
    # Delivery: acknowledged only when all is confirmed.
    ('properties_that_cannot', 'except Exception as error:\n            self._malformed',
     'except ZeroDivisionError as error:\n            self._malformed'),
    ('properties_that_cannot', '= error, {}, 0', '= error, {}, self._retries'),
    ('properties_that_cannot', 'if self._malformed:', 'if False:'),
    ('of_others', "or self._properties.get('message_id') or", 'or'),
    ('of_others', "'correlation_id': self.id, 'reply_to': self._reply_to,", "'reply_to': self._reply_to,"),
    ('rabbitmq_makes', 'if not RESERVED.fullmatch(key)}', 'if key}'),
    ('rabbitmq_makes', "'x-(first-|last-)?death.*|CC|BCC|", "'x-(first-|last-)?death.*|"),
    ('rabbitmq_makes', "'x-(first-|last-)?death.*|CC", "'x-death|CC"),
    ('nothing_of_a_task or nobody_awaits_is or odd_headers', 'x-(delivery|acquired)-count|', ''),
    ('cannot_be_sent or rabbitmq_makes or odd_headers', "    'x-(attempt|deliveries|due|cut)', re",
     "    'x-none', re"),
    ('odd_headers', "max(1, _number(headers.get('x-attempt')))", "_number(headers.get('x-attempt'))"),
    ('odd_headers', 'return header if isinstance(header, int) else 0', 'return header or 0'),
    ('nothing_that', 'except BaseException as error:  # SystemExit', 'except Exception as error:  # SystemExit'),
    ('what_close_cuts', 'if session.over:\n', 'if False:\n'),
    ('when_the_caller_is_gone', '            self._ack()\n', ''),
    ('what_close_cuts or faults', 'try:\n                await self._process()',
     'self._received.ack()\n            self._received.ack = lambda: None\n'
     '            try:\n                await self._process()'),
    ('delays_are_exact', 'if self._due and (rest', 'if False and (rest'),
    ('wrong_clock', '(rest := min(self._cut, self._due - _now()))', '(rest := self._due - _now())'),
    ('what_is_due', '(rest := min(self._cut, self._due - _now()))', '(rest := self._cut)'),
    ('delays_are_exact', 'if delay - rung > EARLY:', 'if False:'),
    ('retries_wait', "{'x-attempt': self.attempt, 'x-deliveries'", "{'x-deliveries'"),
    ('nothing_of_a_task', "'x-deliveries': self._deliveries}", "'x-deliveries': 0}"),
    ('nothing_of_a_task', "_number(headers.get('x-deliveries'))\n", "0\n"),
    ('nothing_of_a_task', "+ _number(headers.get('x-delivery-count'))", ""),
    ('delays_are_exact', "'x-due': due or _now() + delay}", "'x-due': _now()}"),
    ('all_delays', 'return delay - delay % (10 ** len(str(delay)) // 20 or 1)', 'return delay'),
    ('all_delays or full_or_deleted or random_lives', '// 20 or 1)', '// 20)'),
    ('nothing_of_a_task', "{**headers, 'x-cut'", "{'x-cut'"),
    ('nothing_of_a_task', "{**message.properties, 'headers': headers}", "{'correlation_id': message.id, 'headers': headers}"),
    ('nothing_of_a_task', 'if self._deliveries >= DELIVERY_LIMIT:', 'if False:'),
    ('nothing_of_a_task', 'self._retries = 0\n            raise RuntimeError', 'raise RuntimeError'),
    ('nothing_of_a_task', 'if not told or self._deliveries >= DELIVERY_LIMIT:', 'if not told:'),
    ('nothing_that_a_handler', 'if not told or self._deliveries', 'if self._deliveries'),
    ('replies_look', "end = {'headers': {'parts': self._parts}} if self._parts else {}", 'end = {}'),
    ('without_a_reply_queue', 'with contextlib.suppress(Refused):  # then it', 'with contextlib.suppress():  # then it'),
    ('cancel_ends', "properties['reply_to'] = self._session.reply_queue", 'pass'),
    ('is_forgotten', '**properties) and self._reply_to:', '**properties):'),
    ('when_the_caller_is_gone', "self._unwanted = self._unwanted or 'its caller is gone'", 'pass'),
    ('cancel_ends', 'return not self._unwanted', 'return True'),
    ('msgpack_cannot_carry', "        body = pack([error, result], '[error, result]')\n        if not self._reply_to:\n            return False\n",
     "        if not self._reply_to:\n            return False\n        body = pack([error, result], '[error, result]')\n"),
    ('reply_to_that_crashes', '_Link.publish, message, queue=self._reply_to)', '_Link.publish, message)'),
    ('reply_that_is_refused', 'self._retries = 0\n            if refused', 'if refused'),
    ('result_too_large', 'if refused.code != PRECONDITION_FAILED:', 'if True:'),
    ('retry_delay_may', 'except BaseException as of_retry_delay:', 'except KeyError as of_retry_delay:'),
    ('what_is_refused', 'with contextlib.suppress(Refused):  # to wait for', 'with contextlib.suppress():  # to wait for'),
    ('longest_error', 'most = self._capacity // 16', 'most = 10**6'),
    ('longest_error', 'failure.type[-most:]', 'failure.type'),
    ('longest_error', 'failure.traceback[-most:]', 'failure.traceback'),
    ('longest_error', 'failure.text[:most]', 'failure.text'),
    ('reply_that_is_refused', "'its caller is told'\n        with contextlib.suppress(Refused):",
     "'its caller is told'\n        with contextlib.suppress():"),
    ('nothing_of_a_task or whose_caller_is_gone', "self._reply_to, fate = '', f'it", "fate = f'it"),
    ('nothing_that_a_handler', 'exc_info=failure.loggable', 'exc_info=error'),
    ('log_has_what', 'too_long = len(self.text) > 1000 or len(self.traceback) > 20_000', 'too_long = False'),
    ('log_has_what', 'too_long = len(self.text) > 1000 or ', 'too_long = '),
    ('nothing_that_a_handler', "if too_long or 'Traceback' not in self.traceback:", 'if too_long:'),
    ('log_has_what', 'self.loggable.__traceback__ = error.__traceback__', 'pass'),
    ('nothing_that_a_handler', "        text = ''.join(describe(value))\n    except BaseException:",
     "        text = ''.join(describe(value))\n    except KeyError:"),
    ('nothing_that_a_handler', 'text[:500_000].encode', 'text.encode'),
    ('nothing_that_a_handler', "'utf-8', 'backslashreplace'", "'utf-8'"),
    ('retries_wait', 'if self.attempt > self._retries:', 'if self.attempt >= self._retries:'),
    ('retries_wait', '2 ** min(self.attempt - 1, 32)', '1'),
    ('retry_delay_may', 'delay = delay(error, self.attempt)', 'delay = delay(error, 1)'),
    ('retry_delay_may', 'elif delay is not None:', 'else:'),
    ('retry_delay_may', 'return None if delay is None else round(', 'return round('),
    ('message_of_others', 'max(0, min(delay, LONGEST))', 'min(delay, LONGEST)'),
    ('what_is_refused', "with contextlib.suppress(Refused):\n                await self._resend(f'{self.name}.dead'",
     "with contextlib.suppress():\n                await self._resend(f'{self.name}.dead'"),
    ('what_is_refused', 'if attempt == 0:', 'if True:'),
    ('what_is_refused', 'await asyncio.sleep(REFUSED_PAUSE)', 'return'),
    ('left_out_at_once', 'if is_unchanged(key, value)}', 'if key}'),
    ('left_out_at_once', "'user_id': None, 'cluster_id': ''}", "'user_id': None}"),
    ('whose_caller_is_gone', "'expiration': None, 'user_id'", "'user_id'"),
    ('left_out_at_once', 'if not kept or len(message.header) + 100 < self._capacity:', 'if True:'),
    ('left_out_at_once', 'del kept[max(kept, key=lambda key: len(repr(kept[key])))]', 'kept.clear()'),
    ('left_out_at_once', 'return bool(decode.field_table(table)[1] == {key: value})', 'return True'),
    ('left_out_at_once or odd_headers', '    except Exception:\n        return False\n\n\n# Helpers',
     '    except Exception:\n        return True\n\n\n# Helpers'),
    # _Link: two connections that live and die together.
    ('something_else_answers or peer_that_opens',
     "async with self.deadline():\n            await self.connect('publish')",
     "if True:\n            await self.connect('publish')"),
    ('peer_that_opens or silent', 'async with self.deadline():\n            for wanted',
     'if True:\n            for wanted'),
    ('something_else_answers', "self.drop(TimeoutError(f'no answer in {CONNECT_DEADLINE} seconds'))", 'pass'),
    ('links_lost or loss_while or random_lives', 'if self.broken.done():  # nobody', 'if False:  # nobody'),
    ('silent_address', "{'happy_eyeballs_delay': 0.25}", '{}'),
    ('peer_that_opens or broken_frame or leave', '            connection.transport.abort()', '            pass'),
    ('too_large_hinders', 'if channel is None or channel.closed:', 'if channel is None:'),
    ('reply_to_that_crashes', 'message.is_suspect or self.alone.locked()', 'self.alone.locked()'),
    ('too_large_hinders', 'async with self.alone:', 'if True:'),
    ('too_large_hinders', 'await asyncio.wait([confirm], timeout=SUSPECT_DEADLINE)', 'pass'),
    ('too_large_hinders', 'if alone and refused.code:', 'if refused.code:'),
    ('too_large_hinders', 'message.is_suspect = refused.code > 0', 'pass'),
    ('nodes_killed', 'NACK_PAUSES if patient else (0, 0)', '(0, 0)'),
    ('declared_anew', 'if not re.search(tolerated, str(refused)):', 'if True:'),
    ('queue_is_refused_by', 'if not re.search(tolerated, str(refused)):', 'if False:'),
    ('declared_anew', "f'{NOT_PERMITTED}|{EXISTS_OTHERWISE}'", 'NOT_PERMITTED'),
    ('without_a_reply', "f'{NOT_PERMITTED}|{EXISTS_OTHERWISE}'", 'EXISTS_OTHERWISE'),
    ('start_that_is_refused',
     'await self.declare(wanted, tolerated)\n            for wanted in queues:\n', 'await self.declare(wanted, tolerated)\n'),
    ('idempotent', 'if wanted.name not in self.consumers:', 'if True:'),
    ('prefetch_count_tasks', 'prefetch_count=wanted.prefetch_count))', 'prefetch_count=0))'),
    ('silent_is_bounded', 'async with asyncio.timeout(CLOSE_DEADLINE):', 'if True:'),
    ('silent_is_bounded', 'with contextlib.suppress(Exception):  # whatever', 'with contextlib.suppress():  # whatever'),
    # _Channel: calls, confirms, returns, acknowledgements.
    ('megabytes', 'body[at:at + self.capacity]', 'body[at:]'),
    ('cut_while or random_lives', "if self.connection.link.broken.done():\n            raise",
     "if False:\n            raise"),
    ('only_what_has_ended', 'if delivery_tag == oldest:', 'if True:'),
    ('prefetch_count_tasks', "self.connection.send(b'')  # so", 'pass  # so'),
    ('too_large_hinders', '        self.closed = True\n', '        pass\n'),
    ('queue_is_refused_by', 'other if number else error', 'other'),
    ('cannot_be_declared', 'other if number else error', 'error'),
    ('too_large_hinders', '            _settle(confirm, error)', '            pass'),
    ('is_not_kept', 'self.unconfirmed.clear()  # the error', 'pass  # the error'),
    ('too_large_hinders', 'self.connection.send(marshal(amqp.Channel.CloseOk(), self.number))', 'pass'),
    ('consumer_timeout', 'if (self.connection.role, self.number) == CONSUMERS:', 'if False:'),
    ('too_large_hinders', 'if (self.connection.role, self.number) == CONSUMERS:', 'if True:'),
    ('deleted_queue_loses', 'self.connection.link.drop(why)', 'pass'),
    ('deleted_queue_loses', 'what and _settle(confirm, False):', 'what and _settle(confirm, True):'),
    ('all_delays', 'if method[12] & 1:', 'if False:'),
    ('full_queue_refuses', 'if is_nack else True', 'if False else True'),
    # _Connection and bytes.
    ('the_broker_refuses_is_raised', "'authentication_failure_close': True, ", ''),
    ('deleted_queue_loses', "'consumer_cancel_notify': True,", ''),
    ('memory_alarm', "'connection.blocked': True", ''),
    ('connect_kwargs', "'version': __version__", "'version': ''"),
    ('silent_peer', 'self._stream_writer.close = transport.abort', 'pass'),
    ('reply_to_that_crashes', 'if refused.code != CONNECTION_FORCED:', 'if False:'),
    ('connections_closed_by', '        self.link.drop(refused)\n', ''),
    ('megabytes', 'getattr(frame, name) or limits[name])', 'limits[name])'),
    ('no_heartbeats', 'getattr(frame, name) or limits[name])', 'getattr(frame, name))'),
    ('megabytes', "self.capacity = limits['frame_max'] - 8", 'pass'),
    ('broken_frame', 'if isinstance(method, (amqp.Connection.Blocked, amqp.Connection.Unblocked)):', 'if False:'),
    ('broken_frame', "'%s: %s: %.1000r', self.link.name", "'%s: %s: %s', self.link.name"),
    ('stops_no_heartbeat', 'self._heartbeat_timer_recv_reset()', 'pass'),
    ('something_else_answers', "except Exception as error:\n            said", "except KeyError as error:\n            said"),
    ('something_else_answers', "'' if self.numbered else f': {data[:40]!r}'", "''"),
    ('broken_frame', 'if length > capacity or (', 'if ('),
    ('broken_frame', '(end < size and data[end] != 0xCE)', 'False'),
    ('broken_frame', 'if kind != channel.expected:', 'if False:'),
    ('stream_is_cut', 'bytearray(data[self.take_frames(data):])', 'bytearray(data[self.take_frames(data) and 9**9:])'),
    ('deleted_queue_loses', 'mandatory=True', 'mandatory=False'),
    ('queues_and_tasks', 'durable=True', 'durable=False'),
    ('queues_and_tasks', "'delivery_mode': 2, 'reply_to'", "'delivery_mode': 1, 'reply_to'"),
    ('replies_look', r'%b\x02%c%b', r'%b\x01%c%b'),
    ('properties_that_cannot', 'if header[13] & 1:', 'if False:'),
    ('wrong_certificate', 'isinstance(error, (TypeError, ValueError)) or', ''),
    ('wrong_certificate or client_certificate', 'or type(error) is tls.SSLError', ''),
    ('random_lives or cancelled_sends or close_ends_what_waits',
     'future.exception()  # or asyncio', 'pass  # or asyncio'),
    ('close_ends_what_waits', 'await asyncio.wait([future])', 'await future'),
]


def mutated(old: str, new: str) -> str:
    """The module with that text instead; '' if the old one is not there once."""
    source = (ROOT / 'aioqueue.py').read_text()
    return source.replace(old, new) if source.count(old) == 1 else ''


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
            cwd=folder, text=True, errors='replace', stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
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
    if failed := re.search(r'^(FAILED|ERROR) test_aioqueue.py::(\S+)', output, re.M):
        return f'caught by {failed[2]}'
    if status == -signal.SIGKILL:
        return f'caught: the tests did not end in {DEADLINE} seconds'
    return 'NOT CAUGHT' if status == 0 else f'ERROR {status}: {output[-500:]}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--port', type=int, default=5672)
    parser.add_argument('--private-port', type=int, default=5692)
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('filter', nargs='?', default='')
    arguments = parser.parse_args()
    rows = [row for row in MUTATIONS if arguments.filter in str(row)]
    sources = [mutated(old, new) for _, old, new in rows]
    if missing := [old for (_, old, _), source in zip(rows, sources, strict=True) if not source]:
        sys.exit('not there once:\n' + '\n'.join(map(repr, missing)))
    ports: queue.Queue[int] = queue.Queue()
    for job in range(arguments.jobs):
        ports.put(arguments.private_port + 20 * job)

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
