//! The command line: what may be said, and who does it.

mod ca;
mod call;
pub(crate) mod compile;
mod deploy;
mod failure;
mod flow;
mod functions;
mod invoke;
mod limits;
mod load;
mod logs;
mod project;
mod proxy;
mod queue;
mod report;
mod role;
mod routes;
mod state;
mod timing;
mod top;
mod trigger;
mod up;
mod utilisation;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use nigh_client::{Admin, CallQueue, Caller, CallerLimits, Inspect, Triggers};
use nigh_doors::RemoteBroker;
use nigh_proto::{Endpoint, Endpoints, Remote, Tls};

use self::role::RoleCommand;
use crate::config::{
    BrokerOptions, ComputerOptions, ControllerOptions, MecOptions, TlsFiles, default_controller, ports,
};
use crate::output::Output;
use crate::telemetry::{self, LogFormat};

/// Runs small functions close to whoever calls them.
///
/// `nigh up` is a whole edge in one process. `nigh new`, `nigh build`, `nigh deploy` and `nigh invoke` take a function from
/// nothing to an answer. `nigh controller`, `nigh broker` and `nigh computer` are the roles one by one, on as many machines
/// as you like.
#[derive(Debug, Parser)]
#[command(name = "nigh", version, propagate_version = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  nigh up --computers 2                        an edge on this machine
  nigh new hello && nigh build hello           a function
  nigh deploy hello/target/wasm/wasm32-wasip1/release/hello.wasm
  nigh invoke hello --data Ada -v              its answer, and where the time went

Exit status: 0 done, 1 failed, 2 not understood. NIGH_LOG=debug tells more.";

/// What every command understands.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
struct Global {
    /// The controller, or several that share a store [default: 127.0.0.1:6475]
    #[arg(long, global = true, env = "NIGH_CONTROLLER", value_name = "HOST:PORT[,…]", hide_env_values = true)]
    controller: Option<Endpoints>,
    /// The broker that calls go to [default: 127.0.0.1:6473]
    #[arg(long, global = true, env = "NIGH_BROKER", value_name = "HOST:PORT", hide_env_values = true)]
    broker: Option<Endpoint>,
    /// The broker's forwarding table [default: 127.0.0.1:6474]
    #[arg(long, global = true, env = "NIGH_TABLE", value_name = "HOST:PORT", hide_env_values = true)]
    table: Option<Endpoint>,
    /// Folder of the own certificate, as `nigh ca issue` writes it: all connections are over TLS then
    #[arg(long, global = true, env = "NIGH_TLS_DIR", value_name = "DIR", hide_env_values = true)]
    tls_dir: Option<PathBuf>,
    /// Results and errors as JSON, for programs
    #[arg(long, global = true)]
    json: bool,
    /// How log lines are written to standard error; NIGH_LOG says which
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Be a whole edge in one process: a controller, a broker and computers
    #[command(display_order = 1)]
    Up(up::UpOptions),
    /// Be a controller: keep what is deployed, know who is alive
    #[command(display_order = 20, after_help = role::CONTROLLER_EXAMPLES)]
    Controller(RoleCommand<ControllerOptions>),
    /// Be a broker: take calls, send each to the computer expected to answer soonest
    #[command(display_order = 21, after_help = role::BROKER_EXAMPLES)]
    Broker(RoleCommand<BrokerOptions>),
    /// Be a computer: run functions
    #[command(display_order = 22, after_help = role::COMPUTER_EXAMPLES)]
    Computer(RoleCommand<ComputerOptions>),
    /// Be a door for clients of another system, in front of a broker
    #[command(display_order = 22)]
    Proxy(proxy::ProxyCommand),
    /// Tell device applications where to call, by ETSI MEC's interfaces
    #[command(display_order = 23, after_help = role::MEC_EXAMPLES)]
    Mec(Box<RoleCommand<MecOptions>>),
    /// Make certificates for TLS between machines
    #[command(display_order = 23)]
    Ca(ca::CaCommand),
    /// Write a new function's project
    #[command(display_order = 2)]
    New(project::NewCommand),
    /// Build a function into a module that can be deployed
    #[command(display_order = 3)]
    Build(project::BuildCommand),
    /// Deploy a module, or a new version of it
    #[command(display_order = 4)]
    Deploy(deploy::DeployCommand),
    /// Call a function; its answer goes to standard output byte for byte
    #[command(display_order = 5)]
    Invoke(invoke::InvokeCommand),
    /// Run, check or draw a flow: functions one after the other or side by side
    #[command(display_order = 5)]
    Flow(flow::FlowCommand),
    /// List functions and where they are ready
    #[command(display_order = 6)]
    Ls(functions::LsCommand),
    /// Remove functions
    #[command(display_order = 7)]
    Rm(functions::RmCommand),
    /// Show what functions have logged, on all computers
    #[command(display_order = 8)]
    Logs(logs::LogsCommand),
    /// Show how busy computers and functions are, refreshed each second
    #[command(display_order = 9)]
    Top(top::TopCommand),
    /// Print how busy processors are, a line each second for each
    #[command(display_order = 9)]
    Utilisation(utilisation::UtilisationCommand),
    /// Show or edit a broker's forwarding table
    #[command(display_order = 10)]
    Routes(routes::RoutesCommand),
    /// Load functions as a workload says, and measure
    #[command(display_order = 11)]
    Load(Box<load::LoadCommand>),
    /// Show runs of `nigh load`, or compare them
    #[command(display_order = 12)]
    Report(report::ReportCommand),
    /// Tell what came of an asynchronous call
    #[command(display_order = 13)]
    Result(queue::ResultCommand),
    /// Look after asynchronous calls: how many there are, and those that were given up
    #[command(display_order = 14)]
    Queue(queue::QueueCommand),
    /// Look after states of applications
    #[command(display_order = 15)]
    State(state::StateCommand),
    /// Have functions called by requests, messages and times
    #[command(display_order = 14)]
    Trigger(trigger::TriggerCommand),
    /// Compile the module on standard input for the computer that asks
    #[command(name = compile::NAME, hide = true)]
    Compile,
}

