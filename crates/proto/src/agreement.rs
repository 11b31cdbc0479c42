//! Seed agreement: the pairwise seeds of one session, bound to the three parties' identities. No I/O.
//!
//! Every party P draws an ephemeral X25519 key x_P and a nonce n_P and sends
//! hello_P = (P, certificate fingerprint, n_P, X_P = x_P * G) to both others. Then, for a pair {P, Q}:
//!
//! ```text
//! T   = BLAKE3[transcript](version, hello_alice, hello_bob, hello_carol, first of P and Q, second of P and Q)
//! s   = X25519(x_P, X_Q) = X25519(x_Q, X_P)             refused if zero
//! k   = BLAKE3[pairwise seed](s, T)                     the pair's seed
//! c   = BLAKE3[confirmation](s, T)                      a key of its own
//! tag = BLAKE3 keyed with c, of (sender, T)             one from each end
//! ```
//!
//! Seeds come out only after both peers' tags were checked. A party that told the others different hellos, or anything
//! changed on the way, changes T for one of them: the tags of that pair then differ, before anything is drawn.
//! The hellos themselves are authentic because they travel on links whose certificates are pinned; `agree` checks that
//! the fingerprints named are the pinned ones.

use std::fmt;

use subtle::ConstantTimeEq;
use trefoil_prg::Party;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{Fingerprint, PROTOCOL_VERSION};

const TRANSCRIPT: &str = "trefoil 2026 agreement transcript";
const SEED: &str = "trefoil 2026 pairwise seed";
const CONFIRMATION: &str = "trefoil 2026 agreement confirmation";

/// Why there is no agreement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgreementError {
    /// A hello that cannot be read.
    #[error("a hello of {len} bytes from party number {party}: not of this protocol")]
    Malformed {
        /// Its length.
        len: usize,
        /// Its first byte.
        party: u8,
    },
    /// The hello is another party's than the one whose turn it was.
    #[error("a hello of {got} came where {due}'s was due")]
    WrongParty {
        /// The party expected.
        due: Party,
        /// The party named in the hello.
        got: Party,
    },
    /// The hello names a certificate that is not the pinned one.
    #[error("{party} names the certificate {}, but {} is pinned", got.short(), pinned.short())]
    WrongCertificate {
        /// The party.
        party: Party,
        /// The fingerprint in its hello.
        got: Fingerprint,
        /// The fingerprint in the cluster file.
        pinned: Fingerprint,
    },
    /// Key or nonce of one party came back from another.
    #[error("{party} repeats {other}'s key or nonce")]
    Reflected {
        /// Whose hello it is.
        party: Party,
        /// Whose values it repeats.
        other: Party,
    },
    /// A public key of small order: the secret would be known to anyone.
    #[error("{party}'s public key gives no secret (it has small order)")]
    NonContributory {
        /// Whose key it is.
        party: Party,
    },
    /// The peer computed another transcript or another secret.
    #[error("{party} does not confirm: it saw other hellos, another version, or the link was tampered with")]
    NotConfirmed {
        /// The peer.
        party: Party,
    },
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system: {0}")]
    NoRandomness(String),
}

/// What each party says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Who speaks.
    pub party: Party,
    /// Its certificate ([`Fingerprint::NONE`] on plain TCP).
    pub certificate: Fingerprint,
    /// Fresh for this session.
    pub nonce: [u8; 32],
    /// Ephemeral X25519 public key.
    pub public: [u8; 32],
}

impl Hello {
    /// Bytes of an encoded hello.
    pub const LEN: usize = 97;

    /// The hello in bytes.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut b = [0; Self::LEN];
        b[0] = number(self.party);
        b[1..33].copy_from_slice(&self.certificate.0);
        b[33..65].copy_from_slice(&self.nonce);
        b[65..].copy_from_slice(&self.public);
        b
    }

    /// Reads a hello.
    pub fn decode(bytes: &[u8]) -> Result<Self, AgreementError> {
        let malformed =
            || AgreementError::Malformed { len: bytes.len(), party: bytes.first().copied().unwrap_or_default() };
        let b: &[u8; Self::LEN] = bytes.try_into().map_err(|_| malformed())?;
        let party = Party::ALL.into_iter().find(|p| number(*p) == b[0]).ok_or_else(malformed)?;
        let field = |at: usize| {
            let mut f = [0; 32];
            f.copy_from_slice(&b[at..at + 32]);
            f
        };
        Ok(Self { party, certificate: Fingerprint(field(1)), nonce: field(33), public: field(65) })
    }
}

