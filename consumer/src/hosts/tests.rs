use std::time::Duration;

use super::*;

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn allowed(hosts: &[&str]) -> PlainHttp {
    PlainHttp::new(hosts.iter().map(|host| (*host).to_owned())).unwrap()
}

#[test]
fn an_address_is_in_the_zone_that_it_leads_to() {
    for (zone, hosts) in [
        (
            Some(Zone::Machine),
            &[
                "127.0.0.1",
                "127.1",
                "2130706433",
                "0x7f.0.0.1",
                "0177.0.0.1",
                "0.0.0.0",
                "169.254.169.254",
                "[::1]",
                "[::]",
                "[::ffff:127.0.0.1]",
                "[::ffff:7f00:1]",
                "[::127.0.0.1]",
                "[64:ff9b::127.0.0.1]",
                "[2002:7f00:1::]",
                "[::ffff:0:127.0.0.1]",
                "[fe80::1]",
                "localhost",
                "LOCALHOST",
                "localhost.",
                "a.localhost",
            ][..],
        ),
        (
            Some(Zone::Network),
            &[
                "10.0.0.1",
                "172.16.0.1",
                "172.31.255.255",
                "192.168.1.1",
                "100.64.0.1",
                "198.18.0.1",
                "192.0.2.1",
                "224.0.0.1",
                "255.255.255.255",
                "[::ffff:10.0.0.1]",
                "[64:ff9b::a00:1]",
                "[fc00::1]",
                "[fd12:3456::1]",
                "[fec0::1]",
                "[ff02::1]",
                "[2001:db8::1]",
                "metadata.google.internal",
                "printer.local",
                "nas.home.arpa",
                "internal",
            ],
        ),
        (Some(Zone::Internet), &["1.1.1.1", "172.32.0.1", "100.128.0.1", "[2606:4700::1111]", "[::ffff:1.1.1.1]"]),
        (None, &["issuer.example", "localhost.evil.example", "notlocalhost", "internal.example", "keycloak"]),
    ] {
        for host in hosts {
            assert_eq!(Zone::of(&url(&format!("https://{host}/x"))), zone, "{host}");
        }
    }
}

#[tokio::test]
async fn a_name_that_cannot_be_resolved_is_far_away() {
    assert_eq!(Zone::resolve(&url("https://nothing.invalid")).await, Zone::Internet);
    assert_eq!(Zone::resolve(&url("http://localhost")).await, Zone::Machine);
}

#[test]
fn endpoints_must_be_https_unless_local_or_allowed() {
    let plain_http = allowed(&["keycloak", "192.168.1.5", "[fd00::5]"]);
    for good in [
        "https://a.example/x?tenant=1",
        "http://127.0.0.1:9/x",
        "http://[::1]:9",
        "http://localhost:9",
        "http://keycloak:8080/realms/dev",
        "http://192.168.1.5",
        "http://[fd00::5]:8080",
    ] {
        assert!(parse_endpoint(good, &plain_http).is_ok(), "{good}");
    }
    for bad in [
        "",
        "/x",
        "http://a.example",
        "http://10.0.0.1",
        "http://keycloak.evil.example",
        "http://192.168.1.50",
        "http://user:pw@keycloak",
        "javascript:alert(1)",
        "ftp://keycloak",
        "file:///etc/passwd",
        "https://user:pw@a.example",
        "https://a.example/#x",
        "http://localhost.evil.example",
        "//a.example",
        "https://{host}/x",
        "https://a.example/{tenant}/x",
    ] {
        assert!(parse_endpoint(bad, &plain_http).is_err(), "{bad}");
    }
    assert!(parse_endpoint("http://keycloak:8080", &PlainHttp::default()).is_err());
}

#[test]
fn only_one_host_can_be_allowed_at_a_time() {
    for bad in [
        "",
        "*",
        "*.example",
        "a b",
        "http://keycloak",
        "keycloak:8080",
        "keycloak/x",
        "u@keycloak",
        "a,b",
        "10.0.0.0/8",
    ] {
        let error = PlainHttp::new([bad.to_owned()]).unwrap_err();
        assert!(matches!(&error, ConfigError::PlainHttpHost { host } if host == bad), "{bad}: {error}");
    }
    assert!(parse_endpoint("http://keycloak", &allowed(&["KeyCloak"])).is_ok(), "names have no case");
}

#[test]
fn a_url_from_outside_leads_no_nearer_than_its_source() {
    let configured = [url("https://id.corp.example"), url("https://10.1.1.1/token")];
    let known = KnownHosts::new(&allowed(&["keycloak"]), &configured);
    for (text, nearest) in [
        ("https://1.1.1.1/x", Zone::Internet),
        ("https://elsewhere.example/x", Zone::Internet),
        ("https://id.corp.example/x", Zone::Internet),
        ("https://10.1.1.1/other", Zone::Internet),
        ("http://keycloak/x", Zone::Internet),
        ("https://10.1.1.2/x", Zone::Network),
        ("https://vault.internal/x", Zone::Network),
        ("https://169.254.169.254/x", Zone::Machine),
        ("http://127.0.0.1:9/x", Zone::Machine),
        ("https://[::ffff:127.0.0.1]/x", Zone::Machine),
        ("http://localhost:9/x", Zone::Machine),
    ] {
        for source in [Zone::Internet, Zone::Network, Zone::Machine] {
            assert_eq!(known.parse(text, source).is_ok(), source >= nearest, "{text} from {source:?}");
        }
    }
    assert_eq!(known.nearest(&url("https://id.corp.example/x"), Zone::Internet), Zone::Machine, "it is configured");
    assert_eq!(known.nearest(&url("https://elsewhere.example/x"), Zone::Network), Zone::Network);
}

/// Resolves every name to the same address.
struct Fixed(SocketAddr);

impl Resolve for Fixed {
    fn resolve(&self, _: Name) -> Resolving {
        let found = [self.0];
        Box::pin(async move { Ok(Box::new(found.into_iter()) as Addrs) })
    }
}

#[tokio::test]
async fn a_name_that_leads_to_a_nearer_zone_is_not_connected_to() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connect = async |nearest| {
        let resolver = ZoneResolver { names: Arc::new(Fixed(address)), nearest };
        let client = reqwest::Client::builder().no_proxy().dns_resolver(resolver).timeout(Duration::from_millis(300));
        let sent = client.build().unwrap().get(format!("http://rebinding.example:{}/", address.port())).send().await;
        let error = sent.unwrap_err();
        error.is_connect()
    };
    for nearest in [Zone::Internet, Zone::Network] {
        assert!(connect(nearest).await, "{nearest:?}");
    }
    assert!(!connect(Zone::Machine).await, "it connected, and nothing answered in time");
    assert!(listener.accept().await.is_ok());
    assert!(tokio::time::timeout(Duration::from_millis(50), listener.accept()).await.is_err(), "once only");
}
