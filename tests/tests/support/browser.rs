use std::sync::Arc;
use std::time::Duration;

use reqwest::blocking::{Client, RequestBuilder};
use reqwest::cookie::Jar;
use reqwest::header::{ACCEPT, HeaderMap, LOCATION, ORIGIN, SET_COOKIE};
use reqwest::{Method, StatusCode};
use scraper::{Html, Selector};
use serde_json::Value;
use url::Url;

use super::Form;

const MOST_HOPS: usize = 20;

/// A browser without JavaScript. It stores cookies, follows redirects one by one, and fills in and submits forms.
///
/// It sends `Origin` and `Sec-Fetch-Site` as real browsers do, so that defences against cross-site requests are tested. A
/// clone shares the cookies, like another tab.
#[derive(Clone)]
pub struct Browser {
    client: Client,
    stop_before: Option<String>,
}

/// One request on the way to a page, with its response.
pub struct Hop {
    pub method: Method,
    pub url: Url,
    pub status: StatusCode,
    pub headers: HeaderMap,
}

/// The page at the end of a navigation.
pub struct Page {
    /// All requests. The last one is that of the page itself.
    pub hops: Vec<Hop>,
    pub body: String,
    /// The URL that was not opened, because the browser stops before it.
    pub stopped_before: Option<Url>,
}

impl Browser {
    /// A browser without cookies.
    pub fn new() -> Self {
        let client = Client::builder()
            .cookie_provider(Arc::new(Jar::default()))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(Duration::from_secs(60))
            .build()
            .unwrap();
        Self { client, stop_before: None }
    }

    /// The same browser, which does not follow redirects to URLs that start with `prefix`.
    pub fn stopping_before(&self, prefix: impl Into<String>) -> Self {
        Self { client: self.client.clone(), stop_before: Some(prefix.into()) }
    }

    /// Opens a URL as if typed into the address bar.
    pub fn open(&self, url: impl AsRef<str>) -> Page {
        self.navigate(None, Method::GET, parse(url), &[])
    }

    /// Follows the link, or submits the form, that leads to `path`.
    pub fn press(&self, page: &Page, path: &str) -> Page {
        match page.form_to(path) {
            Some(form) => self.submit(&form),
            None => self.navigate(Some(page.url()), Method::GET, page.link_to(path), &[]),
        }
    }

    /// Follows the link that shows `text`.
    pub fn follow(&self, page: &Page, text: &str) -> Page {
        self.navigate(Some(page.url()), Method::GET, page.link(text), &[])
    }

    /// Submits a form.
    pub fn submit(&self, form: &Form) -> Page {
        let mut url = form.action.clone();
        if form.method == Method::GET {
            url.query_pairs_mut().clear().extend_pairs(&form.fields);
            return self.navigate(Some(&form.page), Method::GET, url, &[]);
        }
        self.navigate(Some(&form.page), form.method.clone(), url, &form.fields)
    }

    /// The response to a program with the cookies of this browser, which accepts JSON and follows no redirect.
    pub fn json(&self, url: impl AsRef<str>) -> (StatusCode, Value) {
        let response = self.client.get(url.as_ref()).header(ACCEPT, "application/json").send().unwrap();
        let status = response.status();
        let body = response.text().unwrap();
        let value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{}: {error}: {body}", url.as_ref()));
        (status, value)
    }

    fn navigate(&self, from: Option<&Url>, method: Method, url: Url, fields: &[(String, String)]) -> Page {
        let mut hops = Vec::new();
        let (mut method, mut url, mut fields) = (method, url, fields);
        let mut relation = Relation::of(from, &url);
        loop {
            assert!(hops.len() < MOST_HOPS, "more than {MOST_HOPS} redirects, the last to {url}");
            let response = self.request(&method, &url, fields, from, relation).send().unwrap();
            let (status, headers) = (response.status(), response.headers().clone());
            let body = response.text().unwrap();
            let next = redirect(&url, status, &headers);
            hops.push(Hop { method: method.clone(), url: url.clone(), status, headers });

            let Some(next) = next else {
                return Page { hops, body, stopped_before: None };
            };
            if self.stop_before.as_deref().is_some_and(|prefix| next.as_str().starts_with(prefix)) {
                return Page { hops, body, stopped_before: Some(next) };
            }
            if !matches!(status.as_u16(), 307 | 308) {
                (method, fields) = (Method::GET, &[]);
            }
            relation = relation.then(&url, &next);
            url = next;
        }
    }

