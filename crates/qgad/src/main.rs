//! The agent's start-up, in reading order.
//!
//! Settings are read and validated once. What can fail is opened before the agent leaves the foreground, so that
//! whoever started it learns of it; threads are started after that.

mod account;
mod audit;
mod channel;
mod check;
mod claims;
mod commands;
mod config;
mod connection;
mod crypt;
mod daemon;
mod dispatch;
mod errno;
mod executor;
mod file_lock;
mod files;
mod freeze;
mod glob;
mod guest;
mod keyfile;
mod logger;
mod netlink;
mod notify;
mod options;
mod output;
mod passing;
mod policy;
mod power;
mod programs;
#[cfg(test)]
mod published;
mod root;
mod rtc;
mod server;
mod session;
mod settings;
mod shadow;
mod spawn;
mod state;
mod storage;
mod sys;
mod threads;
mod timeout;

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use self::{
    channel::{Activation, Channel},
    claims::Claims,
    config::Source,
    daemon::{PidFile, daemonize},
    files::Files,
    freeze::{Errand, Exclude, Freezer, Hooks, Limits, Marker, RealMachine},
    glob::Globs,
    guest::{Environment, Guest},
    options::{Options, Outcome},
    policy::Policy,
    programs::Programs,
    root::Root,
    server::{Ended, Server},
    settings::Settings,
    state::State,
    storage::Probes,
};

fn main() -> ExitCode {
    sys::memory::keep();
    let environment = Environment::of_process();
    logger::begin(environment.text("JOURNAL_STREAM"));
    if std::env::args_os().nth(1).is_some_and(|argument| argument == freeze::GUARD_OPTION) {
        return freeze::run_guard();
    }
    if std::env::args_os().nth(1).is_some_and(|argument| argument == programs::HEIR_OPTION) {
        return programs::run_heir();
    }
    let program = std::env::args_os().next().unwrap_or_default();
    let done = match options::parse(std::env::args_os()) {
        Outcome::Print(text) => print(text.as_bytes()),
        Outcome::Read(options) => start(&options, environment),
        Outcome::Wrong(reason) => {
            eprintln!("{reason}");
            let hint = format!("Unknown option, try '{} --help' for more information.\n", program.display());
            print(hint.as_bytes()).and(Err(Vec::new()))
        }
    };
    let code = match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reasons) => {
            for reason in reasons {
                log::error!("{reason}");
            }
            ExitCode::FAILURE
        }
    };
    logger::finish();
    code
}

/// Runs the agent to its end, or says why it cannot, cause first.
fn start(options: &Options, environment: Environment) -> Result<(), Vec<String>> {
    if options.check_config {
        let (report, mistakes) = check::run(options, &choose_source(options, &environment));
        print(report.as_bytes())?;
        return if mistakes { Err(Vec::new()) } else { Ok(()) };
    }
    let activation = Activation::take(environment.variable("LISTEN_PID"), environment.variable("LISTEN_FDS"))
        .map_err(|reason| vec![reason])?;
    let settings = read_settings(options, &environment, activation.as_ref()).map_err(|reason| vec![reason])?;
    if options.dump_conf {
        return print(&settings.dump());
    }
    if settings.verbose {
        logger::be_verbose();
    }
    let guest = prepare_guest(&settings, environment)
        .map_err(|reason| vec![reason, "error initializing guest agent".into()])?;
    let channel = open_channel(&settings, activation).map_err(|reason| {
        let consequences = ["failed to create guest agent channel", "failed to initialize guest agent channel"];
        [reason].into_iter().chain(consequences.map(Into::into)).collect::<Vec<_>>()
    })?;
    let _pid_file = match settings.daemon {
        true => {
            if settings.logfile.is_none() {
                log::warn!("a daemon has no standard error, and there is no logfile: nothing will be logged");
            }
            Some(become_daemon(&settings.pidfile, &guest.freezer).map_err(|reason| vec![reason])?)
        }
        false => None,
    };
    log::info!("qgad {} started", env!("CARGO_PKG_VERSION"));
    let guest = Arc::new(guest);
    let served = Server::new(channel, settings.retry_path, Arc::clone(&guest)).and_then(|server| {
        // Both start threads, which must leave signals to the server.
        logger::write_in_background();
        guest.freezer.recover();
        server.run()
    });
    guest.programs.hand_over(&guest.environment);
    match served {
        Ok(Ended::BySignal | Ended::ByChannel) => Ok(()),
        Err(error) => Err(vec![format!("the agent cannot go on: {}", errno::words(error))]),
    }
}

