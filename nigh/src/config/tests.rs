//! Configuration files and the options that win over them.

use std::path::PathBuf;
use std::time::Duration;

use nigh_proto::{Identity, Role};

use super::*;
use crate::ca::{Authority, folder};

fn issue(authority: &Authority, role: Role, name: &str) -> nigh_proto::tls::Pem {
    let identity = Identity { role, name: name.parse().unwrap() };
    let hosts = if role.listens() { vec!["localhost".to_owned()] } else { Vec::new() };
    authority.issue(&identity, &hosts, 1).unwrap()
}

struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn file(text: &str) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nigh.toml");
    std::fs::write(&path, text).unwrap();
    File { _folder: folder, path }
}

fn controller(text: &str) -> Result<ControllerSettings, ConfigError> {
    let file = file(text);
    ControllerSettings::new(&ControllerOptions { config: Some(file.path), ..Default::default() })
}

fn broker(text: &str) -> Result<BrokerSettings, ConfigError> {
    let file = file(text);
    BrokerSettings::new(&BrokerOptions { config: Some(file.path), ..Default::default() }, None)
}

fn computer(text: &str) -> Result<ComputerSettings, ConfigError> {
    let file = file(text);
    ComputerSettings::new(&ComputerOptions { config: Some(file.path), ..Default::default() }, None)
}

fn mec(text: &str) -> Result<MecSettings, ConfigError> {
    let file = file(text);
    let data_dir = Some("data".into());
    MecSettings::new(&MecOptions { config: Some(file.path), data_dir, ..Default::default() }, None)
}

/// A file with everything that it shows in comments switched on.
fn switched_on(example: &str) -> String {
    let is_shown = |line: &str| {
        line.starts_with("# [")
            || line
                .strip_prefix("# ")
                .is_some_and(|line| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')))
    };
    example
        .lines()
        .map(|line| if is_shown(line) { &line[2..] } else { line })
        .fold(String::new(), |all, line| all + line + "\n")
}

#[test]
fn the_examples_show_the_defaults() {
    let same = |example: &dyn std::fmt::Debug, default: &dyn std::fmt::Debug| {
        assert_eq!(format!("{example:#?}"), format!("{default:#?}"));
    };
    same(&controller(ControllerSettings::EXAMPLE).unwrap(), &controller("").unwrap());
    same(&broker(BrokerSettings::EXAMPLE).unwrap(), &broker("").unwrap());
    same(&computer(ComputerSettings::EXAMPLE).unwrap(), &computer("").unwrap());
    same(&mec(MecSettings::EXAMPLE).unwrap(), &mec("").unwrap());
}

#[test]
fn what_the_examples_show_in_comments_is_valid_too() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::new().unwrap();
    // The examples with their paths in a folder of the test.
    let with_certificate = |example: &str, role: Role, name: &str| {
        let folder = home.path().join(name);
        let pem = issue(&authority, role, name);
        folder::write_issued(&folder, &pem, false).unwrap();
        let callbacks = folder.join("ca.pem");
        let example = switched_on(example).replace("/etc/nigh/callbacks.pem", callbacks.to_str().unwrap());
        example.replace("/etc/nigh/tls", folder.to_str().unwrap())
    };
    let controller = controller(&with_certificate(ControllerSettings::EXAMPLE, Role::Controller, "control")).unwrap();
    assert_eq!(controller.config.tls.unwrap().identity().to_string(), "controller control");
    assert_eq!(controller.data_dir, Some(PathBuf::from("/var/lib/nigh/controller")));
    let broker = broker(&with_certificate(BrokerSettings::EXAMPLE, Role::Broker, "broker-6473")).unwrap();
    assert_eq!(broker.config.routes.len(), 2);
    assert_eq!(broker.config.advertise.unwrap().as_str(), "edge-7.example:6473");
    let computer = computer(&with_certificate(ComputerSettings::EXAMPLE, Role::Computer, "computer-10000")).unwrap();
    assert_eq!(computer.config.directories[0].name, "pictures");
    assert_eq!(computer.config.memory_bytes_max, 2 << 30);
    assert_eq!(computer.name.unwrap().as_str(), "computer-10000");
    let mec = mec(&with_certificate(MecSettings::EXAMPLE, Role::Mec, "mec")).unwrap();
    assert_eq!(mec.config.locations["broker-6473"].country.as_deref(), Some("IT"));
    assert_eq!(mec.config.platform.unwrap().timeout, Duration::from_secs(5));
    assert_eq!(mec.config.elsewhere.as_deref(), Some("https://cloud.example/function/{name}"));
}

