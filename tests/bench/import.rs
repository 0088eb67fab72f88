//! How long `image import` takes, against `mksquashfs` of the same root with the same options, one after the other in one run.
//!
//! `cargo bench --bench import`; `RUNS` says how often (default 3, medians of the ratios are printed), `BOOTFABRIC_PROGRAM` names
//! another program than this build's, `ROOT=FILE.tar` another root. The usual one is a Debian with compilers, 1.1 GB, which is made once
//! beside the other assets. Needs root, mmdebstrap and `make assets`. Files are in the page cache, as `mksquashfs` would find them
//! after an unpacking. The modules of the kernel are not added to the root, as `mksquashfs` does not get them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark stops where it cannot go on")]

#[path = "measure.rs"]
#[expect(dead_code, reason = "what only the benchmark of swarms takes")]
mod measure;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use bootfabric::image::SQUASHFS_OPTIONS;
use bootfabric::lab::assets::Assets;
use measure::{median, spread};

/// Most that an import may take, as a multiple of `mksquashfs` alone.
const BAR: f64 = 1.20;

/// What makes a Debian large.
const PACKAGES: &str = "systemd-sysv,udev,dbus,iproute2,kmod,login,openssh-server,gcc,g++,gfortran,clang,python3,git,vim,cmake,linux-headers-amd64";

fn main() -> anyhow::Result<()> {
    let runs = std::env::var("RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(3_usize);
    let program = std::env::var_os("BOOTFABRIC_PROGRAM");
    let program = program.as_ref().map_or(Path::new(env!("CARGO_BIN_EXE_bootfabric")), Path::new);
    let kernel = Assets::find(program)?.kernel()?;
    let root = std::env::var_os("ROOT").map_or_else(usual_root, |path| Ok(path.into()))?;
    // On the disk that the store of an image would be on.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree)?;
    timed(
        Command::new("tar").args(["--xattrs", "--xattrs-include=*", "-xpf"]).arg(&root).arg("-C").arg(&tree),
    )?;
    let import = |source: &Path| {
        let fabric = dir.path().join("fabric");
        timed(Command::new(program).arg("init").arg("--fabric").arg(&fabric))?;
        let mut command = Command::new(program);
        command.args(["image", "import"]).arg(source).arg("--kernel").arg(&kernel).arg("--no-root-modules");
        command.args(["--name", "big", "--version", "1", "--fabric"]).arg(&fabric);
        let took = timed(&mut command)?;
        std::fs::remove_dir_all(&fabric)?;
        anyhow::Ok(took)
    };
    let (mut alone, mut of_tar, mut of_tree) = (vec![], vec![], vec![]);
    for _ in 0..runs {
        let out = dir.path().join("squashfs");
        alone.push(timed(Command::new("mksquashfs").arg(&tree).arg(&out).args(SQUASHFS_OPTIONS))?);
        std::fs::remove_file(out)?;
        of_tar.push(import(&root)?);
        of_tree.push(import(&tree)?);
    }
    println!("mksquashfs        {} s", spread(&alone));
    for (what, took) in [("a tar", of_tar), ("a directory", of_tree)] {
        let ratios: Vec<f64> = took.iter().zip(&alone).map(|(took, alone)| took / alone).collect();
        println!("import of {what:<12} {} s   ratio {}   bar {BAR}", spread(&took), spread(&ratios));
        ensure!(
            median(ratios) <= BAR,
            "an import of {what} takes more than {BAR} times what mksquashfs does"
        );
    }
    Ok(())
}

/// Runs `command`, which must succeed; seconds.
fn timed(command: &mut Command) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(begun.elapsed().as_secs_f64())
}

fn usual_root() -> anyhow::Result<PathBuf> {
    let assets = std::env::var_os("BOOTFABRIC_ASSETS").map_or_else(|| "target/assets".into(), PathBuf::from);
    let root = assets.join("large-root.tar");
    if !root.exists() {
        let part = assets.join("large-root.part.tar");
        eprintln!("making {} (some minutes)", root.display());
        let mut command = Command::new("mmdebstrap");
        command.args(["--variant=minbase", &format!("--include={PACKAGES}"), "bookworm"]).arg(&part);
        timed(&mut command)?;
        std::fs::rename(part, &root)?;
    }
    Ok(root)
}
