"""What the tests use beside aioqueue: a look at a broker, a port to cut, nodes to kill."""

import asyncio
import contextlib
import itertools
import os
import pathlib
import signal
import socket
import struct
import subprocess

import aioamqp
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.frame import marshal
from pamqp.header import ContentHeader

HERE = pathlib.Path(__file__).resolve().parent.parent
PORT = int(os.environ.get('PORT', '5672'))
DEADLINE = 30  # seconds that anything awaited here may take

# What pamqp can't encode, and what stands for it in what `Broker.write()` is given.
UNWRITABLE = {
    b'NOT UTF-8': b'\xff' * 9, b'S\0\0\0\x04DBLE': b'd' + struct.pack('>d', 0.1),
    b'S\0\0\0\x04DATE': b'T' + (-1).to_bytes(8, signed=True),  # before 1970
    b'\x80\0\x05FLAGS': b'\x80\x01\x05FLAGS',  # more flags would follow
    b'\x20\x08': b'\x20\x04',  # headers and app_id: headers and cluster_id
}


class Broker:
    """A connection beside aioqueue's: it looks at queues, and writes raw messages."""

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, port=PORT):
        broker = cls()
        transport, broker.protocol = await aioamqp.connect(port=port)
        broker.channel = await broker.protocol.channel()
        version = broker.protocol.server_properties['version'].split('.')
        broker.version = tuple(map(int, version[:2]))
        try:
            yield broker
        finally:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(broker.protocol.close(), 5)
            transport.abort()

    async def look(self, name):
        """How many messages (ready) and consumers a queue has, or None if there is none."""
        try:
            queue = await self.channel.queue_declare(name, passive=True)
        except aioamqp.ChannelClosed:  # 404
            self.channel = await self.protocol.channel()
            return {'messages': None, 'consumers': None}
        return {'messages': queue['message_count'], 'consumers': queue['consumer_count']}

    async def until(self, name, every=0.02, **expected):
        """Wait until a queue is like this."""
        async with asyncio.timeout(DEADLINE):
            while not expected.items() <= (await self.look(name)).items():
                await asyncio.sleep(every)

    async def get(self, name):
        """Wait for a message and take it: its body and its properties."""
        async with asyncio.timeout(DEADLINE):
            while True:
                if (await self.look(name))['messages']:
                    with contextlib.suppress(aioamqp.EmptyQueue):
                        got = await self.channel.basic_get(name, no_ack=True)
                        return got['message'], got['properties']
                await asyncio.sleep(0.02)

    async def put(self, name, body, **properties):
        await self.channel.basic_publish(body, '', name, properties)

    def write(self, name, body, **properties):
        """Publish what aioamqp can't: it loses its step over what pamqp can't encode."""
        frames = [Basic.Publish(routing_key=name),
                  ContentHeader(0, len(body), Basic.Properties(**properties))]
        frames += [ContentBody(body)] if body else []
        data = b''.join(marshal(frame, self.channel.channel_id) for frame in frames)
        for wanted, odd in UNWRITABLE.items():
            data = data.replace(wanted, odd)
        self.protocol._stream_writer.write(data)

    async def declare(self, name, **arguments):
        """Declare a queue. Of one that exists the broker refuses all but what it is."""
        await self.channel.queue_declare(name, durable=True, arguments=arguments)

    async def delete(self, *names):
        for name in names:
            await self.channel.queue_delete(name)


