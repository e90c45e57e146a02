//! `nigh ca`: an authority of one's own, and the certificates by which roles, people and programs prove who they are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use nigh_proto::identity::Certificate;
use nigh_proto::tls::{Tls, read_certificates};
use nigh_proto::{Identity, NodeName, Role};
use serde_json::{Value, json};

use crate::ca::folder::{self, CERTIFICATE};
use crate::ca::{Authority, CERTIFICATE_DAYS, CERTIFICATE_DAYS_MAX};
use crate::config::default_data_dir;
use crate::output::Output;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh ca init                                                       an authority, once for an edge
  nigh ca issue --role controller --name control --host 10.0.0.1     into ./control, to be copied to that machine
  nigh ca issue --role broker --name gateway --host 10.0.0.2 --host edge.example
  nigh ca issue --role computer --name camera-7 --host 10.0.0.7
  nigh ca issue --role operator --name ada                           for a person who deploys
  nigh ca show ada

Then on that machine: nigh computer --tls-dir DIR, and NIGH_TLS_DIR=ada for other commands.")]
pub(super) struct CaCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make an authority
    Init(Init),
    /// Issue a certificate and its key
    Issue(Issue),
    /// Show what certificates say
    Show(Show),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh ca init
  nigh ca init --dir /media/safe/edge-ca")]
struct Init {
    #[command(flatten)]
    authority: AuthorityFolder,
    /// Overwrite an authority that is there; certificates that it issued are worth nothing then
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct AuthorityFolder {
    /// Folder of the authority [default: nigh/ca in the user's data folder]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh ca issue --role computer --name camera-7 --host camera-7.example --host 10.0.0.7
  nigh ca issue --role computer --name camera-7 --host 10.0.0.7 --force   renewed: copy it over the one before
  nigh ca issue --role client --name shop --days 30")]
struct Issue {
    #[command(flatten)]
    authority: AuthorityFolder,
    /// What its owner may be: controller, broker, computer, mec, client (calls functions) or operator (deploys, too)
    #[arg(long)]
    role: Role,
    /// Which one: of a computer or broker its name in the edge
    #[arg(long)]
    name: NodeName,
    /// A name or address by which others connect to it; may be given several times
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Days that it is valid
    #[arg(long, value_name = "N", default_value_t = CERTIFICATE_DAYS, value_parser = clap::value_parser!(u32).range(1..=i64::from(CERTIFICATE_DAYS_MAX)))]
    days: u32,
    /// Folder to write to [default: NAME in the current folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Overwrite a certificate and key that are there, as to renew them
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh ca show camera-7
  nigh ca show camera-7/ca.pem")]
struct Show {
    /// A file of certificates (PEM), or a folder that `nigh ca issue` has written
    file: PathBuf,
}

impl CaCommand {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        match self.action {
            Action::Init(init) => init.run(output),
            Action::Issue(issue) => issue.run(output),
            Action::Show(show) => show.run(output),
        }
    }
}

impl AuthorityFolder {
    fn path(&self) -> anyhow::Result<PathBuf> {
        Ok(match &self.dir {
            Some(folder) => folder.clone(),
            None => default_data_dir("ca")?,
        })
    }
}

impl Init {
    fn run(self, output: Output) -> anyhow::Result<()> {
        let folder = self.authority.path()?;
        let authority = Authority::new()?;
        folder::write_authority(&folder, &authority, self.force)?;
        let (folder, until) = (folder.display().to_string(), day(authority.valid_until()));
        let told = json!({ "authority": folder, "valid_until": until });
        Ok(output.result(&told, |_| {
            format!(
                "An authority is in {folder}, valid until {until}.\n\
                 Its key lets whoever has it join the edge and deploy: keep the folder to yourself, off the machines of the edge.\n\
                 Next: nigh ca issue --role controller --name NAME --host HOST"
            )
        })?)
    }
}

impl Issue {
    fn run(self, output: Output) -> anyhow::Result<()> {
        let authority = folder::read_authority(&self.authority.path()?)?;
        let identity = Identity { role: self.role, name: self.name };
        let pem = authority.issue(&identity, &self.host, self.days)?;
        // As a role will judge it.
        let certificate = Tls::new(&pem)?.certificate();
        let folder = self.out.unwrap_or_else(|| identity.name.as_str().into());
        folder::write_issued(&folder, &pem, self.force)?;
        let issued = Issued { identity, folder: folder.display().to_string(), certificate };
        Ok(output.result(&issued.as_json(), |_| &issued)?)
    }
}

struct Issued {
    identity: Identity,
    folder: String,
    certificate: Certificate,
}

impl Issued {
    fn as_json(&self) -> Value {
        let mut told = as_json(&self.certificate);
        told["folder"] = self.folder.as_str().into();
        told
    }
}

impl fmt::Display for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity, folder, certificate } = self;
        writeln!(
            f,
            "Issued to {identity}, valid until {}: {folder}/{{ca,certificate,key}}.pem",
            day(certificate.not_after)
        )?;
        if !identity.role.listens() {
            return write!(f, "Commands use it with\n  export NIGH_TLS_DIR={folder}");
        }
        let host = certificate.hosts.first().map_or("HOST", String::as_str);
        writeln!(f, "Hosts: {}", certificate.hosts.join(", "))?;
        writeln!(f, "Copy the folder to that machine, for the user who runs the role alone, as with")?;
        writeln!(f, "  scp -r {folder} {host}:nigh-tls")?;
        write!(f, "and start it there:\n  nigh {} --tls-dir nigh-tls", identity.role)
    }
}

