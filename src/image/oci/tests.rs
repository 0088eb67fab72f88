use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::super::progress::Silent;
use super::super::tar::{END, NewMember, padding};
use super::*;
use crate::image::tar::Kind;

pub(super) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes)))
}

fn layer(path: &str, content: &[u8]) -> Vec<u8> {
    let member =
        NewMember { size: content.len() as u64, ..NewMember::plain(path.as_bytes(), Kind::File, 0o755) };
    [&member.header(), content, padding(member.size), &END].concat()
}

/// Puts `bytes` into the layout and describes them, with more fields as in `more`.
fn blob(layout: &Path, bytes: &[u8], more: &str) -> String {
    let digest = sha256(bytes);
    let path = layout.join("blobs").join(digest.replace(':', "/"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    format!(r#"{{ "digest": "{digest}", "size": {}{more} }}"#, bytes.len())
}

/// An image for `platform` with one layer; describes its manifest.
fn image(layout: &Path, platform: &str, more: &str) -> String {
    let layer = blob(layout, &layer("sbin/init", b"#!"), "");
    let config = blob(layout, format!(r#"{{ "os": "linux", "architecture": "{platform}" }}"#).as_bytes(), "");
    let manifest = format!(r#"{{ "schemaVersion": 2, "config": {config}, "layers": [{layer}] }}"#);
    blob(
        layout,
        manifest.as_bytes(),
        &format!(r#", "platform": {{ "os": "linux", "architecture": "{platform}" }}{more}"#),
    )
}

fn index(manifests: &[String]) -> String {
    format!(r#"{{ "schemaVersion": 2, "manifests": [{}] }}"#, manifests.join(","))
}

fn opened(source: &str, scratch: &Path) -> Result<usize, String> {
    let source: ImageSource = source.parse().unwrap();
    match open(&source, scratch, ImportOptions::default(), &Silent) {
        Ok(RootSource::Layers { layers, .. }) => Ok(layers.len()),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn the_variant_for_this_machine_is_found_through_indexes() {
    let dir = TempDir::new().unwrap();
    let variants = index(&[image(dir.path(), "arm64", ""), image(dir.path(), "amd64", "")]);
    let name = |tag: &str| format!(r#", "annotations": {{ "org.opencontainers.image.ref.name": "{tag}" }}"#);
    let both = blob(dir.path(), variants.as_bytes(), &name("both"));
    let arm = image(dir.path(), "arm64", &name("example.org/x:arm"));
    fs::write(dir.path().join("index.json"), index(&[both, arm])).unwrap();
    let layout = format!("oci:{}", dir.path().display());
    assert_eq!(opened(&format!("{layout}:both"), dir.path()), Ok(1));
    let arm = opened(&format!("{layout}:arm"), dir.path()).unwrap_err();
    assert!(arm.contains("no variant for linux/amd64") && arm.contains("linux/arm64"), "{arm}");
    for unclear in [layout.clone(), format!("{layout}:lost")] {
        let error = opened(&unclear, dir.path()).unwrap_err();
        assert!(error.contains("both, example.org/x:arm") && error.contains(":TAG"), "{error}");
    }
}

#[test]
fn what_does_not_match_its_digest_is_refused() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("index.json"), index(&[image(dir.path(), "amd64", "")])).unwrap();
    let layout = format!("oci:{}", dir.path().display());
    assert_eq!(opened(&layout, dir.path()), Ok(1));
    let blobs: Vec<_> =
        fs::read_dir(dir.path().join("blobs/sha256")).unwrap().map(|at| at.unwrap().path()).collect();
    assert_eq!(blobs.len(), 3);
    for path in blobs {
        let whole = fs::read(&path).unwrap();
        let mut changed = whole.clone();
        *changed.last_mut().unwrap() ^= 1;
        fs::write(&path, changed).unwrap();
        let error = opened(&layout, dir.path()).unwrap_err();
        assert!(error.contains("should be sha256:") && error.contains("refused"), "{error}");
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn archives_of_both_kinds_are_read_and_their_names_do_no_harm() {
    let dir = TempDir::new().unwrap();
    let content = layer("sbin/init", b"#!");
    let config = format!(
        r#"{{ "os": "linux", "architecture": "amd64", "rootfs": {{ "diff_ids": ["{}"] }} }}"#,
        sha256(&content)
    );
    let archive = |layers: &str, content: &[u8]| {
        let manifest = format!(r#"[{{ "Config": "c.json", "RepoTags": ["a:b"], "Layers": ["{layers}"] }}]"#);
        let files =
            [("c.json", config.as_bytes()), ("manifest.json", manifest.as_bytes()), ("x/layer.tar", content)];
        let member = |(path, content): (&str, &[u8])| {
            let whole = layer(path, content);
            whole[..whole.len() - END.len()].to_vec()
        };
        let all: Vec<u8> = files.into_iter().flat_map(member).chain(END).collect();
        fs::write(dir.path().join("saved.tar"), all).unwrap();
        let scratch = TempDir::new().unwrap();
        opened(&format!("docker-archive:{}", dir.path().join("saved.tar").display()), scratch.path())
    };
    assert_eq!(archive("x/layer.tar", &content), Ok(1));
    assert!(archive("x/layer.tar", b"other").unwrap_err().contains("should be sha256:"));
    assert!(archive("../../etc/passwd", &content).unwrap_err().contains("no container image"));
    fs::write(dir.path().join("saved.tar"), layer("/etc/evil", b"x")).unwrap();
    let error =
        opened(&format!("oci-archive:{}", dir.path().join("saved.tar").display()), dir.path()).unwrap_err();
    assert!(error.contains("saved.tar"), "{error}");
}

#[test]
fn sources_are_told_apart() {
    let text = |source: &str| source.parse::<ImageSource>().map(|source| source.to_string());
    for (typed, meant) in [
        ("docker://debian", "docker://docker.io/library/debian:latest"),
        ("docker://me/app:1", "docker://docker.io/me/app:1"),
        ("docker://localhost:5000/a/b:x", "docker://localhost:5000/a/b:x"),
        ("docker://[::1]:5000/a", "docker://[::1]:5000/a:latest"),
        ("oci:some/dir:tag", "oci:some/dir:tag"),
        ("root.tar", "root.tar"),
    ] {
        assert_eq!(text(typed).unwrap(), meant);
    }
    let digest = format!("sha256:{}", "a".repeat(64));
    assert_eq!(text(&format!("docker://h.io/a:1@{digest}")).unwrap(), format!("docker://h.io/a@{digest}"));
    for bad in [
        "docker://",
        "docker://h.io/A",
        "docker://h.io/a@sha256:12",
        "docker://h.io/../a",
        "docker://a:b c",
        "http://x",
    ] {
        assert!(text(bad).is_err(), "{bad}");
    }
    let local = source::is_local;
    assert!(local("localhost:5000") && local("127.0.0.1:1") && local("[::1]:5000") && local("localhost"));
    assert!(!local("localhost.example.org") && !local("h.io") && !local("10.0.0.1:5000"));
}
