"""Clients written by others, as programs.

    clients.py read {websockets,aiohttp,httpx-sse} URL
    clients.py talk {websockets,aiohttp} URL PROTOCOL

`read` prints `open` once it is connected, then `message ID DATA` for each message it is handed, and
`gap ...` for a gap. Ends when the server ends the connection.

`talk` is a WebSocket on two pipes: it prints `open PROTOCOL EXTENSIONS`, then `text HEX` and `binary
HEX` for what it gets and `closed CODE` at the end; it sends what it reads in the same form, and ends
at the end of its input. `-` is no protocol.
"""

import asyncio
import json
import sys
import threading

import aiohttp
import httpx
import httpx_sse
import websockets.sync.client


def tell(*words):
    print(*words, flush=True)


def tell_frame(text):
    frame = json.loads(text)
    if "id" in frame:
        tell("message", frame["id"], frame["data"])
    elif "gap" in frame:
        tell("gap", text)
    elif "heartbeat" in frame:
        tell("open")


def read_websockets(url):
    with websockets.sync.client.connect(url.replace("http:", "ws:")) as socket:
        for text in socket:
            tell_frame(text)


def read_aiohttp(url):
    async def read():
        async with aiohttp.ClientSession() as session, session.ws_connect(url, compress=15) as socket:
            async for message in socket:
                tell_frame(message.data)

    asyncio.run(read())


def read_event_stream(url):
    with httpx.Client(timeout=None) as client, httpx_sse.connect_sse(client, "GET", url) as source:
        for event in source.iter_sse():
            # This client also hands out blocks without data, which the standard does not count
            # as events: the first one carries the cursor.
            if event.event == "gap":
                tell("gap", event.data)
            elif event.data:
                tell("message", event.id, event.data)
            else:
                tell("open")


def tell_message(message):
    if isinstance(message, str):
        tell("text", message.encode().hex())
    else:
        tell("binary", message.hex())


def messages():
    """What is to be sent: text as str, binary as bytes."""
    for line in sys.stdin:
        kind, _, payload = line.rstrip("\n").partition(" ")
        payload = bytes.fromhex(payload)
        yield payload.decode() if kind == "text" else payload


def talk_websockets(url, protocols):
    url = url.replace("http:", "ws:")
    with websockets.sync.client.connect(url, subprotocols=protocols or None, max_size=None) as socket:
        tell("open", socket.subprotocol, socket.response.headers.get("Sec-WebSocket-Extensions"))

        def send():
            for message in messages():
                socket.send(message)
            socket.close()

        threading.Thread(target=send, daemon=True).start()
        for message in socket:
            tell_message(message)
        tell("closed", socket.close_code)


def talk_aiohttp(url, protocols):
    async def talk():
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, protocols=protocols, compress=15, max_msg_size=0) as socket,
        ):
            extensions = socket._response.headers.get("Sec-WebSocket-Extensions")
            tell("open", socket.protocol, extensions)
            loop = asyncio.get_running_loop()

            def send():
                for message in messages():
                    sending = socket.send_str if isinstance(message, str) else socket.send_bytes
                    asyncio.run_coroutine_threadsafe(sending(message), loop).result()
                asyncio.run_coroutine_threadsafe(socket.close(), loop).result()

            sender = threading.Thread(target=send, daemon=True)
            sender.start()
            async for message in socket:
                tell_message(message.data)
            # Its code is known once its own close is done.
            await asyncio.to_thread(sender.join)
            tell("closed", socket.close_code)

    asyncio.run(talk())


if __name__ == "__main__":
    what, client, url, *protocol = sys.argv[1:]
    if what == "read":
        readers = {"websockets": read_websockets, "aiohttp": read_aiohttp, "httpx-sse": read_event_stream}
        readers[client](url)
    else:
        talkers = {"websockets": talk_websockets, "aiohttp": talk_aiohttp}
        talkers[client](url, [name for name in protocol if name != "-"])
