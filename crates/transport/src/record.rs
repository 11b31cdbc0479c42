//! TLS 1.3 records after the handshake: frames, sequence numbers and changes of keys. Protecting a record (nonce,
//! authenticated data, padding, inner type) is left to rustls, record by record, and so are the keys.

use std::ops::Range;

use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
    Tls13AeadAlgorithm,
};
use rustls::kernel::KernelConnection;
use rustls::{
    ConnectionTrafficSecrets, ContentType, Error, ExtractedSecrets, InvalidMessage, PeerMisbehaved, ProtocolVersion,
};

/// Bytes of a record's header.
const HEADER: usize = 5;
/// Most plaintext that one record carries.
pub(crate) const FRAGMENT: usize = 1 << 14;
/// Most bytes of a record: protection may add 256 (RFC 8446, 5.2).
pub(crate) const LARGEST: usize = HEADER + FRAGMENT + 256;
/// Bytes that are not wanted cost work: so many records without data may follow each other.
const IDLE: u32 = 32;
/// A message of type 24, one byte long: the keys of this direction change, and the peer's need not.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// What derives the next keys of either direction.
trait Keys: Send {
    fn sending(&mut self) -> Result<(AeadKey, Iv), Error>;
    fn receiving(&mut self) -> Result<(AeadKey, Iv), Error>;
}

impl<D: Send> Keys for KernelConnection<D> {
    fn sending(&mut self) -> Result<(AeadKey, Iv), Error> {
        key(self.update_tx_secret()?.1)
    }

    fn receiving(&mut self) -> Result<(AeadKey, Iv), Error> {
        key(self.update_rx_secret()?.1)
    }
}

/// Both directions of a connection.
pub(crate) struct Records {
    keys: Box<dyn Keys>,
    aead: &'static dyn Tls13AeadAlgorithm,
    sealer: Box<dyn MessageEncrypter>,
    /// Records sealed and opened under these keys.
    pub(crate) sealed: u64,
    /// How many records the same keys may seal.
    pub(crate) limit: u64,
    opener: Box<dyn MessageDecrypter>,
    opened: u64,
    /// Records without data since the last with data.
    idle: u32,
}

/// What a record held, at the front of its content.
#[derive(Debug, PartialEq)]
pub(crate) enum Opened {
    /// So many bytes of data.
    Data(usize),
    /// The peer's last record.
    End,
    /// The peer's new keys; true: it asks for new ones of this end.
    KeyUpdate(bool),
}

impl Records {
    /// After a handshake of TLS 1.3.
    pub(crate) fn new<D: Send + 'static>(secrets: ExtractedSecrets, keys: KernelConnection<D>) -> Result<Self, Error> {
        let suite = keys.negotiated_cipher_suite().tls13().ok_or(Error::HandshakeNotComplete)?;
        let aead = suite.aead_alg;
        let ((sealed, sending), (opened, receiving)) = (secrets.tx, secrets.rx);
        let (sending, receiving) = (key(sending)?, key(receiving)?);
        let (sealer, opener) = (aead.encrypter(sending.0, sending.1), aead.decrypter(receiving.0, receiving.1));
        let limit = suite.common.confidentiality_limit;
        Ok(Self { keys: Box::new(keys), aead, sealer, sealed, limit, opener, opened, idle: 0 })
    }

    /// Seals one record of at most [`FRAGMENT`] bytes. Where these keys end, a change of keys goes before it.
    pub(crate) fn seal_data(&mut self, data: OutboundChunks<'_>, mut out: impl FnMut(Vec<u8>)) -> Result<(), Error> {
        if self.sealed + 1 >= self.limit {
            out(self.change_keys()?);
        }
        out(self.seal(ContentType::ApplicationData, data)?);
        Ok(())
    }

    /// Tells the peer that new keys follow, and takes them.
    pub(crate) fn change_keys(&mut self) -> Result<Vec<u8>, Error> {
        let told = self.seal(ContentType::Handshake, OutboundChunks::Single(&KEY_UPDATE))?;
        let (key, iv) = self.keys.sending()?;
        self.sealer = self.aead.encrypter(key, iv);
        self.sealed = 0;
        Ok(told)
    }

    /// An alert: its level (1: a warning, 2: fatal) and what it says.
    pub(crate) fn alert(&mut self, level: u8, description: u8) -> Result<Vec<u8>, Error> {
        self.seal(ContentType::Alert, OutboundChunks::Single(&[level, description]))
    }

    /// Seals one record of any type.
    pub(crate) fn seal(&mut self, typ: ContentType, payload: OutboundChunks<'_>) -> Result<Vec<u8>, Error> {
        if self.sealed >= self.limit {
            return Err(Error::EncryptError);
        }
        let record = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        let sealed = self.sealer.encrypt(record, self.sealed)?.encode();
        self.sealed += 1;
        Ok(sealed)
    }

    /// Opens the content of a record in place.
    pub(crate) fn open(&mut self, content: &mut [u8]) -> Result<Opened, Error> {
        let record = InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, content);
        let plain = self.opener.decrypt(record, self.opened)?;
        self.opened = self.opened.checked_add(1).ok_or(Error::DecryptError)?;
        self.idle += 1;
        if self.idle > IDLE {
            return Err(PeerMisbehaved::TooManyEmptyFragments.into());
        }
        match (plain.typ, plain.payload) {
            (ContentType::ApplicationData, data) => {
                if !data.is_empty() {
                    self.idle = 0;
                }
                Ok(Opened::Data(data.len()))
            }
            (ContentType::Alert, [_, 0]) => Ok(Opened::End),
            (ContentType::Alert, [_, why]) => Err(Error::AlertReceived((*why).into())),
            (ContentType::Handshake, [24, 0, 0, 1, asks @ 0..=1]) => {
                let asks = *asks == 1;
                let (key, iv) = self.keys.receiving()?;
                self.opener = self.aead.decrypter(key, iv);
                self.opened = 0;
                Ok(Opened::KeyUpdate(asks))
            }
            _ => Err(Error::InvalidMessage(InvalidMessage::InvalidContentType)),
        }
    }
}

fn key(secrets: ConnectionTrafficSecrets) -> Result<(AeadKey, Iv), Error> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } | ConnectionTrafficSecrets::Aes256Gcm { key, iv } => {
            Ok((key, iv))
        }
        _ => Err(Error::General("a cipher suite that was not offered".into())),
    }
}

/// Where the content of the record lies at the front of `bytes`; `None` if more must come first.
pub(crate) fn content(bytes: &[u8]) -> Result<Option<Range<usize>>, Error> {
    let Some(&[typ, _, _, high, low]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    if ContentType::from(typ) != ContentType::ApplicationData {
        return Err(Error::InvalidMessage(InvalidMessage::InvalidContentType));
    }
    let end = HEADER + usize::from(u16::from_be_bytes([high, low]));
    if end > LARGEST {
        return Err(Error::PeerSentOversizedRecord);
    }
    Ok((end <= bytes.len()).then_some(HEADER..end))
}
