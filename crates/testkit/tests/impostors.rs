//! Callers without a certificate, or with another's, against live servers over TLS.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::fs;
use std::net::TcpStream;
use std::sync::Arc;

use cluster::wire::Wire;
use cluster::{LIMIT, PATIENT, Processes, check, eventually, inputs, network, party, recovers, share, within};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, Stream};
use trefoil_client::Reveal;
use trefoil_prg::Party;
use trefoil_proto::control::{MAX_CONTROL, Opening, Request, encode, tag};
use trefoil_proto::{Cluster, Identity, Transport};
use trefoil_transport::{Connection, Security, Tls, TransportError, connect};

#[test]
#[ignore = "the body of the other tests' servers"]
fn party_process() {
    party::run();
}

/// Calls a server with the certificate of `identity`.
fn call(cluster: &Cluster, party: Party, identity: &Identity) -> Result<Connection, TransportError> {
    let security = Security::Tls(Tls::new(identity, cluster.trusted()).unwrap());
    connect(cluster.party(party).address.as_str(), party.name(), &security, LIMIT)
}

/// Whether the server hangs up after this opening, instead of answering a request.
fn hangs_up(mut c: Connection, opening: &Opening) -> bool {
    c.link.set_timeout(Some(LIMIT));
    let asked = c.link.send(tag::OPENING, &[&encode(opening)]);
    let asked = asked.and_then(|()| c.link.send(tag::REQUEST, &[&encode(&Request::Models)]));
    asked.is_err() || matches!(c.link.recv_any(tag::REPLY, MAX_CONTROL), Err(trefoil_link::LinkError::Closed { .. }))
}

/// Believes any certificate: the callers below care little whom they reach.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A TLS caller without a certificate: what its first read brings.
fn anonymous(address: &str) -> std::io::Result<usize> {
    use std::io::Read;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(Anyone));
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![b"trefoil/1".to_vec()];
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let name = ServerName::try_from("alice").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    Stream::new(&mut connection, &mut socket).read(&mut [0; 1])
}

#[test]
fn callers_without_the_right_certificate_are_refused() {
    let mut processes = Processes::start(Transport::Tls, "lanes = 2", PATIENT);
    let graph = network(1);
    let model = share(&processes, &graph);
    let mut ann = processes.client("ann");
    let cluster = processes.trial.cluster.clone();
    let folder = processes.trial.dir.path().to_path_buf();
    let own = |name: &str| Identity::load(&folder, name).unwrap();
    for party in Party::ALL {
        let address = cluster.party(party).address.as_str();
        let refused = anonymous(address).unwrap_err();
        assert!(refused.to_string().to_lowercase().contains("certificate"), "{party}: {refused}");
        let mut plain = Wire::client(address, "ann");
        plain.frame(tag::REQUEST, &encode(&Request::Models));
        assert!(plain.last_words(&format!("plain TCP to {party}")).len() < 16);
        let mut silent = Wire::open(address);
        silent.bytes(&[22, 3, 1]);
        let stranger = call(&cluster, party, &Identity::generate("ann", 10).unwrap());
        let stranger = stranger.err().expect("a stranger's certificate").to_string();
        assert!(stranger.contains("certificate"), "{party}: {stranger}");
        // TLS says good-bye in an alert.
        assert!(silent.last_words(&format!("half a handshake with {party}")).len() < 16);
    }
    let client = |name: &str| Opening::Client { name: name.into() };
    let lane = |party: &str| Opening::Lane { party: party.into(), lane: 0 };
    let cases = [
        (Party::Alice, "ann", client("bert"), "a client as another"),
        (Party::Alice, "ann", client("bob"), "a client as a server"),
        (Party::Alice, "ann", lane("bob"), "a client on bob's lane"),
        (Party::Alice, "carol", lane("bob"), "carol on bob's lane"),
        (Party::Alice, "bob", lane("carol"), "bob on carol's lane"),
        (Party::Alice, "bob", client("ann"), "bob as a client"),
        (Party::Bob, "alice", lane("alice"), "alice, who calls nobody"),
        (Party::Carol, "ann", client("ann"), "a client at carol"),
        (Party::Carol, "bob", lane("bob"), "bob at carol"),
    ];
    for (callee, caller, opening, what) in cases {
        assert!(hangs_up(call(&cluster, callee, &own(caller)).unwrap(), &opening), "{what}");
    }
    check(&mut ann, &model, &graph, 3, 1);
    Party::ALL.iter().for_each(|p| assert!(processes.alive(*p)));
}

#[test]
fn a_server_with_another_certificate_is_not_let_in() {
    let mut processes = Processes::start(Transport::Tls, "lanes = 1", PATIENT);
    let graph = network(2);
    let model = share(&processes, &graph);
    let mut ann = processes.client("ann");
    let folder = processes.trial.dir.path().to_path_buf();
    let file = |name: &str| folder.join(name);
    processes.kill(Party::Bob);
    // Bob comes back with a key of his own making; alice, carol and the clients still pin the old one.
    let old = fs::read(file("cluster.toml")).unwrap();
    let kept = ["bob.key", "bob.crt"].map(|f| (f, fs::read(file(f)).unwrap()));
    let forged = Identity::generate("bob", 10).unwrap();
    forged.write(&folder, true).unwrap();
    let mut cluster = processes.trial.cluster.clone();
    let pinned = cluster.party(Party::Bob).certificate.unwrap();
    cluster = cluster.to_toml().replace(&pinned.to_string(), &forged.fingerprint().to_string()).parse().unwrap();
    fs::write(file("cluster.toml"), cluster.to_toml()).unwrap();
    processes.launch(Party::Bob, None);
    eventually("bob is told so", || processes.log(Party::Bob).contains("cannot connect to alice"));
    let x = inputs(1, 1);
    let e = within("a forged bob", || ann.predict(&model, Reveal::Logits, &x, 1)).unwrap_err();
    assert!(e.to_string().contains("bob"), "{e}");
    processes.kill(Party::Bob);
    fs::write(file("cluster.toml"), old).unwrap();
    kept.into_iter().for_each(|(f, bytes)| fs::write(file(f), bytes).unwrap());
    processes.launch(Party::Bob, None);
    recovers(&mut ann, &model, &graph);
}
