//! A cluster of three servers in this process, on free ports of loopback.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

pub mod training;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use trefoil_client::{Client, ClientConfig};
use trefoil_link::Network;
use trefoil_mpc::Reveal;
use trefoil_nn::compile::{CompileOptions, Compiled, compile};
use trefoil_nn::graph::{Array, Graph, Layer, Node, Post};
use trefoil_prg::{Party, Seed};
use trefoil_proto::control::{Ahead, Grant, InputEncoding, Manifest, ModelInfo};
use trefoil_proto::{Cluster, Identity, Transport, cluster};
use trefoil_server::probe::Probe;
use trefoil_server::{Helper, HelperConfig, Server, ServerConfig, StoreKey};

pub struct Trial {
    pub dir: TempDir,
    pub cluster: Cluster,
    pub servers: BTreeMap<Party, Server>,
    pub probes: BTreeMap<Party, Arc<dyn Probe>>,
    pub network: Option<Network>,
    pub helper: Option<Helper>,
}

/// What has not happened after this will not: far more than a loaded machine needs.
pub const LIMIT: Duration = Duration::from_secs(300);

const CLIENTS: [&str; 3] = ["owner", "ann", "bert"];

/// A port of this process's own that nobody listens on: never one given before, nor one of those that outgoing
/// connections get.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let own = 10_000 + std::process::id() % 200 * 100;
    let next = || own + NEXT.fetch_add(1, Ordering::Relaxed);
    std::iter::repeat_with(|| next() as u16).find(|p| TcpListener::bind(("127.0.0.1", *p)).is_ok()).unwrap()
}

impl Trial {
    /// Three servers, up and connected.
    pub fn start(transport: Transport, settings: &str) -> Self {
        let mut trial = Self::new(transport, settings);
        Party::ALL.iter().for_each(|p| trial.launch(*p));
        trial.wait();
        trial
    }

    /// Four servers: the helper is up as well.
    pub fn with_helper(transport: Transport, settings: &str) -> Self {
        let mut trial = Self::new(transport, settings);
        trial.name_helper();
        Party::ALL.iter().for_each(|p| trial.launch(*p));
        trial.launch_helper();
        trial.wait();
        trial
    }

    /// A helper has a place in the cluster.
    pub fn name_helper(&mut self) {
        let identity = Identity::generate("helper", 100).unwrap();
        identity.write(self.dir.path(), false).unwrap();
        let address = format!("127.0.0.1:{}", free_port()).parse().unwrap();
        let certificate = (self.cluster.transport == Transport::Tls).then(|| identity.fingerprint());
        self.cluster.helper = Some(cluster::Server { address, certificate });
    }

    pub fn launch_helper(&mut self) {
        let identity = Some(Identity::load(self.dir.path(), "helper").unwrap());
        let config = HelperConfig { cluster: self.cluster.clone(), identity, network: self.network };
        self.helper = Some(Helper::start(config).unwrap());
    }

    /// A cluster whose servers have not started.
    pub fn new(transport: Transport, settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut text = match transport {
            Transport::Tcp => "transport = \"tcp\"\n".to_owned(),
            Transport::Tls => String::new(),
        };
        let pin = |name: &str| {
            let identity = Identity::generate(name, 100).unwrap();
            identity.write(dir.path(), false).unwrap();
            match transport {
                Transport::Tcp => String::new(),
                Transport::Tls => format!("certificate = \"{}\"\n", identity.fingerprint()),
            }
        };
        for party in Party::ALL {
            text += &format!("[{party}]\naddress = \"127.0.0.1:{}\"\n{}", free_port(), pin(party.name()));
        }
        text += &format!("[server]\n{settings}\n");
        for name in CLIENTS {
            let roles = if name == "owner" { "[\"owner\", \"client\"]" } else { "[\"client\"]" };
            text += &format!("[[client]]\nname = \"{name}\"\nroles = {roles}\n{}", pin(name));
        }
        let cluster = text.parse().unwrap();
        Self { dir, cluster, servers: BTreeMap::new(), probes: BTreeMap::new(), network: None, helper: None }
    }

