//! Pinned certificates: a peer is who it says if its certificate is the one in the cluster file.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};
use trefoil_proto::Fingerprint;
use trefoil_proto::identity::Validity;

use crate::error::TransportError;

/// Accepts exactly the certificates in a list, while they are valid, from peers that own their keys.
#[derive(Debug)]
pub(crate) struct Pins {
    /// The certificates accepted: one when calling a peer, everybody's when called.
    pub(crate) pinned: Vec<Fingerprint>,
    /// Signature algorithms of the provider.
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug, thiserror::Error)]
enum PinError {
    #[error("certificate {got} is not pinned")]
    NotPinned { got: Fingerprint, pinned: Option<Fingerprint> },
    #[error("certificate {got} is not valid now")]
    NotValidNow { got: Fingerprint },
}

impl Pins {
    fn check(&self, der: &[u8], now: UnixTime) -> Result<(), Error> {
        let got = Fingerprint::of(der);
        let refuse = |e| Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(e))));
        if !self.pinned.contains(&got) {
            let pinned = if let [only] = self.pinned[..] { Some(only) } else { None };
            return Err(refuse(PinError::NotPinned { got, pinned }));
        }
        match Validity::of(der) {
            Some(v) if v.holds_at(now.as_secs()) => Ok(()),
            Some(_) => Err(refuse(PinError::NotValidNow { got })),
            None => Err(Error::InvalidCertificate(CertificateError::BadEncoding)),
        }
    }
}

fn no_tls12() -> Error {
    Error::General("TLS 1.2 is not spoken here".into())
}

impl ServerCertVerifier for Pins {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Pins {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What a TLS error says about `peer`.
pub(crate) fn explain(e: &Error, peer: String) -> TransportError {
    match e {
        Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => match inner.downcast_ref::<PinError>()
        {
            Some(PinError::NotPinned { got, pinned: Some(pinned) }) => {
                TransportError::WrongCertificate { peer, got: *got, pinned: *pinned }
            }
            Some(PinError::NotPinned { got, pinned: None }) => TransportError::UnknownCertificate { peer, got: *got },
            Some(PinError::NotValidNow { got }) => TransportError::NotValidNow { peer, got: *got },
            None => TransportError::Tls { peer, reason: e.to_string() },
        },
        Error::AlertReceived(alert) => TransportError::Refused { peer, alert: format!("{alert:?}") },
        Error::InvalidMessage(_) => TransportError::NotTls { peer },
        _ => TransportError::Tls { peer, reason: e.to_string() },
    }
}
