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

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh controller                                    on this machine only, port 6475
  nigh controller --listen 10.0.0.1:6475 --tls-dir control   for other machines, over TLS (see nigh ca)
  nigh controller --print-config > controller.toml   every setting, with its default
  nigh controller --store nats://127.0.0.1:4222      several share what is deployed, and any of them may go
  nigh controller --config controller.toml")]
pub(super) struct ControllerCommand {
    #[command(flatten)]
    options: ControllerOptions,
    /// Print a configuration file with every key and its default, and end
    #[arg(long)]
    print_config: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh broker                                        ports 6473 (gRPC), 6474 (table), 8080 (HTTP)
  nigh broker --controller box:6475 --listen 0.0.0.0:6473 --advertise edge-7:6473 --tls-dir gateway
  nigh broker --no-controller --route echo=10.0.0.7:10000
  nigh broker --print-config > broker.toml           every setting, with its default")]
pub(super) struct BrokerCommand {
    #[command(flatten)]
    options: BrokerOptions,
    /// Print a configuration file with every key and its default, and end
    #[arg(long)]
    print_config: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh computer                                      port 10000
  nigh computer --controller box:6475 --listen 0.0.0.0:10000 --advertise camera-3:10000 --tls-dir camera-3
  nigh computer --backend modelled --hardware intel-server,num-workers=8   answers as that hardware would
  nigh computer --backend http --url 'http://gateway:8080/function/{function}' --auth-file auth   OpenFaaS's functions
  nigh computer --backend openwhisk --url https://openwhisk.example --auth-file auth --function hello
  nigh computer --dir pictures=/srv/pictures --dir scratch=/tmp/scratch:rw
  nigh computer --print-config > computer.toml       every setting, with its default")]
pub(super) struct ComputerCommand {
    #[command(flatten)]
    options: ComputerOptions,
    /// Print a configuration file with every key and its default, and end
    #[arg(long)]
    print_config: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh mec                                           devices come to 127.0.0.1:6500/dev_app/v1
  nigh mec --listen 10.0.0.1:6500 --tls-dir mec      for other machines, over TLS (see nigh ca)
  nigh mec --decide file --associations devices.txt   a file says which device is sent where
  nigh mec --mx2 --listen-older 127.0.0.1:6477 --decide associations   in place of an older LCM proxy
  nigh mec --print-config > mec.toml                 every setting, with its default")]
pub(super) struct MecCommand {
    #[command(flatten)]
    options: MecOptions,
    /// Print a configuration file with every key and its default, and end
    #[arg(long)]
    print_config: bool,
}

impl MecCommand {
    pub(super) async fn run(
        mut self,
        controller: Option<&Endpoints>,
        tls_dir: Option<PathBuf>,
        output: Output,
    ) -> anyhow::Result<()> {
        self.options.tls_dir = tls_dir;
        if self.print_config {
            return Ok(output.line(MecSettings::EXAMPLE)?);
        }
        roles::mec(MecSettings::new(&self.options, controller)?, output).await
    }
}

impl ControllerCommand {
    pub(super) async fn run(mut self, tls_dir: Option<PathBuf>, output: Output) -> anyhow::Result<()> {
        self.options.tls_dir = tls_dir;
        if self.print_config {
            return Ok(output.line(ControllerSettings::EXAMPLE)?);
        }
        roles::controller(ControllerSettings::new(&self.options)?, output).await
    }
}

impl BrokerCommand {
    pub(super) async fn run(
        mut self,
        controller: Option<&Endpoints>,
        tls_dir: Option<PathBuf>,
        output: Output,
    ) -> anyhow::Result<()> {
        self.options.tls_dir = tls_dir;
        if self.print_config {
            return Ok(output.line(BrokerSettings::EXAMPLE)?);
        }
        roles::broker(BrokerSettings::new(&self.options, controller)?, output).await
    }
}

impl ComputerCommand {
    pub(super) async fn run(
        mut self,
        controller: Option<&Endpoints>,
        tls_dir: Option<PathBuf>,
        output: Output,
    ) -> anyhow::Result<()> {
        self.options.tls_dir = tls_dir;
        if self.print_config {
            return Ok(output.line(ComputerSettings::EXAMPLE)?);
        }
        roles::computer(ComputerSettings::new(&self.options, controller)?, output).await
    }
}
