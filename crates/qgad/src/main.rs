//! The agent's start-up, in reading order.

mod channel;
mod commands;
mod config;
mod connection;
mod dispatch;
mod executor;
mod guest;
mod output;
mod policy;
mod root;
mod server;
mod session;
mod sys;

fn main() {
    let path = std::env::args().nth(1).unwrap();
    let guest = std::sync::Arc::new(guest::Guest {
        root: root::Root::machine(),
        environment: guest::Environment::default(),
        handlers: dispatch::HANDLERS,
        policy: policy::Policy::default(),
        command_timeout: qga::command::QUERY_DEADLINE,
        is_frozen: false.into(),
    });
    let channel = channel::Channel::Listener(channel::Listener::unix(path.as_ref()).unwrap());
    server::Server::new(channel, false, guest).unwrap().run().unwrap();
}
