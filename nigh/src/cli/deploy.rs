//! `nigh deploy`: upload a module, wait until computers are ready and brokers send calls there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use nigh_client::{Admin, DeployRequest, Deployed, Inspect, Readiness, ReadyError};
use nigh_proto::{AllowedHost, Constraint, Deployment, DirectoryGrant, FunctionName, Placement, Reason, StateName};
use serde_json::json;

use super::limits::{LimitOptions, parse_grant};
use crate::output::Output;
use crate::units::Time;

/// Bytes of a module's file, at most; controllers take less, and say how much.
const MODULE_BYTES_MAX: u64 = 1 << 30;
/// Time for brokers to learn where a function is ready; usually they know within milliseconds.
const BROKERS_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a broker is asked.
const BROKERS_INTERVAL: Duration = Duration::from_millis(10);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh deploy hello.wasm                                     as `hello`
  nigh deploy face_detect.wasm --name faces --memory 64MiB --timeout 5s
  nigh deploy gallery.wasm --dir pictures=/data              may read a directory that computers offer
  nigh deploy counter.wasm --reuse 1000 --idle 5m            instances serve many calls
  nigh deploy shop.wasm --allow-host api.example.com         an http function that may ask that host
  nigh deploy counter.wasm --state visits                    may read and write that state of the application
  nigh deploy till.wasm --where zone=shop --where gpu!=no    only on computers with these labels

Deploying under a name that is taken replaces that version without failing a call.")]
pub(super) struct DeployCommand {
    /// The module, as `nigh build` or any compiler for wasm32-wasip1 makes it, or a component for wasi:http 0.2
    #[arg(value_name = "FILE.wasm")]
    file: PathBuf,
    /// The name to call it by [default: the file's name, with - for _]
    #[arg(long)]
    name: Option<FunctionName>,
    /// A directory that computers offer, read-only unless `:rw` follows; may be given several times
    #[arg(long, value_name = "NAME[=/PATH][:rw]", value_parser = parse_grant)]
    dir: Vec<DirectoryGrant>,
    /// A host that an http function may send requests to, at the scheme's standard port unless one is given; may be given
    /// several times
    #[arg(long, value_name = "HOST[:PORT]")]
    allow_host: Vec<AllowedHost>,
    /// Run it only on computers with such a label; may be given several times, for several labels
    #[arg(long = "where", value_name = "KEY=VALUE|KEY!=VALUE|\"KEY in VALUE,VALUE\"")]
    placement: Vec<Constraint>,
    /// A state of the application that it may read and write; may be given several times, or separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    state: Vec<StateName>,
    /// Do not wait until it can be called
    #[arg(long)]
    no_wait: bool,
    /// How long to wait for that
    #[arg(long, value_name = "TIME", default_value = "2m", conflicts_with = "no_wait")]
    wait: Time,
    #[command(flatten)]
    limits: LimitOptions,
}

impl DeployCommand {
    pub(super) async fn run(self, admin: &Admin, output: Output) -> anyhow::Result<()> {
        let name = match self.name.clone() {
            Some(name) => name,
            None => name_of(&self.file)?,
        };
        let request = DeployRequest {
            name,
            limits: self.limits.limits()?,
            directories: self.dir.clone(),
            hosts: self.allow_host.clone(),
            placement: Placement::new(self.placement.clone())?,
            states: self.state.clone(),
        };
        let module = read_module(&self.file)?;
        let Deployed { deployment, changed } = upload(admin, request, module).await?;
        if self.no_wait {
            return tell(output, &deployment, changed, None);
        }
        let readiness = await_computers(admin, &deployment, self.wait.duration(), output).await?;
        await_brokers(admin, &deployment.name).await;
        tell(output, &deployment, changed, Some(&readiness))
    }
}

/// The function's name that a file's name stands for.
fn name_of(file: &Path) -> anyhow::Result<FunctionName> {
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    stem.replace('_', "-").parse().with_context(|| format!("{} does not tell a name; add --name NAME", file.display()))
}

fn read_module(file: &Path) -> anyhow::Result<Bytes> {
    let cannot = || format!("cannot read the module {}", file.display());
    let bytes = std::fs::metadata(file).with_context(cannot)?.len();
    if bytes > MODULE_BYTES_MAX {
        bail!("{} has {bytes} bytes; no module may have over {MODULE_BYTES_MAX}", file.display());
    }
    Ok(std::fs::read(file).with_context(cannot)?.into())
}

