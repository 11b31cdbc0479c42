//! One list out of alice's and bob's: what both say the same of, and the rest by name.

use std::thread;
use std::time::Duration;

use crate::error::ClientError;

/// Lists asked for until they are taken as they are: something may be on its way.
const LISTS: u32 = 5;
/// Time between them.
const PAUSE: Duration = Duration::from_millis(100);

/// What the evaluators hold.
#[derive(Debug)]
pub struct Listing<T> {
    /// What both hold alike.
    pub agreed: Vec<T>,
    /// What they differ in: not to be used.
    pub torn: Vec<Torn>,
}

/// Something that alice and bob do not hold alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// Its name.
    pub name: String,
    /// How they differ, for a person.
    pub what: String,
}

impl<T> Listing<T> {
    /// The one of this name, if there is any. An error if the evaluators differ in it.
    pub(crate) fn find(&mut self, name: &str, of: impl Fn(&T) -> &str) -> Result<Option<T>, ClientError> {
        if let Some(i) = self.agreed.iter().position(|t| of(t) == name) {
            return Ok(Some(self.agreed.swap_remove(i)));
        }
        match self.torn.iter().find(|t| t.name == name) {
            Some(torn) => Err(ClientError::Disagree { what: torn.what.clone() }),
            None => Ok(None),
        }
    }
}

/// Asks for both lists until they agree, at most [`LISTS`] times, and joins them. `kind` says what is listed ("model"),
/// `name` its name and `key` what tells two apart; `join` gives nothing where the two are not the same.
pub(crate) fn listed<A, T, K: PartialEq>(
    mut ask: impl FnMut() -> Result<[Vec<A>; 2], ClientError>,
    kind: &str,
    name: impl Fn(&A) -> &str,
    key: impl Fn(&A) -> K,
    join: impl Fn(A, A) -> Option<T>,
) -> Result<Listing<T>, ClientError> {
    let mut tries = 1;
    loop {
        let [alice, mut bob] = ask()?;
        let mut all = Listing { agreed: Vec::with_capacity(alice.len()), torn: vec![] };
        for a in alice {
            let name = name(&a).to_owned();
            let both = bob.iter().position(|b| key(b) == key(&a)).map(|i| bob.swap_remove(i));
            let what = match both.map(|b| join(a, b)) {
                Some(Some(joined)) => {
                    all.agreed.push(joined);
                    continue;
                }
                Some(None) => format!("what {kind} {name} is"),
                None => format!("{kind} {name}, which bob does not list"),
            };
            all.torn.push(Torn { name, what });
        }
        let alone =
            |b: &A| Torn { name: name(b).into(), what: format!("{kind} {}, which alice does not list", name(b)) };
        all.torn.extend(bob.iter().map(alone));
        if all.torn.is_empty() || tries == LISTS {
            return Ok(all);
        }
        thread::sleep(PAUSE);
        tries += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(alice: &[(&'static str, u32)], bob: &[(&'static str, u32)]) -> Listing<(&'static str, u32)> {
        let ask = || Ok([alice.to_vec(), bob.to_vec()]);
        listed(ask, "model", |m| m.0, |m| m.0, |a, b| (a == b).then_some(a)).unwrap()
    }

    #[test]
    fn what_one_lacks_is_named_and_the_rest_is_there() {
        let mut all = list(&[("a", 1), ("b", 1), ("c", 1)], &[("d", 1), ("c", 2), ("a", 1)]);
        let torn: Vec<_> = all.torn.iter().map(|t| (t.name.as_str(), t.what.as_str())).collect();
        assert_eq!(
            torn,
            [
                ("b", "model b, which bob does not list"),
                ("c", "what model c is"),
                ("d", "model d, which alice does not list")
            ]
        );
        assert!(matches!(all.find("d", |m| m.0), Err(ClientError::Disagree { .. })));
        assert_eq!(all.find("a", |m| m.0).unwrap(), Some(("a", 1)));
        assert_eq!(all.find("e", |m| m.0).unwrap(), None);
    }

    #[test]
    fn what_is_on_its_way_is_waited_for() {
        let mut asked = 0;
        let ask = || {
            asked += 1;
            Ok([vec!["a"], if asked < 3 { vec![] } else { vec!["a"] }])
        };
        let all = listed(ask, "run", |r| r, |r| *r, |a, _| Some(a)).unwrap();
        assert_eq!((all.agreed, all.torn.len(), asked), (vec!["a"], 0, 3));
    }
}
