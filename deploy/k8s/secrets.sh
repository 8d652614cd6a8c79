#!/bin/sh
# Prints two Secrets: "authority" with the key that signs the log, and for base the passwords of
# NATS, there and in "nats-passwords". overlays/single takes the key alone. To standard error goes
# that key's public half, which is no secret: sidecars pin it.
#
#     deploy/k8s/secrets.sh | kubectl create -f -
#
# Once: a second set would be another log's, and create refuses it. Keep a copy where you
# keep CA keys: (umask 077; deploy/k8s/secrets.sh > revcast-secrets.yaml), and create from that.
set -eu

key=$(openssl genpkey -algorithm ed25519)
route=$(openssl rand -hex 24)
authority=$(openssl rand -hex 24)
verifier=$(openssl rand -hex 24)

x=$(printf '%s\n' "$key" | openssl pkey -pubout -outform DER | tail -c 32 | openssl base64 | tr '+/' '-_' | tr -d '=')
echo "For sidecar.yaml: authority_keys: [\"$x\"]" >&2

# What servers show each other. NATS puts no variable into a URL, so it is written whole.
at() { echo "\"nats://route:$route@$1.nats:6222\""; }

# By printf, since some shells keep a here-document in a file.
printf '%s\n' "apiVersion: v1
kind: Secret
metadata:
  name: authority
  namespace: revcast
stringData:
  feed.key: |
$(printf '%s\n' "$key" | sed 's/^/    /')
  nats-authority: \"$authority\"
  nats-verifier: \"$verifier\"
---
apiVersion: v1
kind: Secret
metadata:
  name: nats-passwords
  namespace: revcast
stringData:
  passwords.conf: |
    ROUTE_PASSWORD: \"$route\"
    ROUTES: [$(at nats-0), $(at nats-1), $(at nats-2)]
    AUTHORITY_PASSWORD: \"$authority\"
    VERIFIER_PASSWORD: \"$verifier\""