impl Show {
    fn run(self, output: Output) -> anyhow::Result<()> {
        let file = if self.file.is_dir() { self.file.join(CERTIFICATE) } else { self.file };
        let certificates = read(&file)?;
        let told: Value = certificates.iter().map(as_json).collect();
        Ok(output.result(&told, |_| Shown(&certificates))?)
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<Certificate>> {
    let pem = std::fs::read(file).with_context(|| file.display().to_string())?;
    read_certificates(&pem).with_context(|| file.display().to_string())
}

struct Shown<'a>(&'a [Certificate]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, certificate) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n\n")?;
            }
            let who = match &certificate.identity {
                _ if certificate.is_ca => "an authority".to_owned(),
                Ok(identity) => identity.to_string(),
                Err(error) => format!("nobody in an edge: {error}"),
            };
            let hosts = if certificate.hosts.is_empty() { "none".to_owned() } else { certificate.hosts.join(", ") };
            writeln!(f, "who          {who}")?;
            writeln!(f, "subject      {}", certificate.subject)?;
            writeln!(f, "issued by    {}", certificate.issuer)?;
            writeln!(f, "hosts        {hosts}")?;
            writeln!(
                f,
                "valid        {} to {}{}",
                day(certificate.not_before),
                day(certificate.not_after),
                state(certificate)
            )?;
            write!(f, "fingerprint  {}", certificate.fingerprint)?;
        }
        Ok(())
    }
}

/// Whether a certificate is valid now, in words.
fn state(certificate: &Certificate) -> String {
    let now = SystemTime::now();
    if now < certificate.not_before {
        return ", not yet".to_owned();
    }
    match certificate.not_after.duration_since(now) {
        Ok(left) => format!(", {} days left", left.as_secs() / (24 * 60 * 60)),
        Err(_) => ", EXPIRED".to_owned(),
    }
}

fn as_json(certificate: &Certificate) -> Value {
    let identity = certificate.identity.as_ref().ok();
    let time = |time| humantime::format_rfc3339_seconds(time).to_string();
    json!({
        "role": identity.map(|identity| identity.role.as_str()),
        "name": identity.map(|identity| identity.name.as_str()),
        "hosts": certificate.hosts,
        "is_authority": certificate.is_ca,
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "valid_from": time(certificate.not_before),
        "valid_until": time(certificate.not_after),
        "fingerprint": certificate.fingerprint.to_string(),
    })
}

fn day(time: SystemTime) -> String {
    let time = humantime::format_rfc3339_seconds(time).to_string();
    time.split('T').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_issued_says_what_to_copy_where_and_what_to_start() {
        let authority = Authority::new().unwrap();
        let told = |role: Role, hosts: &[String]| {
            let identity = Identity { role, name: "camera-7".parse().unwrap() };
            let pem = authority.issue(&identity, hosts, 10).unwrap();
            let certificate = Tls::new(&pem).unwrap().certificate();
            Issued { identity, folder: "camera-7".into(), certificate }.to_string()
        };
        let computer = told(Role::Computer, &["10.0.0.7".into()]);
        assert!(computer.contains("scp -r camera-7 10.0.0.7:nigh-tls"), "{computer}");
        assert!(computer.contains("nigh computer --tls-dir nigh-tls"), "{computer}");
        assert!(told(Role::Operator, &[]).contains("export NIGH_TLS_DIR=camera-7"));
    }

    #[test]
    fn a_certificate_is_shown_with_role_name_hosts_and_validity() {
        let authority = Authority::new().unwrap();
        let identity = Identity { role: Role::Broker, name: "gateway".parse().unwrap() };
        let pem = authority.issue(&identity, &["edge.example".into()], 10).unwrap();
        let all = [pem.certificate, pem.ca].concat();
        let certificates = read_certificates(&all).unwrap();
        let shown = Shown(&certificates).to_string();
        for part in ["broker gateway", "edge.example, localhost", "9 days left", "an authority", "Nigh edge"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        let json = as_json(&certificates[0]);
        assert_eq!((&json["role"], &json["name"]), (&"broker".into(), &"gateway".into()));
    }
}
