use std::process::Command;

use super::*;

/// Makes a certificate for itself and its key: `NAME.crt` and `NAME.key` in `dir`.
fn make(dir: &Path, name: &str) {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj"]);
    command.arg(format!("/CN={name}")).current_dir(dir);
    let output = command.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn refusal(host: &str, directories: &[PathBuf]) -> String {
    of_registry(host, directories).unwrap_err().to_string()
}

#[test]
fn the_first_directory_of_a_registry_counts() {
    let dir = tempfile::tempdir().unwrap();
    let directories = [dir.path().join("none"), dir.path().join("one"), dir.path().join("two")];
    let host = "registry.example.org:5000";
    let (one, two) = (directories[1].join(host), directories[2].join(host));
    fs::create_dir_all(&one).unwrap();
    fs::create_dir_all(&two).unwrap();
    assert!(of_registry("registry.example.org", &directories).unwrap().is_none());
    assert!(of_registry(host, &directories).unwrap().unwrap().authorities.is_empty());
    make(&one, "ca");
    make(&one, "us");
    fs::rename(one.join("us.crt"), one.join("us.cert")).unwrap();
    // Is not looked at.
    fs::write(two.join("bad.crt"), "nothing").unwrap();
    let found = of_registry(host, &directories).unwrap().unwrap();
    assert_eq!(found.authorities.len(), 1);
    assert_eq!(found.own.unwrap().certs().len(), 1);
}

#[test]
fn what_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let directories = [dir.path().to_owned()];
    let host = dir.path().join("host");
    fs::create_dir(&host).unwrap();
    make(&host, "us");
    fs::rename(host.join("us.crt"), host.join("us.cert")).unwrap();
    let key = fs::read(host.join("us.key")).unwrap();
    fs::write(host.join("us.key"), "no key").unwrap();
    assert!(refusal("host", &directories).contains("host/us.key"));
    make(&host, "other");
    fs::rename(host.join("other.key"), host.join("us.key")).unwrap();
    let foreign = refusal("host", &directories);
    assert!(foreign.contains("it is no key of") && foreign.contains("host/us.cert"), "{foreign}");
    fs::remove_file(host.join("us.key")).unwrap();
    assert!(refusal("host", &directories).contains("host/us.key"));
    fs::write(host.join("us.key"), key).unwrap();
    of_registry("host", &directories).unwrap().unwrap().own.unwrap();
    fs::write(host.join("other.crt"), "no certificate").unwrap();
    assert!(refusal("host", &directories).contains("host/other.crt"));
}