/// Runs the program with this process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Command::Compile) {
        // Before anything else is started in this process, whose time and memory are bounded.
        return nigh_runtime::compile_for_parent();
    }
    let output = Output::new(cli.global.json);
    match cli.run(output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error, output),
    }
}

impl Cli {
    fn run(self, output: Output) -> anyhow::Result<()> {
        let Self { global, command } = self;
        telemetry::start(global.log_format, if command.is_role() { "info" } else { "error" })?;
        let (controller, tls_dir) = (global.controller.as_ref(), global.tls_dir.clone());
        match command {
            Command::Up(options) => in_runtime(options.run(output)),
            Command::Controller(command) => in_runtime(command.run(None, tls_dir, output)),
            Command::Broker(command) => in_runtime(command.run(controller, tls_dir, output)),
            Command::Computer(command) => in_runtime(command.run(controller, tls_dir, output)),
            Command::Proxy(command) => in_runtime(async {
                let broker = RemoteBroker::new(global.caller()?, global.queue()?, global.admin().await?);
                let controller = global.controllers()?;
                let tls = controller.tls.clone();
                Box::pin(command.run(broker, controller, tls, output)).await
            }),
            Command::Mec(command) => in_runtime(command.run(controller, tls_dir, output)),
            Command::Ca(command) => command.run(output),
            Command::New(command) => command.run(output),
            Command::Build(command) => command.run(output),
            Command::Deploy(command) => in_runtime(async { command.run(&global.admin().await?, output).await }),
            Command::Invoke(command) => {
                in_runtime(async { command.run(&global.caller()?, &global.queue()?, output).await })
            }
            Command::Flow(command) => in_runtime(command.run(|| Ok((global.caller()?, global.queue()?)), output)),
            Command::Ls(command) => in_runtime(async { command.run(&global.admin().await?, output).await }),
            Command::Rm(command) => in_runtime(async { command.run(&global.admin().await?, output).await }),
            Command::Logs(command) => in_runtime(async { command.run(&global.admin().await?, output).await }),
            Command::Top(command) => in_runtime(async { command.run(&global.admin().await?, output).await }),
            Command::Utilisation(command) => in_runtime(async { command.run(&global.admin().await?, output).await }),
            Command::Routes(command) => in_runtime(async { command.run(&global.table()?, output).await }),
            Command::Load(command) => in_runtime(async { command.run(&global, output).await }),
            Command::Report(command) => command.run(output),
            Command::Result(command) => in_runtime(async { command.run(&global.queue()?, output).await }),
            Command::Queue(command) => in_runtime(async { command.run(&global.queue()?, output).await }),
            Command::State(command) => in_runtime(async { command.run(&global.admin().await?, output).await }),
            Command::Trigger(command) => in_runtime(async { command.run(&global.triggers()?, output).await }),
            Command::Compile => anyhow::bail!("this command is for computers only"),
        }
    }
}

impl Command {
    /// Whether the process stays to serve.
    fn is_role(&self) -> bool {
        matches!(
            self,
            Self::Up(_) | Self::Controller(_) | Self::Broker(_) | Self::Computer(_) | Self::Proxy(_) | Self::Mec(_)
        )
    }
}

impl Global {
    async fn admin(&self) -> anyhow::Result<Admin> {
        Ok(Admin::of_any(self.controllers()?).await)
    }

    fn controllers(&self) -> anyhow::Result<Remote> {
        let controllers = self.controller.clone().unwrap_or_else(default_controller);
        Ok(Remote::any_of(&controllers, self.tls()?))
    }

    fn caller(&self) -> anyhow::Result<Caller> {
        let broker = self.broker.clone().unwrap_or_else(|| local(ports::CALLS));
        Ok(Caller::new(self.remote(broker)?, CallerLimits::default()))
    }

    fn queue(&self) -> anyhow::Result<CallQueue> {
        let broker = self.broker.clone().unwrap_or_else(|| local(ports::CALLS));
        Ok(CallQueue::new(self.remote(broker)?, &CallerLimits::default()))
    }

    fn triggers(&self) -> anyhow::Result<Triggers> {
        Ok(Triggers::new(self.remote(self.broker.clone().unwrap_or_else(|| local(ports::CALLS)))?))
    }

    fn table(&self) -> anyhow::Result<Inspect> {
        Ok(Inspect::new(self.remote(self.table.clone().unwrap_or_else(|| local(ports::TABLE)))?))
    }

    /// How this command connects: over TLS where there is a certificate for it.
    fn remote(&self, endpoint: Endpoint) -> anyhow::Result<Remote> {
        Ok(Remote::new(endpoint, self.tls()?))
    }

    fn tls(&self) -> anyhow::Result<Option<Tls>> {
        let files = self.tls_dir.as_deref().map(TlsFiles::in_folder);
        Ok(files.map(|files| files.load()).transpose()?)
    }
}

fn local(port: u16) -> Endpoint {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()
}

fn in_runtime(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")?;
    let done = runtime.block_on(work);
    // What was given up on, such as a role that a second signal stopped, is not waited for.
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests;
