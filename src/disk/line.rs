//! The kernel line that goes onto a disk: what the installing machine was told, without what only the network makes true.

/// Keys, behind `bootfabric.`, that are not taken along: each start finds address and peers anew, the release is the one in
/// the store, and a disk does not install itself.
const LEFT: [&str; 9] =
    ["release", "peers", "address", "root", "ramdisk-type", "disk", "disk-wipe", "store", "http-port"];

/// The words of the kernel line `line` that an installed machine keeps.
#[must_use]
pub fn kept_words(line: &str) -> String {
    words(line).into_iter().filter(|word| is_kept(word)).collect::<Vec<_>>().join(" ")
}

fn is_kept(word: &str) -> bool {
    let key = word.split('=').next().unwrap_or(word);
    match key.strip_prefix("bootfabric.") {
        Some(name) => !LEFT.contains(&name.replace('_', "-").as_str()),
        // The first two are what loaders add; the others their name for the kernel.
        None => !matches!(key, "initrd" | "BOOT_IMAGE" | "vmlinuz" | "kernel"),
    }
}

/// Words between blanks; a blank between double quotes is part of a word.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut quoted = false;
    let apart = |c: char| {
        quoted ^= c == '"';
        c.is_whitespace() && !quoted
    };
    line.split(apart).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_network_told_is_left_behind() {
        let line = "vmlinuz initrd=first-stage console=ttyS0 bootfabric.release=ab bootfabric.address=10.77.0.2/24 \
                    bootfabric.mac=52:54:00:00:00:01 bootfabric.peers=10.77.0.1 bootfabric.root=disk bootfabric.disk=/dev/vda \
                    bootfabric.disk_wipe=yes bootfabric.name=a x=\"b  c\" -- single\n";
        assert_eq!(
            kept_words(line),
            "console=ttyS0 bootfabric.mac=52:54:00:00:00:01 bootfabric.name=a x=\"b  c\" -- single"
        );
    }
}
