//! What is measured, and how.

use std::{
    fs,
    io::Write,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{
    agent::{Binary, Server},
    client::{Client, request},
    jobs, metrics, mounts, network, port, sysfs,
};

/// How long an agent is left alone before it counts as settled.
const SETTLE: Duration = Duration::from_millis(2000);
/// How long wake-ups and processor time are watched.
const WATCH: Duration = Duration::from_secs(5);
/// Pings sent without waiting for replies.
const PIPELINED: usize = 20_000;
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// One line of the table.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: f64,
    pub(crate) theirs: f64,
    pub(crate) floor: Option<f64>,
    pub(crate) target: Target,
}

/// What a row must show.
pub(crate) enum Target {
    /// At least so many times the reference's figure.
    AtLeast(f64),
    /// At most so many times the reference's figure.
    AtMost(f64),
    /// At most so many times the floor's figure.
    FloorTimes(f64),
    /// At most this figure.
    Absolute(f64),
    /// Nothing is promised.
    None,
}

/// Takes all measurements, or those whose name holds `only`.
pub(crate) fn measure(ours: &Binary, theirs: &Binary, only: Option<&str>) -> anyhow::Result<Vec<Row>> {
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    let mut rows = Vec::new();
    let mut add = |what: &str, unit, target, figures: [f64; 2], floor| {
        eprintln!("{what}: {:.3} and {:.3} {unit}", figures[0], figures[1]);
        rows.push(Row { what: what.into(), unit, ours: figures[0], theirs: figures[1], floor, target });
    };
    let (first, second) = (ours.start()?.0, theirs.start()?.0);
    let servers = [&first, &second];
    if wanted("ping") {
        let (echo, _) = Binary::echo()?.start()?;
        let ping = request("guest-ping", &json!({}));
        let mut clients = [first.connect()?, second.connect()?, echo.connect()?];
        let [ours, theirs, floor] = in_turns(20_000, &mut clients, |client| client.exchange(&ping).map(|_| ()))?;
        add("ping, round trip", "µs", Target::FloorTimes(1.15), [ours * 1e6, theirs * 1e6], Some(floor * 1e6));
        // The reference serves one peer at a time.
        drop(clients);
        let mut clients = [first.connect()?, second.connect()?];
        let figures = in_turns(5, &mut clients, |client| pipeline(client, &ping))?;
        let rate = |seconds: f64| 1e-3 * (PIPELINED as f64) / seconds;
        add("pings, pipelined", "1000/s", Target::AtLeast(10.0), figures.map(rate), None);
    }
    let content = first.directory.path().join("content");
    fs::write(&content, vec![b'x'; 48 * MIB])?;
    for (size, samples, target) in [
        (4 * KIB, 2000, Target::None),
        (64 * KIB, 1000, Target::AtLeast(8.0)),
        (MIB, 100, Target::AtLeast(12.0)),
        (8 * MIB, 20, Target::None),
        (48 * MIB, 8, Target::AtLeast(15.0)),
    ] {
        let name = format!("file read, {}", spell_size(size));
        if wanted(&name) {
            let mut readers = Transfer::open(servers, &content.to_string_lossy(), "r", |handle| {
                request("guest-file-read", &json!({ "handle": handle, "count": size }))
            })?;
            let figures = in_turns_prepared(samples, &mut readers, Transfer::rewind, Transfer::go)?;
            add(&name, "MiB/s", target, figures.map(|seconds| rate(size, seconds)), None);
        }
    }
    for (size, samples, target) in
        [(60 * KIB, 1000, Target::AtLeast(15.0)), (MIB, 60, Target::AtLeast(25.0)), (8 * MIB, 20, Target::None)]
    {
        let name = format!("file write, {}", spell_size(size));
        if wanted(&name) {
            let text = qga::wire::base64::Base64::from(vec![b'x'; size]);
            let mut writers = Transfer::open(servers, "written", "w", |handle| {
                request("guest-file-write", &json!({ "handle": handle, "buf-b64": text }))
            })?;
            let figures = in_turns_prepared(samples, &mut writers, Transfer::rewind, Transfer::go)?;
            add(&name, "MiB/s", target, figures.map(|seconds| rate(size, seconds)), None);
        }
    }
    if wanted("exec") {
        let mut clients = [first.connect()?, second.connect()?];
        let figures = in_turns(300, &mut clients, run_true)?;
        add("exec of /bin/true until its end is told", "µs", Target::None, figures.map(|it| it * 1e6), None);
    }
    for (name, target, take) in [
        ("job: a key typed until its echo is read, to a ping", 3.0, jobs::type_keys as fn(&Server) -> _),
        ("job: 32 MiB of output, to the same file read", 1.43, jobs::read_output),
        ("job: 32 MiB of input, to the same file written", 2.0, jobs::write_input),
        ("job: /bin/true until its end is told, to exec", 1.5, jobs::run_short),
    ] {
        if wanted(name) {
            let [job, floor] = take(&first)?.map(|seconds: f64| seconds * 1e6);
            add(name, "µs", Target::FloorTimes(target), [job, f64::NAN], Some(floor));
        }
    }
    for (count, target) in [(1000, Target::AtLeast(100.0)), (2000, Target::None)] {
        let name = format!("network interfaces, {count}");
        if wanted(&name) {
            let figures = network::list_interfaces(ours, theirs, count)?;
            add(&name, "1/s", target, figures.map(f64::recip), None);
        }
    }
    for (name, devices, mounts, target) in [
        ("file systems, 500", 500, 0, Target::None),
        ("file systems, 1000", 1000, 0, Target::AtLeast(20.0)),
        ("file systems, 1 with 1000 mounts", 1, 999, Target::None),
    ] {
        if wanted(name) {
            let figures = mounts::list_file_systems(ours, theirs, devices, mounts)?;
            add(name, "1/s", target, figures.map(f64::recip), None);
        }
    }
    if wanted("processors, 512") {
        let figures = sysfs::list_processors(ours, theirs, 512)?;
        add("processors, 512", "1/s", Target::None, figures.map(f64::recip), None);
    }
    if wanted("memory blocks, 1000") {
        let figures = sysfs::list_memory_blocks(ours, theirs, 1000)?;
        add("memory blocks, 1000", "1/s", Target::None, figures.map(f64::recip), None);
    }
    if wanted("metrics") {
        let [ours, theirs, dearest] = metrics::poll(&first, &second)?.map(|seconds| seconds * 1e6);
        let name = "metrics, in one request and in six; floor: the dearest of these";
        add(name, "µs", Target::FloorTimes(1.5), [ours, theirs], Some(dearest));
    }
    if wanted("start") {
        let figures = in_turns_timed(30, &mut [ours, theirs], |binary| binary.start().map(|(_, took)| took))?;
        add("start until the first reply", "ms", Target::AtMost(0.5), figures.map(|it| it * 1e3), None);
    }
    for name in ["memory, idle", "memory, at the peak of a 48 MiB read", "memory, settled after a 48 MiB read"] {
        if wanted(name) {
            let target = if name.ends_with("idle") { Target::AtMost(0.6) } else { Target::None };
            let figures = [memory(ours, name, &content)?, memory(theirs, name, &content)?];
            add(name, "KiB", target, figures, None);
        }
    }
    if wanted("settled, per idle") {
        let settled = |binary: &Binary| -> anyhow::Result<f64> {
            Ok(memory(binary, "memory, settled", &content)? / memory(binary, "memory, idle", &content)?)
        };
        add("memory settled, per idle", "×", Target::Absolute(1.5), [settled(ours)?, settled(theirs)?], None);
    }
    if wanted("processor") {
        let figures = [stalled(&first, &content)?, stalled(&second, &content)?];
        add("processor time while the host does not read", "%", Target::Absolute(0.0), figures, None);
    }
    if wanted("wake-ups") {
        let figures = [wake_ups(ours)?, wake_ups(theirs)?];
        add("wake-ups, idle with a host connected", "1/s", Target::Absolute(0.0), figures, None);
    }
    if wanted("wake-ups") {
        match (port::wake_ups(ours)?, port::wake_ups(theirs)?) {
            (Some(ours), Some(theirs)) => {
                let name = "wake-ups, on a virtio port with no host";
                add(name, "1/s", Target::Absolute(0.0), [ours, theirs], None);
            }
            _ => eprintln!("no VM can be booted, so no wake-ups in one are counted"),
        }
    }
    if wanted("binary") {
        let size = |binary: &Binary| -> anyhow::Result<f64> { Ok(fs::metadata(&binary.path)?.len() as f64 / 1024.0) };
        add("binary, size", "KiB", Target::Absolute(1024.0), [size(ours)?, size(theirs)?], None);
        let figures = [libraries(ours)?, libraries(theirs)?];
        add("binary, shared libraries with what they need", "", Target::None, figures, None);
    }
    Ok(rows)
}

