//! GS MEC 016 2.2.1: the fifteen test purposes of ETSI's suite in our words, with requests as the standard's file wants them,
//! and what that file says beside them.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;

use super::schema::Schemas;
use super::*;

const LIST: &str = "/dev_app/v1/app_list";
const CONTEXTS: &str = "/dev_app/v1/app_contexts";
const AVAILABILITY: &str = "/dev_app/v1/obtain_app_loc_availability";

async fn strict() -> World {
    World::start_with(|config| config.strict = true).await
}

fn availability_of(name: &str) -> Value {
    json!({"associateDevAppId": "device-1", "appInfo": {"appName": name, "appProvider": "Nigh", "appDVersion": "1"}})
}

fn assert_problem(answer: &Answer, status: u16) {
    assert_eq!((answer.status, answer.header("content-type")), (status, "application/problem+json"), "{answer:?}");
    assert_eq!(answer.body["status"], status);
    Schemas::read().check("ProblemDetails", &answer.body);
}

/// UEAPPS, 1: the list, as its schema says, has the application.
#[tokio::test]
async fn the_list_has_the_applications() {
    let world = strict().await;
    let list = world.role.get(LIST).await;
    assert_eq!((list.status, list.header("content-type")), (200, "application/json"));
    Schemas::read().check("ApplicationList", &list.body);
    let info = &list.body["appList"][0]["appInfo"];
    assert_eq!((&info["appName"], &info["appProvider"]), (&json!("echo"), &json!("Nigh")));
    assert_eq!(info["appSoftVersion"].as_str().unwrap().len(), 32);
    assert_eq!(info["appCharcs"]["memory"], 128);
}

/// UEAPPS, 2: a wrong path is not found.
#[tokio::test]
async fn a_list_at_a_wrong_path_is_not_found() {
    let world = strict().await;
    for path in ["/dev_app/v1/app_lists", "/dev_app/v1/app_list/", "/dev_app/v2/app_list", "/app_list", "/"] {
        assert_problem(&world.role.get(path).await, 404);
    }
}

/// UEAPPS, 3: by name there is that application, and no other.
#[tokio::test]
async fn the_list_is_filtered_by_name() {
    let world = strict().await;
    world.controller.change(deployed("sum"));
    world.controller.change(computer("computer-1", "10.9.0.1:10000", &["echo", "sum"]));
    until("both are listed", async || world.role.listed().await == ["echo", "sum"]).await;
    for (query, count) in [
        ("appName=echo", 1),
        ("appName=echo&appName=sum", 2),
        ("appName=echo,sum&appProvider=Nigh", 2),
        ("appName=other", 0),
        ("appProvider=Else", 0),
        ("serviceCont=0", 2),
        ("serviceCont=1", 0),
        ("vendorId=x", 0),
    ] {
        let list = world.role.get(&format!("{LIST}?{query}")).await;
        assert_eq!((list.status, list.body["appList"].as_array().unwrap().len()), (200, count), "{query}");
    }
}

/// UEAPPS, 4: an unknown filter is a bad request.
#[tokio::test]
async fn an_unknown_filter_is_refused() {
    let world = strict().await;
    for query in ["appNames=echo", "serviceCont=2", "appName=%ff", &format!("vendorId={}", "v".repeat(33))] {
        assert_problem(&world.role.get(&format!("{LIST}?{query}")).await, 400);
    }
}

