//! What all backends decide in the same way.

use ratchet_model::PodRecord;

use crate::Publish;

/// A record's `created` as it will be stored in place of `previous`; `None`: a later sandbox is
/// there.
pub(crate) fn created(
    record: &PodRecord,
    previous: Option<&PodRecord>,
    how: Publish,
) -> Option<u64> {
    let Some(previous) = previous else {
        return Some(record.created);
    };
    match how {
        Publish::New => Some(record.created.max(previous.created.saturating_add(1))),
        Publish::Again if previous.sandbox() == record.sandbox() => {
            Some(record.created.max(previous.created))
        }
        Publish::Again => (previous.created <= record.created).then_some(record.created),
    }
}
