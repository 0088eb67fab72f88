#!/bin/sh
# Prepares what the machines of the tests boot, and keeps it: the second run only looks.
#
#   tests/assets.sh [DIR]        DIR defaults to $BOOTFABRIC_ASSETS, then to target/assets of this repository
#
# Needs no root: packages are fetched with apt and unpacked, never installed. Prints one KEY=VALUE line for each asset:
#   KERNEL_VERSION   as `uname -r` will say, for example 6.1.0-56-cloud-amd64
#   KERNEL           the bzImage
#   MODULES_ROOT     a directory that holds lib/modules/$KERNEL_VERSION, with modules.dep and modules.alias made
#
# A kernel that is there already is used as it is, also without a network. FRESH=1 asks for the newest one again.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-${BOOTFABRIC_ASSETS:-$here/target/assets}}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
PATH=$PATH:/usr/sbin:/sbin

# Tests run in parallel processes: one prepares, the others wait for it.
exec 9>"$dir/.lock"
flock 9

say() { echo "assets: $*" >&2; }
die() { say "$*"; exit 1; }
need() { command -v "$1" >/dev/null || die "the program $1 is missing (Debian package $2)"; }

# The kernel of Debian's cloud flavour: it starts quickest in a virtual machine and has virtio, squashfs, overlay and zram.
# `linux-image-cloud-amd64` is an empty package that depends on the newest concrete one.
kernel_package() {
    apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*-cloud-amd64\)$/\1/p' | head -n 1
}

fetch_kernel() {
    need apt-get apt; need dpkg-deb dpkg; need depmod kmod
    package=$(kernel_package)
    [ -n "$package" ] || die "apt knows no linux-image-cloud-amd64: run apt-get update on a Debian machine"
    version=${package#linux-image-}
    if [ ! -e "$dir/kernel/$version/boot/vmlinuz-$version" ]; then
        say "fetching $package"
        rm -rf "$dir/kernel/.new" && mkdir -p "$dir/kernel/.new/deb"
        # As root, apt would hand the download to a user of its own, who cannot write here.
        (cd "$dir/kernel/.new/deb" && apt-get -q -o APT::Sandbox::User=root download "$package" >&2) ||
            die "cannot download $package: is there a network, and is apt-get update recent?"
        dpkg-deb -x "$dir/kernel/.new/deb/"*.deb "$dir/kernel/.new/root"
        depmod -b "$dir/kernel/.new/root" "$version"
        rm -rf "$dir/kernel/$version"
        mv "$dir/kernel/.new/root" "$dir/kernel/$version"
        rm -rf "$dir/kernel/.new"
    fi
    # Renamed into place, so that a reader never sees it half made.
    ln -sfn "$version" "$dir/kernel/.current"
    mv -T "$dir/kernel/.current" "$dir/kernel/current"
}

if [ ! -e "$dir/kernel/current" ] || [ -n "${FRESH:-}" ]; then
    fetch_kernel
fi
version=$(readlink "$dir/kernel/current")
root=$dir/kernel/$version
echo "KERNEL_VERSION=$version"
echo "KERNEL=$root/boot/vmlinuz-$version"
echo "MODULES_ROOT=$root"
