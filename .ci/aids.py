"""Small aids of the tests: waiting for what will be true, frames as bytes, a user."""

import asyncio
import os
import struct

from pamqp.commands import Basic
from pamqp.frame import marshal
from pamqp.header import ContentHeader
from tools import DEADLINE


async def true(condition, deadline=DEADLINE):
    """Wait until `condition()` is true."""
    async with asyncio.timeout(deadline):
        while not condition():
            await asyncio.sleep(0.01)


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
