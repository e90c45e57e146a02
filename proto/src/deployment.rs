//! A function as deployed: name, version, module, limits, grants.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use prost::Message as _;

use crate::name::{Digest, FunctionName};
use crate::placement::Placement;
use crate::state::{STATE_BYTES_MAX, StateName, states_from_wire};
use crate::status::PlatformError;
use crate::v1;

/// How a module is run, told by looking at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A core module built with the SDK.
    Native,
    /// A component that exports `wasi:http/incoming-handler`.
    Http,
    /// A WASI p1 program: standard input to standard output.
    Command,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Http => "http",
            Self::Command => "command",
        })
    }
}

/// Hard limits of one function on one computer. [`Limits::default`] is what a function gets unless its deployment says
/// otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Bytes of an instance's memory.
    pub memory_bytes: u64,
    /// Wall time of one call, once it runs.
    pub timeout: Duration,
    /// Calls that run at once.
    pub concurrency: u32,
    /// Calls that wait.
    pub queue: u32,
    /// Bytes of a request's and of an answer's payload, each.
    pub payload_bytes: u64,
    /// Calls that one instance may serve; with 1 each gets a fresh one.
    pub reuse: u32,
    /// Bytes of log text of one call; more is cut, with a note.
    pub log_bytes: u64,
    /// How long an instance kept for a later call is kept without one.
    pub idle: Duration,
    /// Time that a call waits for its turn.
    pub queue_wait: Duration,
    /// Elements of each table of an instance.
    pub table_elements: u32,
    /// Files and directories that an instance has open at once, those granted included.
    pub open_files: u32,
    /// Bytes of log text of all calls for each second; more is dropped, with a note.
    pub log_bytes_per_second: u64,
    /// Bytes that the function may write to each of its states.
    pub state_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 128 << 20,
            timeout: Duration::from_secs(10),
            concurrency: 16,
            queue: 256,
            payload_bytes: 16 << 20,
            reuse: 1,
            log_bytes: 64 << 10,
            idle: Duration::from_secs(30),
            queue_wait: Duration::from_secs(10),
            table_elements: 20_000,
            open_files: 64,
            log_bytes_per_second: 256 << 10,
            state_bytes: 64 << 10,
        }
    }
}

impl Limits {
    /// What no deployment may ask for more of.
    pub const MAX: Self = Self {
        memory_bytes: 1 << 30,
        timeout: Duration::from_secs(3600),
        concurrency: 1024,
        queue: 65_536,
        payload_bytes: 64 << 20,
        reuse: 1_000_000,
        log_bytes: 16 << 20,
        idle: Duration::from_secs(3600),
        queue_wait: Duration::from_secs(3600),
        table_elements: 100_000,
        open_files: 1024,
        log_bytes_per_second: 64 << 20,
        state_bytes: STATE_BYTES_MAX as u64,
    };
    /// One page of Wasm memory: no instance has less.
    const MEMORY_BYTES_MIN: u64 = 64 << 10;