/// UEAPPCTX, 1: a context is created, as its schema says, with a place of its own.
#[tokio::test]
async fn a_context_is_created() {
    let world = strict().await;
    let mut asked = app_context("echo", Some("http://127.0.0.1:9/callback"));
    asked["appAutoInstantiation"] = json!(false);
    asked["appInfo"]["userAppInstanceInfo"][0]["appLocation"] = json!({"countryCode": "IT"});
    asked["unknown"] = json!({"members": ["are", "let", "pass"]});
    let created = world.role.post(CONTEXTS, &asked).await;
    assert_eq!((created.status, created.header("content-type")), (201, "application/json"), "{created:?}");
    Schemas::read().check("AppContext", &created.body);
    let id = created.body["contextId"].as_str().unwrap();
    assert_eq!(created.header("location"), format!("http://{}{CONTEXTS}/{id}", world.role.devices));
    assert_eq!(id.len(), 32);
    for name in ["associateDevAppId", "callbackReference", "appAutoInstantiation"] {
        assert_eq!(created.body[name], asked[name], "what was asked for is told");
    }
    assert_eq!((&created.body["appInfo"]["appName"], created.body.get("unknown")), (&json!("echo"), None));
    let instance = &created.body["appInfo"]["userAppInstanceInfo"][0];
    assert_eq!(instance["appLocation"], json!({"countryCode": "IT"}));
    assert_eq!(instance["referenceURI"], "http://10.9.0.1:8080/function/echo");
    assert_eq!(instance["appInstanceId"].as_str().unwrap().len(), 32);
}

/// UEAPPCTX, 2: a misspelt name is a bad request, as is whatever else is not as the file says.
#[tokio::test]
async fn a_context_that_is_not_as_the_file_says_is_refused() {
    let world = strict().await;
    let wrong = |change: fn(&mut Value)| {
        let mut context = app_context("echo", Some("http://127.0.0.1:9/callback"));
        change(&mut context);
        context
    };
    for context in [
        wrong(|context| {
            let info = context["appInfo"].as_object_mut().unwrap();
            let name = info.remove("appName").unwrap();
            info.insert("appNam".into(), name);
        }),
        wrong(|context| context["appInfo"]["appName"] = json!("e".repeat(33))),
        wrong(|context| context["appInfo"]["appName"] = json!(7)),
        wrong(|context| context["appInfo"]["userAppInstanceInfo"] = json!([])),
        wrong(|context| context["appInfo"]["userAppInstanceInfo"] = json!({})),
        wrong(|context| context["appInfo"]["appPackageSource"] = json!("")),
        wrong(|context| drop(context["appInfo"].as_object_mut().unwrap().remove("appDVersion"))),
        wrong(|context| drop(context["appInfo"].as_object_mut().unwrap().remove("userAppInstanceInfo"))),
        wrong(|context| context["callbackReference"] = json!("not a uri")),
        wrong(|context| context["appLocationUpdates"] = json!("yes")),
        wrong(|context| context["contextId"] = json!("c".repeat(33))),
        wrong(|context| context["appInfo"] = json!(null)),
        json!([]),
        json!("text"),
    ] {
        assert_problem(&world.role.post(CONTEXTS, &context).await, 400);
    }
    for (content_type, body) in [
        (None, app_context("echo", None).to_string()),
        (Some("text/plain"), app_context("echo", None).to_string()),
        (Some("application/json"), "{".to_owned()),
        (Some("application/json"), String::new()),
        (Some("application/json"), "[".repeat(60_000)),
        (Some("application/json"), " ".repeat(65 << 10)),
    ] {
        let mut request = Request::post(CONTEXTS);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        assert_problem(&device::send("127.0.0.1".parse().unwrap(), world.role.devices, request).await, 400);
    }
    let mut unknown = app_context("other", None);
    assert_problem(&world.role.post(CONTEXTS, &unknown).await, 404);
    unknown["appInfo"]["appName"] = json!("echo");
    unknown["appInfo"]["appProvider"] = json!("Somebody");
    assert_problem(&world.role.post(CONTEXTS, &unknown).await, 404);
}

/// UEAPPCTX, 3: a wrong path is not found.
#[tokio::test]
async fn a_context_at_a_wrong_path_is_not_found() {
    let world = strict().await;
    assert_problem(&world.role.post("/dev_app/v1/app_context", &app_context("echo", None)).await, 404);
}

/// UEAPPCTX, 4: a callback is changed, whatever id the body has: the path counts.
#[tokio::test]
async fn a_context_is_updated_and_the_path_counts() {
    let world = strict().await;
    let (path, _) = world.role.create(&app_context("echo", None)).await;
    let mut update = app_context("echo", Some("http://127.0.0.1:9/other"));
    update["contextId"] = json!("another");
    let updated = world.role.put(&path, &update).await;
    assert_eq!((updated.status, &updated.body), (204, &Value::Null));
}