/// This party's hello and the secret behind it. Used for one agreement.
pub struct Offer {
    secret: StaticSecret,
    hello: Hello,
}

impl Offer {
    /// A fresh offer of `party`, whose certificate is `certificate`.
    pub fn new(party: Party, certificate: Fingerprint) -> Result<Self, AgreementError> {
        let mut key = Zeroizing::new([0; 32]);
        let mut nonce = [0; 32];
        for bytes in [&mut *key, &mut nonce] {
            getrandom::fill(bytes).map_err(|e| AgreementError::NoRandomness(e.to_string()))?;
        }
        let secret = StaticSecret::from(*key);
        let public = PublicKey::from(&secret).to_bytes();
        Ok(Self { secret, hello: Hello { party, certificate, nonce, public } })
    }

    /// What to send to both others.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Combines this party's offer with the others' hellos (in the parties' order); `pinned` holds the fingerprints of
    /// alice, bob and carol.
    pub fn agree(self, peers: [Hello; 2], pinned: &[Fingerprint; 3]) -> Result<Agreement, AgreementError> {
        let me = self.hello.party;
        let hellos = in_order(self.hello, peers)?;
        for (h, pin) in hellos.iter().zip(pinned) {
            if h.certificate != *pin {
                return Err(AgreementError::WrongCertificate { party: h.party, got: h.certificate, pinned: *pin });
            }
        }
        refuse_repeats(&hellos)?;
        let pairs = peers.map(|peer| {
            let s = self.secret.diffie_hellman(&PublicKey::from(peer.public));
            if !s.was_contributory() {
                return Err(AgreementError::NonContributory { party: peer.party });
            }
            let transcript = transcript(&hellos, me, peer.party);
            let derive = |context| {
                let mut h = blake3::Hasher::new_derive_key(context);
                h.update(s.as_bytes()).update(transcript.as_bytes());
                let mut out = h.finalize();
                h.zeroize();
                let bytes = *out.as_bytes();
                out.zeroize();
                bytes
            };
            let seed = PairSeed(derive(SEED));
            Ok(Pair { peer: peer.party, seed, confirmation: Zeroizing::new(derive(CONFIRMATION)), transcript })
        });
        let [a, b] = pairs;
        Ok(Agreement { me, pairs: [a?, b?], session: session(&hellos) })
    }
}

struct Pair {
    peer: Party,
    seed: PairSeed,
    confirmation: Zeroizing<[u8; 32]>,
    transcript: blake3::Hash,
}

impl Pair {
    fn tag(&self, sender: Party) -> [u8; 32] {
        let mut h = blake3::Hasher::new_keyed(&self.confirmation);
        h.update(&[number(sender)]).update(self.transcript.as_bytes());
        let tag = *h.finalize().as_bytes();
        h.zeroize();
        tag
    }
}

/// Seeds that wait for the peers' confirmation.
pub struct Agreement {
    me: Party,
    pairs: [Pair; 2],
    session: [u8; 32],
}

impl Agreement {
    /// What to send to each peer, in the parties' order.
    pub fn tags(&self) -> [(Party, [u8; 32]); 2] {
        [0, 1].map(|i| (self.pairs[i].peer, self.pairs[i].tag(self.me)))
    }

    /// The session's name: the same at all three, another for every session.
    pub fn session(&self) -> [u8; 32] {
        self.session
    }

    /// Checks the peers' tags, in the parties' order, and gives the seeds out.
    pub fn confirm(self, tags: [[u8; 32]; 2]) -> Result<Seeds, AgreementError> {
        for (pair, tag) in self.pairs.iter().zip(&tags) {
            if !bool::from(pair.tag(pair.peer).ct_eq(tag)) {
                return Err(AgreementError::NotConfirmed { party: pair.peer });
            }
        }
        Ok(Seeds(self.pairs.map(|p| (p.peer, p.seed))))
    }
}

