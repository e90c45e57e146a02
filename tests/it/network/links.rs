//! Hosts in network namespaces of their own, on one switch whose links can be cut and made to lose or delay packets. Made by
//! the system's own tools, as root; all traffic stays inside.
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::future::Future;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nigh_tests::processes::nigh;

/// Hosts on one switch. Gone with everything in it when dropped.
pub(crate) struct Network {
    /// Tells its namespaces from those of others.
    name: String,
    hosts: Vec<&'static str>,
}

/// A program that runs on a host. Killed when dropped.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Network {
    /// A network of these hosts; none where the system does not let it be made, which is told.
    pub(crate) fn of(hosts: &[&'static str]) -> Option<Self> {
        static NUMBERS: AtomicU32 = AtomicU32::new(0);
        let name = format!("nigh{}-{}", std::process::id(), NUMBERS.fetch_add(1, Ordering::Relaxed));
        let network = Self { name, hosts: hosts.to_vec() };
        match network.make() {
            Ok(()) => Some(network),
            Err(why) => {
                println!("skipped: networks cannot be made here ({why}); run it as root, with iproute2 and nftables");
                None
            }
        }
    }

    fn make(&self) -> Result<(), String> {
        let switch = self.space("switch");
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "switch", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "switch", "up"])?;
        for host in &self.hosts {
            let space = self.space(host);
            ip(&["netns", "add", &space])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
            ip(&["-n", &space, "link", "add", "eth0", "type", "veth", "peer", "name", host, "netns", &switch])?;
            ip(&["-n", &space, "address", "add", &format!("{}/24", self.address(host)), "dev", "eth0"])?;
            ip(&["-n", &space, "link", "set", "eth0", "up"])?;
            ip(&["-n", &switch, "link", "set", host, "master", "switch", "up"])?;
        }
        self.filter("add table bridge links")?;
        self.filter("add chain bridge links forward { type filter hook forward priority 0; }")
    }

    fn space(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }

    /// Where others reach a host.
    pub(crate) fn address(&self, host: &str) -> String {
        let at = self.hosts.iter().position(|have| *have == host).unwrap();
        format!("10.77.0.{}", at + 1)
    }

    /// A host has this address, too.
    pub(crate) fn also_at(&self, host: &str, address: &str) {
        ip(&["-n", &self.space(host), "address", "add", &format!("{address}/24"), "dev", "eth0"]).unwrap();
    }

    /// From now on nothing passes between these two, and nobody is told.
    pub(crate) fn cut(&self, one: &str, other: &str) {
        self.between(one, other, "drop");
    }

    /// From now on some packets between these two are lost.
    pub(crate) fn lose(&self, one: &str, other: &str, percent: u32) {
        self.between(one, other, &format!("numgen random mod 100 < {percent} drop"));
    }

    /// All links pass everything again.
    pub(crate) fn heal(&self) {
        self.filter("flush chain bridge links forward").unwrap();
    }

    /// Each packet that a host sends is late by this, give or take a fifth; false, and told, where the kernel cannot.
    pub(crate) fn delay(&self, host: &str, ms: u32) -> bool {
        let (late, jitter) = (format!("{ms}ms"), format!("{}ms", ms / 5));
        let space = self.space(host);
        let done = run("tc", &["-n", &space, "qdisc", "add", "dev", "eth0", "root", "netem", "delay", &late, &jitter]);
        if let Err(why) = &done {
            println!("without delay: this kernel has no netem ({why})");
        }
        done.is_ok()
    }

    fn between(&self, one: &str, other: &str, what: &str) {
        for (from, to) in [(one, other), (other, one)] {
            self.filter(&format!("add rule bridge links forward iifname {from} oifname {to} {what}")).unwrap();
        }
    }

    fn filter(&self, rule: &str) -> Result<(), String> {
        run("ip", &["netns", "exec", &self.space("switch"), "nft", rule])
    }

    /// Starts the program on a host.
    pub(crate) fn start(&self, host: &str, arguments: &[&str]) -> Running {
        let program = nigh();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(host)]).arg(program.get_program()).args(arguments);
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Running(command.stdout(Stdio::null()).spawn().unwrap())
    }

    /// Runs a test as one who sits at a host.
    pub(crate) fn at<F: Future<Output = ()>>(&self, host: &str, test: impl FnOnce() -> F + Send) {
        let space = std::fs::File::open(format!("/run/netns/{}", self.space(host))).unwrap();
        std::thread::scope(|scope| {
            let running = scope.spawn(move || {
                // This thread alone, so everything that the test does has to run on it.
                nix::sched::setns(space, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(test());
            });
            if let Err(panic) = running.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in self.hosts.iter().chain([&"switch"]) {
            let _ = ip(&["netns", "delete", &self.space(host)]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", arguments.join(" "), said.trim()))
}
