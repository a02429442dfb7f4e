//! qgactl's manual page and shell completions, which are checked in and compared with the program.
//!
//! They are made from the definition of the command line; `UPDATE_DOCS=1 cargo test -p qgactl published` writes them
//! anew.
//! The completions also know the machines of the host. clap cannot generate that, so it is put into its scripts. The
//! names are claims of other users' processes, so no shell may expand them.

use std::{
    env, fs,
    path::Path,
    process::{Command as Program, Stdio},
};

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use crate::{Cli, failure::STATUS_HELP};

/// The whole page: that of the program, and behind it a section for each subcommand.
fn page() -> String {
    let program = Cli::command().after_help(None::<&str>);
    let mut page = Vec::new();
    let man = Man::new(program.clone()).section("1");
    man.render_title(&mut page).unwrap();
    man.render_name_section(&mut page).unwrap();
    man.render_synopsis_section(&mut page).unwrap();
    man.render_description_section(&mut page).unwrap();
    man.render_options_section(&mut page).unwrap();
    let mut page = String::from_utf8(page).unwrap();
    page += ".SH SUBCOMMANDS\n";
    page += &sections(&program, "");
    page += ".SH \"EXIT STATUS\"\n.nf\n";
    for line in STATUS_HELP.lines().skip(1) {
        page += &format!("{}\n", line.replace('-', "\\-"));
    }
    page += ".fi\n.SH SEE ALSO\n.BR qgad (8)\n";
    page
}

/// A section for each subcommand, and behind it one for each of its own.
fn sections(command: &Command, parent: &str) -> String {
    let each = command.get_subcommands().map(|subcommand| {
        let name = format!("{parent}{}", subcommand.get_name());
        section(subcommand, &name) + &sections(subcommand, &format!("{name} "))
    });
    each.collect()
}

fn section(subcommand: &Command, name: &str) -> String {
    let mut text = Vec::new();
    let man = Man::new(subcommand.clone().bin_name(format!("qgactl TARGET {name}")).disable_help_flag(true));
    man.render_synopsis_section(&mut text).unwrap();
    text.extend(b".PP\n");
    man.render_description_section(&mut text).unwrap();
    man.render_options_section(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    // The page has one section for each, so that their own sections have no titles.
    let text: String = text.lines().filter(|line| !line.starts_with(".SH")).map(|line| format!("{line}\n")).collect();
    format!(".SS {}\n{}", name.replace('-', "\\-"), text)
}

#[test]
fn the_manual_page_is_current() {
    check("man/qgactl.1", &page());
}

#[test]
fn the_manual_page_names_every_subcommand() {
    for subcommand in Cli::command().get_subcommands() {
        let title = format!(".SS {}\n", subcommand.get_name().replace('-', "\\-"));
        assert!(page().contains(&title), "{title}");
    }
}

#[test]
fn the_completions_are_current() {
    for (shell, file) in [(Shell::Bash, "qgactl.bash"), (Shell::Zsh, "_qgactl"), (Shell::Fish, "qgactl.fish")] {
        check(&format!("completions/{file}"), &completions(shell));
    }
}

fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "qgactl", &mut script);
    with_machines(shell, std::str::from_utf8(&script).unwrap())
}

/// Replaces what clap completes for `--machine` and `-M`, wherever the two are known.
fn with_machines(shell: Shell, script: &str) -> String {
    let (generated, ours) = match shell {
        Shell::Bash => (r#"COMPREPLY=($(compgen -f "${cur}"))"#, "_qgactl_machines"),
        Shell::Zsh => (":NAME:_default'", r#":NAME:{compadd -- ${(f)"$(qgactl list --names 2>/dev/null)"}}'"#),
        _ => (" -r", " -r -f -a '(qgactl list --names 2>/dev/null)'"),
    };
    let mut completed = String::new();
    let mut is_next = false;
    let mut count = 0;
    for line in script.lines() {
        let is_of_machine =
            is_next || line.starts_with("'--machine=[") || line.starts_with("'-M+[") || line.contains(" -l machine ");
        is_next = matches!(line.trim(), "--machine)" | "-M)");
        if is_of_machine {
            assert!(line.contains(generated), "{line}");
            completed += &line.replace(generated, ours);
            count += 1;
        } else {
            completed += line;
        }
        completed += "\n";
    }
    assert!(count > Cli::command().get_subcommands().count(), "{shell} knows --machine {count} times only");
    match shell {
        Shell::Bash => BASH_MACHINES.to_owned() + &completed,
        _ => completed,
    }
}

/// Not `compgen -W`, which expands the words.
const BASH_MACHINES: &str = r#"_qgactl_machines() {
    local name
    while IFS= read -r name; do
        if [[ $name == "${cur}"* ]]; then COMPREPLY+=("$(printf %q "$name")"); fi
    done < <(qgactl list --names 2>/dev/null)
}

"#;

#[test]
fn bash_completes_the_names_of_machines_and_executes_none() {
    let directory = tempfile::tempdir().unwrap();
    let completions = completions(Shell::Bash);
    let script = format!(
        r#"{completions}
        qgactl() {{ printf '%s\n' web1 'web $(touch executed)' db; }}
        for option in -M --machine; do
            COMP_WORDS=(qgactl $option we) COMP_CWORD=2 COMPREPLY=()
            _qgactl qgactl we $option
            printf '%s\n' "${{COMPREPLY[@]}}"
        done"#
    );
    let bash = Program::new("bash").args(["-c", &script]).current_dir(&directory).stdin(Stdio::null()).output();
    let expected = "web1\nweb\\ \\$\\(touch\\ executed\\)\n".repeat(2);
    assert_eq!(String::from_utf8(bash.unwrap().stdout).unwrap(), expected);
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
}

#[track_caller]
fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let published = fs::read_to_string(&path).unwrap_or_default();
    assert!(published == text, "docs/{name} is out of date: set UPDATE_DOCS=1, run this test again, review the diff");
}