/// The seeds shared with each peer.
#[derive(Debug)]
pub struct Seeds([(Party, PairSeed); 2]);

impl Seeds {
    /// The seed shared with `peer`; `None` for oneself.
    pub fn with(&self, peer: Party) -> Option<&PairSeed> {
        self.0.iter().find(|(p, _)| *p == peer).map(|(_, s)| s)
    }
}

/// A seed that two parties share. Wiped when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PairSeed([u8; 32]);

impl PairSeed {
    /// The seed.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PairSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairSeed(..)")
    }
}

fn number(party: Party) -> u8 {
    match party {
        Party::Alice => 0,
        Party::Bob => 1,
        Party::Carol => 2,
    }
}

/// The hellos of alice, bob and carol; the peers' must come in this order.
fn in_order(mine: Hello, [p, q]: [Hello; 2]) -> Result<[Hello; 3], AgreementError> {
    let all = match mine.party {
        Party::Alice => [mine, p, q],
        Party::Bob => [p, mine, q],
        Party::Carol => [p, q, mine],
    };
    for (due, h) in Party::ALL.into_iter().zip(&all) {
        if h.party != due {
            return Err(AgreementError::WrongParty { due, got: h.party });
        }
    }
    Ok(all)
}

fn refuse_repeats(hellos: &[Hello; 3]) -> Result<(), AgreementError> {
    for (i, h) in hellos.iter().enumerate() {
        for earlier in &hellos[..i] {
            if h.public == earlier.public || h.nonce == earlier.nonce {
                return Err(AgreementError::Reflected { party: h.party, other: earlier.party });
            }
        }
    }
    Ok(())
}

fn transcript(hellos: &[Hello; 3], p: Party, q: Party) -> blake3::Hash {
    let mut h = blake3::Hasher::new_derive_key(TRANSCRIPT);
    h.update(&PROTOCOL_VERSION.to_le_bytes());
    for hello in hellos {
        h.update(&hello.encode());
    }
    h.update(&[number(p.min(q)), number(p.max(q))]);
    h.finalize()
}

