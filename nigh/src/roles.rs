//! One role as a process: open its sockets, say where, run until told to stop.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use nigh_broker::Listeners;
use nigh_proto::channel::Door;
use nigh_store::Place;
use nigh_telemetry::{Telemetry, serve_while};
use tokio_util::sync::CancellationToken;

use crate::certificates;
use crate::cli::compile::own_compiler;
use crate::config::{BrokerSettings, ComputerSettings, ControllerSettings, MecSettings};
use crate::output::Output;
use crate::signals::StopSignals;
use crate::sockets::{BindError, Bound, bind};

/// Is a controller.
pub(crate) async fn controller(settings: ControllerSettings, output: Output) -> anyhow::Result<()> {
    let signals = StopSignals::listen()?;
    let (listen, metrics, folder) = (settings.listen, settings.metrics, settings.data_dir.clone());
    let files = settings.tls.clone();
    let config = settings.into_config()?;
    let bound = bind(listen, "the controller", "--listen").await?;
    let metrics = bind_if(metrics, "metrics and health", "--listen-metrics").await?;
    if let Some(folder) = &folder {
        make_folder(folder)?;
    }
    let _certificate = certificates::keep(config.tls.as_ref(), files)?;
    let store = match &config.store {
        Place::Embedded { file } => file.display().to_string(),
        Place::Nats { servers, .. } => format!("NATS at {}", servers.join(", ")),
    };
    let data_dir = folder.map(|folder| folder.display().to_string());
    started(
        output,
        &Started::Controller {
            endpoint: bound.endpoint().to_string(),
            data_dir,
            store,
            metrics: told(metrics.as_ref()),
        },
    );
    let metrics = metrics.map(|bound| bound.into_metrics_door(config.tls.as_ref(), &config.server));
    let telemetry = config.telemetry.clone();
    run(signals, metrics, telemetry, |shutdown| nigh_controller::run(bound.listener, config, shutdown)).await
}

/// Is a broker.
pub(crate) async fn broker(settings: BrokerSettings, output: Output) -> anyhow::Result<()> {
    let signals = StopSignals::listen()?;
    let calls = bind(settings.calls, "calls over gRPC", "--listen").await?;
    let table = bind_if(settings.table, "the forwarding table", "--listen-table").await?;
    let http = bind_if(settings.http, "calls over HTTP", "--listen-http").await?;
    let mut doors = Vec::with_capacity(settings.doors.len());
    for &(system, address) in &settings.doors {
        doors.push((system, bind(address, "other systems' clients", "--door").await?));
    }
    let metrics = bind_if(settings.metrics, "metrics and health", "--listen-metrics").await?;
    if let Some(folder) = &settings.data_dir {
        make_folder(folder)?;
    }
    let _certificate = certificates::keep(settings.config.tls.as_ref(), settings.tls.clone())?;
    let config = settings.into_config(calls.address.port());
    started(
        output,
        &Started::Broker {
            name: config.name.to_string(),
            calls: calls.endpoint().to_string(),
            table: told(table.as_ref()),
            http: told(http.as_ref()),
            doors: doors.iter().map(|(system, bound)| (system.to_string(), bound.endpoint().to_string())).collect(),
            metrics: told(metrics.as_ref()),
            controller: config.controller.as_ref().map(ToString::to_string),
        },
    );
    let listener = |bound: Option<Bound>| bound.map(|bound| bound.listener);
    let doors = doors.into_iter().map(|(system, bound)| (system, bound.listener)).collect();
    let listeners = Listeners { calls: calls.listener, table: listener(table), http: listener(http), doors };
    let metrics = metrics.map(|bound| bound.into_metrics_door(config.tls.as_ref(), &config.server));
    let telemetry = config.telemetry.clone();
    run(signals, metrics, telemetry, |shutdown| nigh_broker::run(listeners, config, shutdown)).await
}

/// Is a computer.
pub(crate) async fn computer(settings: ComputerSettings, output: Output) -> anyhow::Result<()> {
    let signals = StopSignals::listen()?;
    let bound = bind(settings.listen, "calls", "--listen").await?;
    let http = bind_if(settings.http, "calls over HTTP", "--listen-http").await?;
    let metrics = bind_if(settings.metrics, "metrics and health", "--listen-metrics").await?;
    let _certificate = certificates::keep(settings.config.tls.as_ref(), settings.tls.clone())?;
    let mut config = settings.into_config(bound.address.port())?;
    config.compiler = own_compiler();
    started(
        output,
        &Started::Computer {
            name: config.name.to_string(),
            endpoint: bound.endpoint().to_string(),
            http: told(http.as_ref()),
            metrics: told(metrics.as_ref()),
            controller: config.controller.as_ref().map(ToString::to_string),
        },
    );
    let listeners = nigh_runtime::Listeners { calls: bound.listener, http: http.map(|bound| bound.listener) };
    let metrics = metrics.map(|bound| bound.into_metrics_door(config.tls.as_ref(), &config.server));
    let telemetry = config.telemetry.clone();
    run(signals, metrics, telemetry, |shutdown| nigh_runtime::run(listeners, config, shutdown)).await
}

