//! qgactl's manual page and shell completions, which are checked in and compared with the program.
//!
//! They are made from the definition of the command line; `UPDATE_DOCS=1 cargo test -p qgactl published` writes them
//! anew.

use std::{env, fs, path::Path};

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
        let mut script = Vec::new();
        generate(shell, &mut Cli::command(), "qgactl", &mut script);
        check(&format!("completions/{file}"), std::str::from_utf8(&script).unwrap());
    }
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
