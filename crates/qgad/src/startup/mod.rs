//! The agent's start-up, from top to bottom.
//!
//! Settings are read and validated once. Everything whose failure ends the start is opened before the agent leaves the
//! foreground, so that its parent process gets the exit status. Threads start after that, because a fork would lose
//! them. While file systems are frozen, files that might be on one of them are opened after the thaw.

mod check;

use std::{
    io::{self, Write},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    activity::Activity,
    channel::{Activation, Channel},
    config::{
        file::{self, ConfigFile},
        options::Options,
        settings::Settings,
    },
    environment::Environment,
    freeze::{BoundedCall, Exclude, Freezer, Hooks, Limits, Marker, RealMachine},
    guest::Guest,
    logging::{self, Syslog},
    open_files::OpenFiles,
    policy::Policy,
    process::{jobs::Jobs, programs::Programs},
    root::Root,
    serve::{
        dispatch::Dispatcher,
        server::{Ended, Server},
    },
    service::{
        daemon::{PidFile, daemonize},
        state::State,
    },
    storage::Probes,
    util::{errno, glob::Globs, in_use::InUse, keyed_lock::KeyedLock},
};

/// The pid file of a daemon, as soon as it is written. It is removed when this is dropped.
type HeldPidFile = Arc<Mutex<Option<PidFile>>>;

/// Runs the agent until it ends. The lines of an error begin with the cause; the later ones are its consequences.
pub(crate) fn run(options: &Options, environment: Environment) -> Result<(), Vec<String>> {
    let file = ConfigFile::select(options.config.clone(), environment.variable("QGA_CONF"));
    if options.check_config {
        let (report, has_mistakes) = check::report(options, &file);
        print(report.as_bytes())?;
        return if has_mistakes { Err(Vec::new()) } else { Ok(()) };
    }
    let activation = Activation::take(environment.variable("LISTEN_PID"), environment.variable("LISTEN_FDS"))
        .map_err(|reason| vec![reason])?;
    let settings = read_settings(&file, options, activation.as_ref()).map_err(|reason| vec![reason])?;
    if options.dump_conf {
        return print(&settings.dump());
    }
    if settings.verbose {
        logging::set_verbose();
    }
    let guest = prepare_guest(&settings, environment)
        .map_err(|reason| vec![reason, "error initializing guest agent".into()])?;
    let channel = open_channel(&settings, activation).map_err(|reason| {
        let consequences = ["failed to create guest agent channel", "failed to initialize guest agent channel"];
        [reason].into_iter().chain(consequences.map(Into::into)).collect::<Vec<_>>()
    })?;
    let _pid_file = leave_foreground(&settings, &guest.freezer).map_err(|reason| vec![reason])?;
    log::info!("qgad {} started", env!("CARGO_PKG_VERSION"));
    let guest = Arc::new(guest);
    let served = Server::new(channel, settings.retry_path, Dispatcher::new(Arc::clone(&guest))).and_then(|server| {
        // These start threads, which must inherit the signal mask that the server has set.
        logging::write_in_background();
        guest.freezer.recover();
        guest.jobs.find();
        server.run()
    });
    guest.programs.hand_over(&guest.environment);
    match served {
        Ok(Ended::BySignal | Ended::ByChannel) => Ok(()),
        Err(error) => Err(vec![format!("the agent cannot go on: {}", errno::describe(error))]),
    }
}

/// Defaults, then the configuration file, then the command line. An inherited socket replaces the channel of all three.
fn read_settings(file: &ConfigFile, options: &Options, activation: Option<&Activation>) -> Result<Settings, String> {
    let mut settings = Settings::default();
    file.load(&mut settings)?;
    options.apply(&mut settings)?;
    match activation {
        Some(activation) => {
            settings.method = activation.method().into();
            settings.path = None;
        }
        None => settings.path = Some(settings.channel_path()?),
    }
    Ok(settings)
}