/// Defaults, then the configuration file, then the command line; an inherited socket replaces the channel of all three.
fn read_settings(
    options: &Options,
    environment: &Environment,
    activation: Option<&Activation>,
) -> Result<Settings, String> {
    let mut settings = Settings::default();
    choose_source(options, environment).load(&mut settings)?;
    options.apply(&mut settings)?;
    match activation {
        Some(activation) => {
            settings.method = activation.method().into();
            settings.path = None;
            Ok(settings)
        }
        None => settings.complete(),
    }
}

fn choose_source(options: &Options, environment: &Environment) -> Source {
    Source::choose(options.config.clone(), environment.variable("QGA_CONF"))
}

fn prepare_guest(settings: &Settings, environment: Environment) -> Result<Guest, String> {
    // A daemon changes its directory.
    let state_directory = std::path::absolute(&settings.statedir).map_err(|error| {
        format!("the state directory {} cannot be used: {}", settings.statedir.display(), errno::words(error))
    })?;
    let freezer = prepare_freezer(settings, &environment, &state_directory);
    if let Some(path) = &settings.logfile {
        let failed = |error| format!("unable to open specified log file: {}", errno::words(error));
        open_log(path, &freezer, move |path| logger::append_to(path).map_err(failed))?;
    }
    match &settings.audit_file {
        _ if !settings.audit => {}
        None => logger::audit_to_log(),
        Some(path) => {
            let failed = |error| format!("failed to open the audit's file: {}", errno::words(error));
            open_log(path, &freezer, move |path| logger::audit_to(path).map_err(failed))?;
        }
    }
    for name in settings.block_rpcs.iter().chain(&settings.allow_rpcs) {
        if !config::is_command(&name.value) {
            log::warn!("{}", config::no_command(&name.value));
        }
    }
    Ok(Guest {
        root: Root::machine(),
        environment,
        handlers: dispatch::HANDLERS,
        policy: Policy::new(settings),
        interfaces_exclude: Globs::new(settings.interfaces_exclude.clone()),
        command_timeout: settings.command_timeout,
        state: State::load(&state_directory, !freezer.refuses_commands())?,
        files: Files::default(),
        programs: Programs::new()
            .map_err(|error| format!("programs cannot be looked after: {}", errno::words(error)))?,
        probes: Probes::default(),
        freezer,
        trims: Probes::default(),
        claims: Claims::default(),
    })
}

fn prepare_freezer(settings: &Settings, environment: &Environment, state_directory: &Path) -> Freezer {
    let root = Root::machine();
    let marker = Marker::new(&root, state_directory);
    let machine = RealMachine {
        root,
        environment: environment.clone(),
        exclude: Exclude::new(settings.fsfreeze_exclude.clone()),
        hooks: Hooks::new(settings.fsfreeze_hook.clone(), settings.fsfreeze_hook_timeout),
        marker: marker.clone(),
        search: Errand::default(),
        listening: Errand::default(),
    };
    let limits = Limits { timeout: settings.fsfreeze_timeout, lease: settings.fsfreeze_lease };
    Freezer::new(Box::new(machine), marker, limits)
}

/// A file that may be frozen is opened after the thaw.
fn open_log(
    path: &Path,
    freezer: &Freezer,
    open: impl Fn(&Path) -> Result<(), String> + Send + 'static,
) -> Result<(), String> {
    if !freezer.refuses_commands() {
        return open(path);
    }
    let path = path.to_owned();
    freezer.when_thawed(move || open(&path).unwrap_or_else(|error| log::error!("{error}")));
    Ok(())
}

/// Leaves the foreground. A pid file that may be frozen is written after the thaw.
fn become_daemon(path: &Path, freezer: &Freezer) -> Result<Arc<Mutex<Option<PidFile>>>, String> {
    let pid_file = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&pid_file);
    let keep = move |file| *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    if !freezer.refuses_commands() {
        daemonize(|| PidFile::write(path).map(keep))?;
        return Ok(pid_file);
    }
    daemonize(|| Ok(()))?;
    let path = path.to_owned();
    let write = move || PidFile::write(&path).map_or_else(|error| log::error!("{error}"), keep);
    freezer.when_thawed(write);
    Ok(pid_file)
}

fn open_channel(settings: &Settings, activation: Option<Activation>) -> Result<Channel, String> {
    match activation {
        Some(activation) => Ok(Channel::Listener(activation.into_listener(&settings.vsock_allow))),
        None => {
            let path = settings.path.as_deref().unwrap_or(Path::new(""));
            Channel::open(&settings.method, path, settings.retry_path, &settings.vsock_allow)
        }
    }
}

fn print(text: &[u8]) -> Result<(), Vec<String>> {
    io::stdout()
        .write_all(text)
        .map_err(|error| vec![format!("failed to write to standard output: {}", errno::words(error))])
}
