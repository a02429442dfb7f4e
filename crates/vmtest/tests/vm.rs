//! The agent in a virtual machine, through the channels a host really has.
//!
//! What the tests need is looked for before anything boots. Where something is missing they are ignored, each with the
//! reason; with `VMTEST_REQUIRE=all` they fail. `QGAD` names another agent to test: with Debian's, it shows what the
//! reference does in each case.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod cases;

use std::{
    env,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{Arc, OnceLock},
    thread,
};

use anyhow::{Result, anyhow};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use vmtest::{
    image::Image,
    needs::{Needs, run_folder},
    vm::{Builder, console_tail},
};

/// A VM takes a processor and a quarter of a GiB.
const MAX_VMS: usize = 2;

/// A test: it describes its VM, boots it and looks.
type Case = fn(Builder<'_>) -> Result<()>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    arguments.test_threads = Some(arguments.test_threads.unwrap_or(processors).min(MAX_VMS));
    let needs = Arc::new(Needs::collect());
    let image = Arc::new(OnceLock::new());
    let trials = cases::ALL.iter().map(|(name, case)| {
        let (needs, image) = (Arc::clone(&needs), Arc::clone(&image));
        Trial::ignorable_test(*name, move || match &*needs {
            Ok(needs) => {
                let image = image.get_or_init(|| Image::build(needs).map_err(|error| format!("{error:#}")));
                run(name, *case, image.as_ref().map_err(Failed::from)?)
            }
            Err(missing) if is_required() => Err(missing.join("; ").into()),
            Err(missing) => Ok(Completion::ignored_with(missing.join("; "))),
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn run(name: &str, case: Case, image: &Image) -> Result<Completion, Failed> {
    let ended = catch_unwind(AssertUnwindSafe(|| case(Builder::new(image, name))));
    let failure = match ended {
        Ok(Ok(())) => return Ok(Completion::Completed),
        Ok(Err(error)) => error,
        Err(panic) => anyhow!("{}", panic_message(panic.as_ref())),
    };
    let folder = run_folder(name);
    Err(format!("{failure:#}\nlogs: {}\nconsole, last lines:\n{}", folder.display(), console_tail(&folder)).into())
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref().copied()).unwrap_or("a panic without a message")
}

fn is_required() -> bool {
    env::var_os("VMTEST_REQUIRE").is_some_and(|what| what == "all")
}
