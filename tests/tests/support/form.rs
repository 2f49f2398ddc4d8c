use reqwest::Method;
use scraper::{ElementRef, Html};
use url::Url;

use super::browser::selector;

/// A form as a browser submits it: its fields, with the values from the page.
pub struct Form {
    /// The page the form is on.
    pub page: Url,
    pub action: Url,
    pub method: Method,
    pub fields: Vec<(String, String)>,
    labels: Vec<(String, String)>,
}

impl Form {
    pub(super) fn with_button(page: &Url, body: &str, text: &str) -> Option<Self> {
        let html = Html::parse_document(body);
        let button = buttons(&html).into_iter().find(|button| shown(*button) == text)?;
        let form = form_of(&html, button)?;
        Some(Self::read(page, &html, form, Some(button)))
    }

    pub(super) fn sent_to(page: &Url, body: &str, path: &str) -> Option<Self> {
        let html = Html::parse_document(body);
        let form = html.select(&selector("form")).find(|form| action(page, *form).path() == path)?;
        let button = buttons(&html).into_iter().find(|button| form_of(&html, *button) == Some(form));
        Some(Self::read(page, &html, form, button))
    }

    /// Sets the field with this name, as if typed.
    ///
    /// # Panics
    /// If the form has no such field.
    pub fn fill(mut self, name: &str, value: &str) -> Self {
        let field = self.fields.iter_mut().find(|(field, _)| field == name);
        let Some((_, old)) = field else {
            panic!("no field {name:?} in the form for {}: {:?}", self.action, self.fields);
        };
        *old = value.to_owned();
        self
    }

    /// Sets the field with this label.
    ///
    /// # Panics
    /// If the form has no such field.
    pub fn fill_labelled(self, label: &str, value: &str) -> Self {
        let name = self.labels.iter().find(|(text, _)| text == label).map(|(_, name)| name.clone());
        let Some(name) = name else {
            panic!("no field labelled {label:?} in the form for {}: {:?}", self.action, self.labels);
        };
        self.fill(&name, value)
    }

    fn read(page: &Url, html: &Html, form: ElementRef<'_>, button: Option<ElementRef<'_>>) -> Self {
        let named = selector("input[name], textarea[name], select[name]");
        let inputs: Vec<_> = form.select(&named).filter(|input| is_sent(*input)).collect();
        let pressed = button.filter(|button| button.attr("name").is_some());
        Self {
            page: page.clone(),
            action: pressed
                .and_then(|button| button.attr("formaction"))
                .and_then(|action| page.join(action).ok())
                .unwrap_or_else(|| action(page, form)),
            method: match form.attr("method").map(str::to_ascii_lowercase).as_deref() {
                Some("post") => Method::POST,
                _ => Method::GET,
            },
            fields: inputs
                .iter()
                .copied()
                .chain(pressed)
                .map(|input| (attribute(input, "name"), value(input)))
                .collect(),
            labels: inputs.iter().filter_map(|input| Some((label(html, *input)?, attribute(*input, "name")))).collect(),
        }
    }
}

fn buttons(html: &Html) -> Vec<ElementRef<'_>> {
    html.select(&selector("button:not([type=button]):not([type=reset]), input[type=submit]")).collect()
}

fn shown(button: ElementRef<'_>) -> String {
    match button.attr("value") {
        Some(value) if button.value().name() == "input" => value.to_owned(),
        _ => text(button),
    }
}

fn form_of<'a>(html: &'a Html, button: ElementRef<'a>) -> Option<ElementRef<'a>> {
    match button.attr("form") {
        Some(id) => html.select(&selector("form[id]")).find(|form| form.attr("id") == Some(id)),
        None => button.ancestors().filter_map(ElementRef::wrap).find(|element| element.value().name() == "form"),
    }
}

fn action(page: &Url, form: ElementRef<'_>) -> Url {
    page.join(form.attr("action").unwrap_or_default()).unwrap()
}

fn is_sent(input: ElementRef<'_>) -> bool {
    match input.attr("type").map(str::to_ascii_lowercase).as_deref() {
        Some("submit" | "button" | "reset" | "image" | "file") => false,
        Some("checkbox" | "radio") => input.attr("checked").is_some(),
        _ => input.attr("disabled").is_none(),
    }
}

fn value(input: ElementRef<'_>) -> String {
    match input.value().name() {
        "textarea" => input.text().collect(),
        "select" => {
            let chosen = input.select(&selector("option[selected]")).chain(input.select(&selector("option"))).next();
            chosen.map(|option| attribute(option, "value")).unwrap_or_default()
        }
        _ => attribute(input, "value"),
    }
}

fn label(html: &Html, input: ElementRef<'_>) -> Option<String> {
    let around = input.ancestors().filter_map(ElementRef::wrap).find(|element| element.value().name() == "label");
    let pointing = || {
        let id = input.attr("id")?;
        html.select(&selector("label[for]")).find(|label| label.attr("for") == Some(id))
    };
    around.or_else(pointing).map(text).or_else(|| input.attr("aria-label").map(str::to_owned))
}

fn attribute(element: ElementRef<'_>, name: &str) -> String {
    element.attr(name).unwrap_or_default().to_owned()
}

fn text(element: ElementRef<'_>) -> String {
    let text: String = element.text().collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