class Forwarder:
    """A port that forwards to the broker, in pieces of `sizes`.

    Connections through it can be cut, frozen (`flowing`), and not be had (`down`).
    """

    def __init__(self, port=PORT, sizes=(65536,)):
        self.target, self.sizes = port, itertools.cycle(sizes)
        self.writers, self.count, self.down = set(), itertools.count(), False
        self.freeze_at = None  # bytes: to freeze when they come along
        self.spoil_at = None  # bytes: what comes after them is no frame
        self.freezing = None  # all connections, or the one with this number
        self.flowing = asyncio.Event()
        self.flowing.set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.accept, '127.0.0.1', 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        self.flowing.set()
        self.cut(down=True)

    async def accept(self, reader, writer):
        self.writers.add(writer)
        try:
            if self.down:
                raise OSError
            from_broker, to_broker = await asyncio.open_connection('127.0.0.1', self.target)
        except OSError:
            writer.transport.abort()
            return
        self.writers.add(to_broker)
        number = next(self.count)
        await asyncio.gather(
            self.pump(number, reader, to_broker), self.pump(number, from_broker, writer),
            return_exceptions=True)
        self.writers -= {writer, to_broker}

    async def received(self, number, reader):
        data = await reader.read(65536)
        if self.freeze_at and self.freeze_at in data:
            self.freeze_at = None
            self.flowing.clear()
        if self.spoil_at and self.spoil_at in data:
            self.spoil_at, data = None, data + bytes(9)
        if self.freezing in (None, number):
            await self.flowing.wait()  # a frozen peer doesn't close, either
        return data

    async def pump(self, number, reader, writer):
        with contextlib.closing(writer):
            while data := await self.received(number, reader):
                while data:
                    size = next(self.sizes)
                    writer.write(data[:size])
                    data = data[size:]
                    await writer.drain()
                    await asyncio.sleep(0)

    async def inject(self, data):
        """Write to our side of all connections, as if it came from the broker."""
        for writer in {*self.writers}:
            if writer.get_extra_info('sockname')[1] == self.port:
                writer.write(data)
                await writer.drain()

    def cut(self, down=False):
        """Reset every connection; `down`: and those that will come."""
        self.down = down
        for writer in self.writers:
            sock = writer.get_extra_info('socket')
            with contextlib.suppress(OSError, AttributeError, ValueError):  # of uvloop
                linger = b'\x01\x00\x00\x00\x00\x00\x00\x00'  # on, 0 seconds: RST
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()


@contextlib.asynccontextmanager
async def peer(greeting=b'', hang_up=False, beat=b''):
    """A port where something else than a broker answers."""
    async def accept(reader, writer):
        writer.write(greeting)
        while beat and not writer.is_closing():
            writer.write(beat)
            await asyncio.sleep(0.05)
        with contextlib.suppress(OSError):
            await (reader.readexactly(8) if hang_up else reader.read())
        writer.close()

    async with await asyncio.start_server(accept, '127.0.0.1', 0) as server:
        yield server.sockets[0].getsockname()[1]


def make(*arguments):
    """Run a target of the Makefile: what it printed."""
    made = subprocess.run(['make', '-s', *arguments], cwd=HERE, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    return made.stdout


async def forget(name, port=PORT):
    async with Broker.connected(port) as broker:
        ends = ('', '.dead', '.parts', '.x', '.x.dead', '.x.parts')
        await broker.delete(*(f'{name}{end}' for end in ends))
        for digits, zeros, end in itertools.product(range(10, 100, 5), range(6), ('', '.x')):
            queue = f'{name}{end}.delay.{digits * 10**zeros}'
            await broker.channel.queue_delete(queue, no_wait=True)
        await broker.look(name)  # by now all are deleted


class Node:
    """A broker of the tests' own, that may be killed and strained."""

    def __init__(self, name, port, config=''):
        self.name, self.port, self.config = name, port, config

    def start(self):
        make('rabbit', f'PORT={self.port}', f'NODE={self.name}', f'CONFIG={self.config}')

    async def ctl(self, arguments):
        return await asyncio.to_thread(make, 'ctl', f'NODE={self.name}', f'ARGS={arguments}')

    async def eval(self, erlang):
        return await self.ctl(f"eval '{erlang}'")

    async def sync(self):
        """Have new queues on disk: Mnesia says so up to two seconds before, Khepri doesn't."""
        await self.eval('catch mnesia:sync_log().')

    def kill(self):
        pid = int((HERE / '.rabbit' / self.name / 'pid').read_text())
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):  # until the port is free for its successor
            while True:
                socket.create_connection(('127.0.0.1', self.port)).close()

    def stop(self):
        with contextlib.suppress(OSError):  # it is quicker than to stop it politely
            self.kill()
        make('stop', f'NODE={self.name}')
