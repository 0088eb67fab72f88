#!/bin/sh
# Makes the Debian root of the tests that look into a machine from outside: that of assets-debian.sh with an ssh server that
# lets root in without a password. Only for machines that exist within a lab.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
export NAME=debian-ssh-root ADD=openssh-server
export HOOK='printf "PermitRootLogin yes\nPermitEmptyPasswords yes\nUseDNS no\n" >"$1/etc/ssh/sshd_config.d/lab.conf"'
exec "$here/assets-debian.sh" "$@"
