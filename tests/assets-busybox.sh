#!/bin/sh
# Makes the smallest root that the machines of the tests boot, and keeps it: the second run only looks.
#
#   tests/assets-busybox.sh [DIR]     DIR defaults to $BOOTFABRIC_ASSETS, then to target/assets of this repository
#
# Needs neither root nor a network: busybox is the machine's own if it is static, else fetched with apt and unpacked, not
# installed. Prints one KEY=VALUE line:
#   BUSYBOX_ROOT     a tar of a root whose init is busybox; it says `busybox root is up` and keeps a shell on the console
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-${BOOTFABRIC_ASSETS:-$here/target/assets}}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

exec 7>"$dir/.lock-busybox"
flock 7

say() { echo "assets: $*" >&2; }
die() { say "$*"; exit 1; }

tar=$dir/busybox-root.tar
new=$dir/.busybox-root.new

# A program without a dynamic loader; prints its path.
static_busybox() {
    for path in /bin/busybox /usr/bin/busybox; do
        if [ -x "$path" ] && ! ldd "$path" 2>&1 | grep -q '=>'; then
            echo "$path"
            return
        fi
    done
    mkdir -p "$new/deb"
    (cd "$new/deb" && apt-get -q -o APT::Sandbox::User=root download busybox-static >&2) ||
        die "no static busybox here, and apt cannot download busybox-static: run apt-get update, is there a network?"
    dpkg-deb -x "$new/deb/"*.deb "$new/busybox"
    find "$new/busybox" -type f -path '*bin/busybox'
}

make_root() {
    rm -rf "$new"
    root=$new/root
    mkdir -p "$root/bin" "$root/sbin" "$root/etc/init.d" "$root/dev" "$root/proc" "$root/sys" "$root/run" "$root/tmp" "$root/root"
    cp "$(static_busybox)" "$root/bin/busybox"
    chmod 755 "$root/bin/busybox"
    ln -s ../bin/busybox "$root/sbin/init"
    for applet in sh cat dd dmesg echo ls mkdir mount ps sleep umount sha256sum; do
        ln -s busybox "$root/bin/$applet"
    done
    for applet in ip poweroff reboot switch_root; do
        ln -s ../bin/busybox "$root/sbin/$applet"
    done
    # The shell is not asked for: it starts at once, on whatever the kernel's console is.
    printf '%s\n' '::sysinit:/etc/init.d/rcS' '::respawn:-/bin/sh' '::ctrlaltdel:/sbin/reboot' >"$root/etc/inittab"
    cat >"$root/etc/init.d/rcS" <<'RCS'
#!/bin/sh
# The first stage may have mounted some of these already.
[ -e /proc/self ] || mount -t proc proc /proc
[ -e /sys/class ] || mount -t sysfs sysfs /sys
[ -e /dev/null ] || mount -t devtmpfs devtmpfs /dev
echo busybox root is up
RCS
    chmod 755 "$root/etc/init.d/rcS"
    echo 'root::0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    tar -C "$root" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@1700000000 -cf "$new/root.tar" .
    mv "$new/root.tar" "$tar"
    rm -rf "$new"
}

if [ ! -e "$tar" ] || [ -n "${FRESH:-}" ]; then
    make_root
fi
echo "BUSYBOX_ROOT=$tar"
