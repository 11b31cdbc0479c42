//! An owner's part of a data set at bob's lanes: the half that has arrived is staged when alice says so.

use super::*;
use crate::sets::check_part;
use crate::store::{Record, Share};

impl Lane<'_> {
    pub(super) fn contribute(
        &mut self,
        id: RequestId,
        owner: &str,
        named: (u64, u32),
        epoch: u64,
    ) -> Result<Option<Status>, Fault> {
        // Owners ask alice only once bob has said that it is there.
        let half = self.halves.take(&id, BRIEF);
        let half = half.ok_or_else(|| refused(Refusal::Unavailable, "bob has not received his half of the part"))?;
        let Waiting { client, half, answer, .. } = half;
        let done = self.stage_part(&client, half, owner, named, epoch);
        // An owner that is gone hears nothing: nothing is lost by that.
        let _ = answer.send(done.as_ref().map(|()| Default::default()).map_err(Fault::refusal));
        done.map(|()| Some(Status::Ok))
    }

    fn stage_part(
        &mut self,
        client: &str,
        half: Half,
        owner: &str,
        (set, part): (u64, u32),
        epoch: u64,
    ) -> Result<(), Fault> {
        let Half::Contribute { set: own_set, part: own_part, pieces } = half else {
            return Err(refused(Refusal::Invalid, "the owner sent bob another kind of request"));
        };
        if (client, own_set, own_part) != (owner, set, part) {
            return Err(refused(Refusal::Mismatch, "the owner told alice and bob different things about the part"));
        }
        check_part(&self.core.sets, owner, set, part)
            .map_err(|(why, reason)| refused(why, format!("bob: {reason}")))?;
        self.core.stage_record(epoch, &Record::Part { set, part, share: Share::Pieces(pieces.id()) })?;
        pieces.keep();
        Ok(())
    }
}