/// The hash of all three hellos: names the session, tells nothing of its secrets.
fn session(hellos: &[Hello; 3]) -> [u8; 32] {
    let mut h = blake3::Hasher::new_derive_key("trefoil 2026 session");
    h.update(&PROTOCOL_VERSION.to_le_bytes());
    for hello in hellos {
        h.update(&hello.encode());
    }
    *h.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PINS: [Fingerprint; 3] = [Fingerprint([1; 32]), Fingerprint([2; 32]), Fingerprint([3; 32])];

    fn offers() -> [Offer; 3] {
        [0, 1, 2].map(|i| Offer::new(Party::ALL[i], PINS[i]).unwrap())
    }

    /// Runs all three; `change` may alter what `to` receives from `from`.
    fn run(
        offers: [Offer; 3],
        change: impl Fn(usize, usize, &mut Hello),
        pins: &[Fingerprint; 3],
    ) -> [Result<Seeds, AgreementError>; 3] {
        let hellos = offers.each_ref().map(|o| *o.hello());
        let others = [[1, 2], [0, 2], [0, 1]];
        let mut to = 0;
        let agreed = offers.map(|o| {
            let peers = others[to].map(|from| {
                let mut h = hellos[from];
                change(from, to, &mut h);
                h
            });
            to += 1;
            o.agree(peers, pins)
        });
        let tags: Vec<_> = agreed.iter().map(|a| a.as_ref().map(Agreement::tags).ok()).collect();
        let mut me = 0;
        agreed.map(|a| {
            let got = others[me].map(|from| {
                let to_me = |t: &[(Party, [u8; 32]); 2]| t.iter().find(|(p, _)| *p == Party::ALL[me]).unwrap().1;
                tags[from].as_ref().map(to_me).unwrap_or_default()
            });
            me += 1;
            a?.confirm(got)
        })
    }

    #[test]
    fn every_pair_shares_a_seed_of_its_own() {
        let [a, b, c] = run(offers(), |_, _, _| {}, &PINS).map(Result::unwrap);
        let seed = |s: &Seeds, p| *s.with(p).unwrap().expose();
        let (ab, ac, bc) = (seed(&a, Party::Bob), seed(&a, Party::Carol), seed(&b, Party::Carol));
        assert_eq!((ab, ac, bc), (seed(&b, Party::Alice), seed(&c, Party::Alice), seed(&c, Party::Bob)));
        assert!(ab != ac && ab != bc && ac != bc);
        assert!(a.with(Party::Alice).is_none());
        assert_eq!(format!("{a:?}").matches("PairSeed(..)").count(), 2);
        let [again, ..] = run(offers(), |_, _, _| {}, &PINS).map(Result::unwrap);
        assert_ne!(ab, seed(&again, Party::Bob));
    }

    #[test]
    fn reflected_swapped_and_weak_hellos_are_refused() {
        let o = offers();
        let [a, b, c] = o.each_ref().map(|o| *o.hello());
        let [o, ..] = o;
        let mirror = Hello { party: Party::Bob, certificate: PINS[1], ..a };
        assert_eq!(
            o.agree([mirror, c], &PINS).err(),
            Some(AgreementError::Reflected { party: Party::Bob, other: Party::Alice })
        );
        let alice = |peers| Offer { secret: StaticSecret::from([7; 32]), hello: a }.agree(peers, &PINS).err();
        assert_eq!(alice([c, b]), Some(AgreementError::WrongParty { due: Party::Bob, got: Party::Carol }));
        assert_eq!(alice([a, c]), Some(AgreementError::WrongParty { due: Party::Bob, got: Party::Alice }));
        let weak = Hello { public: [0; 32], ..c };
        assert_eq!(alice([b, weak]), Some(AgreementError::NonContributory { party: Party::Carol }));
        let copy = Hello { public: b.public, ..c };
        assert!(matches!(alice([b, copy]), Some(AgreementError::Reflected { .. })));
        let other = Hello { certificate: PINS[0], ..b };
        assert!(matches!(alice([other, c]), Some(AgreementError::WrongCertificate { party: Party::Bob, .. })));
    }

    #[test]
    fn hellos_of_other_lengths_or_parties_are_refused() {
        let h = offers()[2].hello().encode();
        assert_eq!(Hello::decode(&h).unwrap().encode(), h);
        for bad in [&h[..96], &[h.as_slice(), &[0]].concat(), &[], &[&[3], &h[1..]].concat()] {
            assert!(matches!(Hello::decode(bad), Err(AgreementError::Malformed { .. })));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Any byte changed in any one hello on its way to any one party: sender or receiver notices.
        #[test]
        fn any_changed_byte_is_detected(from in 0_usize..3, step in 1_usize..3, at in 0..Hello::LEN, flip in 1_u8..) {
            let to = (from + step) % 3;
            let spoil = |f: usize, t: usize, h: &mut Hello| if (f, t) == (from, to) {
                let mut b = h.encode();
                b[at] ^= flip;
                // A byte that names no party cannot be decoded: already refused.
                *h = Hello::decode(&b).unwrap_or(Hello { party: Party::ALL[to], ..*h });
            };
            // X25519 ignores the key's top bit: the transcript must not.
            let results = run(offers(), spoil, &PINS);
            prop_assert!(results[to].is_err());
        }

        /// One party tells the other two different things about itself.
        #[test]
        fn a_double_tongued_party_is_noticed(at in 33_usize..65, flip in 1_u8..) {
            let spoil = |f: usize, t: usize, h: &mut Hello| if (f, t) == (2, 1) { h.nonce[at - 33] ^= flip };
            let [alice, bob, _] = run(offers(), spoil, &PINS);
            prop_assert_eq!(alice.err(), Some(AgreementError::NotConfirmed { party: Party::Bob }));
            prop_assert_eq!(bob.err(), Some(AgreementError::NotConfirmed { party: Party::Alice }));
        }
    }
}