/// UEAPPCTX, 5: the older spelling of a member is a bad request here.
#[tokio::test]
async fn an_update_in_the_older_spelling_is_refused() {
    let world = strict().await;
    let (path, _) = world.role.create(&app_context("echo", None)).await;
    let mut update = app_context("echo", Some("http://127.0.0.1:9/other"));
    let name = update.as_object_mut().unwrap().remove("associateDevAppId").unwrap();
    update["associateUeAppId"] = name;
    assert_problem(&world.role.put(&path, &update).await, 400);
}

/// UEAPPCTX, 6: an update at a wrong path is not found, nor is one of a context that is none.
#[tokio::test]
async fn an_update_at_a_wrong_path_is_not_found() {
    let world = strict().await;
    let (path, _) = world.role.create(&app_context("echo", None)).await;
    let update = app_context("echo", None);
    for path in [
        path.replace("app_contexts", "app_context"),
        format!("{path}0"),
        format!("{CONTEXTS}/{}", "0".repeat(32)),
        format!("{CONTEXTS}/%C3%A4%00%2F..%2F"),
        format!("{CONTEXTS}/%ff"),
        path.to_uppercase(),
    ] {
        assert_problem(&world.role.put(&path, &update).await, 404);
    }
}

/// UEAPPCTX, 7: a context is deleted, and is gone.
#[tokio::test]
async fn a_context_is_deleted_and_gone() {
    let world = strict().await;
    let (path, _) = world.role.create(&app_context("echo", None)).await;
    let deleted = world.role.delete(&path).await;
    assert_eq!((deleted.status, &deleted.body), (204, &Value::Null));
    assert_problem(&world.role.delete(&path).await, 404);
    assert_problem(&world.role.put(&path, &app_context("echo", None)).await, 404);
}

/// UEAPPCTX, 8: an unknown context is not found.
#[tokio::test]
async fn an_unknown_context_is_not_found() {
    let world = strict().await;
    for id in ["0", "unknown", &"f".repeat(32), "%F0%9F%98%80"] {
        assert_problem(&world.role.delete(&format!("{CONTEXTS}/{id}")).await, 404);
    }
}

/// UEAPPLOC, 1: where an application may run is told, as the schema says.
#[tokio::test]
async fn where_an_application_may_run_is_told() {
    let world = World::start_with(|config| {
        config.strict = true;
        let italy = nigh_mec::Location { country: Some("IT".into()), point: Some((10.4, 43.7)) };
        config.locations.insert("broker-1".parse().unwrap(), italy);
    })
    .await;
    let told = world.role.post(AVAILABILITY, &availability_of("echo")).await;
    assert_eq!((told.status, told.header("content-type")), (200, "application/json"));
    Schemas::read().check("ApplicationLocationAvailability", &told.body);
    assert_eq!(told.body["appInfo"]["appName"], "echo");
    let locations = told.body["appInfo"]["availableLocations"].as_array().unwrap();
    assert_eq!((locations.len(), &locations[0]["appLocation"]["countryCode"]), (1, &json!("IT")));
}

/// UEAPPLOC, 2: a misspelt name is a bad request; an application that is not here is not found.
#[tokio::test]
async fn where_a_misspelt_application_may_run_is_refused() {
    let world = strict().await;
    let mut asked = availability_of("echo");
    let info = asked["appInfo"].as_object_mut().unwrap();
    let name = info.remove("appName").unwrap();
    info.insert("appname".into(), name);
    assert_problem(&world.role.post(AVAILABILITY, &asked).await, 400);
    assert_problem(&world.role.post(AVAILABILITY, &availability_of("other")).await, 404);
}

/// UEAPPLOC, 3: a wrong path is not found.
#[tokio::test]
async fn where_applications_may_run_is_not_told_at_a_wrong_path() {
    let world = strict().await;
    assert_problem(&world.role.post("/dev_app/v1/obtain_app_loc", &availability_of("echo")).await, 404);
}

