//! The state of the kernel's clock.

use nix::{errno::Errno, libc};

/// What the kernel says of its clock, see adjtimex(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClockState {
    /// Whether the clock counts as synchronized.
    pub(crate) is_synchronized: bool,
    /// By how much the kernel is still to move the clock, in nanoseconds, if it was told to.
    pub(crate) offset: Option<i64>,
    /// The largest error, in microseconds.
    pub(crate) maximum_error: i64,
    /// The estimated error, in microseconds.
    pub(crate) estimated_error: i64,
}

/// Asks the kernel, and changes nothing.
pub(crate) fn state() -> nix::Result<ClockState> {
    let mut timex = std::mem::MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: the kernel reads and writes the structure, which outlives the call. With modes 0 it changes nothing else.
    let result = Errno::result(unsafe { libc::adjtimex(timex.as_mut_ptr()) })?;
    // SAFETY: all members are numbers, for which zeros are valid, and the kernel has filled them in.
    let timex = unsafe { timex.assume_init() };
    Ok(ClockState::of(result, &timex))
}

impl ClockState {
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion, reason = "the types differ between machines")]
    fn of(result: i32, timex: &libc::timex) -> Self {
        let has = |flag: i32| timex.status & flag != 0;
        let unit = if has(libc::STA_NANO) { 1 } else { 1000 };
        Self {
            is_synchronized: result != libc::TIME_ERROR && !has(libc::STA_UNSYNC),
            offset: has(libc::STA_PLL).then(|| i64::from(timex.offset).saturating_mul(unit)),
            maximum_error: timex.maxerror.into(),
            estimated_error: timex.esterror.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_is_known_while_the_kernel_moves_the_clock() {
        let check = |result, status, expected: (bool, Option<i64>)| {
            // SAFETY: all members are numbers, for which zeros are valid.
            let zeroed: libc::timex = unsafe { std::mem::zeroed() };
            let timex = libc::timex { status, offset: -7, maxerror: 5, esterror: 3, ..zeroed };
            let state = ClockState::of(result, &timex);
            assert_eq!((state.is_synchronized, state.offset), expected);
            assert_eq!((state.maximum_error, state.estimated_error), (5, 3));
        };
        check(libc::TIME_OK, libc::STA_PLL | libc::STA_NANO, (true, Some(-7)));
        check(libc::TIME_OK, libc::STA_PLL, (true, Some(-7000)));
        check(libc::TIME_OK, 0, (true, None));
        check(libc::TIME_ERROR, 0, (false, None));
        check(libc::TIME_OK, libc::STA_UNSYNC, (false, None));
    }

    #[test]
    fn the_kernel_answers() {
        state().unwrap();
    }
}