    /// Fills in defaults for zeros and checks every limit against [`Limits::MAX`].
    ///
    /// # Errors
    /// [`Reason::Malformed`](crate::Reason::Malformed), naming the limit and its range.
    pub fn from_wire(wire: &v1::Limits) -> Result<Self, PlatformError> {
        let default = Self::default();
        let pick = |given: u64, default: u64, least: u64, most: u64, what: &str| match given {
            0 => Ok(default),
            given if (least..=most).contains(&given) => Ok(given),
            given => Err(PlatformError::malformed(format!("limit {what}: {given} is outside {least} to {most}"))),
        };
        let count = |given: u32, default: u32, most: u32, what: &str| {
            pick(given.into(), default.into(), 1, most.into(), what).map(|count| u32::try_from(count).unwrap_or(most))
        };
        let bytes = |given: u64, default: u64, most: u64, what: &str| pick(given, default, 1, most, what);
        let time = |given: u64, default: Duration, most: Duration, what: &str| {
            pick(given, ms(default), 1, ms(most), what).map(Duration::from_millis)
        };
        let (d, max) = (default, Self::MAX);
        let memory_bytes =
            pick(wire.memory_bytes, d.memory_bytes, Self::MEMORY_BYTES_MIN, max.memory_bytes, "memory (bytes)")?;
        Ok(Self {
            memory_bytes,
            timeout: time(wire.timeout_ms, d.timeout, max.timeout, "timeout (ms)")?,
            concurrency: count(wire.concurrency, d.concurrency, max.concurrency, "concurrency")?,
            queue: count(wire.queue, d.queue, max.queue, "queue")?,
            payload_bytes: bytes(wire.payload_bytes, d.payload_bytes, max.payload_bytes, "payload (bytes)")?,
            reuse: count(wire.reuse, d.reuse, max.reuse, "reuse")?,
            log_bytes: bytes(wire.log_bytes, d.log_bytes, max.log_bytes, "log (bytes)")?,
            queue_wait: time(wire.queue_wait_ms, d.queue_wait, max.queue_wait, "queue wait (ms)")?,
            table_elements: count(wire.table_elements, d.table_elements, max.table_elements, "table elements")?,
            open_files: count(wire.open_files, d.open_files, max.open_files, "open files")?,
            log_bytes_per_second: bytes(
                wire.log_bytes_per_second,
                d.log_bytes_per_second,
                max.log_bytes_per_second,
                "log rate (bytes per second)",
            )?,
            idle: time(wire.idle_ms, d.idle, max.idle, "idle (ms)")?,
            state_bytes: bytes(wire.state_bytes, d.state_bytes, max.state_bytes, "state (bytes)")?,
        })
    }

    /// The limits as their message.
    pub fn to_wire(&self) -> v1::Limits {
        let default = Self::default();
        // So that versions of functions deployed before these limits existed stay what they are.
        fn unless<T: PartialEq + Default>(default: T, value: T) -> T {
            if value == default { T::default() } else { value }
        }
        v1::Limits {
            memory_bytes: self.memory_bytes,
            timeout_ms: ms(self.timeout),
            concurrency: self.concurrency,
            queue: self.queue,
            payload_bytes: self.payload_bytes,
            reuse: self.reuse,
            log_bytes: self.log_bytes,
            idle_ms: unless(ms(default.idle), ms(self.idle)),
            queue_wait_ms: unless(ms(default.queue_wait), ms(self.queue_wait)),
            table_elements: unless(default.table_elements, self.table_elements),
            open_files: unless(default.open_files, self.open_files),
            log_bytes_per_second: unless(default.log_bytes_per_second, self.log_bytes_per_second),
            state_bytes: unless(default.state_bytes, self.state_bytes),
        }
    }
}

/// Access to a directory that the computer's operator offers under a name. A deployment can only ask for what is
/// offered; paths of the host never travel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DirectoryGrant {
    /// The offered directory's name; the form of a node's name.
    pub name: String,
    /// Where the function sees it: an absolute path.
    pub guest_path: String,
    /// Read and write, instead of only read.
    pub writable: bool,
}

impl DirectoryGrant {
    /// Grants of one function, at most.
    pub const MAX: usize = 16;
    const GUEST_PATH_BYTES_MAX: usize = 255;

    fn from_wire(wire: v1::DirectoryGrant) -> Result<Self, PlatformError> {
        wire.name
            .parse::<crate::NodeName>()
            .map_err(|_| PlatformError::malformed(format!("directory grant {:?}: not a name", wire.name)))?;
        let path = &wire.guest_path;
        let is_plain = path.starts_with('/')
            && path.len() <= Self::GUEST_PATH_BYTES_MAX
            && !path.chars().any(char::is_control)
            && path.split('/').all(|part| part != "..");
        if !is_plain {
            return Err(PlatformError::malformed(format!(
                "directory grant {}: {path:?} is not an absolute path without ..",
                wire.name
            )));
        }
        Ok(Self { name: wire.name, guest_path: wire.guest_path, writable: wire.writable })
    }

    fn to_wire(&self) -> v1::DirectoryGrant {
        v1::DirectoryGrant { name: self.name.clone(), guest_path: self.guest_path.clone(), writable: self.writable }
    }
}

/// A host that an http function may send requests to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AllowedHost {
    /// A name or an address (IPv6 in brackets), in lower case.
    host: String,
    /// Without one, the standard port of the request's scheme.
    port: Option<u16>,
}

