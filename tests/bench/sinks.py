#!/usr/bin/python3
"""Receivers of every bad temper, and a patient one, in a process of their own: sinks.py TEMPER ADDRESS... prints the ports, in order.

hang     takes connections and never answers            drip     sends a byte of its answer each second
endless  answers and sends a body without end           slow:S   answers 204 after S seconds
Listens on loopback addresses only and ends with its standard input.
"""
import asyncio
import contextlib
import resource
import sys


async def whole_request(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            await reader.readexactly(int(line.split(b":")[1]))


async def hang(reader, writer):
    while await reader.read(65536):
        pass


async def drip(reader, writer):
    await whole_request(reader)
    for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Slow: " + b"z" * 3600:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(1)


async def endless(reader, writer):
    await whole_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    for _ in range(1 << 14):  # a receiver that nobody cuts off ends after 256 MiB all the same
        writer.write(b"x" * 16384)
        await writer.drain()


def slow(seconds):
    async def serve(reader, writer):
        while True:
            await whole_request(reader)
            await asyncio.sleep(seconds)
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            await writer.drain()
    return serve


async def main(temper, addresses):
    name, _, seconds = temper.partition(":")
    temper = {"hang": hang, "drip": drip, "endless": endless}.get(name) or slow(float(seconds))

    async def connected(reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await temper(reader, writer)
        writer.close()

    servers = [await asyncio.start_server(connected, address, 0, backlog=4096) for address in addresses]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.get_event_loop_policy().new_event_loop().run_until_complete(main(sys.argv[1], sys.argv[2:]))
