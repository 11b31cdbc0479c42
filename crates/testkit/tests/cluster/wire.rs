//! A socket to a server for tests that send it whatever they like.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use serde::Serialize;
use trefoil_link::frame::{HEADER, decode as header, encode as frame};
use trefoil_proto::control::{Opening, Refusal, Reply, Request, decode, encode, tag};

use super::LIMIT;

pub struct Wire(pub TcpStream);

impl Wire {
    pub fn open(address: &str) -> Self {
        Self(TcpStream::connect(address).unwrap())
    }

    /// A connection as the client `name`, on plain TCP.
    pub fn client(address: &str, name: &str) -> Self {
        let mut wire = Self::open(address);
        wire.message(tag::OPENING, &Opening::Client { name: name.into() });
        wire
    }

    /// Sends bytes; a server that has already hung up does not mind.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    pub fn frame(&mut self, tag: u32, payload: &[u8]) {
        self.bytes(&[&frame(tag, payload.len())[..], payload].concat());
    }

    pub fn message<T: Serialize>(&mut self, tag: u32, message: &T) {
        self.frame(tag, &encode(message));
    }

    pub fn finish(&self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }

    /// Whether the server has said something, or hung up.
    pub fn is_answered(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let seen = self.0.peek(&mut [0; 1]);
        self.0.set_nonblocking(false).unwrap();
        seen.is_ok()
    }

    pub fn reply(&mut self) -> Reply {
        self.0.set_read_timeout(Some(LIMIT)).unwrap();
        let mut head = [0; HEADER];
        self.0.read_exact(&mut head).unwrap();
        let (got, len) = header(&head).unwrap();
        assert_eq!(got, tag::REPLY);
        let mut payload = vec![0; len];
        self.0.read_exact(&mut payload).unwrap();
        decode("reply", &payload).unwrap()
    }

    /// The refusal that a request gets.
    pub fn refusal(&mut self, request: &Request) -> (Refusal, String) {
        self.message(tag::REQUEST, request);
        self.refused()
    }

    pub fn refused(&mut self) -> (Refusal, String) {
        match self.reply() {
            Reply::Refused { why, reason } => (why, reason),
            other => panic!("{other:?} where a refusal was due"),
        }
    }

    /// The server hangs up without having said a word.
    pub fn hangs_up(self, what: &str) {
        let said = self.last_words(what);
        assert!(said.is_empty(), "{what}: it said {said:?}");
    }

    /// What the server says before it hangs up.
    pub fn last_words(mut self, what: &str) -> Vec<u8> {
        self.0.set_read_timeout(Some(LIMIT)).unwrap();
        let began = Instant::now();
        let mut said = Vec::new();
        match self.0.read_to_end(&mut said) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
            Err(e) => panic!("{what}: not closed after {:?}: {e}", began.elapsed()),
        }
        said
    }
}