#[test]
fn who_decides_where_devices_are_sent_has_what_that_needs() {
    let told = |text: &str| mec(text).unwrap_err().to_string();
    assert!(told("decide = \"file\"").contains("--associations"));
    assert!(told("[locations.broker-1]\ncountry = \"Italy\"").contains("two capitals"));
    assert!(told("[locations.broker-1]\npoint = [200.0, 0.0]").contains("longitude"));
    assert!(told("proxies = [\"10.0.0.0/33\"]").contains("no network"));
    assert!(told("elsewhere = \"nowhere\"").contains("absolute URI"));
    assert!(told("[platform]\nurl = \"http://mep\"").contains("both"));
    assert!(told("[platform]\nurl = \"ftp://mep\"\ninstance = \"a\"").contains("http://HOST:PORT"));
    assert!(told("listen_older = \"10.0.0.1:1\"").contains("--role mec"));
    let settings = mec("decide = \"file\"\nassociations = \"rows\"\n[callbacks]\nnetworks = [\"10.0.0.7\"]").unwrap();
    assert_eq!(settings.config.decider, nigh_mec::DeciderConfig::File { path: "rows".into() });
    assert_eq!(settings.config.callbacks.networks[0].to_string(), "10.0.0.7/32");
    let settings = computer("outgoing_networks = [\"10.1.0.0/16\"]").unwrap();
    assert_eq!(settings.config.outgoing_networks[0].to_string(), "10.1.0.0/16");
}

