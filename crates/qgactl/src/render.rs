//! Replies as people read them.

use qga::commands::session::AgentInfo;

/// The agent's version, and its commands by name with what stands in the way of each.
pub(crate) fn agent_info(info: &AgentInfo) -> String {
    let mut commands: Vec<_> = info.supported_commands.iter().collect();
    commands.sort_by_key(|command| &command.name);
    let width = commands.iter().map(|command| command.name.len()).max().unwrap_or(0);
    let enabled = commands.iter().filter(|command| command.enabled).count();
    let mut text = format!("version   {}\ncommands  {} known, {enabled} enabled\n", info.version, commands.len());
    for command in commands {
        let state = if command.enabled { "enabled" } else { "disabled" };
        let silence = if command.success_response { "" } else { ", answers failures only" };
        text += &format!("  {:width$}  {state}{silence}\n", command.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use qga::commands::session::CommandInfo;

    use super::*;

    fn command(name: &str, enabled: bool, success_response: bool) -> CommandInfo {
        CommandInfo { name: name.into(), enabled, success_response }
    }

    #[test]
    fn commands_stand_in_order_with_what_hinders_them() {
        let info = AgentInfo {
            version: "1.2.3".into(),
            supported_commands: vec![
                command("guest-shutdown", true, false),
                command("guest-exec", false, true),
                command("guest-ping", true, true),
            ],
        };
        let expected = "\
version   1.2.3
commands  3 known, 2 enabled
  guest-exec      disabled
  guest-ping      enabled
  guest-shutdown  enabled, answers failures only
";
        assert_eq!(agent_info(&info), expected);
    }

    #[test]
    fn an_agent_without_commands_is_shown_too() {
        let info = AgentInfo { version: "1".into(), supported_commands: Vec::new() };
        assert_eq!(agent_info(&info), "version   1\ncommands  0 known, 0 enabled\n");
    }
}