/// Runs all in turns, and returns the lower quartile of the seconds that each took: the speed of the machine without
/// other load, but not the best sample.
pub(crate) fn in_turns<T, const N: usize>(
    samples: usize,
    subjects: &mut [T; N],
    run: impl FnMut(&mut T) -> anyhow::Result<()>,
) -> anyhow::Result<[f64; N]> {
    in_turns_prepared(samples, subjects, |_| Ok(()), run)
}

/// As [`in_turns`], after something that does not count.
fn in_turns_prepared<T, const N: usize>(
    samples: usize,
    subjects: &mut [T; N],
    mut prepare: impl FnMut(&mut T) -> anyhow::Result<()>,
    mut run: impl FnMut(&mut T) -> anyhow::Result<()>,
) -> anyhow::Result<[f64; N]> {
    in_turns_timed(samples, subjects, |subject| {
        prepare(subject)?;
        let begin = Instant::now();
        run(subject)?;
        Ok(begin.elapsed())
    })
}

/// As [`in_turns`], of what tells itself how long it took.
fn in_turns_timed<T, const N: usize>(
    samples: usize,
    subjects: &mut [T; N],
    mut run: impl FnMut(&mut T) -> anyhow::Result<Duration>,
) -> anyhow::Result<[f64; N]> {
    let mut times = [const { Vec::new() }; N];
    // The first tenth warms up; turns of several keep a subject's caches as warm as in its usual work.
    const TURN: usize = 10;
    let warm_up = samples / 10;
    let mut taken = 0;
    while taken < samples + warm_up {
        for (subject, times) in subjects.iter_mut().zip(&mut times) {
            for _ in 0..TURN.min(samples) {
                let took = run(subject)?;
                if taken >= warm_up {
                    times.push(took.as_secs_f64());
                }
            }
        }
        taken += TURN.min(samples);
    }
    Ok(times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 4]
    }))
}

