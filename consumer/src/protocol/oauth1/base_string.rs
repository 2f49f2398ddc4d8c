//! The signature base string: the text to sign for a request (RFC 5849 section 3.4.1).

use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use url::Url;

/// Everything but the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A name and a value, as bytes, because a query need not be UTF-8.
pub(super) type Parameter = (Vec<u8>, Vec<u8>);

/// Percent encoding (section 3.6).
pub(super) fn encode(value: impl AsRef<[u8]>) -> String {
    percent_encode(value.as_ref(), ENCODED).to_string()
}

/// The pairs of a query or a form (section 3.4.1.3.1).
pub(super) fn form_decoded(encoded: &[u8]) -> impl Iterator<Item = Parameter> {
    encoded.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=').map(decode);
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    })
}

fn decode(part: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = part.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).collect()
}

/// Method, address and parameters as one text (section 3.4.1.1).
pub(super) fn base_string(method: &Method, url: &Url, parameters: impl IntoIterator<Item = Parameter>) -> String {
    let mut encoded: Vec<_> = parameters.into_iter().map(|(name, value)| (encode(name), encode(value))).collect();
    encoded.sort_unstable();
    let pairs: Vec<_> = encoded.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    // A `Url` has its scheme and host in lower case, and no port that is the default one.
    let address = format!("{}{}", url.origin().ascii_serialization(), url.path());
    format!("{}&{}&{}", method.as_str().to_ascii_uppercase(), encode(address), encode(pairs.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> Parameter {
        (name.into(), value.into())
    }

    fn base(method: &str, url: &str, form: &str) -> String {
        let url = Url::parse(url).unwrap();
        let parameters: Vec<_> =
            form_decoded(url.query().unwrap_or_default().as_bytes()).chain(form_decoded(form.as_bytes())).collect();
        base_string(&Method::from_bytes(method.as_bytes()).unwrap(), &url, parameters)
    }

    /// Section 3.4.1.3.1.
    #[test]
    fn parameters_are_decoded() {
        let query: Vec<_> = form_decoded(b"b5=%3D%253D&a3=a&c%40=&a2=r%20b").collect();
        assert_eq!(query, [pair("b5", "=%3D"), pair("a3", "a"), pair("c@", ""), pair("a2", "r b")]);
        let form: Vec<_> = form_decoded(b"c2&a3=2+q").collect();
        assert_eq!(form, [pair("c2", ""), pair("a3", "2 q")]);
        let odd: Vec<_> = form_decoded(b"&&=&a=b=c&%zz=%&x=%FF").collect();
        assert_eq!(odd[..3], [pair("", ""), pair("a", "b=c"), pair("%zz", "%")]);
        assert_eq!(odd[3].1, [0xff], "not UTF-8, and not changed");
    }

    /// Sections 3.4.1.1 and 3.4.1.3.2.
    #[test]
    fn the_base_string_equals_that_of_the_rfc() {
        let own = [
            pair("oauth_consumer_key", "9djdj82h48djs9d2"),
            pair("oauth_token", "kkk9d7dh3k39sjv7"),
            pair("oauth_signature_method", "HMAC-SHA1"),
            pair("oauth_timestamp", "137131201"),
            pair("oauth_nonce", "7d8f3e4a"),
        ];
        let url = Url::parse("http://EXAMPLE.COM:80/request?b5=%3D%253D&a3=a&c%40=&a2=r%20b").unwrap();
        let query = form_decoded(url.query().unwrap().as_bytes());
        let parameters: Vec<_> = query.chain(form_decoded(b"c2&a3=2+q")).chain(own).collect();
        assert_eq!(
            base_string(&Method::POST, &url, parameters),
            "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D%25253D%26c%2540%3D\
             %26c2%3D%26oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a%26oauth_signature_method%3DHMAC-SHA\
             1%26oauth_timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k39sjv7"
        );
    }

    /// Section 3.4.1.2.
    #[test]
    fn the_address_is_normalized() {
        assert_eq!(
            base("get", "http://EXAMPLE.COM:80/r%20v/X?id=123", ""),
            "GET&http%3A%2F%2Fexample.com%2Fr%2520v%2FX&id%3D123"
        );
        assert_eq!(
            base("GET", "https://www.example.net:8080/?q=1", ""),
            "GET&https%3A%2F%2Fwww.example.net%3A8080%2F&q%3D1"
        );
        assert_eq!(base("PUT", "https://example.com:443", ""), "PUT&https%3A%2F%2Fexample.com%2F&");
        assert_eq!(base("GET", "http://[::1]:8080/a#fragment", ""), "GET&http%3A%2F%2F%5B%3A%3A1%5D%3A8080%2Fa&");
    }

    /// Section 3.6, with characters that other encodings leave unencoded.
    #[test]
    fn only_unreserved_characters_are_unencoded() {
        assert_eq!(encode("AZaz09-._~"), "AZaz09-._~");
        assert_eq!(encode(" +!*'()%&=@/\u{fc}\u{1F511}"), "%20%2B%21%2A%27%28%29%25%26%3D%40%2F%C3%BC%F0%9F%94%91");
    }

    /// Sorted by encoded name and then by encoded value. Repeated parameters are retained.
    #[test]
    fn parameters_are_sorted_and_all_retained() {
        let base = base("GET", "http://a.example/?b=2&a=1&a=0&a=1&sp=x%20y%2Bz&A=&%C3%BC=1&a-b=3&a.=4", "a=0");
        let parameters = base.rsplit('&').next().unwrap().replace("%26", "&").replace("%3D", "=").replace("%25", "%");
        assert_eq!(parameters, "%C3%BC=1&A=&a=0&a=0&a=1&a=1&a-b=3&a.=4&b=2&sp=x%20y%2Bz");
    }
}
