"""A TCP proxy that delays and limits: plain Python 3, no packages, no root.

    python3 proxy.py --network wan 9701=127.0.0.1:9601 9702=127.0.0.1:9602

Each pair LISTEN=TARGET is a way: who calls LISTEN on loopback talks to TARGET. In each direction of each connection
bytes leave one after the other at the bandwidth and travel for half the round trip; bytes in flight overlap. What is
read is at most 64 KiB at a time, so that large messages flow; at most a second's worth is in flight (the sender's TCP
then waits). A connection is made and closed without delay.
"""

import argparse
import asyncio
import signal
import socket
import time

CHUNK = 64 * 1024
# The event loop wakes up to a millisecond late: the last of every wait is spent yielding.
LATE = 0.0015
NETWORKS = {"lan": (1e-4, 10e9), "wan": (0.04, 352e6)}


def network(text):
    """Round trip in seconds and bits per second: lan, wan, or such as 40ms,352mbit."""
    if text in NETWORKS:
        return NETWORKS[text]
    values = []
    units = ({"us": 1e-6, "ms": 1e-3, "s": 1.0}, {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9})
    for part, known in zip(text.split(","), units):
        unit = next((u for u in known if part.endswith(u)), None)
        if unit is None:
            raise argparse.ArgumentTypeError(f"{text!r}: lan, wan, or round trip and bandwidth such as 40ms,352mbit")
        values.append(float(part[: -len(unit)]) * known[unit])
    if len(values) != 2 or values[0] < 0 or values[1] <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: round trip and bandwidth, such as 40ms,352mbit")
    return tuple(values)


def way(text):
    """LISTEN=HOST:PORT."""
    listen, _, target = text.partition("=")
    host, _, port = target.rpartition(":")
    if not (listen.isdigit() and host and port.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r}: LISTEN=HOST:PORT")
    return int(listen), host, int(port)


async def until(due):
    """Waits for a moment of the monotonic clock."""
    while (left := due - time.monotonic()) > 0:
        await asyncio.sleep(left - LATE if left > LATE else 0)


async def direction(reader, writer, round_trip, bits):
    """Carries one direction of a connection until it ends."""
    # What is in flight fills the round trip; a reader that is slow holds up the sender.
    depth = max(16, int(bits / 8 * (round_trip + 1.0) / CHUNK))
    flight = asyncio.Queue(maxsize=depth)

    async def depart():
        free = 0.0
        try:
            while data := await reader.read(CHUNK):
                free = max(free, time.monotonic()) + len(data) * 8 / bits
                await flight.put((free + round_trip / 2, data))
        except ConnectionError:
            pass
        await flight.put((time.monotonic() + round_trip / 2, b""))

    async def arrive():
        while True:
            due, data = await flight.get()
            await until(due)
            if not data:
                break
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    departing = asyncio.create_task(depart())
    try:
        await arrive()
    except (ConnectionError, OSError):
        # The receiver is gone: the sender is to learn of it.
        writer.close()
    finally:
        departing.cancel()


def at_once(writer):
    """Small messages are not held back."""
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def connection(reader, writer, host, port, speed):
    """Carries one connection both ways until both are over."""
    try:
        far_reader, far_writer = await asyncio.open_connection(host, port)
    except OSError:
        writer.close()
        return
    at_once(writer)
    at_once(far_writer)
    try:
        await asyncio.gather(direction(reader, far_writer, *speed), direction(far_reader, writer, *speed))
    finally:
        writer.close()
        far_writer.close()


async def serve(ways, speed):
    """Listens on every way until a signal comes."""
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    for listen, host, port in ways:

        def accept(reader, writer, host=host, port=port):
            return connection(reader, writer, host, port, speed)

        await asyncio.start_server(accept, "127.0.0.1", listen)
    print("proxy: ready", flush=True)
    await stop.wait()


def main():
    parser = argparse.ArgumentParser(description="A TCP proxy that delays and limits.")
    parser.add_argument("--network", type=network, default="wan", help="lan, wan, or such as 40ms,352mbit")
    parser.add_argument("ways", type=way, nargs="+", metavar="LISTEN=HOST:PORT")
    args = parser.parse_args()
    asyncio.run(serve(args.ways, args.network))


if __name__ == "__main__":
    main()
