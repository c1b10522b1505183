#!/bin/sh
# Stops the services before a removal, and leaves them alone before an upgrade.
set -e

case "$1" in
  upgrade | failed-upgrade | deconfigure | 1) exit 0 ;; # Debian, and rpm's number of versions that stay
esac
if [ -d /run/systemd/system ]; then
  systemctl --no-reload disable --now kbsync.service kbsync-sync.timer || true
  systemctl stop kbsync-sync.service || true
fi
