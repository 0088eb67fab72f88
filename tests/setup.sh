#!/usr/bin/env bash
# Installs what building, the demo and the tests need. Says what is missing and what it is for; does nothing when
# nothing is missing. Only the Rust toolchain has to be there beforehand.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

# program or file | Debian package | what it is for
needs='
cc                                     gcc               the linker, and the C parts of some libraries
/usr/include/stdio.h                   libc6-dev         the same
musl-gcc                               musl-tools        static linking: the program is also /init of the first stage
qemu-system-x86_64                     qemu-system-x86   virtual machines
/usr/share/OVMF/OVMF_CODE_4M.fd        ovmf              UEFI firmware
/usr/share/seabios/bios-256k.bin       seabios           BIOS firmware
/usr/lib/ipxe/qemu/pxe-virtio.rom      ipxe-qemu         the network card ROM of BIOS machines
/usr/lib/ipxe/snponly.efi              ipxe              network boot loaders
/usr/lib/systemd/boot/efi/linuxx64.efi.stub systemd-boot-efi unified kernel images
ip                                     iproute2          network namespaces
tc                                     iproute2          shaped links
ping                                   iputils-ping      proof that a lab network works
tcpdump                                tcpdump           captures
nft                                    nftables          faults on links
mksquashfs                             squashfs-tools    root filesystems
sqfs2tar                               squashfs-tools-ng roots as tars
mke2fs                                 e2fsprogs         filesystems of disks
grub-mkimage                           grub-common       the boot loader of disks
/usr/lib/grub/i386-pc/boot.img         grub-pc-bin       the same, for BIOS
/usr/lib/grub/x86_64-efi/normal.mod    grub-efi-amd64-bin the same, for UEFI
sfdisk                                 fdisk             how others see partition tables
fsck.vfat                              dosfstools        how others see FAT
losetup                                mount             files as disks
mmdebstrap                             mmdebstrap        the Debian root of demo and tests
depmod                                 kmod              dependencies of kernel modules
cpio                                   cpio              reading initramfs archives back
xz                                     xz-utils          compressed roots and kernel modules
zstd                                   zstd              compressed roots
umoci                                  umoci             container images to import
skopeo                                 skopeo            container images in archives and registries
docker-registry                        docker-registry   a registry to import from
openssl                                openssl           certificates of a registry
curl                                   curl              an HTTP and TFTP client to test with
ssh                                    openssh-client    looking into machines
tftp                                   tftp-hpa          a TFTP client to test with
dhclient                               isc-dhcp-client   a DHCP client to test with
dhcpcd                                 dhcpcd-base       a DHCP client to test with
/lib/systemd/systemd-networkd          systemd           a DHCP client to test with
dnsmasq                                dnsmasq-base      a DHCP and TFTP server to test with
kea-dhcp4                              kea-dhcp4-server  a DHCP server to test with
'

# Only measuring wants programs to compare with.
if [ "${1:-}" = --bench ]; then
    needs+='
nginx                                  nginx-light       an HTTP server to compare with
b3sum                                  b3sum             hashing to compare with
atftpd                                 atftpd            a TFTP server to compare with
perfdhcp                               kea-admin         DHCP load
'
fi

missing=() reasons=()
while read -r what package reason; do
    [ -n "$what" ] || continue
    case $what in
        /*) [ -e "$what" ] && continue ;;
        *) command -v "$what" >/dev/null && continue ;;
    esac
    missing+=("$package")
    reasons+=("  $package: $reason")
done <<<"$needs"

# busybox-static replaces the dynamic busybox of the same name, so its linkage decides.
if ! { [ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1; }; then
    missing+=(busybox-static)
    reasons+=("  busybox-static: a shell for emergencies, and the small root of the tests")
fi

if [ ${#missing[@]} -gt 0 ]; then
    echo "Missing here:" >&2
    printf '%s\n' "${reasons[@]}" >&2
    if ! command -v apt-get >/dev/null; then
        echo "This is not a Debian system: install the programs above with its own package manager, then run this again." >&2
        exit 1
    fi
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    sudo=()
    if [ "$(id -u)" != 0 ]; then
        sudo=(sudo)
        echo "Installing them needs root: sudo may ask for your password." >&2
    fi
    export DEBIAN_FRONTEND=noninteractive
    "${sudo[@]}" apt-get update -q >&2
    "${sudo[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}" >&2
fi

# The package of this one excludes atftpd, so it is only unpacked.
hpa=$(dirname "$0")/../target/tftpd-hpa
if [ "${1:-}" = --bench ] && [ ! -e "$hpa/usr/sbin/in.tftpd" ]; then
    echo "Unpacking tftpd-hpa, a TFTP server to compare with" >&2
    mkdir -p "$hpa"
    (cd "$hpa" && apt-get download -q tftpd-hpa >&2 && dpkg -x tftpd-hpa_*.deb . && rm tftpd-hpa_*.deb)
fi

if ! command -v cargo >/dev/null; then
    echo "No Rust toolchain: install one first, see https://www.rust-lang.org/tools/install" >&2
    exit 1
fi
target="$(uname -m)-unknown-linux-musl"
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    echo "Adding the Rust target $target: the program is statically linked" >&2
    if ! rustup target add "$target" >&2; then
        echo "rustup could not add $target; install your distribution's package of the Rust standard library for it" >&2
        exit 1
    fi
fi