fn pipeline(client: &mut Client, ping: &[u8]) -> anyhow::Result<()> {
    let mut sender = client.stream.try_clone()?;
    let all = ping.repeat(PIPELINED);
    let sending = thread::spawn(move || sender.write_all(&all));
    let mut replies = 0;
    while replies < PIPELINED {
        replies += client.read_piece()?.iter().filter(|&&byte| byte == b'\n').count();
    }
    sending.join().ok().context("the sender is gone")??;
    Ok(())
}

/// A request about an open file, to be sent again and again.
struct Transfer {
    client: Client,
    rewind: Vec<u8>,
    request: Vec<u8>,
}

impl Transfer {
    fn open(
        servers: [&Server; 2],
        path: &str,
        mode: &str,
        spell: impl Fn(&Value) -> Vec<u8>,
    ) -> anyhow::Result<[Self; 2]> {
        let open = |server: &Server| -> anyhow::Result<Self> {
            let mut client = server.connect()?;
            let path = server.directory.path().join(path);
            let handle = client.call("guest-file-open", &json!({ "path": path, "mode": mode }))?;
            let rewind = request("guest-file-seek", &json!({ "handle": handle, "offset": 0, "whence": 0 }));
            Ok(Self { client, rewind, request: spell(&handle) })
        };
        Ok([open(servers[0])?, open(servers[1])?])
    }

