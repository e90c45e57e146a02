//! `nigh proxy`: a door for another system's clients, in a process of its own in front of a broker.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use nigh_doors::{ActivationLimits, RemoteBroker, Settings, System};
use nigh_proto::channel::Door;
use nigh_proto::tls::HttpClients;
use nigh_proto::{CallLimits, Remote, ServerLimits, Tls};
use nigh_telemetry::{Telemetry, serve_while};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::config::{Listen, VisitorOptions, metrics_port, or_none, ports};
use crate::output::Output;
use crate::signals::StopSignals;
use crate::sockets::bind;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh proxy openwhisk --everybody                    for clients of OpenWhisk, on this machine only, port 3233
  nigh proxy openwhisk --credentials callers.txt      for those with a line `USER:KEY NAMESPACE` in that file
  nigh proxy lambda --everybody                       for boto3 and `aws lambda`, port 9001
  nigh proxy openfaas --everybody                     for faas-cli, port 8088
  nigh proxy openwhisk --credentials callers.txt --listen 0.0.0.0:3233 --tls-dir proxy   for other machines, over TLS

It calls as any client does: with --broker, --controller and --tls-dir. Who may deploy through it, that certificate decides
too. A broker can have such doors itself (nigh broker --door), which saves a hop.")]
pub(super) struct ProxyCommand {
    /// Whose clients it is for: openwhisk, lambda, openfaas
    #[arg(value_name = "SYSTEM")]
    system: System,
    /// Where it listens [default: 127.0.0.1, port 3233, 9001 or 8088]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// Where to serve metrics and health over HTTP, or `none` [default: 127.0.0.1, 3000 above its port]
    #[arg(long, value_name = "IP:PORT", value_parser = or_none)]
    listen_metrics: Option<Listen>,
    #[command(flatten)]
    visitors: VisitorOptions,
    /// Listen beyond this machine without TLS: whoever is on that network can read every payload and credential
    #[arg(long)]
    insecure_plaintext: bool,
}

impl ProxyCommand {
    pub(super) async fn run(
        self,
        broker: RemoteBroker,
        controller: Remote,
        tls: Option<Tls>,
        output: Output,
    ) -> anyhow::Result<()> {
        let signals = StopSignals::listen()?;
        let listen = self.listen.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, usual_port(self.system)).into());
        let is_exposed = !listen.ip().is_loopback();
        if is_exposed && tls.is_none() && !self.insecure_plaintext {
            bail!(
                "{listen} can be reached from other machines, and without TLS whoever is on that network could read every payload and credential. Either give --tls-dir DIR, a certificate made with `nigh ca issue`, or take that risk with --insecure-plaintext"
            );
        }
        let callers = self.visitors.callers(&[listen], self.insecure_plaintext)?;
        let bound = bind(listen, "other systems' clients", "--listen").await?;
        let usual = || SocketAddr::from((Ipv4Addr::LOCALHOST, metrics_port(listen.port(), ports::BROKER_OFFSET)));
        let metrics = match self.listen_metrics.map_or_else(|| Some(usual()), |listen| listen.0) {
            Some(address) => Some(bind(address, "metrics and health", "--listen-metrics").await?),
            None => None,
        };
        let told = json!({
            "role": "proxy",
            "system": self.system.as_str(),
            "endpoint": bound.endpoint().to_string(),
            "metrics": metrics.as_ref().map(|bound| bound.endpoint().to_string()),
        });
        // That nobody reads where it listens is no reason not to run.
        let _ = output.result(&told, |_| format!("proxy for clients of {} at {}", self.system, bound.endpoint()));
        // Its visitors show credentials, not certificates.
        let settings = Settings {
            clients: HttpClients::Anybody,
            limits: CallLimits::default(),
            callers,
            controller: Some(controller),
            activations: ActivationLimits::default(),
        };
        let (shutdown, telemetry, broker) = (CancellationToken::new(), Telemetry::new(), Arc::new(broker));
        broker.describe(&telemetry, format!("{}-{}", self.system, bound.address.port()));
        let metrics = metrics.map(|bound| bound.into_metrics_door(tls.as_ref(), &ServerLimits::default()));
        let door = Door::new(bound.listener, tls.filter(|_| is_exposed));
        let serving = nigh_doors::serve(self.system, door, settings, broker, shutdown.clone());
        let serving = serve_while(metrics, telemetry, serving);
        signals
            .run(
                async {
                    serving.await;
                    Ok(())
                },
                shutdown,
            )
            .await
    }
}

fn usual_port(system: System) -> u16 {
    match system {
        System::OpenWhisk => ports::OPENWHISK,
        System::Lambda => ports::LAMBDA,
        System::OpenFaas => ports::OPENFAAS,
    }
}
