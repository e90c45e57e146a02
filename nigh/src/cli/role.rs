//! `nigh controller`, `nigh broker`, `nigh computer`, `nigh mec`: one role as a process.

use std::path::PathBuf;

use clap::Args;
use nigh_proto::Endpoints;

use crate::config::{
    BrokerOptions, BrokerSettings, ComputerOptions, ComputerSettings, ControllerOptions, ControllerSettings,
    MecOptions, MecSettings,
};
use crate::output::Output;
use crate::roles;

/// What follows the help of `nigh controller`.
pub(super) const CONTROLLER_EXAMPLES: &str = "Examples:
  nigh controller                                    on this machine only, port 6475
  nigh controller --listen 10.0.0.1:6475 --tls-dir control   for other machines, over TLS (see nigh ca)
  nigh controller --print-config > controller.toml   every setting, with its default
  nigh controller --store nats://127.0.0.1:4222      several share what is deployed, and any of them may go
  nigh controller --config controller.toml";

/// What follows the help of `nigh broker`.
pub(super) const BROKER_EXAMPLES: &str = "Examples:
  nigh broker                                        ports 6473 (gRPC), 6474 (table), 8080 (HTTP)
  nigh broker --controller box:6475 --listen 0.0.0.0:6473 --advertise edge-7:6473 --tls-dir gateway
  nigh broker --no-controller --route echo=10.0.0.7:10000
  nigh broker --print-config > broker.toml           every setting, with its default";

/// What follows the help of `nigh computer`.
pub(super) const COMPUTER_EXAMPLES: &str = "Examples:
  nigh computer                                      port 10000
  nigh computer --controller box:6475 --listen 0.0.0.0:10000 --advertise camera-3:10000 --tls-dir camera-3
  nigh computer --backend modelled --hardware intel-server,num-workers=8   answers as that hardware would
  nigh computer --backend http --url 'http://gateway:8080/function/{function}' --auth-file auth   OpenFaaS's functions
  nigh computer --backend openwhisk --url https://openwhisk.example --auth-file auth --function hello
  nigh computer --dir pictures=/srv/pictures --dir scratch=/tmp/scratch:rw
  nigh computer --print-config > computer.toml       every setting, with its default";

/// What follows the help of `nigh mec`.
pub(super) const MEC_EXAMPLES: &str = "Examples:
  nigh mec                                           devices come to 127.0.0.1:6500/dev_app/v1
  nigh mec --listen 10.0.0.1:6500 --tls-dir mec      for other machines, over TLS (see nigh ca)
  nigh mec --decide file --associations devices.txt   a file says which device is sent where
  nigh mec --mx2 --listen-older 127.0.0.1:6477 --decide associations   in place of an older LCM proxy
  nigh mec --print-config > mec.toml                 every setting, with its default";

/// What one role may be told on the command line.
pub(super) trait RoleOptions: Args {
    /// A configuration file with every key and its default.
    const EXAMPLE: &'static str;

    /// Is the role until told to stop; `tls_dir`, the folder of its certificate, is an option of all commands.
    async fn run(self, controller: Option<&Endpoints>, tls_dir: Option<PathBuf>, output: Output) -> anyhow::Result<()>;
}

/// Being one role.
#[derive(Debug, Args)]
pub(super) struct RoleCommand<O: RoleOptions> {
    #[command(flatten)]
    options: O,
    /// Print a configuration file with every key and its default, and end
    #[arg(long)]
    print_config: bool,
}

impl<O: RoleOptions> RoleCommand<O> {
    pub(super) async fn run(
        self,
        controller: Option<&Endpoints>,
        tls_dir: Option<PathBuf>,
        output: Output,
    ) -> anyhow::Result<()> {
        if self.print_config {
            return Ok(output.line(O::EXAMPLE)?);
        }
        self.options.run(controller, tls_dir, output).await
    }
}

impl RoleOptions for ControllerOptions {
    const EXAMPLE: &'static str = ControllerSettings::EXAMPLE;

    async fn run(self, _: Option<&Endpoints>, tls_dir: Option<PathBuf>, output: Output) -> anyhow::Result<()> {
        let options = Self { tls_dir, ..self };
        roles::controller(ControllerSettings::new(&options)?, output).await
    }
}

impl RoleOptions for BrokerOptions {
    const EXAMPLE: &'static str = BrokerSettings::EXAMPLE;

    async fn run(self, controller: Option<&Endpoints>, tls_dir: Option<PathBuf>, output: Output) -> anyhow::Result<()> {
        let options = Self { tls_dir, ..self };
        roles::broker(BrokerSettings::new(&options, controller)?, output).await
    }
}

impl RoleOptions for ComputerOptions {
    const EXAMPLE: &'static str = ComputerSettings::EXAMPLE;

    async fn run(self, controller: Option<&Endpoints>, tls_dir: Option<PathBuf>, output: Output) -> anyhow::Result<()> {
        let options = Self { tls_dir, ..self };
        roles::computer(ComputerSettings::new(&options, controller)?, output).await
    }
}

impl RoleOptions for MecOptions {
    const EXAMPLE: &'static str = MecSettings::EXAMPLE;

    async fn run(self, controller: Option<&Endpoints>, tls_dir: Option<PathBuf>, output: Output) -> anyhow::Result<()> {
        let options = Self { tls_dir, ..self };
        roles::mec(MecSettings::new(&options, controller)?, output).await
    }
}
