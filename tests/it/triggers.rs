//! Triggers by the command line, at a broker that is a real process.

use nigh_tests::guests;
use nigh_tests::processes::{Processes, nigh};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn triggers_by_the_command_line() {
    let edge = Processes::start(1).await;
    edge.deploy("echo", guests::echo()).await;
    let run = |arguments: &[&str]| {
        let ran = nigh().args(arguments).env("NIGH_BROKER", edge.broker.endpoint.as_str()).output().unwrap();
        let told = String::from_utf8(ran.stdout).unwrap();
        (ran.status.code(), told.trim_end().to_owned(), String::from_utf8(ran.stderr).unwrap())
    };
    let list = || {
        let (code, told, errors) = run(&["trigger", "ls", "--json"]);
        assert_eq!(code, Some(0), "{errors}");
        serde_json::from_str::<Value>(&told).unwrap()
    };
    assert_eq!(list(), Value::Array(Vec::new()));
    let (code, told, errors) = run(&["trigger", "add", "tick", "echo", "--cron", "* * * * * *", "--data", "now"]);
    assert_eq!((code, told.as_str()), (Some(0), "tick is added: cron * * * * * * UTC calls echo"), "{errors}");
    assert_eq!(run(&["trigger", "add", "orders", "echo", "--http", "/shop/orders"]).0, Some(0));
    edge.until("the schedule has made calls", async || list()[1]["delivered"].as_u64() >= Some(2)).await;
    let listed = list();
    assert_eq!(
        (&listed[0]["source"]["path"], &listed[0]["state"]),
        (&"/trigger/shop/orders".into(), &"listening".into())
    );
    assert_eq!((&listed[1]["broker"], &listed[1]["source"]["missed"]), (&"broker".into(), &"once".into()));
    let (_, table, _) = run(&["trigger", "ls"]);
    assert!(table.contains("LAST ERROR") && table.contains("http /trigger/shop/orders"), "{table}");

    // What makes no sense is refused with what would.
    let (code, _, errors) = run(&["trigger", "rm", "nobody"]);
    assert!(code == Some(1) && errors.contains("there are orders, tick"), "{errors}");
    let (code, _, errors) = run(&["trigger", "add", "x", "echo", "--cron", "every minute"]);
    assert!(code == Some(1) && errors.contains("*/5"), "{errors}");
    for wrong in [&["x", "echo"][..], &["x", "echo", "--http", "a", "--cron", "@daily"], &["x", "echo", "--topic", "a"]]
    {
        let (code, _, errors) = run(&[&["trigger", "add"], wrong].concat());
        assert_eq!(code, Some(2), "{errors}");
    }
    let (code, told, _) = run(&["trigger", "rm", "tick", "orders"]);
    assert_eq!((code, told.as_str()), (Some(0), "tick is removed\norders is removed"));
    assert_eq!(list(), Value::Array(Vec::new()));
}
