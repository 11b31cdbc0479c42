//! Running the binary.
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// What has not happened after this will not: far more than a loaded machine needs.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

/// Waits until something holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A call of the binary.
pub(crate) fn trefoil(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trefoil"));
    command.args(args).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn words(args: &[&str], out: &Output) -> String {
    format!("trefoil {}\n{}\n{}", args.join(" "), text(&out.stdout), text(&out.stderr))
}

/// Runs to success; gives standard output.
pub(crate) fn run(args: &[&str]) -> String {
    let out = trefoil(args).output().unwrap();
    assert!(out.status.success(), "{}", words(args, &out));
    text(&out.stdout)
}

/// Runs to failure: exit code 1 and an error that says `said`.
pub(crate) fn fails(args: &[&str], said: &str) {
    let out = trefoil(args).output().unwrap();
    let error = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{}", words(args, &out));
    assert!(error.starts_with("error: ") && error.contains(said), "{said:?} missing: {}", words(args, &out));
}

/// The first of three free ports in a row, below those that outgoing connections get: a restart finds them free.
pub(crate) fn three_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let free = |base: &u16| (0..3).all(|i| TcpListener::bind(("127.0.0.1", base + i)).is_ok());
    let start = (std::process::id() * 97 % 6_000) as u16;
    let mut all = (0..6_000).map(|_| 10_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 6_000 * 3);
    all.find(free).unwrap()
}

/// A process that is killed when this is dropped.
pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Three servers started by hand in a folder of their own; killed when dropped.
pub(crate) struct Servers {
    pub(crate) dir: tempfile::TempDir,
    children: Vec<(String, Child)>,
    tls: bool,
    /// The cluster file that clients read.
    config: &'static str,
}

impl Servers {
    /// Makes keys for `owner`, `client` and `guest`, and starts all three.
    pub(crate) fn start(tls: bool) -> Self {
        let mut servers = Self::prepared(tls);
        for party in ["alice", "bob", "carol"] {
            servers.launch(party);
        }
        servers
    }

    /// The same, before anyone is started.
    pub(crate) fn prepared(tls: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = three_ports().to_string();
        let out = dir.path().to_str().unwrap();
        let mut args = vec!["keygen", "--all", "--out", out, "--base-port", &base, "--client", "owner:owner"];
        args.extend(["--client", "client", "--client", "guest"]);
        if !tls {
            args.push("--tcp");
        }
        run(&args);
        Self { dir, children: Vec::new(), tls, config: "cluster.toml" }
    }

    /// From now on clients read another cluster file.
    pub(crate) fn clients_use(&mut self, config: &'static str) {
        self.config = config;
    }

    /// Starts one server and waits for its word.
    pub(crate) fn launch(&mut self, party: &str) {
        self.launch_with(party, "cluster.toml");
    }

    /// The same with a cluster file of its own.
    pub(crate) fn launch_with(&mut self, party: &str, config: &str) {
        let at = |suffix: &str| self.dir.path().join(format!("{party}{suffix}"));
        let log = std::fs::OpenOptions::new().append(true).create(true).open(at(".log")).unwrap();
        let mut server = trefoil(&["server", "--party", party, "--log", "debug", "--silence", "3600"]);
        server.arg("--config").arg(self.dir.path().join(config));
        if party != "helper" {
            server.arg("--identity").arg(at("")).arg("--store").arg(at(".store"));
            server.arg("--store-key").arg(at(".storekey"));
        }
        let mut child = server.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with(&format!("trefoil: {party} ready on 127.0.0.1:")), "{line:?}: {}", self.log(party));
        self.children.push((party.to_owned(), child));
    }

    /// A server's process, taken out of the care of this.
    pub(crate) fn take(&mut self, party: &str) -> Child {
        let at = self.children.iter().position(|(p, _)| p == party).unwrap();
        self.children.remove(at).1
    }

    pub(crate) fn log(&self, party: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{party}.log"))).unwrap_or_default()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The arguments with the way to the servers as `who`.
    pub(crate) fn with(&self, who: &str, args: &[&str]) -> Vec<String> {
        let config = self.path(self.config).display().to_string();
        let identity = if self.tls { self.path(who).display().to_string() } else { who.to_owned() };
        let access = ["--config".to_owned(), config, "--identity".to_owned(), identity];
        args.iter().map(|a| (*a).to_owned()).chain(access).collect()
    }

    /// Runs as `who` to success.
    pub(crate) fn run(&self, who: &str, args: &[&str]) -> String {
        let all = self.with(who, args);
        run(&all.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Runs as `who` to success, trying again while the servers look for each other.
    pub(crate) fn settled(&self, who: &str, args: &[&str]) -> String {
        let all = self.with(who, args);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let until = Instant::now() + LIMIT;
        loop {
            let out = trefoil(&all).output().unwrap();
            if out.status.success() {
                return text(&out.stdout);
            }
            assert!(Instant::now() < until, "{}", words(&all, &out));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs as `who` to failure.
    pub(crate) fn fails(&self, who: &str, args: &[&str], said: &str) {
        let all = self.with(who, args);
        fails(&all.iter().map(String::as_str).collect::<Vec<_>>(), said);
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Writes an array of little-endian `f32` as .npy.
pub(crate) fn write_npy(path: &Path, shape: &[usize], values: &[f32]) {
    let shape: String = shape.iter().map(|d| format!("{d},")).collect();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    values.iter().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
}

/// A folder or file beside the workspace that a test can do without; says so where it is not there.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TREFOIL_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    // Not by a macro: the test harness would keep it to itself.
    let _ = writeln!(std::io::stderr(), "skipped: no {name} in the folder of shared data");
    None
}
