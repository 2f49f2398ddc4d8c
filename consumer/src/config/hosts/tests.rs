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
