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

/// The registry `host`, which is given up after a moment, and a layer of it that it says has 7 bytes.
fn impatient<'a>(host: &str, scratch: &'a Path) -> (Registry<'a>, Descriptor) {
    let reference: Reference = format!("{host}/a").parse().unwrap();
    let mut registry = Registry::new(reference, None, false, scratch).unwrap();
    registry.patience = Duration::from_millis(300);
    registry.agent = agent(registry.agent.config().tls_config(), registry.plain, registry.patience);
    let layer = serde_json::json!({ "digest": sha256(b"a layer"), "size": 7 });
    (registry, serde_json::from_value(layer).unwrap())
}

/// A server that says `words` to each who asks and then nothing, as long as they stay.
fn silent(words: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().map(Result::unwrap) {
            (&stream).write_all(words.as_bytes()).unwrap();
            drop(io::copy(&mut &stream, &mut io::sink()));
        }
    });
    host
}

#[test]
fn a_registry_that_falls_silent_is_given_up() {
    let dir = tempfile::TempDir::new().unwrap();
    for words in ["", "HTTP/1.1 200 OK\r\nContent-", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\na la"] {
        let (registry, layer) = impatient(&silent(words), dir.path());
        for error in
            [registry.layer(&layer, &Silent).unwrap_err(), registry.document(&layer, "manifest").unwrap_err()]
        {
            let told = error.to_string();
            assert!(told.contains("silent for 0.3 s") && told.contains("try again"), "{words:?}: {told}");
        }
    }
}

#[test]
fn a_registry_that_ends_before_its_answer_does_is_told_so() {
    let dir = tempfile::TempDir::new().unwrap();
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\na la\r\n";
    for cut in ["HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\na la", chunked] {
        let (host, served) = server(|_| vec![cut.to_owned(), cut.to_owned()]);
        let (registry, layer) = impatient(&host, dir.path());
        let of_layer = registry.layer(&layer, &Silent).unwrap_err().to_string();
        let of_document = registry.document(&layer, "manifest").unwrap_err().to_string();
        for told in [of_layer, of_document] {
            assert!(told.contains("breaks off") && told.contains("try again"), "{told}");
        }
        served.join().unwrap();
    }
}

#[test]
fn what_is_elsewhere_is_got_there_without_what_the_registry_was_shown() {
    let (elsewhere, got) = server(|_| vec![answer("200 OK", "", "a layer")]);
    let redirect = answer("307 Temporary Redirect", &format!("Location: http://{elsewhere}/x?y\r\n"), "");
    let (host, asked) =
        server(|_| vec![answer("401 Unauthorized", "WWW-Authenticate: Basic\r\n", ""), redirect]);
    let dir = tempfile::TempDir::new().unwrap();
    let (mut registry, layer) = impatient(&host, dir.path());
    registry.credentials = Some(Credentials::Basic("dTpw".into()));
    let path = registry.layer(&layer, &Silent).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"a layer");
    assert!(asked.join().unwrap()[1].ends_with("[Basic dTpw]"));
    assert_eq!(got.join().unwrap(), ["GET /x?y HTTP/1.1"]);
}

#[test]
fn redirects_that_lead_nowhere_end() {
    let dir = tempfile::TempDir::new().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (to, times) in [(format!("https://{closed}/x"), 1), ("/v2/".to_owned(), 11)] {
        let redirect = answer("307 Temporary Redirect", &format!("Location: {to}\r\n"), "");
        let (host, served) = server(|_| vec![redirect; times]);
        let (registry, layer) = impatient(&host, dir.path());
        let error = registry.layer(&layer, &Silent).unwrap_err();
        assert!(matches!(error, ImportError::Registry(RegistryError::Http { .. })), "{to}: {error:?}");
        served.join().unwrap();
    }
}

#[test]
fn challenges_that_make_no_sense_are_repeated() {
    let dir = tempfile::TempDir::new().unwrap();
    let realms =
        ["", "/token", "no address", "ftp://127.0.0.1/", "http://localhost@registry.example.org/token"];
    let challenges = realms.map(|realm| format!("Bearer realm=\"{realm}\""));
    for challenge in challenges.into_iter().chain(["Digest x".into(), "Bearer".into(), String::new()]) {
        let refusal = answer("401 Unauthorized", &format!("WWW-Authenticate: {challenge}\r\n"), "");
        let (host, served) = server(|_| vec![refusal]);
        let (registry, layer) = impatient(&host, dir.path());
        let told = registry.layer(&layer, &Silent).unwrap_err().to_string();
        assert!(told.contains(&format!("wants `{challenge}`, which cannot be done")), "{told}");
        served.join().unwrap();
    }
}
