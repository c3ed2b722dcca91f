"""A client written by others, as a program: clients.py {websockets,httpx-sse} URL

Prints `open` once it is connected, then `message ID DATA` for each message it is handed, and
`gap ...` for a gap. Ends when the server ends the connection.
"""

import json
import sys

import httpx
import httpx_sse
import websockets.sync.client


def tell(*words):
    print(*words, flush=True)


def read_websocket(url):
    with websockets.sync.client.connect(url.replace("http:", "ws:")) as socket:
        for text in socket:
            frame = json.loads(text)
            if "id" in frame:
                tell("message", frame["id"], frame["data"])
            elif "gap" in frame:
                tell("gap", text)
            elif "heartbeat" in frame:
                tell("open")


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


if __name__ == "__main__":
    {"websockets": read_websocket, "httpx-sse": read_event_stream}[sys.argv[1]](sys.argv[2])
