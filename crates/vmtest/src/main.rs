//! Boots a VM for a person or a script, or describes the machine it runs on.
//!
//! `vmtest boot` says where the agent can be reached and how long it took from start to its first reply, and runs until
//! its input ends. With a command after `--` it runs that instead, with the socket in `QGA_SOCKET`, ends the VM after
//! it, and exits with its status. `vmtest capture` boots nothing; what it prints belongs in a report of a bug.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::{Command, ExitCode, ExitStatus},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use lexopt::prelude::*;
use vmtest::{
    image::Image,
    needs::Needs,
    vm::{BOOT_DEADLINE, Builder},
};

const USAGE: &str = "\
usage: vmtest boot [--socket PATH] [--machine TYPE] [--reference] [-- COMMAND [ARGUMENT...]]
       vmtest capture

  capture          print the files of this machine that qgad reads of its disks, as text
  --socket PATH    where the host's end of the agent's port is to be
  --machine TYPE   QEMU's machine type, pc or q35
  --reference      boot Debian's qemu-ga instead of qgad
  COMMAND          what to run while the VM runs, with the socket in QGA_SOCKET;
                   without it, the VM runs until standard input ends

QGAD names the agent's program, VMTEST_ACCEL QEMU's accelerator.
";

#[derive(Debug, Default)]
struct Options {
    socket: Option<PathBuf>,
    machine: Option<String>,
    is_reference: bool,
    command: Vec<std::ffi::OsString>,
}

fn main() -> ExitCode {
    if std::env::args_os().skip(1).eq(["capture"]) {
        return capture();
    }
    let outcome = match parse() {
        Ok(Some(options)) => boot(options),
        Ok(None) => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(error),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("vmtest: {error:#}");
        ExitCode::FAILURE
    })
}

fn capture() -> ExitCode {
    match vmtest::capture::machine("/".as_ref()) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("vmtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse() -> Result<Option<Options>> {
    let mut options = Options::default();
    let mut parser = lexopt::Parser::from_env();
    let mut is_boot = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Value(word) if word == "boot" && !is_boot => is_boot = true,
            Value(word) if is_boot => {
                options.command.push(word);
                options.command.extend(parser.raw_args()?);
            }
            Long("socket") => options.socket = Some(parser.value()?.into()),
            Long("machine") => options.machine = Some(parser.value()?.string()?),
            Long("reference") => options.is_reference = true,
            other => bail!("{}\n{USAGE}", other.unexpected()),
        }
    }
    if is_boot { Ok(Some(options)) } else { bail!("nothing to do\n{USAGE}") }
}

fn boot(options: Options) -> Result<ExitCode> {
    let needs = Needs::collect().map_err(|missing| anyhow::anyhow!(missing.join("\n")))?;
    let image = Image::build(&needs)?;
    let mut builder = Builder::new(&image, "boot").socket(options.socket);
    if let Some(machine) = &options.machine {
        builder = builder.machine(machine);
    }
    if options.is_reference {
        builder = builder.agent(image.reference.as_deref().context("qemu-ga is not installed")?);
    }
    say(&format!("booting a VM with Linux {} and the agent inside", needs.kernel.release))?;
    let started = Instant::now();
    let vm = builder.start()?;
    say(&format!("socket: {}", vm.socket().display()))?;
    let answered = vm.client()?.sync(Instant::now() + BOOT_DEADLINE);
    vm.explain(answered.context("the agent does not answer"))?;
    say(&format!("boot to first reply: {:.1} s", started.elapsed().as_secs_f64()))?;
    let Some((program, arguments)) = options.command.split_first() else {
        say("ready; the VM runs until standard input ends")?;
        io::copy(&mut io::stdin(), &mut io::sink())?;
        return Ok(ExitCode::SUCCESS);
    };
    let status = Command::new(program)
        .args(arguments)
        .env("QGA_SOCKET", vm.socket())
        .status()
        .with_context(|| format!("failed to run {}", program.display()))?;
    Ok(exit_code(status))
}

/// A line for whoever waits, at once even through a pipe.
fn say(line: &str) -> io::Result<()> {
    let mut output = io::stdout();
    writeln!(output, "{line}")?;
    output.flush()
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