fn prepare_guest(settings: &Settings, environment: Environment) -> Result<Guest, String> {
    // A daemon changes its working directory.
    let state_directory = std::path::absolute(&settings.statedir).map_err(|error| {
        format!("the state directory {} cannot be used: {}", settings.statedir.display(), errno::describe(error))
    })?;
    let freezer = prepare_freezer(settings, &environment, &state_directory);
    if let Some(path) = &settings.logfile {
        let failed = |error| format!("unable to open specified log file: {}", errno::describe(error));
        open_log(path, &freezer, move |path| logging::log_to_file(path).map_err(failed))?;
    }
    match &settings.audit_file {
        _ if !settings.audit => {}
        None => logging::audit_to_log(),
        Some(path) => {
            let failed = |error| format!("failed to open the audit file: {}", errno::describe(error));
            open_log(path, &freezer, move |path| logging::audit_to_file(path).map_err(failed))?;
        }
    }
    for name in settings.block_rpcs.iter().chain(&settings.allow_rpcs) {
        if !file::is_command(&name.value) {
            log::warn!("{}", file::unknown_command(&name.value));
        }
    }
    Ok(Guest {
        root: Root::machine(),
        environment,
        policy: Policy::new(settings),
        interfaces_exclude: Globs::new(settings.interfaces_exclude.clone()),
        command_timeout: settings.command_timeout,
        state: State::load(&state_directory, !freezer.refuses_commands())?,
        files: OpenFiles::default(),
        programs: Programs::new()
            .map_err(|error| format!("failed to prepare for running programs: {}", errno::describe(error)))?,
        jobs: Jobs::new(&state_directory),
        probes: Probes::default(),
        freezer,
        trims: Probes::default(),
        activity: Activity::begin(),
        in_use: InUse::default(),
        file_locks: KeyedLock::default(),
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
        search: BoundedCall::default(),
        listening: BoundedCall::default(),
    };
    let limits = Limits { timeout: settings.fsfreeze_timeout, lease: settings.fsfreeze_lease };
    Freezer::new(Box::new(machine), marker, limits)
}

/// Opens a log file now, or after the thaw if the file may be on a frozen file system.
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

/// Leaves the foreground, if the agent is to be a daemon.
fn leave_foreground(settings: &Settings, freezer: &Freezer) -> Result<Option<HeldPidFile>, String> {
    if !settings.daemon {
        return Ok(None);
    }
    let syslog = match settings.logfile {
        Some(_) => None,
        None => Syslog::connect().inspect_err(warn_of_no_log).ok(),
    };
    let pid_file = become_daemon(&settings.pidfile, freezer)?;
    // Until here, failures are printed for whoever starts the agent.
    if let Some(syslog) = syslog {
        logging::log_to_syslog(syslog);
    }
    Ok(Some(pid_file))
}

fn warn_of_no_log(error: &io::Error) {
    log::warn!(
        "nothing will be logged: a daemon has no standard error, there is no logfile, and the system log cannot be \
         reached ({error})"
    );
}

/// Leaves the foreground. The pid file is written now, or after the thaw if it may be on a frozen file system.
fn become_daemon(path: &Path, freezer: &Freezer) -> Result<HeldPidFile, String> {
    let pid_file = HeldPidFile::default();
    let slot = Arc::clone(&pid_file);
    let hold = move |file| *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    if !freezer.refuses_commands() {
        daemonize(|| PidFile::write(path).map(hold))?;
        return Ok(pid_file);
    }
    daemonize(|| Ok(()))?;
    let path = path.to_owned();
    let write = move || PidFile::write(&path).map_or_else(|error| log::error!("{error}"), hold);
    freezer.when_thawed(write);
    Ok(pid_file)
}

fn open_channel(settings: &Settings, activation: Option<Activation>) -> Result<Channel, String> {
    match activation {
        Some(activation) => Ok(Channel::Listener(activation.into_listener(&settings.vsock_allow))),
        None => {
            let path = settings.channel_path()?;
            Channel::open(&settings.method, &path, settings.retry_path, &settings.vsock_allow)
        }
    }
}

/// Writes to standard output.
pub(crate) fn print(text: &[u8]) -> Result<(), Vec<String>> {
    io::stdout()
        .write_all(text)
        .map_err(|error| vec![format!("failed to write to standard output: {}", errno::describe(error))])
}
