//! The hardware of a modelled computer, as it is named: built in, with parameters, or a file.

use std::path::Path;

use nigh_model::{Hardware, IntelServer, Raspberry};
use nigh_routing::{Conf, ConfError};
use nigh_runtime::Backend;

use super::ConfigError;

/// The names that need no file.
const BUILT_IN: &str = "raspberry or intel-server";

/// What runs a computer's functions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendName {
    /// Instances of WebAssembly modules
    #[default]
    Wasm,
    /// A model of hardware: calls are answered when it would have answered them
    Modelled,
    /// Whatever is behind a URL, such as an OpenFaaS gateway
    Http,
    /// OpenWhisk
    Openwhisk,
}

impl BackendName {
    /// Whether functions run elsewhere.
    pub(super) fn is_remote(self) -> bool {
        matches!(self, Self::Http | Self::Openwhisk)
    }
}

/// What runs functions, of this hardware or a Raspberry Pi.
///
/// # Errors
/// As of [`hardware`]; where there is hardware, but nothing is modelled; where functions run elsewhere, which takes more to
/// say.
pub fn backend(name: BackendName, described: Option<&str>) -> Result<Backend, ConfigError> {
    match (name, described) {
        (BackendName::Modelled, described) => hardware(described.unwrap_or("raspberry")).map(Backend::Modelled),
        (BackendName::Wasm, None) => Ok(Backend::Wasm),
        (BackendName::Http | BackendName::Openwhisk, None) => {
            let message =
                "functions run elsewhere for a computer that is told where: nigh computer --backend http --url URL";
            Err(ConfigError::Contradiction(message.to_owned()))
        }
        (_, Some(_)) => {
            let message = "--hardware says what a modelled computer is; add --backend modelled, or leave it out";
            Err(ConfigError::Contradiction(message.to_owned()))
        }
    }
}

/// The hardware that is meant by `raspberry`, `intel-server,num-workers=8` and the like, or described in a file of this path.
///
/// # Errors
/// Where it is none, or makes no sense.
fn hardware(given: &str) -> Result<Hardware, ConfigError> {
    let wrong = |error: String| ConfigError::Contradiction(format!("hardware {given:?}: {error}"));
    let (name, conf) = match Conf::parse_named(given, "raspberry") {
        Ok(named) => named,
        // The commas of a path are its own.
        Err(_) if Path::new(given).exists() => return from_file(given),
        Err(error) => return Err(wrong(error.to_string())),
    };
    let hardware = match name.as_str() {
        "raspberry" => raspberry(&conf).map_err(|error| wrong(error.to_string()))?,
        "intel-server" => intel_server(&conf).map_err(|error| wrong(error.to_string()))?,
        "file" => return from_file(conf.text("path")),
        _ => return from_file(given),
    };
    hardware.check().map_err(|error| wrong(error.to_string()))?;
    Ok(hardware)
}

fn raspberry(conf: &Conf) -> Result<Hardware, ConfError> {
    let keys = ["num-cpu-containers", "num-cpu-workers", "num-gpu-containers", "num-gpu-workers"];
    conf.only("raspberry", &keys)?;
    let Raspberry { cpu_containers, cpu_workers, gpu_containers, gpu_workers } = Raspberry::default();
    Ok(Hardware::raspberry(&Raspberry {
        cpu_containers: count(conf, keys[0], cpu_containers)?,
        cpu_workers: count(conf, keys[1], cpu_workers)?,
        gpu_containers: count(conf, keys[2], gpu_containers)?,
        gpu_workers: count(conf, keys[3], gpu_workers)?,
    }))
}

fn intel_server(conf: &Conf) -> Result<Hardware, ConfError> {
    let keys = ["num-containers", "num-workers"];
    conf.only("intel-server", &keys)?;
    let IntelServer { containers, workers } = IntelServer::default();
    Ok(Hardware::intel_server(&IntelServer {
        containers: count(conf, keys[0], containers)?,
        workers: count(conf, keys[1], workers)?,
    }))
}

/// A number of containers or workers; no edge's computers have more.
fn count(conf: &Conf, key: &'static str, default: u32) -> Result<u32, ConfError> {
    let count = u32::try_from(conf.uint_or(key, default.into())?).ok().filter(|count| *count <= 10_000);
    count.ok_or_else(|| ConfError::Value {
        key: key.to_owned(),
        value: conf.text(key).to_owned(),
        expected: "a number up to 10000",
    })
}

fn from_file(path: &str) -> Result<Hardware, ConfigError> {
    let wrong = |error: String| {
        ConfigError::Contradiction(format!("hardware {path}: {error}; give a file's path, or a name: {BUILT_IN}"))
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    Hardware::from_text(&text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn functions(given: &str) -> Vec<String> {
        hardware(given).unwrap().containers.into_iter().map(|container| container.function).collect()
    }

    #[test]
    fn built_in_hardware_takes_parameters_as_in_the_older_system() {
        assert_eq!(functions("raspberry"), ["clambda0", "glambda0"]);
        assert_eq!(functions("intel-server,num-containers=2"), ["clambda0", "clambda1"]);
        let older = "type=raspberry,num-cpu-containers=1,num-cpu-workers=3,num-gpu-containers=0,num-gpu-workers=2";
        assert_eq!(functions(older), ["clambda0"]);
        assert_eq!(hardware(older).unwrap().containers[0].workers, 3);
    }

    #[test]
    fn a_file_is_read_by_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one,two.json");
        std::fs::write(&path, Hardware::EXAMPLE_JSON).unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(functions(path), ["clambda0"]);
        let plain = folder.path().join("hardware.toml");
        std::fs::write(&plain, Hardware::EXAMPLE).unwrap();
        assert_eq!(functions(&format!("type=file,path={}", plain.display())), ["clambda0"]);
        std::fs::write(&plain, "processor = 1").unwrap();
        let error = hardware(plain.to_str().unwrap()).unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("raspberry or intel-server"), "{error}");
    }

    #[test]
    fn what_is_none_is_refused_with_what_would_do() {
        let refused = |given: &str| hardware(given).unwrap_err().to_string();
        assert!(refused("abacus").contains("raspberry or intel-server"));
        assert!(refused("raspberry,num-gpus=2").contains("num-cpu-containers"));
        assert!(refused("raspberry,num-cpu-workers=0").contains("workers"));
        assert!(refused("raspberry,num-cpu-containers=0,num-gpu-containers=0").contains("containers"));
        assert!(refused("intel-server,num-workers=1000000").contains("10000"));
    }
}
