//! `oauth-dance demo` rejects storages that it cannot use.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod program;

use program::{Run, backend, oauth_dance};
use tempfile::TempDir;
use url::Url;

#[test]
fn an_error_lists_the_storages_when_one_is_unknown() {
    for unknown in ["postgers://u:CANARY@127.0.0.1:1/d", "redis+x://u:CANARY@127.0.0.1:1", "tokens.db", ""] {
        let demo = demo(unknown);
        assert_eq!(demo.code, 1);
        demo.assert_one_line(&["unknown storage"]);
        for scheme in ["memory:", "sqlite:", "postgres:", "mysql:", "redis:", "redis+cluster:", "session:", "cookie:"] {
            demo.assert_one_line(&[scheme]);
        }
    }
}

#[test]
fn an_error_is_one_line_when_no_server_responds() {
    for url in [
        "postgres://u:CANARY@127.0.0.1:1/d",
        "postgres://u@127.0.0.1:1/d?password=CANARY",
        "mysql://u:CANARY@127.0.0.1:1/d",
        "redis://u:CANARY@127.0.0.1:1/",
        "redis+cluster://u:CANARY@127.0.0.1:1,127.0.0.1:2",
        "redis+sentinel://u:CANARY@127.0.0.1:1/name",
    ] {
        let demo = demo(url);
        assert_eq!(demo.code, 1);
        demo.assert_one_line(&["cannot use the storage", "127.0.0.1:1", "Connection refused"]);
    }
}

#[test]
fn an_unknown_parameter_is_shown_without_its_value() {
    let demo = demo("postgres://u@127.0.0.1:1/d?passwd=CANARY");
    assert_eq!(demo.code, 1);
    demo.assert_one_line(&["cannot use the storage", "127.0.0.1:1", "remove the parameter", "`passwd`"]);
}

#[test]
fn an_error_quotes_nothing_of_a_malformed_url() {
    for url in [
        "postgres://u:CAN/ARY@127.0.0.1:1/d",
        "mysql://u:CAN#ARY@127.0.0.1:1/d",
        "redis://u:CAN?ARY@127.0.0.1:1/",
        "redis+cluster://u:CANARY@,",
        "rediss+sentinel://u:CANARY@127.0.0.1:1",
        "sqlite:no/such/folder/tokens.db",
    ] {
        let demo = demo(url);
        assert_eq!(demo.code, 1, "{url}");
        demo.assert_one_line(&["cannot use the storage"]);
    }
}

#[test]
fn an_error_is_one_line_when_a_password_is_wrong() {
    for url in ["POSTGRES_URL", "MYSQL_URL", "REDIS_URL"].into_iter().filter_map(backend) {
        let mut url = Url::parse(&url).unwrap();
        url.set_password(Some("CANARY")).unwrap();
        let demo = demo(url.as_str());
        assert_eq!(demo.code, 1);
        demo.assert_one_line(&["the server rejects"]);
    }
}

fn demo(storage: &str) -> Run {
    let folder = TempDir::new().unwrap();
    let arguments = ["demo", "--listen", "127.0.0.1:0", "--storage", storage];
    Run::of(oauth_dance().args(arguments).current_dir(folder.path()))
}
