//! fs, disks and trim, against both agents and against answers made for the purpose. Nothing is trimmed here: it would
//! be the machine that the tests run on.

mod support;

use support::Agent;

#[test]
fn both_agents_are_shown() {
    for agent in Agent::each(&[]) {
        for (subcommand, head) in [("fs", "mounted on  "), ("disks", "disk  ")] {
            assert!(agent.qgactl(&[subcommand]).success().starts_with(head));
        }
    }
}

#[test]
fn json_is_the_reply_as_received() {
    let agent = Agent::scripted(|request| {
        let name = request["execute"].as_str().unwrap();
        Some(format!(r#"{{"return": ["{name}", 1.50]}}"#))
    });
    for (subcommand, command) in [("fs", "guest-get-fsinfo"), ("disks", "guest-get-disks"), ("trim", "guest-fstrim")] {
        assert_eq!(agent.qgactl(&[subcommand, "--json"]).success(), format!("[\"{command}\", 1.50]\n"));
    }
}

#[test]
fn a_bus_that_is_not_known_yet_and_members_of_the_future_are_no_error() {
    let agent = Agent::scripted(|_| {
        Some(
            r#"{"return": [{"name": "vda", "mountpoint": "/", "type": "ext4", "future": 1, "disk": [{"pci-controller":
            {"domain": -1, "bus": -1, "slot": -1, "function": -1}, "bus-type": "photon", "bus": 0, "target": 0,
            "unit": 0, "dev": "/dev/vda"}]}]}"#
                .replace('\n', ""),
        )
    });
    assert!(agent.qgactl(&["fs"]).success().ends_with("/dev/vda\n"));
}

#[test]
fn disks_that_are_made_of_each_other_are_shown_once_each() {
    let name = |number: usize| format!("\"d{number}\"");
    let all = (0..14).map(name).collect::<Vec<_>>().join(", ");
    let disk = |number| format!(r#"{{"name": {}, "partition": false, "dependencies": [{all}]}}"#, name(number));
    let bottom = format!(r#"{{"name": {}, "partition": false}}"#, name(13));
    let reply = format!(r#"{{"return": [{}, {bottom}]}}"#, (0..13).map(disk).collect::<Vec<_>>().join(", "));
    let text = Agent::scripted(move |_| Some(reply.clone())).qgactl(&["disks"]).success();
    assert_eq!(text.lines().filter(|line| line.contains("virtual")).count(), 14, "{text}");
    assert!(text.lines().count() < 14 * 14 + 2, "{text}");
}

#[test]
fn a_minimum_is_passed_on_and_is_a_number_of_bytes() {
    let agent = Agent::scripted(|request| {
        let minimum = &request["arguments"]["minimum"];
        Some(format!(r#"{{"return": {{"paths": [{{"path": "/", "trimmed": 0, "minimum": {minimum}}}]}}}}"#))
    });
    let text = agent.qgactl(&["trim", "--minimum", "65536"]).success();
    assert_eq!(text.lines().nth(1), Some("/               0 B  64.00 KiB"));
    assert!(agent.qgactl(&["trim", "--minimum", "1024", "--json"]).success().contains(r#""minimum": 1024"#));
    for wrong in ["-1", "1k", "", "9223372036854775808"] {
        agent.qgactl(&["trim", &format!("--minimum={wrong}")]).check(2, "--minimum");
    }
}
