#!/bin/sh
# What a new version of a Debian root moves, by rules of cutting and by sizes of squashfs blocks: the measurement behind the
# chunk size, whose figures are in fabric/README.md.
#
#   tests/chunk-sizes.sh [DIR]     DIR keeps the roots; defaults to target/chunk-sizes of this repository
#
# Needs root, mmdebstrap, mksquashfs, zstd and some minutes. The packages come from this machine's own apt sources
# (tests/assets-debian.sh). BLOCKS="65536 131072" measures other block sizes than 131072.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-$here/target/chunk-sizes}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
blocks=${BLOCKS:-131072}

# Every so many small files of the system gets a line more.
touch_files='cd "$1" && find usr etc -xdev -type f -size +0 -size -64k | sort >/tmp/small && n=$(wc -l </tmp/small) &&
    awk -v each=$((n / 200)) "NR % each == 0" /tmp/small | head -n 200 | while read -r f; do echo "# touched" >>"$f"; done'

root() { env "$@" "$here/tests/assets-debian.sh" "$dir" >/dev/null; }
root BASE=1 NAME=base
root NAME=updated
root BASE=1 NAME=added ADD=rsyslog,vim-tiny,less
root BASE=1 NAME=touched HOOK="$touch_files"

# The options are those of src/image/root/pack.rs, but for the size of blocks.
pack() {
    [ -e "$dir/$1.$2.squashfs" ] || SOURCE_DATE_EPOCH=1700000000 mksquashfs - "$dir/$1.$2.squashfs" -tar -comp zstd \
        -Xcompression-level 15 -b "$2" -no-fragments -noappend -no-progress -quiet -no-recovery \
        -root-mode 0755 -root-uid 0 -root-gid 0 <"$dir/$1.tar" >/dev/null 2>&1
}

# Bytes of the regular files of root $1 that base does not have in the same place, compressed as one tar.
changed() {
    for name in base "$1"; do
        [ -d "$dir/$name" ] || { mkdir "$dir/$name.new" && tar -xf "$dir/$name.tar" -C "$dir/$name.new" --exclude='./dev/*' &&
            mv "$dir/$name.new" "$dir/$name"; }
        (cd "$dir/$name" && find . -type f -exec sha256sum {} + | sort) >"$dir/$name.sums"
    done
    comm -13 "$dir/base.sums" "$dir/$1.sums" | cut -c67- | sort >"$dir/$1.changed"
    tar -C "$dir/$1" -cf - -T "$dir/$1.changed" | zstd -15 -c | wc -c
}

for block in $blocks; do
    pack base "$block"
    for version in updated added touched; do
        pack "$version" "$block"
        bytes=$(changed "$version")
        echo "$version, blocks of $block: $(wc -l <"$dir/$version.changed") files changed, $bytes bytes compressed"
        (cd "$here" && cargo run --quiet --release -p fabric --example chunk_sizes -- \
            "$dir/base.$block.squashfs" "$dir/$version.$block.squashfs" "$bytes")
    done
done
