//! The figures of machines, whichever agent is in each.
//!
//! qgad is asked once. From another agent the figures are gathered with its own commands and from the kernel's files
//! ([`gather`]). What an agent refuses or does not know is absent, and is no failure of the machine.
//! All machines are asked at the same time, each within the same timeout, so that one that does not answer delays no
//! other. A guest may be hostile: of each list only the first [`MAX_ENTRIES`] are kept.

mod gather;
pub(crate) mod prometheus;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use qga::{
    client::Error,
    commands::metrics::{GetMetrics, Metrics},
};

use crate::{connect::Target, failure::Failure};

/// Longest that a machine is waited for if the user does not say: a monitor asks again by then.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// Most machines that are asked at the same time, each on a thread of its own.
const MAX_AT_ONCE: usize = 64;
/// Most entries of a list that are kept: more than a guest has processors, disks or interfaces.
const MAX_ENTRIES: usize = 2048;

/// A machine that was asked.
#[derive(Debug)]
pub(crate) struct Machine {
    /// What the user knows it by.
    pub(crate) name: String,
    /// Its figures.
    pub(crate) figures: Result<Figures, Failure>,
}

/// The figures of a machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    /// In the form in which qgad has them. The list of physical interfaces is absent if it is unknown which are.
    pub(crate) metrics: Metrics,
    /// Whether file systems are frozen. `None` if the agent does not say.
    pub(crate) is_frozen: Option<bool>,
}

/// Asks machines, each with its name. The answers have the order of the targets.
pub(crate) fn ask_all(targets: &[(String, &Target)], timeout: Duration) -> Vec<Machine> {
    at_once(targets, |(name, target)| Machine { name: name.clone(), figures: ask(target, timeout) })
}

/// Does something with each item, with many at the same time, and returns the results in the order of the items.
fn at_once<T: Sync, R: Send>(items: &[T], act: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, R)>> = Mutex::default();
    let work = || {
        while let Some((index, item)) = items.iter().enumerate().nth(next.fetch_add(1, Ordering::Relaxed)) {
            let result = act(item);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
        }
    };
    thread::scope(|scope| {
        for _ in 1..items.len().min(MAX_AT_ONCE) {
            // Without a further thread the others do its share.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

fn ask(target: &Target, timeout: Duration) -> Result<Figures, Failure> {
    let deadline = Instant::now() + timeout;
    let mut agent = target.connect(Some(timeout))?;
    let mut figures = match agent.call_until(&GetMetrics { parts: None }, deadline) {
        Ok(metrics) => {
            let is_frozen = metrics.agent.as_ref().map(|agent| agent.frozen_for.is_some());
            Figures { metrics, is_frozen }
        }
        Err(failure) if is_refusal(&failure) => gather::figures(&mut agent, deadline)?,
        Err(failure) => return Err(failure),
    };
    figures.bound();
    Ok(figures)
}

/// Whether the agent answers that it does not do this, so that another way may be tried.
fn is_refusal(failure: &Failure) -> bool {
    matches!(failure, Failure::Command { error: Error::Refused { .. }, .. })
}

impl Figures {
    fn bound(&mut self) {
        fn cut<T>(list: Option<&mut Vec<T>>) {
            if let Some(list) = list {
                list.truncate(MAX_ENTRIES);
            }
        }
        let Metrics { processors, disks, file_systems, file_systems_left_out, network, .. } = &mut self.metrics;
        cut(processors.as_mut());
        cut(disks.as_mut());
        cut(file_systems.as_mut());
        cut(file_systems_left_out.as_mut());
        if let Some(network) = network {
            cut(network.physical.as_mut());
            cut(network.other.as_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use qga::commands::metrics::{FileSystemLeftOut, LeftOutReason};

    use super::*;

    #[test]
    fn as_many_are_asked_at_once_as_may_be_and_answers_stay_in_order() {
        let items: Vec<_> = (0..MAX_AT_ONCE * 2).collect();
        // Nobody passes it alone.
        let barrier = Barrier::new(MAX_AT_ONCE);
        let act = |item: &usize| {
            barrier.wait();
            item * 10
        };
        let expected: Vec<_> = items.iter().map(|item| item * 10).collect();
        assert_eq!(at_once(&items, act), expected);
        assert_eq!(at_once(&[], act), [0; 0]);
    }

    #[test]
    fn of_a_list_that_is_too_long_the_first_entries_are_kept() {
        let one = FileSystemLeftOut { mountpoint: "/".into(), reason: LeftOutReason::Hidden };
        let file_systems_left_out = Some(vec![one; MAX_ENTRIES + 1]);
        let mut figures = Figures { metrics: Metrics { file_systems_left_out, ..Metrics::default() }, is_frozen: None };
        figures.bound();
        assert_eq!(figures.metrics.file_systems_left_out.map(|list| list.len()), Some(MAX_ENTRIES));
    }
}