    fn rewind(&mut self) -> anyhow::Result<()> {
        self.client.exchange(&self.rewind).map(|_| ())
    }

    fn go(&mut self) -> anyhow::Result<()> {
        self.client.exchange(&self.request).map(|_| ())
    }
}

pub(crate) fn run_true(client: &mut Client) -> anyhow::Result<()> {
    let started = client.call("guest-exec", &json!({ "path": "/bin/true" }))?;
    let status = json!({ "pid": started["pid"] });
    while client.call("guest-exec-status", &status)?["exited"] != true {}
    Ok(())
}

fn memory(binary: &Binary, when: &str, content: &std::path::Path) -> anyhow::Result<f64> {
    let (server, _) = binary.start()?;
    let mut client = server.connect()?;
    client.call("guest-ping", &json!({}))?;
    if !when.ends_with("idle") {
        let handle = client.call("guest-file-open", &json!({ "path": content }))?;
        let read = request("guest-file-read", &json!({ "handle": handle, "count": 48 * MIB }));
        let length = client.exchange(&read)?;
        ensure!(length > 64 * MIB, "the read was not whole");
    }
    thread::sleep(SETTLE);
    server.memory(if when.contains("peak") { "VmHWM" } else { "VmRSS" }).map(|kib| kib as f64)
}

/// The share of one processor that an agent uses whose host has asked for much and does not read it.
fn stalled(server: &Server, content: &std::path::Path) -> anyhow::Result<f64> {
    let mut client = server.connect()?;
    let handle = client.call("guest-file-open", &json!({ "path": content }))?;
    client.stream.write_all(&request("guest-file-read", &json!({ "handle": handle, "count": 48 * MIB })))?;
    client.stream.write_all(&request("guest-ping", &json!({})).repeat(100))?;
    // Reading the file and making the reply is work; what follows is waiting.
    let deadline = Instant::now() + WATCH;
    let mut before = server.ticks()?;
    loop {
        thread::sleep(SETTLE);
        let now = server.ticks()?;
        if now == before || Instant::now() > deadline {
            break;
        }
        before = now;
    }
    let before = server.ticks()?;
    thread::sleep(WATCH);
    let ticks_a_second = 100.0;
    Ok((server.ticks()? - before) as f64 / ticks_a_second / WATCH.as_secs_f64() * 100.0)
}

fn wake_ups(binary: &Binary) -> anyhow::Result<f64> {
    let (server, _) = binary.start()?;
    let mut client = server.connect()?;
    client.call("guest-ping", &json!({}))?;
    thread::sleep(SETTLE);
    let before = server.sleeps()?;
    thread::sleep(WATCH);
    Ok((server.sleeps()? - before) as f64 / WATCH.as_secs_f64())
}

fn libraries(binary: &Binary) -> anyhow::Result<f64> {
    let output = Command::new("ldd").arg(&binary.path).output().context("ldd is needed")?;
    let lines = String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains(" => /")).count();
    Ok(lines as f64)
}

fn rate(bytes: usize, seconds: f64) -> f64 {
    bytes as f64 / seconds / MIB as f64
}

fn spell_size(bytes: usize) -> String {
    if bytes >= MIB { format!("{} MiB", bytes / MIB) } else { format!("{} KiB", bytes / KIB) }
}
