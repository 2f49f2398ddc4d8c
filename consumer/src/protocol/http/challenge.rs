//! Reads `WWW-Authenticate` headers (RFC 9110 section 11.6.1), many of which violate the grammar.

use http::{HeaderMap, header};

/// Whether a challenge contains this error.
pub(crate) fn has_error(headers: &HeaderMap, error: &str) -> bool {
    errors(headers).any(|found| found == error)
}

/// The `error` parameter of every challenge that has one.
pub(crate) fn errors(headers: &HeaderMap) -> impl Iterator<Item = String> {
    let values = headers.get_all(header::WWW_AUTHENTICATE).iter();
    // A description may contain bytes that are not text.
    values.flat_map(|value| Parameters { rest: &String::from_utf8_lossy(value.as_bytes()) }.errors())
}

/// The parameters of all challenges in one header: names and values, whatever their schemes.
struct Parameters<'a> {
    rest: &'a str,
}

impl Parameters<'_> {
    fn errors(self) -> Vec<String> {
        self.filter(|(name, _)| name.eq_ignore_ascii_case("error")).map(|(_, value)| value).collect()
    }
}

impl<'a> Iterator for Parameters<'a> {
    type Item = (&'a str, String);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.rest = self.rest.trim_start_matches([',', ' ', '\t']);
            let end = self.rest.find([',', ' ', '\t', '=', '"'])?;
            let (name, rest) = self.rest.split_at(end);
            match rest.trim_start_matches([' ', '\t']).strip_prefix('=') {
                Some(value) => {
                    let (value, rest) = value_of(value.trim_start_matches([' ', '\t']));
                    self.rest = rest;
                    return Some((name, value));
                }
                // A scheme, or an unmatched quotation mark.
                None => self.rest = rest.strip_prefix('"').unwrap_or(rest),
            }
        }
    }
}

/// A value, quoted or not, and the text after it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_at(text.find(',').unwrap_or(text.len()));
        return (value.trim_end().to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn errors_in(challenges: &[&[u8]]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for challenge in challenges {
            headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_bytes(challenge).unwrap());
        }
        errors(&headers).collect()
    }

    #[test]
    fn an_error_is_found_in_any_notation() {
        for challenge in [
            "Bearer error=\"invalid_token\"",
            "Bearer realm=\"example\", error=\"invalid_token\", error_description=\"The access token expired\"",
            "bearer ERROR = \"invalid_token\"",
            "Bearer error=invalid_token",
            "Bearer error=invalid_token, error_description=The access token expired",
            "Bearer error=\"invalid_token\" error_description=\"no comma\"",
            "Basic realm=\"a, b=\\\"c\\\"\", DPoP algs=\"ES256\", error=\"invalid_token\"",
            "Negotiate, Negotiate YWJj==, Bearer error=\"invalid\\_token\"",
            ",, Bearer ,error=\"invalid_token\"",
            "error=\"invalid_token",
        ] {
            assert_eq!(errors_in(&[challenge.as_bytes()]), ["invalid_token"], "{challenge}");
        }
        assert_eq!(errors_in(&[b"Bearer error_description=\"caf\xe9\", error=\"invalid_token\""]), ["invalid_token"]);
        assert_eq!(errors_in(&[b"Basic", b"Bearer error=\"a\"", b"DPoP error=\"b\""]), ["a", "b"]);
    }

    #[test]
    fn an_error_in_quoted_text_is_ignored() {
        for challenge in [
            "",
            "Bearer",
            "Bearer realm=\"error=invalid_token\"",
            "Bearer realm=\"\\\", error=\\\"invalid_token\"",
            "Bearer error_description=\"error=\\\"invalid_token\\\"\"",
            "Bearer scope=\"error\", x_error=\"invalid_token\"",
            "Bearer realm=error=invalid_token",
            "invalid_token",
            "\"\"\"",
        ] {
            assert_eq!(errors_in(&[challenge.as_bytes()]), [""; 0], "{challenge}");
        }
    }
}
