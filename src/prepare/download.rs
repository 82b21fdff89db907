//! Files from a web server: gone on with where a transfer broke off, checked, and never half there under their own name.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::sys::hexadecimal;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// Tries before a transfer that comes no further is given up.
const TRIES: u32 = 5;
/// Between two lines about how far a transfer is.
const REPORT: Duration = Duration::from_secs(5);

/// Fetches `url` to `target`. What has come is kept as `target` with `.part` behind its name, and a later call goes on
/// from there (HTTP range requests; a server without them sends all again). With `sha256` (64 hexadecimal digits) the
/// file must have this checksum. Proxies are taken from the usual environment variables.
///
/// # Errors
/// The server cannot be reached, refuses, or breaks off again and again; a wrong checksum; a folder that cannot be
/// written.
pub(super) fn download(url: &str, target: &Path, sha256: Option<&str>) -> Result<()> {
    if let Some(folder) = target.parent() {
        fs_err::create_dir_all(folder)?;
    }
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = target.with_file_name(name);
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(15)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .user_agent(concat!("ptune/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let mut tries = 0;
    loop {
        let before = length(&part);
        match transfer(&agent, url, &part) {
            Ok(()) => break,
            Err(Failure::Final(error)) => return Err(error.context(format!("fetching {url}"))),
            Err(Failure::Broken(error)) => {
                // A transfer that comes further is worth another try, however often it breaks off.
                tries = if length(&part) > before { 1 } else { tries + 1 };
                if tries >= TRIES {
                    return Err(error.context(format!("fetching {url}")));
                }
                let pause = Duration::from_millis(250) * 2u32.pow(tries);
                tracing::warn!("{url}: {error:#}; going on in {pause:?}");
                std::thread::sleep(pause);
            }
        }
    }
    if let Some(expected) = sha256 {
        let found = checksum(&part)?;
        if !found.eq_ignore_ascii_case(expected) {
            fs_err::remove_file(&part)?;
            bail!("{url} is not the expected file: its SHA-256 is {found}, expected {expected}");
        }
    }
    fs_err::File::open(&part)?.sync_all()?;
    fs_err::rename(&part, target)?;
    tracing::info!("{} bytes of {url} in {}", length(target), target.display());
    Ok(())
}

enum Failure {
    /// Another try would end in the same way.
    Final(anyhow::Error),
    /// Another try may help.
    Broken(anyhow::Error),
}

fn length(path: &Path) -> u64 {
    fs_err::metadata(path).map_or(0, |data| data.len())
}

/// One request, from where `part` ends, to its end.
fn transfer(agent: &ureq::Agent, url: &str, part: &PathBuf) -> Result<(), Failure> {
    let local = |error: std::io::Error| Failure::Final(error.into());
    let have = length(part);
    let mut request = agent.get(url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let mut response = request.call().map_err(|error| match error {
        // Nobody there: a machine without a way out, which waiting does not change.
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::BadUri(_) => {
            Failure::Final(error.into())
        }
        ureq::Error::Io(ref io)
            if have == 0 && io.kind() == std::io::ErrorKind::ConnectionRefused =>
        {
            Failure::Final(error.into())
        }
        error => Failure::Broken(error.into()),
    })?;
    let header = |name: &str| -> Option<String> {
        let value = response.headers().get(name)?.to_str().ok()?;
        Some(value.to_owned())
    };
    // `bytes 100-199/200`
    let range = header("content-range").and_then(|text| {
        let (from, size) = text.strip_prefix("bytes ")?.split_once('/')?;
        let from: u64 = from.split('-').next()?.parse().ok()?;
        Some((from, size.parse::<u64>().ok()?))
    });
    let (start, size) = match (response.status().as_u16(), range) {
        (200, _) => (
            0,
            header("content-length").and_then(|text| text.parse().ok()),
        ),
        (206, Some((from, size))) if from == have => (have, Some(size)),
        // What lies here belongs to another file: begin again.
        (206 | 416, _) => {
            fs_err::remove_file(part).map_err(local)?;
            return Err(Failure::Broken(anyhow::anyhow!(
                "the server cannot go on at byte {have}"
            )));
        }
        (status @ (408 | 429 | 500..=599), _) => {
            return Err(Failure::Broken(anyhow::anyhow!(
                "the server answers {status}"
            )));
        }
        (status, _) => {
            return Err(Failure::Final(anyhow::anyhow!(
                "the server answers {status}"
            )));
        }
    };
    let mut file = fs_err::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(start == 0)
        .append(start > 0)
        .open(part)
        .map_err(local)?;
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 16];
    let mut done = start;
    let mut reported = Instant::now();
    loop {
        let count = body
            .read(&mut buffer)
            .map_err(|error| Failure::Broken(error.into()))?;
        if count == 0 {
            break;
        }
        file.write_all(&buffer[..count]).map_err(local)?;
        done += count as u64;
        if reported.elapsed() >= REPORT {
            reported = Instant::now();
            let megabytes = |bytes: u64| bytes as f64 / 1e6;
            let of = size.map_or_else(String::new, |size| format!(" of {:.1}", megabytes(size)));
            tracing::info!("{url}: {:.1}{of} MB", megabytes(done));
        }
    }
    match size {
        Some(size) if done != size => Err(Failure::Broken(anyhow::anyhow!(
            "the transfer broke off after {done} of {size} bytes"
        ))),
        _ => Ok(()),
    }
}

fn checksum(path: &Path) -> Result<String> {
    let mut file = fs_err::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = file.read(&mut buffer).context("reading what was fetched")?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
    }
    Ok(hexadecimal(&hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    /// Answers one connection after another as `answers` say: status line and headers, then the body. A body shorter
    /// than its Content-Length breaks off. Tells the Range header of each request.
    fn server(answers: Vec<(String, Vec<u8>)>) -> (String, Receiver<Option<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for (head, body) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut range = None;
                for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                    let line = line.unwrap();
                    if line.is_empty() {
                        break;
                    }
                    if let Some((name, value)) = line.split_once(": ")
                        && name.eq_ignore_ascii_case("range")
                    {
                        range = Some(value.to_owned());
                    }
                }
                sender.send(range).unwrap();
                stream
                    .write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes())
                    .unwrap();
                stream.write_all(&body).unwrap();
            }
        });
        (url, receiver)
    }

    fn text(target: &Path) -> String {
        fs_err::read_to_string(target).unwrap()
    }

    #[test]
    fn a_transfer_that_broke_off_goes_on_and_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a/file.json");
        let (url, ranges) = server(vec![
            ("200 OK\r\nContent-Length: 10".into(), b"0123".into()),
            (
                "206 Partial Content\r\nContent-Length: 6\r\nContent-Range: bytes 4-9/10".into(),
                b"456789".into(),
            ),
        ]);
        let digest = "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882";
        download(&url, &target, Some(digest)).unwrap();
        assert_eq!(text(&target), "0123456789");
        assert_eq!(ranges.recv().unwrap(), None);
        assert_eq!(ranges.recv().unwrap().as_deref(), Some("bytes=4-"));
        assert!(!folder.path().join("a/file.json.part").exists());
    }

    #[test]
    fn a_server_without_ranges_sends_all_again_and_a_stranger_is_thrown_away() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("file");
        fs_err::write(folder.path().join("file.part"), "old and longer").unwrap();
        let (url, _ranges) = server(vec![
            (
                "416 Range Not Satisfiable\r\nContent-Length: 0".into(),
                vec![],
            ),
            ("200 OK\r\nContent-Length: 3".into(), b"new".into()),
        ]);
        download(&url, &target, None).unwrap();
        assert_eq!(text(&target), "new");
        fs_err::write(folder.path().join("file.part"), "ne").unwrap();
        let (url, _ranges) = server(vec![("200 OK\r\nContent-Length: 3".into(), b"NEW".into())]);
        download(&url, &target, None).unwrap();
        assert_eq!(text(&target), "NEW");
    }

    #[test]
    fn a_wrong_checksum_a_missing_page_and_nobody_there_are_errors_and_leave_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("file");
        let (url, _ranges) = server(vec![("200 OK\r\nContent-Length: 3".into(), b"abc".into())]);
        let error = download(&url, &target, Some(&"0".repeat(64))).unwrap_err();
        assert!(
            error.to_string().contains("is not the expected file"),
            "{error}"
        );
        let (url, _ranges) = server(vec![("404 Not Found\r\nContent-Length: 0".into(), vec![])]);
        let error = format!("{:#}", download(&url, &target, None).unwrap_err());
        assert!(error.contains("the server answers 404"), "{error}");
        let nobody = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        assert!(download(&format!("http://{nobody}/file"), &target, None).is_err());
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
    }
}
