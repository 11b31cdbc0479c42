//! Which checkpoint a run goes back to: the latest of which both evaluators hold a half of the same attempt.

use trefoil_proto::run::Saved;

/// The latest checkpoint that both have, each list the latest first; none: back to the beginning. Halves of one place
/// that come from different attempts do not fit: what they add up to is noise.
pub(crate) fn pair(alice: &[Saved], bob: &[Saved]) -> Result<Option<Saved>, String> {
    if let Some(both) = alice.iter().find(|a| bob.contains(a)) {
        return Ok(Some(*both));
    }
    let differ = |a: &Saved| bob.iter().find(|b| b.at == a.at).map(|b| (a.at.epoch, a.lot, b.lot));
    match alice.iter().find_map(differ) {
        None => Ok(None),
        Some((epoch, a, b)) => Err(format!(
            "the checkpoints of alice (after lot {a}) and bob (after lot {b}), {epoch} epochs over, are of different \
             attempts: one was put back to a backup; put both back to one moment, or drop the run"
        )),
    }
}

#[cfg(test)]
mod tests {
    use trefoil_proto::run::{Phase, Position};

    use super::*;

    #[test]
    fn halves_of_one_attempt_are_paired() {
        let saved = |index, lot| Saved { at: Position { epoch: 2, phase: Phase::Train, index }, lot };
        let alice = [saved(9, 70), saved(6, 55)];
        assert_eq!(pair(&alice, &[saved(9, 70), saved(6, 55)]), Ok(Some(saved(9, 70))));
        assert_eq!(pair(&alice, &[saved(6, 55), saved(3, 40)]), Ok(Some(saved(6, 55))));
        // Of another attempt: the one before, if that fits.
        assert_eq!(pair(&alice, &[saved(9, 62), saved(6, 55)]), Ok(Some(saved(6, 55))));
        let said = pair(&alice, &[saved(9, 62), saved(6, 41)]).unwrap_err();
        assert!(said.contains("alice (after lot 70) and bob (after lot 62), 2 epochs over"), "{said}");
        assert_eq!(
            (pair(&alice, &[]), pair(&[], &alice), pair(&alice, &[saved(3, 40)])),
            (Ok(None), Ok(None), Ok(None))
        );
    }
}
