//! Four servers on plain TCP, every link of which passes a tap; what they show each other besides masked values.

use std::collections::BTreeMap;

use trefoil_client::{Client, ClientConfig};
use trefoil_proto::Cluster;
use trefoil_proto::control::{MAX_CONTROL, Opening, Reply, Request, decode, encode, tag};
use trefoil_transport::{Security, connect};

use crate::common::{LIMIT, Servers, three_ports};
use crate::tapped::Tap;

/// Bytes of a message to the helper ahead of its logits: lot, step, rows, classes, three scales; and a key.
const HEAD: usize = 64;

/// What a server was shown, and by whom: step of the program and bytes of each message.
pub(crate) type Messages = BTreeMap<(&'static str, &'static str), Vec<(u32, usize)>>;

/// The servers, behind taps: alice, bob and the helper.
pub(crate) struct Stage {
    pub(crate) servers: Servers,
    pub(crate) taps: [Tap; 2],
    helper: Tap,
}

impl Stage {
    pub(crate) fn start() -> Self {
        let mut servers = Servers::prepared(false);
        let text = std::fs::read_to_string(servers.path("cluster.toml")).unwrap();
        let text = format!("{text}\n[helper]\naddress = \"127.0.0.1:{}\"\n", three_ports());
        let cluster: Cluster = text.parse().unwrap();
        let helper = cluster.helper.as_ref().unwrap();
        let own = [&cluster.alice, &cluster.bob, helper].map(|p| p.address.as_str().to_owned());
        let [a, b, h] = own.each_ref().map(|address| Tap::before(address));
        let tapped = |by: &[(usize, &Tap)]| {
            by.iter().fold(text.clone(), |text, (i, tap)| {
                text.replace(&format!("{:?}", own[*i]), &format!("{:?}", tap.address))
            })
        };
        let files = [
            ("for-helper.toml", tapped(&[])),
            ("for-alice.toml", tapped(&[(2, &h)])),
            ("for-bob.toml", tapped(&[(0, &a), (2, &h)])),
            ("for-others.toml", tapped(&[(0, &a), (1, &b)])),
        ];
        files.iter().for_each(|(name, text)| std::fs::write(servers.path(name), text).unwrap());
        for party in ["helper", "alice", "bob"] {
            servers.launch_with(party, &format!("for-{party}.toml"));
        }
        servers.launch_with("carol", "for-others.toml");
        servers.clients_use("for-others.toml");
        Self { servers, taps: [a, b], helper: h }
    }

    pub(crate) fn client(&self, name: &str) -> Client {
        let text = std::fs::read_to_string(self.servers.path("for-others.toml")).unwrap();
        Client::connect(ClientConfig::new(text.parse().unwrap(), None, name)).unwrap()
    }

    /// What one evaluator replies to a request, whoever makes it.
    pub(crate) fn ask(&self, address: &str, name: &str, requests: &[Request]) -> Vec<Reply> {
        let mut link = connect(address, "evaluator", &Security::Plain, LIMIT).unwrap().link;
        link.set_timeout(Some(LIMIT));
        link.send(tag::OPENING, &[&encode(&Opening::Client { name: name.into() })]).unwrap();
        let one = |r: &Request| {
            link.send(tag::REQUEST, &[&encode(r)]).unwrap();
            let reply = decode("reply", &link.recv_any(tag::REPLY, MAX_CONTROL).unwrap()).unwrap();
            if matches!(reply, Reply::Answer(_)) {
                link.recv_any(tag::ANSWER, MAX_CONTROL).unwrap();
            }
            reply
        };
        requests.iter().map(one).collect()
    }

    /// From now on nothing counts that servers showed each other before.
    pub(crate) fn forget(&self) {
        self.taps.iter().chain([&self.helper]).for_each(Tap::forget_lanes);
    }

    /// Everything that servers have shown each other so far besides what is dealt and what both send alike, sorted; and
    /// what crossed between alice and bob in a shuffle of rows: from whom, and how many bytes.
    pub(crate) fn shown(&self) -> (Messages, Vec<(&'static str, usize)>) {
        let (mut all, mut shuffled) = (Messages::new(), vec![]);
        for (called, tag, bytes) in self.taps[0].one_way("bob") {
            match (called, tag) {
                (false, 0) => shuffled.push(("alice", bytes)),
                (true, 1) => shuffled.push(("bob", bytes)),
                (true, _) => all.entry(("alice", "bob")).or_default().push((tag >> 12, bytes)),
                (false, _) => all.entry(("bob", "alice")).or_default().push((tag >> 12, bytes)),
            }
        }
        // Carol deals to bob; else she hears them or answers him.
        for (tap, by) in self.taps.iter().zip(["alice", "bob"]) {
            for (called, tag, payload) in tap.between("carol") {
                match called {
                    false => all.entry(("carol", by)).or_default().push((tag, payload.len())),
                    true => assert_eq!(by, "bob", "carol sent alice {} bytes", payload.len()),
                }
            }
        }
        for by in ["alice", "bob"] {
            let mut due = vec![];
            for (called, tag, payload) in self.helper.between(by) {
                assert_eq!(tag, 1);
                if !called {
                    assert_eq!((by, Some(payload.len())), ("bob", due.pop()), "the helper's answer");
                    continue;
                }
                let word = |i: usize| u32::from_le_bytes(payload[i..i + 4].try_into().unwrap());
                assert_eq!(by == "bob", payload[32..HEAD] == [0; 32], "a key from {by}");
                all.entry(("helper", by)).or_default().push((word(8), payload.len() - HEAD));
                if by == "bob" {
                    due.push(24 * (word(12) * word(16)) as usize);
                }
            }
            assert!(due.is_empty());
        }
        all.values_mut().for_each(|m| m.sort_unstable());
        (all, shuffled)
    }
}
