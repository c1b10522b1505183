#!/bin/sh
# Runs after an installation and after an upgrade. It may run any number of times. It enables and starts no service: the config of
# the package is an example, and uploads are permanent.
set -e

# The directory of the state does not belong to the package, so that no removal deletes the state.
if [ ! -e /var/lib/kbsync ]; then
  mkdir -m 0700 /var/lib/kbsync
  chown kbsync:kbsync /var/lib/kbsync
fi

if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  # After an upgrade a running service continues with the new program. Its first scan may take a long time.
  systemctl --no-block try-restart kbsync.service
fi
