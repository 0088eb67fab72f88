//! Key files: made once, private, and never silently replaced.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use fabric::trust::{KeyDir, TrustError};

#[test]
fn a_fabrics_keys_are_made_once_and_kept_private() {
    let dir = tempfile::tempdir().unwrap();
    let keys = KeyDir::new(dir.path().join("keys"));
    let made = keys.init("ann@laptop").unwrap();
    let read = keys.operator().unwrap();
    assert_eq!(read.grant(), made.grant());
    assert_eq!(read.trust_root(), keys.trust_root().unwrap());
    assert_eq!(keys.root_key().unwrap().public(), keys.trust_root().unwrap());
    let mode = |name: &str| fs::metadata(keys.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        ["root.key", "operator.key", "root.pub", "operator.grant"].map(mode),
        [0o600, 0o600, 0o644, 0o644]
    );
    assert_eq!(fs::metadata(keys.path()).unwrap().permissions().mode() & 0o777, 0o700);

    let error = keys.init("eve").unwrap_err();
    assert!(matches!(error, TrustError::KeyExists { .. }), "{error}");
    assert_eq!(keys.operator().unwrap().grant().name(), "ann@laptop");
}

#[test]
fn the_root_key_may_live_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let keys = KeyDir::new(dir.path());
    keys.init("ann").unwrap();
    fs::remove_file(dir.path().join("root.key")).unwrap();
    assert!(keys.operator().is_ok());
    let error = keys.root_key().unwrap_err();
    assert!(matches!(error, TrustError::NoKey { what: "root key", .. }), "{error}");
    // And no new root takes its place.
    assert!(matches!(keys.init("ann"), Err(TrustError::KeyExists { .. })));
}

#[test]
fn exposed_and_damaged_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let keys = KeyDir::new(dir.path());
    let error = keys.operator().unwrap_err().to_string();
    assert!(error.contains("operator.key") && error.contains("bootfabric init"), "{error}");
    keys.init("ann").unwrap();
    let path = dir.path().join("operator.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let error = keys.operator().unwrap_err().to_string();
    assert!(error.contains("mode 0640") && error.contains("chmod 600"), "{error}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let good = fs::read_to_string(&path).unwrap();
    for bad in
        ["", "bootfabric operator key 1 00", "bootfabric root key 1 00", &good[..good.len() - 2], "\u{fffd}"]
    {
        fs::write(&path, bad).unwrap();
        let error = keys.operator().unwrap_err();
        assert!(matches!(error, TrustError::BadKeyFile { .. }), "{bad}: {error}");
    }
    let too_much = format!("{good}{}", "x".repeat(100_000));
    fs::write(&path, too_much).unwrap();
    assert!(keys.operator().is_err());
    fs::write(&path, vec![0xff; 100]).unwrap();
    assert!(keys.operator().unwrap_err().to_string().contains("operator.key"));
}

#[test]
fn a_grant_of_another_fabric_is_found_out() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, theirs) = (KeyDir::new(one.path()), KeyDir::new(two.path()));
    ours.init("ann").unwrap();
    theirs.init("eve").unwrap();
    for file in ["operator.key", "operator.grant"] {
        fs::copy(two.path().join(file), one.path().join(file)).unwrap();
    }
    assert!(matches!(ours.operator(), Err(TrustError::OtherFabric { .. })));
}
