use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::thread::JoinHandle;

use super::super::tests::sha256;
use super::*;
use crate::image::progress::Silent;

#[test]
fn challenges_are_read() {
    let text = r#"realm="https://auth.io/token",service=x, Scope="repository:a/b:pull,push""#;
    assert_eq!(parameter(text, "realm").as_deref(), Some("https://auth.io/token"));
    assert_eq!(parameter(text, "service").as_deref(), Some("x"));
    assert_eq!(parameter(text, "scope").as_deref(), Some("repository:a/b:pull,push"));
    assert_eq!(parameter(text, "error"), None);
    assert_eq!(parameter("realm=\"open", "realm"), None);
}

/// A server that gives one answer to each request, in order, and tells what it was asked: request line and authorization.
fn server(answers: impl FnOnce(&str) -> Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let answers = answers(&host);
    let serve = move || {
        let mut asked = Vec::new();
        for answer in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(&stream).lines().map(Result::unwrap);
            let mut request = lines.next().unwrap();
            for line in lines.take_while(|line| !line.is_empty()) {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("authorization: ") {
                    request = format!("{request} [{}]", &line[line.len() - value.len()..]);
                }
            }
            asked.push(request);
            (&stream).write_all(answer.as_bytes()).unwrap();
        }
        asked
    };
    (host, std::thread::spawn(serve))
}

fn answer(status: &str, header: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{header}\r\n{body}", body.len())
}

#[test]
fn a_token_is_got_with_what_is_kept_for_the_registry_and_shown_from_then_on() {
    let layer = "a layer";
    let (host, served) = server(|host| {
        let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"s 1\"\r\n");
        vec![
            answer("401 Unauthorized", &challenge, ""),
            answer("200 OK", "", r#"{ "access_token": "t0k3n" }"#),
            answer("200 OK", "", "{}"),
            answer("200 OK", "", layer),
            answer("200 OK", "", "a longer layer"),
            answer("503 Service Unavailable", "", "come back"),
        ]
    });
    let dir = tempfile::TempDir::new().unwrap();
    let reference: Reference = format!("{host}/a/b:1").parse().unwrap();
    let credentials = Some(Credentials::Basic("dTpw".into()));
    let registry = Registry::new(reference, credentials, false, dir.path()).unwrap();
    assert_eq!(registry.first().unwrap(), b"{}");
    let describe = |size: usize, content: &[u8]| -> Descriptor {
        let digest = sha256(content);
        serde_json::from_value(serde_json::json!({ "digest": digest, "size": size })).unwrap()
    };
    let path = registry.layer(&describe(7, layer.as_bytes()), &Silent).unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), layer);
    let longer = registry.layer(&describe(7, b"another"), &Silent).unwrap_err().to_string();
    assert!(longer.contains("should have 7 bytes, and has 8"), "{longer}");
    let busy = registry.layer(&describe(7, b"a third"), &Silent).unwrap_err().to_string();
    assert!(busy.contains("status 503: come back"), "{busy}");

    let asked = served.join().unwrap();
    assert_eq!(asked[0], "GET /v2/a/b/manifests/1 HTTP/1.1");
    let token = "GET /token?service=s%201&scope=repository%3Aa%2Fb%3Apull HTTP/1.1 [Basic dTpw]";
    assert_eq!(asked[1].replace(":a/b:", "%3Aa%2Fb%3A"), token);
    assert_eq!(asked[2], "GET /v2/a/b/manifests/1 HTTP/1.1 [Bearer t0k3n]");
    assert!(
        asked[3..].iter().all(|line| line.contains("/v2/a/b/blobs/") && line.ends_with("[Bearer t0k3n]"))
    );
}

#[test]
fn what_is_kept_for_a_registry_is_not_sent_in_the_open() {
    let reference: Reference = "registry.example.org/a".parse().unwrap();
    let credentials = Some(Credentials::Basic("dTpw".into()));
    let registry = Registry::new(reference, credentials, false, Path::new("/nowhere")).unwrap();
    let error = registry.authorize("Bearer realm=\"http://registry.example.org/token\"").unwrap_err();
    assert!(matches!(error, RegistryError::Challenge { .. }), "{error}");
}
