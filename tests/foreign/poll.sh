#!/usr/bin/env bash
# A long-poll client: curl in a loop. poll.sh URL?after=CURSOR
#
# Prints `open`, then `message ID DATA` for each message.
set -euo pipefail

url=${1%after=*}
after=${1##*after=}
if [ "$after" = now ]; then
    after=$(curl -sSI "$url" | tr -d '\r' | sed -n 's/^Tidings-Cursor: //ip')
fi
echo open
while answer=$(curl -sS "${url}after=$after"); do
    jq -r '(.gap // empty | "gap \(.)"), (.messages[] | "message \(.id) \(.data)")' <<<"$answer"
    after=$(jq -r .cursor <<<"$answer")
done
