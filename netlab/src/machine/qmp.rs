//! One question to QEMU's monitor (QEMU Machine Protocol): connect, greet, ask, wait for the answer.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// QEMU answers between two slices of the guest's work; a loaded machine makes that slow.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Messages that are not the answer (events) before it; more would be a QEMU gone wild.
const MAX_EVENTS: usize = 1000;

/// Runs one command and returns its result.
///
/// # Errors
/// What went wrong, for people.
pub(super) fn execute(socket: &Path, command: &str, arguments: &Value) -> Result<Value, String> {
    let talk = |stream: UnixStream| -> std::io::Result<Result<Value, String>> {
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        stream.set_write_timeout(Some(ANSWER_WAIT))?;
        let mut monitor = Monitor { reader: BufReader::new(stream.try_clone()?), stream };
        monitor.read()?;
        let negotiated = monitor.ask("qmp_capabilities", &json!({}))?;
        match negotiated {
            Ok(_) => monitor.ask(command, arguments),
            Err(problem) => Ok(Err(problem)),
        }
    };
    let result = UnixStream::connect(socket).and_then(talk);
    result.unwrap_or_else(|error| Err(format!("no answer to {command}: {error}")))
}

struct Monitor {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Monitor {
    fn read(&mut self) -> std::io::Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&line)?)
    }

    fn ask(&mut self, command: &str, arguments: &Value) -> std::io::Result<Result<Value, String>> {
        let mut question = json!({"execute": command, "arguments": arguments}).to_string();
        question.push('\n');
        self.stream.write_all(question.as_bytes())?;
        for _ in 0..MAX_EVENTS {
            let message = self.read()?;
            if let Some(result) = message.get("return") {
                return Ok(Ok(result.clone()));
            }
            if let Some(error) = message.get("error") {
                let description = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
                return Ok(Err(format!("{command} was refused: {description}")));
            }
        }
        Ok(Err(format!("no answer to {command} among {MAX_EVENTS} messages")))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Says `greeting`, then answers each line by the next of `answers`.
    fn served(answers: &'static [&'static str], command: &str) -> Result<Value, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                stream.write_all(b"{\"QMP\": {}}\n").unwrap();
                for answer in answers {
                    reader.read_line(&mut String::new()).unwrap();
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            });
            execute(&path, command, &json!({}))
        })
    }

    #[test]
    fn events_are_passed_over() {
        let result =
            served(&["{\"return\": {}}\n", "{\"event\": \"STOP\"}\n{\"return\": {\"x\": 1}}\n"], "stop");
        assert_eq!(result, Ok(json!({"x": 1})));
    }

    #[test]
    fn refusals_and_silence_are_errors() {
        let result = served(
            &["{\"return\": {}}\n", "{\"error\": {\"class\": \"C\", \"desc\": \"no link x\"}}\n"],
            "l",
        );
        assert!(result.unwrap_err().contains("no link x"));
        assert!(served(&["{\"return\": {}}\n", ""], "quit").unwrap_err().contains("quit"));
        assert!(served(&["garbage\n"], "quit").is_err());
        assert!(execute(Path::new("/nowhere"), "quit", &json!({})).is_err());
    }
}
