#!/bin/sh
# Creates the user of the service, who owns the state. It may run any number of times.
set -e

if command -v useradd >/dev/null; then
  getent group kbsync >/dev/null || groupadd --system kbsync
  getent passwd kbsync >/dev/null ||
    useradd --system --gid kbsync --home-dir /var/lib/kbsync --no-create-home --shell /usr/sbin/nologin --comment kbsync kbsync
else # Alpine
  grep -q '^kbsync:' /etc/group || addgroup -S kbsync
  grep -q '^kbsync:' /etc/passwd || adduser -S -D -H -h /var/lib/kbsync -s /sbin/nologin -G kbsync -g kbsync kbsync
fi