#[test]
fn the_examples_name_every_key() {
    for (example, error) in [
        (ControllerSettings::EXAMPLE, controller("nonsense = 1").unwrap_err().to_string()),
        (BrokerSettings::EXAMPLE, broker("nonsense = 1").unwrap_err().to_string()),
        (BrokerSettings::EXAMPLE, broker("[limits]\nnonsense = 1").unwrap_err().to_string()),
        (MecSettings::EXAMPLE, mec("nonsense = 1").unwrap_err().to_string()),
        (MecSettings::EXAMPLE, mec("[callbacks]\nnonsense = 1").unwrap_err().to_string()),
        (MecSettings::EXAMPLE, mec("[platform]\nnonsense = 1").unwrap_err().to_string()),
        (ComputerSettings::EXAMPLE, computer("nonsense = 1").unwrap_err().to_string()),
        (ComputerSettings::EXAMPLE, computer("[module_limits]\nnonsense = 1").unwrap_err().to_string()),
        (ComputerSettings::EXAMPLE, computer("[remote]\nnonsense = 1").unwrap_err().to_string()),
    ] {
        let keys: Vec<_> = error.split('`').skip(3).step_by(2).collect();
        assert!(keys.len() >= 4, "{error}");
        for key in keys {
            let named = example.lines().any(|line| {
                let line = line.trim_start_matches("# ");
                line.starts_with(&format!("{key} = "))
                    || line.starts_with(&format!("[{key}"))
                    || line.ends_with(&format!(".{key}]"))
            });
            assert!(named, "{key} is not in the example");
        }
    }
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_what_is_valid() {
    for (text, line, told) in [
        ("listen = \"127.0.0.1:1\"\nlisen = \"x\"\n", 2, "unknown field `lisen`, expected one of `listen`"),
        ("\n\nlease = \"soon\"\n", 3, "as in 250ms, 5s"),
        ("lease = 5\n", 1, "a time with its unit"),
        ("modules_bytes_max = \"4 gallons\"\n", 1, "as in 512KiB"),
        ("modules_bytes_max = -4\n", 1, "as in 512KiB"),
        ("nodes_max = 0\n", 1, "nonzero"),
        ("listen = \"here\"\n", 1, "address"),
        ("lease = \"1s\"\nlease = \"2s\"\n", 2, "duplicate"),
        ("[module_limits]\nbytes_min = 1\n", 2, "unknown field `bytes_min`"),
        ("lease = \n", 1, ""),
    ] {
        let error = controller(text).unwrap_err().to_string();
        assert!(error.contains(&format!("nigh.toml:{line}: ")) && error.contains(told), "{text:?}: {error}");
    }
    let error = broker("policy = \"fastest\"\n").unwrap_err().to_string();
    assert!(error.contains(":1: ") && error.contains("round-robin"), "{error}");
    let missing = ControllerOptions { config: Some("no/such.toml".into()), ..Default::default() };
    assert!(ControllerSettings::new(&missing).unwrap_err().to_string().contains("no/such.toml"));
}

#[test]
fn options_win_over_the_file() {
    let file =
        file("name = \"from-file\"\nlisten = \"127.0.0.1:1\"\ncontroller = \"file:1\"\nworkers = 3\ndrain = \"1s\"\n");
    let mut options = ComputerOptions { config: Some(file.path.clone()), ..Default::default() };
    let settings = ComputerSettings::new(&options, None).unwrap();
    assert_eq!(settings.config.controller.as_ref().unwrap().first().as_str(), "file:1");
    assert_eq!((settings.listen.port(), settings.config.workers), (1, 3));
    options.name = Some("from-option".parse().unwrap());
    options.listen = Some("127.0.0.1:2".parse().unwrap());
    options.workers = std::num::NonZeroUsize::new(5);
    options.dir = vec![parse_offer("data=/srv:rw").unwrap()];
    let chosen: nigh_proto::Endpoints = "option:2".parse().unwrap();
    let settings = ComputerSettings::new(&options, Some(&chosen)).unwrap();
    assert_eq!(settings.name.unwrap().as_str(), "from-option");
    assert_eq!((settings.listen.port(), settings.config.workers), (2, 5));
    assert_eq!(settings.config.controller, Some(chosen));
    assert_eq!(settings.config.drain, Duration::from_secs(1));
    assert!(settings.config.directories[0].writable);
}

#[test]
fn names_and_folders_follow_from_the_port() {
    let config = computer("listen = \"127.0.0.1:0\"\ndata_dir = \"/data\"").unwrap().into_config(12345).unwrap();
    assert_eq!(config.name.as_str(), "computer-12345");
    assert_eq!(config.cache, Some(PathBuf::from("/data/compiled")));
    assert_eq!(broker("").unwrap().into_config(7).name.as_str(), "broker-7");
}

#[test]
fn listening_everywhere_needs_an_address_for_others() {
    for error in [
        computer("listen = \"0.0.0.0:10000\"").unwrap_err().to_string(),
        broker("listen = \"[::]:10000\"").unwrap_err().to_string(),
    ] {
        assert!(error.contains("--advertise HOST:10000"), "{error}");
    }
    let settings =
        computer("listen = \"0.0.0.0:10000\"\nadvertise = \"camera-3:10000\"\ninsecure_plaintext = true").unwrap();
    assert_eq!(settings.config.advertise.unwrap().as_str(), "camera-3:10000");
    assert!(
        controller("listen = \"0.0.0.0:6475\"\ninsecure_plaintext = true").is_ok(),
        "nobody announces a controller"
    );
}

#[test]
fn a_broker_may_do_without_a_controller_http_and_table() {
    let alone = "controller = \"none\"\nlisten_http = \"none\"\nlisten_table = \"none\"\n";
    assert!(broker(alone).unwrap_err().to_string().contains("--route"));
    let settings = broker(&format!("{alone}[routes]\necho = [\"127.0.0.1:1\"]")).unwrap();
    assert_eq!((settings.http, settings.table, settings.config.controller), (None, None, None));
    let error = broker("[routes]\n\"Odd Name\" = [\"127.0.0.1:1\"]").unwrap_err().to_string();
    assert!(error.contains("Odd Name"), "{error}");
}

#[test]
fn beyond_this_machine_there_is_tls_or_a_plain_word() {
    let listen = |address: &str, insecure_plaintext, tls_dir: Option<PathBuf>| {
        let listen = Some(address.parse().unwrap());
        let data_dir = Some("data".into());
        ControllerSettings::new(&ControllerOptions {
            listen,
            data_dir,
            insecure_plaintext,
            tls_dir,
            ..Default::default()
        })
    };
    assert!(listen("127.0.0.1:1", false, None).is_ok());
    assert!(listen("[::1]:1", false, None).is_ok());
    for open in ["10.0.0.1:1", "0.0.0.0:1", "[::]:1"] {
        let error = listen(open, false, None).unwrap_err().to_string();
        for way_out in [open, "nigh ca issue --role controller", "--tls-dir", "--insecure-plaintext"] {
            assert!(error.contains(way_out), "{way_out}: {error}");
        }
        assert!(listen(open, true, None).is_ok());
    }
    let home = tempfile::tempdir().unwrap();
    folder::write_issued(home.path(), &issue(&Authority::new().unwrap(), Role::Controller, "control"), false).unwrap();
    let settings = listen("10.0.0.1:1", false, Some(home.path().into())).unwrap();
    assert!(settings.config.tls.is_some() && settings.tls.is_some());

    // Of a broker every door counts.
    for door in ["listen", "listen_table", "listen_http"] {
        let file = format!("{door} = \"10.0.0.1:1\"\n");
        assert!(matches!(broker(&file), Err(ConfigError::Plaintext { role: Role::Broker, .. })), "{door}");
        assert!(broker(&format!("{file}insecure_plaintext = true\n")).is_ok());
    }
    assert!(matches!(computer("listen = \"10.0.0.1:1\"\n"), Err(ConfigError::Plaintext { role: Role::Computer, .. })));
}

#[test]
fn a_certificate_says_role_and_name() {
    let authority = Authority::new().unwrap();
    let home = tempfile::tempdir().unwrap();
    let start = |certified: Role, name: Option<&str>| {
        folder::write_issued(home.path(), &issue(&authority, certified, "camera-7"), true).unwrap();
        let name = name.map(|name| name.parse().unwrap());
        ComputerSettings::new(&ComputerOptions { name, tls_dir: Some(home.path().into()), ..Default::default() }, None)
    };
    assert_eq!(start(Role::Computer, None).unwrap().name.unwrap().as_str(), "camera-7");
    assert!(start(Role::Computer, Some("camera-7")).is_ok());
    let error = start(Role::Computer, Some("camera-8")).unwrap_err().to_string();
    assert!(error.contains("camera-8") && error.contains("computer camera-7"), "{error}");
    let error = start(Role::Broker, None).unwrap_err().to_string();
    assert!(error.contains("it is of broker camera-7, but this is a computer"), "{error}");
    std::fs::remove_file(home.path().join("key.pem")).unwrap();
    let options = ComputerOptions { tls_dir: Some(home.path().into()), ..Default::default() };
    assert!(ComputerSettings::new(&options, None).unwrap_err().to_string().contains("key.pem"));
    let error = computer("[tls]\nca = \"ca.pem\"\n").unwrap_err().to_string();
    assert!(error.contains("all of"), "{error}");
}
