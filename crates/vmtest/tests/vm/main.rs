//! The agent in a virtual machine, through the channels a host really has.
//!
//! There are two guests: a small one of our own, and Debian with systemd, in which the agent is installed as a package
//! would install it, or packages of it are. Names of cases of the latter begin with `debian`.
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
    needs::{self, Needs, run_folder},
    vm::{Builder, Console},
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
    let lanes: [(_, Build); 4] = [
        (cases::ALL, small_guest),
        (cases::debian::ALL, debian),
        (cases::debian::WITH_PACKAGES, debian_with_packages),
        (cases::debian::ON_A_SECOND_DISK, small_guest_beside_debian),
    ];
    let trials = lanes.into_iter().flat_map(|(cases, build)| {
        let image = Arc::new(OnceLock::new());
        let needs = Arc::clone(&needs);
        cases.iter().map(move |(name, case)| {
            let (needs, image) = (Arc::clone(&needs), Arc::clone(&image));
            Trial::ignorable_test(*name, move || {
                let image = image.get_or_init(|| match &*needs {
                    Ok(needs) => build(needs),
                    Err(missing) => Err(Obstacle::Missing(missing.join("; "))),
                });
                match image {
                    Ok(image) => run(name, *case, image),
                    Err(Obstacle::Missing(what)) if !is_required() => Ok(Completion::ignored_with(what)),
                    Err(Obstacle::Missing(reason) | Obstacle::Failure(reason)) => Err(reason.into()),
                }
            })
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// How the image of a lane is made.
type Build = fn(&Needs) -> Outcome<Image>;
type Outcome<T> = Result<T, Obstacle>;

/// Why there is no image.
enum Obstacle {
    Missing(String),
    Failure(String),
}

fn small_guest(needs: &Needs) -> Outcome<Image> {
    Image::build(needs).map_err(|error| Obstacle::Failure(format!("{error:#}")))
}

/// Its disk is attached by the case.
fn small_guest_beside_debian(needs: &Needs) -> Outcome<Image> {
    needs::debian_disk().map_err(Obstacle::Missing)?;
    small_guest(needs)
}

fn debian(needs: &Needs) -> Outcome<Image> {
    let disk = needs::debian_disk().map_err(Obstacle::Missing)?;
    Image::debian(needs, &disk, None).map_err(|error| Obstacle::Failure(format!("{error:#}")))
}

fn debian_with_packages(needs: &Needs) -> Outcome<Image> {
    let disk = needs::debian_disk().map_err(Obstacle::Missing)?;
    let image = || {
        let directory = tempfile::tempdir()?;
        Image::debian(needs, &disk, Some(&needs::packages(needs, directory.path())?))
    };
    image().map_err(|error| Obstacle::Failure(format!("{error:#}")))
}

fn run(name: &str, case: Case, image: &Image) -> Result<Completion, Failed> {
    let ended = catch_unwind(AssertUnwindSafe(|| case(Builder::new(image, name))));
    let failure = match ended {
        Ok(Ok(())) => return Ok(Completion::Completed),
        Ok(Err(error)) => error,
        Err(panic) => anyhow!("{}", panic_message(panic.as_ref())),
    };
    let folder = run_folder(name);
    Err(format!("{failure:#}\nlogs: {}\nconsole, last lines:\n{}", folder.display(), Console::new(&folder).tail())
        .into())
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref().copied()).unwrap_or("a panic without a message")
}

fn is_required() -> bool {
    env::var_os("VMTEST_REQUIRE").is_some_and(|what| what == "all")
}
