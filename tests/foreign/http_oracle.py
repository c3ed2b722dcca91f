"""Two parsers by others judge what the server accepts: http_oracle.py CASES

CASES is what `TIDINGS_HTTP_CASES=CASES cargo test --test http_table` has written. Each of its lines
has bytes, and what came of them. The same bytes go to h11 and, by llhttp.cjs, to strict llhttp.

We may be stricter than they are, never laxer: each request that was accepted must be one for both
of them too, at the same place, with the same method, target and body. Where one of them refuses
what RFC 9110 and 9112 allow, `exception` names it. Where we are stricter is counted and shown, by
the words of our refusal. Exit code 1: something was laxer.
"""

import collections
import json
import pathlib
import re
import subprocess
import sys

import h11

# After these the end of the message is not known, so no more is said of it.
FRAMING = ("400 bad_request", "408", "413 ", "417 ", "431 ", "505 ")


# A parser, a part of its error, what the bytes then have, and why they are right nevertheless.
EXCEPTIONS = [
    ("llhttp", "HPE_INVALID_METHOD", b"", "knows a list of methods; RFC 9110 9.1: any token is one"),
    ("h11", "no request line received", rb"(^|[^\n])\r\n", "skips no empty line; RFC 9112 2.2: at least one"),
    ("llhttp", "HPE_CLOSED_CONNECTION", rb"(?i)\nproxy-connection:",
     "takes Proxy-Connection for Connection; RFC 9112 C.2.2 tells them apart"),
    ("h11", "None", rb"(?i) HTTP/1\.0\r\n(.|\n)*connection:.*keep-alive",
     "keeps no connection of HTTP/1.0; RFC 9112 9.3: with keep-alive it persists"),
]


def h11_reads(data):
    """The requests that h11 finds, as [method, target, body], and its error or None."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    got = []
    request = None
    try:
        while True:
            event = connection.next_event()
            if event in (h11.NEED_DATA, h11.PAUSED):
                return got, None
            if isinstance(event, h11.Request):
                request = [event.method.decode(), event.target.hex(), ""]
            elif isinstance(event, h11.Data):
                request[2] += event.data.hex()
            elif isinstance(event, h11.EndOfMessage):
                got.append(request)
                # The answer: without one it reads no further. 404 upgrades nothing.
                connection.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return got, None
                connection.start_next_cycle()
            else:
                return got, None
    except h11.RemoteProtocolError as error:
        return got, str(error)


def llhttp_reads(path):
    """The same of llhttp, for each line of a file."""
    script = pathlib.Path(__file__).with_name("llhttp.cjs")
    with open(path, "rb") as cases:
        out = subprocess.run(["node", script], stdin=cases, stdout=subprocess.PIPE, check=True).stdout
    answers = map(json.loads, out.splitlines())
    return [(answer["got"], answer["error"]) for answer in answers]


def normal(request):
    """The target as an app sees it: without scheme and authority, and with a path."""
    method, target, body = request
    target = bytes.fromhex(target)
    target = re.sub(rb"(?i)^https?://[^/?]*", b"", target)
    if target[:1] in (b"", b"?"):
        target = b"/" + target
    return [method, target.hex(), body]


def exception(parser, error, data):
    """Why a parser may refuse what we accept; None if it may not."""
    for name, words, pattern, reason in EXCEPTIONS:
        if name == parser and words in str(error) and re.search(pattern, data):
            return f"{name}: {reason}"
    return None


def is_accepted(answer):
    return not isinstance(answer, str) or not answer.startswith(FRAMING) and answer != "100"


def laxer(case, parser, theirs, error):
    """What we accepted and this parser did not, in words; None if there is nothing."""
    ours = [answer for answer in case["got"] if is_accepted(answer)]
    # A refusal that ends the connection may come before the request's end, and leaves it open.
    if case["fate"] == "Closed" and ours and str(ours[-1])[0] in "45":
        ours.pop()
    for nth, answer in enumerate(ours):
        if nth >= len(theirs):
            return f"request {nth} is none to {parser}: {error}"
        if not isinstance(answer, str) and answer != normal(theirs[nth]):
            return f"request {nth} is {normal(theirs[nth])} to {parser}"
    return None


def main(path):
    with open(path, encoding="ascii") as lines:
        cases = [json.loads(line) for line in lines]
    wrong = 0
    excused = collections.Counter()
    stricter = collections.defaultdict(list)
    for case, (llhttp_got, llhttp_error) in zip(cases, llhttp_reads(path), strict=True):
        data = bytes.fromhex(case["bytes"])
        h11_got, h11_error = h11_reads(data)
        for parser, theirs, error in [("h11", h11_got, h11_error), ("llhttp", llhttp_got, llhttp_error)]:
            difference = laxer(case, parser, theirs, error)
            if difference and (reason := exception(parser, error, data)):
                excused[reason] += 1
            elif difference:
                wrong += 1
                print(f"LAXER {case['name']}: {data}\n  {case['got']} {case['fate']}; {difference}")
        if case["got"] and isinstance(case["got"][-1], str) and case["got"][-1].startswith(FRAMING):
            accepts = [name for name, got in [("h11", h11_got), ("llhttp", llhttp_got)] if len(got) >= len(case["got"])]
            if accepts:
                stricter[case["got"][-1].split(";")[0], " and ".join(accepts)].append((case["name"], data))
    print("stricter than others:")
    for (words, parsers), found in sorted(stricter.items(), key=lambda entry: -len(entry[1])):
        name, data = min(found, key=lambda case: (case[0] == "damaged", len(case[1])))
        print(f"{len(found):6} than {parsers}: {words}\n         as in {name}: {data[:100]}")
    for reason, count in excused.items():
        print(f"{count:6} times: {reason}")
    print(f"{len(cases)} cases, {wrong} of them laxer than h11 or llhttp")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