/// Tells device applications where to call.
pub(crate) async fn mec(settings: MecSettings, output: Output) -> anyhow::Result<()> {
    let signals = StopSignals::listen()?;
    let MecSettings { devices, older, metrics, data_dir, tls, config } = settings;
    let devices = bind(devices, "device applications", "--listen").await?;
    let older = bind_if(older, "associations", "--listen-older").await?;
    let metrics = bind_if(metrics, "metrics and health", "--listen-metrics").await?;
    if let Some(folder) = &data_dir {
        make_folder(folder)?;
    }
    let _certificate = certificates::keep(config.tls.as_ref(), tls)?;
    started(
        output,
        &Started::Mec {
            endpoint: devices.endpoint().to_string(),
            older: told(older.as_ref()),
            metrics: told(metrics.as_ref()),
            controller: config.controller.as_ref().map(ToString::to_string),
        },
    );
    let listeners = nigh_mec::Listeners { devices: devices.listener, older: older.map(|bound| bound.listener) };
    let metrics = metrics.map(|bound| bound.into_metrics_door(config.tls.as_ref(), &config.server));
    let telemetry = config.telemetry.clone();
    run(signals, metrics, telemetry, |shutdown| nigh_mec::run(listeners, config, shutdown)).await
}

/// Runs a role, and its door for metrics beside it, until told to stop.
async fn run<Running, E>(
    signals: StopSignals,
    metrics: Option<Door>,
    telemetry: Telemetry,
    role: impl FnOnce(CancellationToken) -> Running,
) -> anyhow::Result<()>
where
    Running: Future<Output = Result<(), E>>,
    anyhow::Error: From<E>,
{
    let shutdown = CancellationToken::new();
    let role = serve_while(metrics, telemetry, Box::pin(role(shutdown.clone())));
    signals.run(async { Ok(role.await?) }, shutdown).await
}

/// Opens a socket that a role need not have.
async fn bind_if(
    address: Option<SocketAddr>,
    what: &'static str,
    option: &'static str,
) -> Result<Option<Bound>, BindError> {
    match address {
        Some(address) => bind(address, what, option).await.map(Some),
        None => Ok(None),
    }
}

fn told(bound: Option<&Bound>) -> Option<String> {
    bound.map(|bound| bound.endpoint().to_string())
}

fn make_folder(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}; choose another with --data-dir", folder.display()))
}

/// Where a role listens.
#[derive(Debug, serde::Serialize)]
#[serde(tag = "role", rename_all = "lowercase")]
enum Started {
    Controller {
        endpoint: String,
        metrics: Option<String>,
        data_dir: Option<String>,
        store: String,
    },
    Broker {
        name: String,
        calls: String,
        table: Option<String>,
        http: Option<String>,
        /// By the systems whose clients they are for.
        #[serde(flatten)]
        doors: BTreeMap<String, String>,
        metrics: Option<String>,
        controller: Option<String>,
    },
    Computer {
        name: String,
        endpoint: String,
        http: Option<String>,
        metrics: Option<String>,
        controller: Option<String>,
    },
    Mec {
        endpoint: String,
        older: Option<String>,
        metrics: Option<String>,
        controller: Option<String>,
    },
}

impl fmt::Display for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |endpoint: &Option<String>| endpoint.as_deref().unwrap_or("none").to_owned();
        match self {
            Self::Controller { endpoint, metrics, store, .. } => {
                write!(f, "controller at {endpoint}, metrics {}, store {store}", at(metrics))
            }
            Self::Broker { name, calls, table, http, doors, metrics, controller } => {
                write!(f, "{name} takes calls at {calls}, http {}, ", at(http))?;
                for (system, endpoint) in doors {
                    write!(f, "{system} {endpoint}, ")?;
                }
                write!(f, "table {}, metrics {}, controller {}", at(table), at(metrics), at(controller))
            }
            Self::Mec { endpoint, older, metrics, controller } => write!(
                f,
                "device applications at {endpoint}, associations {}, metrics {}, controller {}",
                at(older),
                at(metrics),
                at(controller)
            ),
            Self::Computer { name, endpoint, http, metrics, controller } => write!(
                f,
                "{name} takes calls at {endpoint}, http {}, metrics {}, controller {}",
                at(http),
                at(metrics),
                at(controller)
            ),
        }
    }
}

/// Says where a role listens. That nobody reads it is no reason not to run.
fn started(output: Output, started: &Started) {
    let _ = output.result(started, ToString::to_string);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_role_listens_is_there_for_people_and_programs() {
        let started = Started::Broker {
            name: "broker-1".into(),
            calls: "127.0.0.1:1".into(),
            table: None,
            http: Some("127.0.0.1:2".into()),
            doors: [("openwhisk".into(), "127.0.0.1:4".into())].into(),
            metrics: Some("127.0.0.1:3".into()),
            controller: None,
        };
        assert_eq!(
            started.to_string(),
            "broker-1 takes calls at 127.0.0.1:1, http 127.0.0.1:2, openwhisk 127.0.0.1:4, table none, metrics 127.0.0.1:3, controller none"
        );
        let json = serde_json::to_value(&started).unwrap();
        assert_eq!((&json["role"], &json["calls"]), (&"broker".into(), &"127.0.0.1:1".into()));
        assert!(json["table"].is_null() && json["openwhisk"] == "127.0.0.1:4");
    }
}
