//! Downloads from mirrors on this machine: good ones, and each way of being bad.

use std::io::BufRead;
use std::net::{TcpListener, TcpStream};
use std::thread;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// The contents of the test file.
const HELLO: &[u8] = b"hello, mirror\n";
/// The test file: its checksum is that of [`HELLO`].
const FILE: Source = Source {
    name: "hello.gz",
    max_bytes: 200,
    unpacked_bytes: HELLO.len() as u64,
    sha256: "87a07aa88985a43ccb820988517e3acde427feff5ca6ff3f5301fb8bde4235db",
};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut e = GzEncoder::new(Vec::new(), Compression::best());
    e.write_all(bytes).unwrap();
    e.finish().unwrap()
}

/// A mirror that gives `answer(path)` to every request, byte for byte; its base URL.
fn mirror(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mnist/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let path = request(&stream);
            let _ = (&stream).write_all(&answer(&path));
        }
    });
    url
}

/// Reads a request to its end; the path asked for.
fn request(stream: &TcpStream) -> String {
    let mut lines = io::BufReader::new(stream).lines().map_while(Result::ok).take_while(|l| !l.is_empty());
    let first = lines.next().unwrap_or_default();
    lines.for_each(drop);
    first.split(' ').nth(1).unwrap_or_default().into()
}

fn answer(status: &str, length: Option<usize>, body: &[u8]) -> Vec<u8> {
    let length = length.map(|n| format!("Content-Length: {n}\r\n")).unwrap_or_default();
    [format!("HTTP/1.1 {status}\r\n{length}Connection: close\r\n\r\n").as_bytes(), body].concat()
}

fn good(body: Vec<u8>) -> String {
    mirror(move |_| answer("200 OK", Some(body.len()), &body))
}

fn get(dir: &Path, mirrors: &[String]) -> Result<(), DownloadError> {
    download_files(&agent(Duration::from_millis(500)), &[FILE], dir, mirrors, &mut |_, _, _| ())
}

/// The one failure of a download from this mirror, which must leave nothing behind.
fn failure(mirror: String) -> Failure {
    let dir = tempfile::tempdir().unwrap();
    let result = get(dir.path(), &[mirror]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing stays of a failed download");
    match result {
        Err(DownloadError::Mirrors { mut failures, .. }) => failures.pop().unwrap().1,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_is_fetched_once_and_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("new/folder");
    let packed = gzip(HELLO);
    let body = packed.clone();
    let url = mirror(move |path| {
        assert_eq!(path, "/mnist/hello.gz");
        answer("200 OK", Some(body.len()), &body)
    });
    let mut seen = Vec::new();
    download_files(&agent(SILENCE), &[FILE], &inner, &[url], &mut |f, done, total| {
        seen.push((f.to_string(), done, total))
    })
    .unwrap();
    let size = packed.len() as u64;
    assert_eq!(seen.last(), Some(&("hello.gz".into(), size, Some(size))));
    assert_eq!(fs::read(inner.join("hello.gz")).unwrap(), packed);
    get(&inner, &[]).expect("a file that is there needs no mirror");
    fs::write(inner.join("hello.gz"), &packed[..10]).unwrap();
    let e = get(&inner, &[]).unwrap_err().to_string();
    assert_eq!(e, "cannot download hello.gz: no mirrors to try");
    get(&inner, &[good(packed.clone())]).unwrap();
    assert_eq!(fs::read(inner.join("hello.gz")).unwrap(), packed);
}

#[test]
fn mirrors_are_tried_in_turn_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = mirror(|_| answer("404 Not Found", Some(0), b""));
    let wrong = good(gzip(b"HELLO, MIRROR\n"));
    let e = get(dir.path(), &[missing.clone(), wrong.clone()]).unwrap_err().to_string();
    for part in ["hello.gz", &missing, &wrong, "404", "SHA-256", FILE.sha256] {
        assert!(e.contains(part), "{part} in {e}");
    }
    get(dir.path(), &[missing, wrong, good(gzip(HELLO))]).unwrap();
}

#[test]
fn bad_mirrors_are_refused() {
    let packed = gzip(HELLO);
    let cut = packed[..packed.len() / 2].to_vec();
    let whole = packed.len();
    let body = cut.clone();
    assert!(matches!(failure(mirror(move |_| answer("200 OK", Some(whole), &body))), Failure::Broken { .. }));
    let unsaid = mirror(move |_| answer("200 OK", None, &cut));
    assert!(matches!(failure(unsaid), Failure::NotTheFile(Mismatch::Unpack(_))));
    let announced = mirror(|_| answer("200 OK", Some(201), &[0; 201]));
    assert!(matches!(failure(announced), Failure::TooLarge(200)));
    let endless = mirror(|_| answer("200 OK", None, &[0; 1 << 20]));
    assert!(matches!(failure(endless), Failure::TooLarge(200)));
    let bomb = gzip(&[7; 10_000]);
    assert!(bomb.len() < 200);
    assert!(matches!(failure(good(bomb)), Failure::NotTheFile(Mismatch::Longer(14))));
    assert!(matches!(failure(good(gzip(b"other"))), Failure::NotTheFile(Mismatch::Checksum { .. })));
    assert!(matches!(failure(good(HELLO.to_vec())), Failure::NotTheFile(Mismatch::Unpack(_))));
    assert!(matches!(failure(mirror(|_| b"no HTTP\r\n\r\n".to_vec())), Failure::Http(_)));
    assert!(matches!(failure("no url".into()), Failure::Http(_)));
}

#[test]
fn silent_mirrors_are_given_up() {
    let stalled = |start: Vec<u8>| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            let held: Vec<TcpStream> = listener
                .incoming()
                .flatten()
                .inspect(|mut s| {
                    request(s);
                    s.write_all(&start).unwrap();
                })
                .collect();
            drop(held);
        });
        url
    };
    assert!(matches!(failure(stalled(Vec::new())), Failure::Http(_)));
    let half = answer("200 OK", Some(100), &[0x1f; 50]);
    assert!(matches!(failure(stalled(half)), Failure::Broken { done: 50, .. }));
}

#[test]
fn https_does_not_panic_for_want_of_a_provider() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    thread::spawn(move || listener.incoming().flatten().for_each(|mut s| drop(s.write_all(b"this is not TLS"))));
    assert!(matches!(failure(url), Failure::Http(_)));
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let e = get(file.path(), &[]).unwrap_err();
    assert!(matches!(&e, DownloadError::Store { path, .. } if path == file.path()), "{e}");
}

#[test]
fn the_real_files_pass() {
    let Some(shared) = super::super::shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let url = mirror(move |path| {
        let body = fs::read(shared.join(path.trim_start_matches("/mnist/"))).unwrap();
        answer("200 OK", Some(body.len()), &body)
    });
    download(dir.path(), &[url], &mut |_, _, _| ()).unwrap();
    let set = crate::load_dir(dir.path(), crate::Split::Test).unwrap();
    assert_eq!(set.len(), 10_000);
}