async fn upload(admin: &Admin, request: DeployRequest, module: Bytes) -> anyhow::Result<Deployed> {
    // Drawn on a terminal only; elsewhere it is silent.
    let bar = ProgressBar::new(module.len() as u64).with_message(format!("uploading {}", request.name));
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes}");
    bar.set_style(style.expect("the template is well formed"));
    let deployed = admin.deploy(request, module, |sent| bar.set_position(sent)).await;
    bar.finish_and_clear();
    Ok(deployed?)
}

async fn await_computers(
    admin: &Admin,
    deployment: &Deployment,
    timeout: Duration,
    output: Output,
) -> anyhow::Result<Readiness> {
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(100));
    let show = |readiness: &Readiness| {
        let (ready, preparing) = (readiness.ready.len(), readiness.preparing.len());
        let all = ready + preparing + readiness.problems.len();
        spinner.set_message(format!("{} is ready on {ready} of {all} computers", deployment.name));
    };
    let settled = admin.await_ready(&deployment.name, deployment.version, timeout, show).await;
    spinner.finish_and_clear();
    let problems = match &settled {
        Ok(readiness) | Err(ReadyError::Failed(readiness) | ReadyError::Late { readiness, .. }) => &readiness.problems,
        Err(_) => &Vec::new(),
    };
    if !output.is_json() {
        for (computer, problem) in problems {
            output.note(format_args!("{computer} cannot run {}: {problem}", deployment.name));
        }
    }
    settled.with_context(|| format!("{} is deployed but not ready", deployment.name))
}

/// Waits until brokers route calls of the function, so that one made right after does not come too early. One that cannot
/// be asked is left out.
async fn await_brokers(admin: &Admin, function: &FunctionName) {
    let Ok(listing) = admin.list().await else { return };
    let tables = listing.brokers.into_iter().filter_map(|broker| broker.table_endpoint);
    let waits = tables.map(|table| tokio::time::timeout(BROKERS_TIMEOUT, await_broker(admin.inspect(table), function)));
    let late = futures_util::future::join_all(waits).await.iter().filter(|wait| wait.is_err()).count();
    if late > 0 {
        tracing::warn!(%function, brokers = late, "not all brokers send calls there yet");
    }
}

async fn await_broker(broker: Inspect, function: &FunctionName) {
    loop {
        match broker.routes(Some(function), nigh_client::Table::Overall).await {
            Ok(routes) if routes.routes.iter().any(|route| !route.destinations.is_empty()) => return,
            Err(error) if error.reason != Reason::UnknownFunction => return,
            _ => tokio::time::sleep(BROKERS_INTERVAL).await,
        }
    }
}

fn tell(output: Output, deployment: &Deployment, changed: bool, readiness: Option<&Readiness>) -> anyhow::Result<()> {
    let names = |names: &[nigh_proto::NodeName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut told = json!({
        "name": deployment.name.as_str(),
        "version": deployment.version.to_string(),
        "module": deployment.module.to_string(),
        "bytes": deployment.module_bytes,
        "kind": deployment.kind.to_string(),
        "changed": changed,
        "states": deployment.states.iter().map(StateName::as_str).collect::<Vec<_>>(),
    });
    if let Some(readiness) = readiness {
        let problem = |(computer, message): &(nigh_proto::NodeName, String)| json!({ "computer": computer.as_str(), "message": message });
        told["ready"] = names(&readiness.ready).into();
        told["problems"] = readiness.problems.iter().map(problem).collect();
    }
    let for_people = || {
        let done = if changed { "deployed" } else { "was deployed already" };
        let ready = readiness.map_or(String::new(), |readiness| {
            let all = readiness.ready.len() + readiness.problems.len() + readiness.preparing.len();
            format!(", ready on {} of {all} computers", readiness.ready.len())
        });
        format!("{} {done} (version {}, {}){ready}", deployment.name, deployment.version.short(), deployment.kind)
    };
    Ok(output.result(&told, |_| for_people())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_its_function() {
        assert_eq!(name_of(Path::new("target/face_detect.wasm")).unwrap().as_str(), "face-detect");
        let error = format!("{:#}", name_of(Path::new("Über.wasm")).unwrap_err());
        assert!(error.contains("--name NAME"), "{error}");
    }

    #[test]
    fn a_module_that_is_not_there_is_named() {
        let error = format!("{:#}", read_module(Path::new("no/such.wasm")).unwrap_err());
        assert!(error.contains("no/such.wasm"), "{error}");
    }
}
