//! The two services that are registered: where device applications come, and where functions are called.

use nigh_proto::Endpoint;
use serde_json::{Value, json};

use crate::config::PlatformConfig;
use crate::server::Server;

/// The version of the interface for device applications.
const DEV_APP_VERSION: &str = "2.2.1";

/// Where functions are called: doors for HTTP, and where there is none, brokers over gRPC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) http: Vec<Endpoint>,
    pub(crate) grpc: Vec<Server>,
    pub(crate) is_secured: bool,
}

/// `ServiceInfo` of where device applications come.
pub(super) fn devices(config: &PlatformConfig, own: &Endpoint, is_secured: bool) -> Value {
    let scheme = if is_secured { "https" } else { "http" };
    let transport = rest("devices", "1.1", json!({ "uris": [format!("{scheme}://{own}/dev_app/v1")] }));
    info(&config.devices_service, DEV_APP_VERSION, true, "JSON", transport)
}

/// `ServiceInfo` of where functions are called; inactive while there is no broker.
pub(super) fn calls(config: &PlatformConfig, calls: &Calls) -> Value {
    let scheme = if calls.is_secured { "https" } else { "http" };
    let version = env!("CARGO_PKG_VERSION");
    if calls.http.is_empty() && !calls.grpc.is_empty() {
        let addresses: Vec<Value> = calls.grpc.iter().filter_map(address).collect();
        let transport = json!({
            "id": "calls",
            "name": "gRPC",
            "type": "RPC",
            "protocol": "gRPC",
            "version": "1",
            "endpoint": { "addresses": addresses },
            "security": {},
        });
        return info(&config.calls_service, version, true, "PROTOBUF3", transport);
    }
    let uris: Vec<String> = calls.http.iter().map(|door| format!("{scheme}://{door}/function/")).collect();
    let transport = rest("calls", "1.1", json!({ "uris": uris }));
    info(&config.calls_service, version, !calls.http.is_empty(), "JSON", transport)
}

/// `host` and `port` of an endpoint.
fn address(server: &Server) -> Option<Value> {
    let endpoint: Endpoint = server.as_str().parse().ok()?;
    Some(json!({ "host": endpoint.host(), "port": endpoint.port() }))
}

fn rest(id: &str, version: &str, endpoint: Value) -> Value {
    json!({
        "id": id,
        "name": "REST",
        "type": "REST_HTTP",
        "protocol": "HTTP",
        "version": version,
        "endpoint": endpoint,
        "security": {},
    })
}

fn info(name: &str, version: &str, is_active: bool, serializer: &str, transport: Value) -> Value {
    json!({
        "serName": name,
        "version": version,
        "state": if is_active { "ACTIVE" } else { "INACTIVE" },
        "transportInfo": transport,
        "serializer": serializer,
        "scopeOfLocality": "MEC_SYSTEM",
        "consumedLocalOnly": false,
        "isLocal": true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_offered_over_http_where_there_is_a_door_else_over_grpc_and_inactive_without_any() {
        let config = PlatformConfig::new("http://mep".parse().unwrap(), "instance".to_owned());
        let told = calls(&config, &Calls::default());
        assert_eq!((&told["state"], &told["transportInfo"]["endpoint"]), (&json!("INACTIVE"), &json!({"uris": []})));
        let grpc = vec!["[::1]:6473".parse().unwrap()];
        let told = calls(&config, &Calls { grpc: grpc.clone(), ..Calls::default() });
        assert_eq!((&told["state"], &told["serializer"]), (&json!("ACTIVE"), &json!("PROTOBUF3")));
        assert_eq!(told["transportInfo"]["endpoint"], json!({"addresses": [{"host": "::1", "port": 6473}]}));
        let http = vec!["edge:8080".parse().unwrap()];
        let told = calls(&config, &Calls { http, grpc, is_secured: true });
        assert_eq!(told["transportInfo"]["endpoint"], json!({"uris": ["https://edge:8080/function/"]}));
    }
}