impl AllowedHost {
    /// Hosts of one function, at most.
    pub const MAX: usize = 64;

    /// Whether it is this host and port, where `standard` is the port that goes without saying.
    pub fn covers(&self, host: &str, port: u16, standard: u16) -> bool {
        self.port.unwrap_or(standard) == port && self.host.eq_ignore_ascii_case(host)
    }
}

impl FromStr for AllowedHost {
    type Err = PlatformError;

    fn from_str(given: &str) -> Result<Self, PlatformError> {
        let malformed = || {
            let given: String = given.chars().take(300).collect();
            PlatformError::malformed(format!(
                "allowed host {given:?}: write HOST or HOST:PORT, without a scheme or a path"
            ))
        };
        // An endpoint's form with a port that is put in where there is none.
        let has_port = given.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
        let endpoint = if has_port { given.to_owned() } else { format!("{given}:1") };
        let is_bare = !given.contains('/');
        let checked: crate::Endpoint = endpoint.parse().ok().filter(|_| is_bare).ok_or_else(malformed)?;
        let (host, port) = checked.as_str().rsplit_once(':').ok_or_else(malformed)?;
        let port = if has_port { Some(port.parse().map_err(|_| malformed())?) } else { None };
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }
}

impl fmt::Display for AllowedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

/// A function as deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// The name it is called by.
    pub name: FunctionName,
    /// Digest of module, kind, limits and grants together.
    pub version: Digest,
    /// Digest of the module.
    pub module: Digest,
    /// Size of the module.
    pub module_bytes: u64,
    /// How it is run.
    pub kind: Kind,
    /// Its limits.
    pub limits: Limits,
    /// The directories it may reach.
    pub directories: Vec<DirectoryGrant>,
    /// The hosts that it may send HTTP requests to, sorted.
    pub hosts: Vec<AllowedHost>,
    /// On which computers it runs.
    pub placement: Placement,
    /// The application's states that it may read and write, sorted.
    pub states: Vec<StateName>,
}

/// What a deployer asks for, beside the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The name to call it by.
    pub name: FunctionName,
    /// Its limits.
    pub limits: Limits,
    /// The directories that it may reach.
    pub directories: Vec<DirectoryGrant>,
    /// The hosts that it may send HTTP requests to.
    pub hosts: Vec<AllowedHost>,
    /// On which computers it is to run.
    pub placement: Placement,
    /// The application's states that it depends on.
    pub states: Vec<StateName>,
}

impl Deployment {
    /// Puts a deployment together; the version follows from the rest.
    pub fn new(
        name: FunctionName,
        module: Digest,
        module_bytes: u64,
        kind: Kind,
        limits: Limits,
        directories: Vec<DirectoryGrant>,
    ) -> Self {
        Self {
            name,
            version: module,
            module,
            module_bytes,
            kind,
            limits,
            directories,
            hosts: Vec::new(),
            placement: Placement::default(),
            states: Vec::new(),
        }
        .with_version()
    }

    /// The same with these hosts allowed, which makes it another version.
    #[must_use]
    pub fn allowing(mut self, mut hosts: Vec<AllowedHost>) -> Self {
        hosts.sort();
        hosts.dedup();
        self.hosts = hosts;
        self.with_version()
    }

    /// The same on these computers only, which makes it another version.
    #[must_use]
    pub fn placed(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self.with_version()
    }

    /// The same depending on these states, which makes it another version.
    #[must_use]
    pub fn depending_on(mut self, mut states: Vec<StateName>) -> Self {
        states.sort();
        states.dedup();
        self.states = states;
        self.with_version()
    }

    fn with_version(mut self) -> Self {
        let mut wire = self.to_wire();
        wire.name.clear();
        wire.version.clear();
        self.version = Digest::of(&wire.encode_to_vec());
        self
    }

    /// Checks what a deployer asks for: name, limits and grants.
    ///
    /// # Errors
    /// [`Reason::Malformed`](crate::Reason::Malformed), saying what is wrong.
    pub fn check_head(head: v1::DeployHead) -> Result<Wanted, PlatformError> {
        Ok(Wanted {
            limits: Limits::from_wire(&head.limits.unwrap_or_default())?,
            name: head.name.parse()?,
            directories: grants(head.directories)?,
            hosts: hosts(&head.hosts)?,
            placement: Placement::from_wire(&head.placement)?,
            states: states_from_wire(&head.states)?,
        })
    }