    fn request(
        &self,
        method: &Method,
        url: &Url,
        fields: &[(String, String)],
        from: Option<&Url>,
        relation: Relation,
    ) -> RequestBuilder {
        let request = self
            .client
            .request(method.clone(), url.clone())
            .header(ACCEPT, "text/html,application/xhtml+xml,*/*;q=0.8")
            .header("Sec-Fetch-Dest", "document")
            .header("Sec-Fetch-Mode", "navigate")
            .header("Sec-Fetch-Site", relation.header())
            .header("Sec-Fetch-User", "?1");
        match from {
            Some(from) if method != Method::GET => {
                request.header(ORIGIN, from.origin().ascii_serialization()).form(fields)
            }
            _ => request,
        }
    }
}

impl Page {
    /// The same page, reached through `earlier`.
    pub fn after(mut self, earlier: Self) -> Self {
        self.hops.splice(0..0, earlier.hops);
        self
    }

    /// The page's address.
    pub fn url(&self) -> &Url {
        &self.last().url
    }

    /// The page's status.
    pub fn status(&self) -> StatusCode {
        self.last().status
    }

    /// The page's headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.last().headers
    }

    /// Every `Set-Cookie` header received on the way.
    pub fn set_cookies(&self) -> Vec<&str> {
        self.hops.iter().flat_map(|hop| hop.headers.get_all(SET_COOKIE)).map(|value| value.to_str().unwrap()).collect()
    }

    /// The text of the page, without mark-up.
    pub fn text(&self) -> String {
        let html = Html::parse_document(&self.body);
        let shown: String = html.select(&selector("body")).flat_map(|body| body.text()).collect();
        shown.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Whether the page has a form with a button that shows `button`.
    pub fn has_form(&self, button: &str) -> bool {
        Form::with_button(self.url(), &self.body, button).is_some()
    }

    /// The form with this button, as it is submitted with the button.
    ///
    /// # Panics
    /// If the page has no such form.
    pub fn form(&self, button: &str) -> Form {
        Form::with_button(self.url(), &self.body, button)
            .unwrap_or_else(|| panic!("no form with a button {button:?} on {}: {}", self.url(), self.text()))
    }

    /// The form that is sent to `path`.
    pub fn form_to(&self, path: &str) -> Option<Form> {
        Form::sent_to(self.url(), &self.body, path)
    }

    /// The target of the link with this text.
    ///
    /// # Panics
    /// If the page has no such link.
    pub fn link(&self, text: &str) -> Url {
        let html = Html::parse_document(&self.body);
        html.select(&selector("a[href]"))
            .find(|link| link.text().collect::<String>().contains(text))
            .and_then(|link| self.url().join(link.attr("href")?).ok())
            .unwrap_or_else(|| panic!("no link {text:?} on {}: {}", self.url(), self.text()))
    }

    /// The link that leads to `path` of the page's own site.
    ///
    /// # Panics
    /// If the page has no such link.
    pub fn link_to(&self, path: &str) -> Url {
        let html = Html::parse_document(&self.body);
        html.select(&selector("a[href]"))
            .filter_map(|link| self.url().join(link.attr("href")?).ok())
            .find(|url| url.origin() == self.url().origin() && url.path() == path)
            .unwrap_or_else(|| panic!("no link or form leads to {path} on {}: {}", self.url(), self.text()))
    }

    fn last(&self) -> &Hop {
        self.hops.last().unwrap()
    }
}

pub(super) fn selector(css: &str) -> Selector {
    Selector::parse(css).unwrap()
}

fn parse(url: impl AsRef<str>) -> Url {
    Url::parse(url.as_ref()).unwrap()
}

fn redirect(url: &Url, status: StatusCode, headers: &HeaderMap) -> Option<Url> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    Some(url.join(headers.get(LOCATION)?.to_str().unwrap()).unwrap())
}

/// `Sec-Fetch-Site`: the relation between the target of a request and the page that it came from. A redirect can only make
/// it more distant.
///
/// To a real browser, all ports of 127.0.0.1 are the same site. Here another port counts as another site, because real
/// providers are on other sites.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Relation {
    SameOrigin,
    CrossSite,
    Typed,
}

impl Relation {
    fn of(from: Option<&Url>, to: &Url) -> Self {
        match from {
            None => Self::Typed,
            Some(from) if from.origin() == to.origin() => Self::SameOrigin,
            Some(_) => Self::CrossSite,
        }
    }

    fn then(self, from: &Url, to: &Url) -> Self {
        self.max(Self::of(Some(from), to))
    }

    fn header(self) -> &'static str {
        match self {
            Self::SameOrigin => "same-origin",
            Self::CrossSite => "cross-site",
            Self::Typed => "none",
        }
    }
}
