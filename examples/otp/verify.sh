#!/bin/bash
# Verify a phone with curl: WATCHWORD_API=https://login.example.com WATCHWORD_API_KEY=otp_… bash verify.sh +12025550143
set -euo pipefail
: "${1:?give a number, as: bash verify.sh +12025550143}" "${WATCHWORD_API:?is not set: the address of the server}" "${WATCHWORD_API_KEY:?is not set: a key of the tenant}"
call() { # path and body
  local answer
  if ! answer=$(curl -s --fail-with-body "$WATCHWORD_API$1" -H "X-API-Key: $WATCHWORD_API_KEY" -H 'Content-Type: application/json' -d "$2" "${@:3}"); then
    echo "$answer" >&2 # application/problem+json: decide by its code
    return 1
  fi
  echo "$answer"
}
field() { sed -E "s/.*\"$1\":\"?([^\",}]*).*/\1/"; } # of a flat answer; jq -r .$1 where there is jq

key=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n') # the same request with the same key is done once: retry with it
sent=$(call /v1/verifications "{\"to\": \"$1\", \"purpose\": \"sign_up\"}" -H "Idempotency-Key: $key" --retry 3)
id=$(field id <<<"$sent")
echo "Sent to $(field to <<<"$sent")"
while read -r code; do
  result=$(call "/v1/verifications/$id/check" "{\"code\": \"$code\"}")
  if [ "$(field valid <<<"$result")" = true ]; then echo Verified; exit; fi
  echo "Wrong code, attempts left: $(field attempts_left <<<"$result")"
done
exit 1
