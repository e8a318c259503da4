"""Small aids of the tests: waiting for what will be true, frames as bytes."""

import asyncio
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
