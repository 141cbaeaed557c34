//! The leniency of Go's JSON reader that clients have come to rely on: `null` means "not given".

use serde::{Deserialize, Deserializer};

/// Reads a value, taking `null` for the type's default.
pub(crate) fn null_as_default<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(input)?.unwrap_or_default())
}

/// True for the value Go's `omitempty` leaves out of a number.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape serde calls")]
pub(crate) fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// True for a `false` that `omitempty` leaves out.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape serde calls")]
pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}
