# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_qgactl_global_optspecs
    string join \n M/machine= all only= socket= vsock= json timeout= h/help V/version
end

function __fish_qgactl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_qgactl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_qgactl_using_subcommand
    set -l cmd (__fish_qgactl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c qgactl -n "__fish_qgactl_needs_command" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_needs_command" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_needs_command" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_needs_command" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_needs_command" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_needs_command" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_needs_command" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_needs_command" -s V -l version -d 'Print version'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "list" -d 'List the virtual machines of this host, how each is reached, and what its agent says'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "info" -d 'Show the agent\'s version and its commands'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "ping" -d 'Ping the agent, and show the round-trip time'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "call" -d 'Run any command of the protocol, and print its `return`'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "exec" -d 'Run a program in the guest as if it ran here, and exit with its exit status'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "shell" -d 'Run the login shell of a user on a terminal, which is shown on ours'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "jobs" -d 'Show the programs that were started as jobs, or do something with one of them'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "pull" -d 'Copy a file from the guest to the host'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "push" -d 'Copy a file from the host to the guest'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "cat" -d 'Print a file in the guest'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "net" -d 'Show the guest\'s network interfaces and their addresses'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "routes" -d 'Show the guest\'s routes'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "cpus" -d 'Show the guest\'s processors, after taking some of them on or off line if asked to'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "memory" -d 'Show the guest\'s memory blocks'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "stats" -d 'Show the guest\'s load average, and how its processors have spent their time'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "metrics" -d 'Show memory, load, pressure, the fullest file system and the state of each machine'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "fs" -d 'Show the guest\'s mounted file systems, their use, and the disks beneath them'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "disks" -d 'Show the guest\'s disks, their partitions, and the devices built on them'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "trim" -d 'Discard the unused blocks of the guest\'s file systems, so that the host can reuse them'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "freeze" -d 'Freeze the guest\'s file systems, so that a copy of its disks is consistent'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "thaw" -d 'Thaw the guest\'s file systems; fails if the freeze has ended by itself'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "time" -d 'Show the guest\'s time and its offset from the host\'s, after setting it if asked to'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "users" -d 'Show who is logged in, and since when'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "passwd" -d 'Set a user\'s password; qgactl prompts for it'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "ssh-keys" -d 'Show or change the public keys that SSH accepts for a user'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "shutdown" -d 'Shut the guest down through its own operating system, and power it off'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "suspend" -d 'Suspend the guest; the hypervisor wakes it up'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "wait" -d 'Wait until the agent answers [default timeout: 300]'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "doctor" -d 'Diagnose the connection, the agent and the commands it refuses'
complete -c qgactl -n "__fish_qgactl_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c qgactl -n "__fish_qgactl_using_subcommand list" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand list" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand list" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand list" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand list" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand list" -l names -d 'Print the names only, and ask no agent'
complete -c qgactl -n "__fish_qgactl_using_subcommand list" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand list" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand info" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand info" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand info" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand info" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand info" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand info" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand info" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand info" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand ping" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand ping" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand ping" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand ping" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand ping" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand ping" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand ping" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand ping" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand call" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand call" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand call" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand call" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand call" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand call" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand call" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand call" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand exec" -s u -l user -d 'Run as this user, with his groups and a login\'s environment; by default as the agent\'s, which is root' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand exec" -s w -l cwd -d 'Run in this directory of the guest' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand exec" -s e -l env -d 'Set an environment variable, besides those of the agent or of the login; repeatable' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand exec" -l stdin -d 'Pass this file to the program as standard input, - for our own' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand exec" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand exec" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand exec" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand exec" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand exec" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand exec" -s i -l interactive -d 'Pass our standard input to the program, as it comes; by default its input is empty'
complete -c qgactl -n "__fish_qgactl_using_subcommand exec" -s t -l tty -d 'Run it on a terminal, which is shown on ours'
complete -c qgactl -n "__fish_qgactl_using_subcommand exec" -l clear-env -d 'The program has only the variables given by --env, by env(1)'
complete -c qgactl -n "__fish_qgactl_using_subcommand exec" -s d -l detach -d 'Print the job\'s id and leave it; with --interactive, its input stays open for `jobs attach`'
complete -c qgactl -n "__fish_qgactl_using_subcommand exec" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand exec" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand exec" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand shell" -s u -l user -d 'Run as this user, with his groups and a login\'s environment; by default as the agent\'s, which is root' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand shell" -s w -l cwd -d 'Run in this directory of the guest' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand shell" -s e -l env -d 'Set an environment variable, besides those of the agent or of the login; repeatable' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand shell" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand shell" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand shell" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand shell" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand shell" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand shell" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand shell" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand shell" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and not __fish_seen_subcommand_from attach logs signal forget help" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and not __fish_seen_subcommand_from attach logs signal forget help" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and not __fish_seen_subcommand_from attach logs signal forget help" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and not __fish_seen_subcommand_from attach logs signal forget help" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and not __fish_seen_subcommand_from attach logs signal forget help" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and not __fish_seen_subcommand_from attach logs signal forget help" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and not __fish_seen_subcommand_from attach logs signal forget help" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and not __fish_seen_subcommand_from attach logs signal forget help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and not __fish_seen_subcommand_from attach logs signal forget help" -f -a "attach" -d 'Show a job\'s output from where it was left, until the job ends, and exit with its exit status'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and not __fish_seen_subcommand_from attach logs signal forget help" -f -a "logs" -d 'Print the output of a job that nobody has read yet, and keep it'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and not __fish_seen_subcommand_from attach logs signal forget help" -f -a "signal" -d 'Send a signal to all processes of a job'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and not __fish_seen_subcommand_from attach logs signal forget help" -f -a "forget" -d 'Forget jobs that have ended, with their output'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and not __fish_seen_subcommand_from attach logs signal forget help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from attach" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from attach" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from attach" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from attach" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from attach" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from attach" -s i -l interactive -d 'Pass our standard input to the job, as it comes; without, its input stays as it is'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from attach" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from attach" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from attach" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from logs" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from logs" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from logs" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from logs" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from logs" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from logs" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from logs" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from logs" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from signal" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from signal" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from signal" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from signal" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from signal" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from signal" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from signal" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from signal" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from forget" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from forget" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from forget" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from forget" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from forget" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from forget" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from forget" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from forget" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from help" -f -a "attach" -d 'Show a job\'s output from where it was left, until the job ends, and exit with its exit status'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from help" -f -a "logs" -d 'Print the output of a job that nobody has read yet, and keep it'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from help" -f -a "signal" -d 'Send a signal to all processes of a job'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from help" -f -a "forget" -d 'Forget jobs that have ended, with their output'
complete -c qgactl -n "__fish_qgactl_using_subcommand jobs; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c qgactl -n "__fish_qgactl_using_subcommand pull" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand pull" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand pull" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand pull" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand pull" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand pull" -l no-check -d 'Do not compare the copy with the guest\'s file, for instance because it keeps changing'
complete -c qgactl -n "__fish_qgactl_using_subcommand pull" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand pull" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand pull" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand push" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand push" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand push" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand push" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand push" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand push" -l no-check -d 'Do not compare the copy with the local file'
complete -c qgactl -n "__fish_qgactl_using_subcommand push" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand push" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand push" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand cat" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand cat" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand cat" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand cat" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand cat" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand cat" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand cat" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand cat" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand net" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand net" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand net" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand net" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand net" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand net" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand net" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand net" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand routes" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand routes" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand routes" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand routes" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand routes" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand routes" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand routes" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand routes" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand cpus" -l set -d 'Take processors on or off line, in the given order' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand cpus" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand cpus" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand cpus" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand cpus" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand cpus" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand cpus" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand cpus" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand cpus" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand memory" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand memory" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand memory" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand memory" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand memory" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand memory" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand memory" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand memory" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand stats" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand stats" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand stats" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand stats" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand stats" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand stats" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand stats" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand stats" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand metrics" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand metrics" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand metrics" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand metrics" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand metrics" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand metrics" -l prometheus -d 'Print everything in the text format of Prometheus. A machine that does not answer is `guest_up 0`, no failure'
complete -c qgactl -n "__fish_qgactl_using_subcommand metrics" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand metrics" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand metrics" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand fs" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand fs" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand fs" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand fs" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand fs" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand fs" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand fs" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand fs" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand disks" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand disks" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand disks" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand disks" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand disks" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand disks" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand disks" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand disks" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand trim" -l minimum -d 'Skip free extents smaller than this' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand trim" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand trim" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand trim" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand trim" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand trim" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand trim" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand trim" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand trim" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand freeze" -l mount -d 'Freeze only the file system at this mount point, as `qgactl fs` lists it; repeatable' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand freeze" -l lease -d 'End the freeze automatically after this many seconds [default: as qgad is configured; never with qemu-ga]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand freeze" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand freeze" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand freeze" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand freeze" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand freeze" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand freeze" -l run -d 'Run a program on this host, and thaw when it has ended for any reason; its own child processes are neither waited for nor ended'
complete -c qgactl -n "__fish_qgactl_using_subcommand freeze" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand freeze" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand freeze" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand thaw" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand thaw" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand thaw" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand thaw" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand thaw" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand thaw" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand thaw" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand thaw" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand time" -l set -d 'Set the guest\'s clocks to the host\'s time (now), or to seconds since 1970-01-01 UTC, with up to nine decimals' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand time" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand time" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand time" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand time" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand time" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand time" -l from-rtc -d 'Set the guest\'s system clock from its hardware clock'
complete -c qgactl -n "__fish_qgactl_using_subcommand time" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand time" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand time" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand users" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand users" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand users" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand users" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand users" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand users" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand users" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand users" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand passwd" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand passwd" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand passwd" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand passwd" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand passwd" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand passwd" -l stdin -d 'Read the password from standard input, up to the end of its first line'
complete -c qgactl -n "__fish_qgactl_using_subcommand passwd" -l crypted -d 'The input is not the password, but its hash as crypt(3) computes and mkpasswd prints it'
complete -c qgactl -n "__fish_qgactl_using_subcommand passwd" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand passwd" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand passwd" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand ssh-keys" -l add -d 'Add the public keys in a file, - for standard input; existing ones are not added again' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand ssh-keys" -l remove -d 'Remove the public keys in a file, - for standard input' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand ssh-keys" -l replace -d 'Replace all keys by the public keys in a file, - for standard input' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand ssh-keys" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand ssh-keys" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand ssh-keys" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand ssh-keys" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand ssh-keys" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand ssh-keys" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand ssh-keys" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand ssh-keys" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand shutdown" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand shutdown" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand shutdown" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand shutdown" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand shutdown" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand shutdown" -l reboot -d 'Reboot instead'
complete -c qgactl -n "__fish_qgactl_using_subcommand shutdown" -l halt -d 'Halt instead, without powering off'
complete -c qgactl -n "__fish_qgactl_using_subcommand shutdown" -l wait -d 'Wait until the guest is down, and after --reboot until its agent answers again [default timeout: 300]'
complete -c qgactl -n "__fish_qgactl_using_subcommand shutdown" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand shutdown" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand shutdown" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand suspend" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand suspend" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand suspend" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand suspend" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand suspend" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand suspend" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand suspend" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand suspend" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand wait" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand wait" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand wait" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand wait" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand wait" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand wait" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand wait" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand wait" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand doctor" -s M -l machine -d 'The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]' -r -f -a '(qgactl list --names 2>/dev/null)'
complete -c qgactl -n "__fish_qgactl_using_subcommand doctor" -l only -d 'The one of several machines that this run is for' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand doctor" -l socket -d 'The unix socket behind the VM\'s serial port' -r -F
complete -c qgactl -n "__fish_qgactl_using_subcommand doctor" -l vsock -d 'The agent\'s vsock address, both parts decimal' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand doctor" -l timeout -d 'How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30 for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default: no limit]' -r
complete -c qgactl -n "__fish_qgactl_using_subcommand doctor" -l all -d 'All VMs of this host'
complete -c qgactl -n "__fish_qgactl_using_subcommand doctor" -l json -d 'Print the `return` of the agent\'s reply as it was received; for list, print an array'
complete -c qgactl -n "__fish_qgactl_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "list" -d 'List the virtual machines of this host, how each is reached, and what its agent says'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "info" -d 'Show the agent\'s version and its commands'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "ping" -d 'Ping the agent, and show the round-trip time'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "call" -d 'Run any command of the protocol, and print its `return`'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "exec" -d 'Run a program in the guest as if it ran here, and exit with its exit status'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "shell" -d 'Run the login shell of a user on a terminal, which is shown on ours'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "jobs" -d 'Show the programs that were started as jobs, or do something with one of them'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "pull" -d 'Copy a file from the guest to the host'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "push" -d 'Copy a file from the host to the guest'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "cat" -d 'Print a file in the guest'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "net" -d 'Show the guest\'s network interfaces and their addresses'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "routes" -d 'Show the guest\'s routes'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "cpus" -d 'Show the guest\'s processors, after taking some of them on or off line if asked to'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "memory" -d 'Show the guest\'s memory blocks'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "stats" -d 'Show the guest\'s load average, and how its processors have spent their time'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "metrics" -d 'Show memory, load, pressure, the fullest file system and the state of each machine'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "fs" -d 'Show the guest\'s mounted file systems, their use, and the disks beneath them'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "disks" -d 'Show the guest\'s disks, their partitions, and the devices built on them'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "trim" -d 'Discard the unused blocks of the guest\'s file systems, so that the host can reuse them'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "freeze" -d 'Freeze the guest\'s file systems, so that a copy of its disks is consistent'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "thaw" -d 'Thaw the guest\'s file systems; fails if the freeze has ended by itself'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "time" -d 'Show the guest\'s time and its offset from the host\'s, after setting it if asked to'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "users" -d 'Show who is logged in, and since when'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "passwd" -d 'Set a user\'s password; qgactl prompts for it'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "ssh-keys" -d 'Show or change the public keys that SSH accepts for a user'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "shutdown" -d 'Shut the guest down through its own operating system, and power it off'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "suspend" -d 'Suspend the guest; the hypervisor wakes it up'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "wait" -d 'Wait until the agent answers [default timeout: 300]'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "doctor" -d 'Diagnose the connection, the agent and the commands it refuses'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and not __fish_seen_subcommand_from list info ping call exec shell jobs pull push cat net routes cpus memory stats metrics fs disks trim freeze thaw time users passwd ssh-keys shutdown suspend wait doctor help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and __fish_seen_subcommand_from jobs" -f -a "attach" -d 'Show a job\'s output from where it was left, until the job ends, and exit with its exit status'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and __fish_seen_subcommand_from jobs" -f -a "logs" -d 'Print the output of a job that nobody has read yet, and keep it'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and __fish_seen_subcommand_from jobs" -f -a "signal" -d 'Send a signal to all processes of a job'
complete -c qgactl -n "__fish_qgactl_using_subcommand help; and __fish_seen_subcommand_from jobs" -f -a "forget" -d 'Forget jobs that have ended, with their output'
