#!/bin/sh
# Runs after a removal. It never removes the state.
set -e

case "$1" in
  upgrade | failed-upgrade | abort-install | abort-upgrade | disappear | 1) exit 0 ;;
  purge)
    rm -f /etc/kbsync/token
    rmdir /etc/kbsync 2>/dev/null || true
    ;;
esac
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload || true
fi
rmdir /var/lib/kbsync 2>/dev/null || true # without a state
if [ -e /var/lib/kbsync ]; then
  echo "kbsync: /var/lib/kbsync stays, with the only inventory of your uploads. A later installation continues with it." >&2
  echo "kbsync: Without it, kbsync uploads every document again. If you will not use it again, delete it by hand." >&2
fi
