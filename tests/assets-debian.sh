#!/bin/sh
# Makes the Debian root that the machines of the tests boot, and keeps it: the second run only looks.
#
#   tests/assets-debian.sh [DIR]     DIR defaults to $BOOTFABRIC_ASSETS, then to target/assets of this repository
#
# Needs mmdebstrap; root or unprivileged user namespaces; nothing is installed. Prints one KEY=VALUE line:
#   DEBIAN_ROOT      a tar of a small Debian with systemd, udev, dbus and iproute2
#
# The packages come from wherever this machine's own apt takes its Debian packages, so mirrors and caches that are set
# up here serve. The tar of two runs over the same package versions is the same. FRESH=1 makes it again.
#
# Other roots, for measurements: NAME=name makes name.tar, ADD=package,… with more packages, BASE=1 without the suites of
# updates and security fixes, HOOK=command runs it in the end with the root's directory as $1.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-${BOOTFABRIC_ASSETS:-$here/target/assets}}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

exec 8>"$dir/.lock-debian"
flock 8

say() { echo "assets: $*" >&2; }
die() { say "$*"; exit 1; }

name=${NAME:-debian-root}
tar=$dir/$name.tar
new=$dir/.$name.new
include=systemd-sysv,udev,dbus,iproute2,kmod,e2fsprogs,login${ADD:+,$ADD}

# The Debian entries of this machine's apt, one `deb` line each; other vendors' archives are left out.
debian_sources() {
    apt-get indextargets --format '$(CREATED_BY)|$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)' 2>/dev/null |
        awk -F'|' -v base="${BASE:-}" '
            $1 == "Packages" && $2 == "Debian" && (base == "" || $4 !~ /-/) { print "deb " $3 " " $4 " " $5 }' | sort -u
}

# The suite itself, of which `-updates` and `-security` are additions.
debian_suite() {
    debian_sources | awk '$3 !~ /-/ { print $3; exit }'
}

# A proxy that apt is told to use here is used by mmdebstrap's apt too, which otherwise reads none of this machine's settings.
proxy_options() {
    for scheme in http https; do
        proxy=
        eval "$(apt-config shell proxy "Acquire::$scheme::Proxy")"
        [ -z "$proxy" ] || echo "--aptopt=Acquire::$scheme::Proxy \"$proxy\""
    done
}

make_root() {
    command -v mmdebstrap >/dev/null || die "the program mmdebstrap is missing (Debian package mmdebstrap)"
    suite=$(debian_suite)
    [ -n "$suite" ] || die "apt knows no Debian archive here: run apt-get update on a Debian machine"
    say "making a Debian $suite root with $include (a minute or two)"
    rm -f "$new"
    # Fixed, so that the same packages give the same tar: mmdebstrap moves no file's time beyond it.
    export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-1700000000}"
    set --
    while IFS= read -r option; do
        [ -z "$option" ] || set -- "$@" "$option"
    done <<OPTIONS
$(proxy_options)
OPTIONS
    [ -z "${HOOK:-}" ] || set -- "$@" "--customize-hook=$HOOK"
    debian_sources | mmdebstrap "$@" --quiet --variant=minbase --format=tar --include="$include" \
        --aptopt='Acquire::Languages "none"' \
        --aptopt='Acquire::Retries "3"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/info/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --customize-hook='chroot "$1" passwd --delete root' \
        --customize-hook='echo bootfabric >"$1/etc/hostname"' \
        --customize-hook=': >"$1/etc/machine-id"; rm -f "$1/var/lib/dbus/machine-id"' \
        --customize-hook='rm -f "$1/etc/resolv.conf" "$1/var/lib/systemd/random-seed"' \
        --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin "$1"/var/log/*.log "$1"/var/log/apt' \
        "$suite" "$new" - >&2 || die "mmdebstrap failed: is there a network, and is apt-get update recent?"
    mv "$new" "$tar"
}

if [ ! -e "$tar" ] || [ -n "${FRESH:-}" ]; then
    make_root
fi
echo "DEBIAN_ROOT=$tar"