#[tokio::test]
async fn a_wrong_method_is_told_with_those_that_there_are() {
    let world = World::start().await;
    for (method, path, allow) in [
        ("POST", LIST, "GET,HEAD"),
        ("GET", CONTEXTS, "POST"),
        ("TRACE", CONTEXTS, "POST"),
        ("GET", "/dev_app/v1/app_contexts/x", "PUT,DELETE"),
        ("DELETE", AVAILABILITY, "POST"),
    ] {
        let answer = device::request(world.role.devices, method, path, None).await;
        assert_problem(&answer, 405);
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
    }
}

#[tokio::test]
async fn clients_in_the_field_may_leave_out_what_the_file_wants() {
    let world = World::start().await;
    let asked = json!({"associateUeAppId": "device-1", "appInfo": {"appName": "echo", "appProvider": "made up"}});
    let (path, created) = world.role.create(&asked).await;
    assert_eq!(reference(&created), "http://10.9.0.1:8080/function/echo");
    Schemas::read().check("AppContext", &created);
    assert_eq!(world.role.put(&path, &asked).await.status, 204);
    let mut misspelt = asked.clone();
    misspelt["appInfo"] = json!({"appNam": "echo", "appProvider": "x"});
    assert_problem(&world.role.post(CONTEXTS, &misspelt).await, 400);
}

#[tokio::test]
async fn applications_come_and_go_with_those_who_serve_them() {
    let world = World::start().await;
    assert_eq!(world.role.listed().await, ["echo"]);
    world.controller.change(computer_gone("computer-1"));
    until("nobody serves it", async || world.role.listed().await.is_empty()).await;
    assert_problem(&world.role.post(CONTEXTS, &app_context("echo", None)).await, 404);
    let (name, long) = ("a".repeat(32), "b".repeat(33));
    for function in [&name, &long] {
        world.controller.change(deployed(function));
    }
    world.controller.change(computer("computer-1", "10.9.0.1:10000", &["echo", &name, &long]));
    until("two are listed, for the third has too long a name", async || {
        world.role.listed().await == [name.as_str(), "echo"]
    })
    .await;
}

#[tokio::test]
async fn an_application_that_nobody_here_has_may_be_elsewhere() {
    let world = World::start_with(|config| {
        config.elsewhere = Some("http://cloud.example/function/{name}".into());
    })
    .await;
    let (_, created) = world.role.create(&app_context("a b/ä", None)).await;
    assert_eq!(reference(&created), "http://cloud.example/function/a%20b%2F%C3%A4");
    Schemas::read().check("AppContext", &created);
    let (_, here) = world.role.create(&app_context("echo", None)).await;
    assert_eq!(reference(&here), "http://10.9.0.1:8080/function/echo");
}

#[tokio::test]
async fn devices_are_sent_to_where_they_ask_to_be() {
    let world = World::start_with(|config| {
        let at = |country: &str, point| nigh_mec::Location { country: Some(country.into()), point: Some(point) };
        config.locations.insert("broker-1".parse().unwrap(), at("IT", (10.4, 43.7)));
        config.locations.insert("broker-2".parse().unwrap(), at("DE", (13.4, 52.5)));
    })
    .await;
    let mut asked = app_context("echo", None);
    asked["appInfo"]["userAppInstanceInfo"] = json!([
        {"appLocation": {"countryCode": "DE"}},
        {"appLocation": {"area": {"coordinates": [[[10, 43], [11, 43], [11, 44], [10, 44]]]}}},
    ]);
    let (_, created) = world.role.create(&asked).await;
    Schemas::read().check("AppContext", &created);
    let instances = created["appInfo"]["userAppInstanceInfo"].as_array().unwrap();
    assert_eq!(instances[0]["referenceURI"], "http://10.9.0.2:8080/function/echo");
    assert_eq!(instances[1]["referenceURI"], "http://10.9.0.1:8080/function/echo");
    asked["appInfo"]["userAppInstanceInfo"] = json!([{"appLocation": {"countryCode": "FR"}}]);
    assert_problem(&world.role.post(CONTEXTS, &asked).await, 404);
    asked["appAutoInstantiation"] = json!(true);
    let (_, waiting) = world.role.create(&asked).await;
    assert_eq!(waiting["appInfo"]["userAppInstanceInfo"][0].get("referenceURI"), None);
    Schemas::read().check("AppContext", &waiting);
}
