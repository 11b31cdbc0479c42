//! How connections are secured: TLS 1.3 with this party's identity and the pinned certificates, or not at all.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig, version::TLS13};
use trefoil_proto::{Fingerprint, Identity};

use crate::error::TransportError;
use crate::pin::Pins;

/// Names the protocol in the handshake: TLS of a service that names another is refused at once.
const ALPN: &[u8] = b"trefoil/1";

/// How connections are secured.
#[derive(Clone)]
pub enum Security {
    /// Not at all: loopback only.
    Plain,
    /// TLS 1.3, certificates pinned on both sides.
    Tls(Tls),
}

impl Security {
    /// Refuses plain TCP with other hosts.
    pub(crate) fn allows(&self, address: SocketAddr) -> Result<(), TransportError> {
        match self {
            Security::Plain if !address.ip().to_canonical().is_loopback() => {
                Err(TransportError::PlainOffLoopback { address })
            }
            _ => Ok(()),
        }
    }
}

/// This party's identity and everybody's pinned certificates.
#[derive(Clone)]
pub struct Tls {
    provider: Arc<CryptoProvider>,
    key: Arc<SingleCertAndKey>,
    names: Arc<BTreeMap<Fingerprint, String>>,
    pub(crate) server: Arc<ServerConfig>,
}

impl Tls {
    /// TLS as `identity`, with the peers in `trusted` (name and certificate) and nobody else.
    pub fn new(
        identity: &Identity,
        trusted: impl IntoIterator<Item = (String, Fingerprint)>,
    ) -> Result<Self, TransportError> {
        let unusable =
            |e: rustls::Error| TransportError::Identity { name: identity.name().into(), reason: e.to_string() };
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites =
            vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256, aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384];
        provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
        let provider = Arc::new(provider);
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key()));
        let signer = aws_lc_rs::sign::any_supported_type(&der).map_err(unusable)?;
        let certified = CertifiedKey::new(vec![CertificateDer::from(identity.certificate().to_vec())], signer);
        certified.keys_match().map_err(unusable)?;
        let key = Arc::new(SingleCertAndKey::from(certified));
        let names: BTreeMap<_, _> = trusted.into_iter().map(|(name, f)| (f, name)).collect();
        let pins =
            Pins { pinned: names.keys().copied().collect(), algorithms: provider.signature_verification_algorithms };
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .with_client_cert_verifier(Arc::new(pins))
            .with_cert_resolver(key.clone());
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;
        server.enable_secret_extraction = true;
        Ok(Self { provider, key, names: Arc::new(names), server: Arc::new(server) })
    }

    /// The name under which a certificate is pinned.
    pub(crate) fn name(&self, f: &Fingerprint) -> Option<&str> {
        self.names.get(f).map(String::as_str)
    }

    /// A connection that calls `peer`: only its own pinned certificate will do.
    pub(crate) fn call(&self, peer: &str, host: IpAddr) -> Result<UnbufferedClientConnection, TransportError> {
        let failed = |e: rustls::Error| TransportError::Tls { peer: peer.into(), reason: e.to_string() };
        UnbufferedClientConnection::new(self.calling(peer)?, ServerName::from(host)).map_err(failed)
    }

    /// How `peer` is called.
    pub(crate) fn calling(&self, peer: &str) -> Result<Arc<ClientConfig>, TransportError> {
        let pin = self.names.iter().find(|(_, name)| *name == peer).map(|(f, _)| *f);
        let pin = pin.ok_or_else(|| TransportError::NoPin { peer: peer.into() })?;
        let failed = |e: rustls::Error| TransportError::Tls { peer: peer.into(), reason: e.to_string() };
        let pins = Pins { pinned: vec![pin], algorithms: self.provider.signature_verification_algorithms };
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(pins))
            .with_client_cert_resolver(self.key.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        config.enable_secret_extraction = true;
        Ok(Arc::new(config))
    }

    /// A connection that was called.
    pub(crate) fn answer(&self, peer: &str) -> Result<UnbufferedServerConnection, TransportError> {
        let failed = |e: rustls::Error| TransportError::Tls { peer: peer.into(), reason: e.to_string() };
        UnbufferedServerConnection::new(self.server.clone()).map_err(failed)
    }
}