    /// Checks a message as it arrives.
    ///
    /// # Errors
    /// [`Reason::Malformed`](crate::Reason::Malformed), also where the version does not follow from the rest.
    pub fn from_wire(wire: v1::Deployment) -> Result<Self, PlatformError> {
        let kind = match wire.kind() {
            v1::ModuleKind::Native => Kind::Native,
            v1::ModuleKind::Http => Kind::Http,
            v1::ModuleKind::Command => Kind::Command,
            v1::ModuleKind::Unspecified => return Err(PlatformError::malformed("a deployment without a kind")),
        };
        let limits = Limits::from_wire(&wire.limits.unwrap_or_default())?;
        let deployment = Self::new(
            wire.name.parse()?,
            wire.module.parse()?,
            wire.module_bytes,
            kind,
            limits,
            grants(wire.directories)?,
        )
        .allowing(hosts(&wire.hosts)?)
        .placed(Placement::from_wire(&wire.placement)?)
        .depending_on(states_from_wire(&wire.states)?);
        if deployment.version != wire.version.parse()? {
            return Err(PlatformError::malformed(format!(
                "the version of {} does not follow from its module, limits, grants, placement and states",
                deployment.name
            )));
        }
        Ok(deployment)
    }

    /// The deployment as its message.
    pub fn to_wire(&self) -> v1::Deployment {
        let kind = match self.kind {
            Kind::Native => v1::ModuleKind::Native,
            Kind::Http => v1::ModuleKind::Http,
            Kind::Command => v1::ModuleKind::Command,
        };
        v1::Deployment {
            name: self.name.as_str().to_owned(),
            version: self.version.to_string(),
            module: self.module.to_string(),
            module_bytes: self.module_bytes,
            kind: kind.into(),
            limits: Some(self.limits.to_wire()),
            directories: self.directories.iter().map(DirectoryGrant::to_wire).collect(),
            hosts: self.hosts.iter().map(ToString::to_string).collect(),
            placement: self.placement.to_wire(),
            states: self.states.iter().map(ToString::to_string).collect(),
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn hosts(wire: &[String]) -> Result<Vec<AllowedHost>, PlatformError> {
    if wire.len() > AllowedHost::MAX {
        let message = format!("{} allowed hosts; at most {} are taken", wire.len(), AllowedHost::MAX);
        return Err(PlatformError::malformed(message));
    }
    wire.iter().map(|host| host.parse()).collect()
}

fn grants(wire: Vec<v1::DirectoryGrant>) -> Result<Vec<DirectoryGrant>, PlatformError> {
    if wire.len() > DirectoryGrant::MAX {
        return Err(PlatformError::malformed(format!(
            "{} directory grants; at most {} are taken",
            wire.len(),
            DirectoryGrant::MAX
        )));
    }
    wire.into_iter().map(DirectoryGrant::from_wire).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(limits: Limits) -> Deployment {
        Deployment::new("echo".parse().unwrap(), Digest::of(b"module"), 6, Kind::Native, limits, Vec::new())
    }

    #[test]
    fn the_version_follows_from_module_and_limits_but_not_from_the_name() {
        let one = deployment(Limits::default());
        let other_limits = deployment(Limits { reuse: 5, ..Limits::default() });
        assert_ne!(one.version, other_limits.version);
        let renamed =
            Deployment::new("other".parse().unwrap(), one.module, 6, Kind::Native, Limits::default(), Vec::new());
        assert_eq!(one.version, renamed.version);
        assert_eq!(Deployment::from_wire(one.to_wire()).unwrap(), one);
        let forged = v1::Deployment { version: Digest::of(b"other").to_string(), ..one.to_wire() };
        assert!(Deployment::from_wire(forged).is_err());
    }

    #[test]
    fn limits_are_filled_in_and_held_to_their_range() {
        assert_eq!(Limits::from_wire(&v1::Limits::default()).unwrap(), Limits::default());
        let error = Limits::from_wire(&v1::Limits { memory_bytes: 2 << 30, ..Default::default() }).unwrap_err();
        assert!(error.message.contains("memory"), "{error}");
        assert!(Limits::from_wire(&v1::Limits { concurrency: 100_000, ..Default::default() }).is_err());
        let idle = |idle_ms| Limits::from_wire(&v1::Limits { idle_ms, ..Default::default() }).map(|limits| limits.idle);
        assert_eq!(idle(1500).unwrap(), Duration::from_millis(1500));
        assert!(idle(3_600_001).unwrap_err().message.contains("idle"));
        assert_eq!(Limits::from_wire(&Limits::MAX.to_wire()).unwrap(), Limits::MAX);
    }

    #[test]
    fn limits_that_came_later_do_not_change_older_versions() {
        let wire = Limits::default().to_wire();
        assert_eq!((wire.queue_wait_ms, wire.table_elements, wire.open_files, wire.log_bytes_per_second), (0, 0, 0, 0));
        assert_eq!(wire.log_bytes, 64 << 10);
        let tighter = Limits { open_files: 3, ..Limits::default() };
        assert_eq!(Limits::from_wire(&tighter.to_wire()).unwrap(), tighter);
        assert_ne!(deployment(tighter).version, deployment(Limits::default()).version);
    }

    #[test]
    fn allowed_hosts_are_part_of_the_version_whatever_their_order() {
        let one = deployment(Limits::default());
        let hosts = |hosts: &[&str]| hosts.iter().map(|host| host.parse().unwrap()).collect::<Vec<AllowedHost>>();
        let allowing = one.clone().allowing(hosts(&["b.example:81", "a.example", "a.example"]));
        assert_ne!(allowing.version, one.version);
        assert_eq!(allowing, one.clone().allowing(hosts(&["A.example", "b.example:81"])));
        assert_eq!(Deployment::from_wire(allowing.to_wire()).unwrap(), allowing);
        assert_eq!(one.clone().allowing(Vec::new()), one);
    }

    #[test]
    fn states_are_part_of_the_version_whatever_their_order() {
        let one = deployment(Limits::default());
        let states = |states: &[&str]| states.iter().map(|state| state.parse().unwrap()).collect::<Vec<StateName>>();
        let depending = one.clone().depending_on(states(&["visits", "cart", "cart"]));
        assert_ne!(depending.version, one.version);
        assert_eq!(depending, one.clone().depending_on(states(&["cart", "visits"])));
        assert_eq!(Deployment::from_wire(depending.to_wire()).unwrap(), depending);
        assert_eq!(one.clone().depending_on(Vec::new()), one);
        let many = (0..=crate::state::STATES_MAX).map(|at| format!("s{at}")).collect();
        let head = v1::DeployHead { name: "echo".into(), states: many, ..v1::DeployHead::default() };
        assert!(Deployment::check_head(head).unwrap_err().message.contains("17 states"));
    }

    #[test]
    fn an_allowed_host_covers_its_port_or_the_standard_one() {
        let covers = |allowed: &str, host, port| allowed.parse::<AllowedHost>().unwrap().covers(host, port, 443);
        assert!(covers("a.example", "A.Example", 443) && !covers("a.example", "a.example", 80));
        assert!(covers("a.example:80", "a.example", 80) && !covers("a.example:80", "a.example", 443));
        assert!(
            !covers("a.example", "b.a.example", 443) && covers("[::1]:9", "[::1]", 9) && covers("[::1]", "[::1]", 443)
        );
        for odd in ["", "http://a", "a/b", "a:0", "a:b", "::1", "a b", "*", ":80"] {
            assert!(odd.parse::<AllowedHost>().is_err(), "{odd}");
        }
    }

    #[test]
    fn grants_name_offers_and_absolute_paths() {
        let check = |name: &str, path: &str| {
            DirectoryGrant::from_wire(v1::DirectoryGrant {
                name: name.into(),
                guest_path: path.into(),
                writable: false,
            })
        };
        assert!(check("data", "/data").is_ok());
        for (name, path) in [("../etc", "/x"), ("data", "x"), ("data", "/a/../b"), ("data", "")] {
            assert!(check(name, path).is_err(), "{name} {path}");
        }
    }
}
