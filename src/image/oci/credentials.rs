//! Who asks a registry, as container tools keep it: containers-auth.json(5), and Docker's config.json with its helpers.
//!
//! Never prints or logs what it finds.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::registry_error::RegistryError;
use super::source::Reference;

/// How Docker calls its own registry in these files.
const DOCKER_HUB_KEY: &str = "index.docker.io";

/// What a registry is shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// User and password, joined by a colon, in base64: what follows `Basic` in a header (RFC 7617).
    Basic(String),
    /// A token that is exchanged for others.
    Identity(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AuthFile {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    identitytoken: String,
}

/// What a helper says.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// The credentials for `reference`, if any are kept: of the first file that has some.
pub(super) fn find(reference: &Reference) -> Result<Option<Credentials>, RegistryError> {
    for path in files() {
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let file = serde_json::from_slice::<AuthFile>(&bytes);
        let file = file.map_err(|source| RegistryError::AuthFile { path: path.clone(), source })?;
        if let Some(found) = file.find(reference)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Where container tools keep credentials, in the order in which they look.
fn files() -> Vec<PathBuf> {
    let named =
        |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let from = |variable: &str, rest: &str| named(variable).map(|path| path.join(rest));
    if let Some(only) = named("REGISTRY_AUTH_FILE") {
        return vec![only];
    }
    let user = format!("/run/containers/{}/auth.json", nix::unistd::getuid());
    let places = [
        from("XDG_RUNTIME_DIR", "containers/auth.json").or(Some(user.into())),
        from("XDG_CONFIG_HOME", "containers/auth.json")
            .or_else(|| from("HOME", ".config/containers/auth.json")),
        from("DOCKER_CONFIG", "config.json").or_else(|| from("HOME", ".docker/config.json")),
    ];
    places.into_iter().flatten().collect()
}

impl AuthFile {
    fn find(&self, reference: &Reference) -> Result<Option<Credentials>, RegistryError> {
        let host = reference.host.as_str();
        let is_host = |key: &str| key == host || (host == "docker.io" && key == DOCKER_HUB_KEY);
        // The longest part of HOST/REPOSITORY that is there.
        let fits = |key: &str| match key.split_once('/') {
            None => is_host(key),
            Some((start, path)) => {
                let rest = reference.repository.strip_prefix(path);
                is_host(start) && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        };
        let entries = self.auths.iter().map(|(key, entry)| (plain_key(key), entry));
        let best = entries.filter(|(key, _)| fits(key)).max_by_key(|(key, _)| key.len());
        match best {
            Some((_, entry)) if !entry.identitytoken.is_empty() => {
                return Ok(Some(Credentials::Identity(entry.identitytoken.clone())));
            }
            Some((_, entry)) if !entry.auth.is_empty() => {
                return Ok(Some(Credentials::Basic(entry.auth.clone())));
            }
            _ => {}
        }
        let own = self.cred_helpers.iter().find(|(key, _)| is_host(plain_key(key)));
        let (server, helper) = match own {
            Some((key, helper)) => (key.as_str(), helper.as_str()),
            // What the file has without a secret is in the store.
            None if best.is_some() => {
                let key = self.auths.keys().find(|key| fits(plain_key(key)));
                (key.map_or(host, String::as_str), self.creds_store.as_str())
            }
            None => return Ok(None),
        };
        if helper.is_empty() { Ok(None) } else { ask_helper(helper, server) }
    }
}

/// A key without what some tools put around it: `https://HOST/v1/`.
fn plain_key(key: &str) -> &str {
    let key = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1").or(key.strip_suffix("/v2")).unwrap_or(key)
}

/// Asks `docker-credential-HELPER` for what it has for `server`.
fn ask_helper(helper: &str, server: &str) -> Result<Option<Credentials>, RegistryError> {
    let name = format!("docker-credential-{helper}");
    let ask = || {
        let mut command = Command::new(&name);
        let mut child =
            command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(server.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = ask().map_err(|source| RegistryError::Helper { name: name.clone(), source })?;
    // Helpers fail where they have nothing.
    let Ok(answer) = serde_json::from_slice::<Answer>(&output.stdout) else { return Ok(None) };
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credentials::Identity(answer.secret),
        user => Credentials::Basic(base64(format!("{user}:{}", answer.secret).as_bytes())),
    }))
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let digit = ALPHABET.get((bits >> (18 - 6 * at) & 63) as usize).copied().unwrap_or(b'=');
            text.push(if at > group.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(file: &str, image: &str) -> Option<Credentials> {
        let file: AuthFile = serde_json::from_str(file).unwrap();
        file.find(&image.parse().unwrap()).unwrap()
    }

    #[test]
    fn the_longest_key_that_fits_counts() {
        let file = r#"{ "auths": { "https://h.io/v1/": { "auth": "host" }, "h.io/a": { "auth": "a" },
            "h.io/a/b": { "identitytoken": "b" }, "https://index.docker.io/v1/": { "auth": "hub" } } }"#;
        let basic = |text: &str| Some(Credentials::Basic(text.into()));
        assert_eq!(find(file, "h.io/x"), basic("host"));
        assert_eq!(find(file, "h.io/ab"), basic("host"));
        assert_eq!(find(file, "h.io/a/c:1"), basic("a"));
        assert_eq!(find(file, "h.io/a/b/c"), Some(Credentials::Identity("b".into())));
        assert_eq!(find(file, "debian"), basic("hub"));
        assert_eq!(find(file, "other.io/x"), None);
        assert_eq!(find("{}", "h.io/x"), None);
    }

    #[test]
    fn base64_is_as_in_the_rfc() {
        for (plain, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }
}