    pub fn launch(&mut self, party: Party) {
        let identity = Identity::load(self.dir.path(), party.name()).unwrap();
        let config = ServerConfig {
            party,
            cluster: self.cluster.clone(),
            identity: Some(identity),
            store: self.store(party),
            key: StoreKey::from_seed(Seed::from_bytes([party as u8 + 1; 32])),
            pool_bytes: 1 << 28,
            silence: LIMIT,
            network: self.network,
            probe: self.probes.get(&party).cloned(),
        };
        self.servers.insert(party, Server::start(config).unwrap());
    }

    pub fn stop(&mut self, party: Party) {
        self.servers.remove(&party).unwrap().drain(LIMIT);
    }

    pub fn store(&self, party: Party) -> std::path::PathBuf {
        Path::new(self.dir.path()).join(format!("{party}.store"))
    }

    pub fn wait(&self) {
        for (party, s) in &self.servers {
            assert!(s.wait_connected(LIMIT), "{party} is not connected");
        }
    }

    pub fn client(&self, name: &str) -> Client {
        let identity = Identity::load(self.dir.path(), name).unwrap();
        Client::connect(ClientConfig::new(self.cluster.clone(), Some(identity), name)).unwrap()
    }
}

/// A small network: dense 6-8, ReLU, dense 8-3.
pub fn network(seed: u64) -> Graph {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut array = |shape: &[usize]| {
        let data = (0..shape.iter().product()).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        });
        Array::new(shape.to_vec(), data.collect()).unwrap()
    };
    let mut nodes = vec![Node { name: "input".into(), layer: Layer::Input { shape: vec![6] }, inputs: vec![] }];
    for (name, i, o) in [("hidden", 6, 8), ("out", 8, 3)] {
        let layer = Layer::Dense { kernel: array(&[i, o]), bias: Some(array(&[o])) };
        nodes.push(Node { name: name.into(), layer, inputs: vec![nodes.len() - 1] });
        if name == "hidden" {
            nodes.push(Node { name: "relu".into(), layer: Layer::Relu, inputs: vec![nodes.len() - 1] });
        }
    }
    Graph { nodes, post: Post::Softmax }
}

pub fn compiled(graph: &Graph) -> Compiled {
    compile(graph, &CompileOptions::default()).unwrap()
}

pub fn manifest(name: &str, compiled: &Compiled, ahead: Vec<Ahead>) -> Manifest {
    Manifest {
        name: name.into(),
        program: compiled.program.clone(),
        window: compiled.window().unwrap(),
        input: InputEncoding { scale: 1.0, offset: 0.0, low: -1.0, high: 1.0 },
        post: Post::Softmax,
        grants: vec![
            Grant { client: "ann".into(), reveals: vec![Reveal::Logits, Reveal::Label] },
            Grant { client: "bert".into(), reveals: vec![Reveal::Label] },
        ],
        ahead,
    }
}

pub fn inputs(batch: usize, seed: usize) -> Vec<f32> {
    (0..batch * 6).map(|i| (((i + 1) * (seed + 3) * 7919) % 2001) as f32 / 1000.0 - 1.0).collect()
}

/// Predicts and compares with the clear network.
pub fn check(client: &mut Client, model: &ModelInfo, graph: &Graph, batch: usize, seed: usize) {
    let x = inputs(batch, seed);
    let p = client.predict(model, Reveal::Logits, &x, batch).unwrap();
    compare(graph, batch, &x, &p.logits.unwrap());
}

pub fn compare(graph: &Graph, batch: usize, x: &[f32], logits: &[f32]) {
    let want = graph.forward(batch, x).unwrap();
    assert_eq!(want.len(), logits.len());
    for (a, b) in want.iter().zip(logits) {
        assert!((a - b).abs() < 2e-3, "{a} in the clear, {b} privately");
    }
}

pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
