//! `qgactl users`: who is logged in.

use clap::Args;
use qga::{
    Command,
    commands::users::{GetUsers, LoggedInUser},
};

use super::{AgentSubcommand, call, print};
use crate::{connect::Agent, render, table::table};

/// Show who is logged in, and since when
#[derive(Args, Debug)]
pub(crate) struct Users {}

impl AgentSubcommand for Users {
    const HAS_JSON: bool = true;

    fn run_with(&self, agent: &mut Agent, json: bool) -> anyhow::Result<()> {
        if json {
            return call::print_received(agent, GetUsers::SPEC.name);
        }
        print(&describe(&agent.call(&GetUsers {})?))
    }
}

fn describe(users: &[LoggedInUser]) -> String {
    let row = |user: &LoggedInUser| {
        let name = user.domain.iter().map(|domain| format!("{domain}\\")).collect::<String>() + &user.user;
        #[expect(clippy::cast_possible_truncation, reason = "a number that is no time is shown as some time")]
        let seconds = user.login_time.floor() as i64;
        vec![name, format!("{} UTC", render::utc(seconds))]
    };
    table(&["user", "since"], &users.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_a_row() {
        let user = |user: &str, login_time, domain: Option<&str>| LoggedInUser {
            user: user.into(),
            login_time,
            domain: domain.map(Into::into),
        };
        let users = [user("ann", 1_700_000_000.75, None), user("bob", f64::NAN, Some("OFFICE"))];
        let expected = "\
user        since
ann         2023-11-14 22:13:20 UTC
OFFICE\\bob  1970-01-01 00:00:00 UTC
";
        assert_eq!(describe(&users), expected);
    }
}
