//! Checks that everything the pages in `docs/` name exists: tests, and the targets of links.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The pages whose tables have a column `tests`.
const PAGES: [&str; 2] = ["docs/security.md", "docs/coming-from-flask-dance.md"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_test_that_a_page_names_exists() {
    let tests = tests();
    assert!(tests.len() > 400, "{}", tests.len());
    for page in PAGES {
        let rows = rows(page);
        assert!(rows.len() > 20, "{page} has {} rows", rows.len());
        for row in rows {
            let missing: Vec<_> = row.tests.iter().filter(|test| !tests.contains(*test)).collect();
            assert!(missing.is_empty(), "{page}: {}: there is no test {missing:?}", row.text);
        }
    }
}

#[test]
fn every_row_has_a_test_or_a_reason() {
    for page in PAGES {
        for row in rows(page) {
            let is_sentence = row.cell.len() > 20 && row.cell.starts_with(char::is_uppercase);
            assert!(!row.tests.is_empty() || is_sentence, "{page}: {}", row.text);
        }
    }
}

#[test]
fn every_test_of_the_checklist_is_named() {
    let named: BTreeSet<String> = rows("docs/security.md").into_iter().flat_map(|row| row.tests).collect();
    let mut tests = BTreeSet::new();
    for file in rust_files(&root().join("consumer/tests/security")) {
        tests.extend(functions(&fs::read_to_string(file).unwrap()));
    }
    assert!(tests.len() > 130, "{}", tests.len());
    let unnamed: Vec<_> = tests.difference(&named).collect();
    assert!(unnamed.is_empty(), "docs/security.md does not name {unnamed:#?}");
}

#[test]
fn the_code_of_every_page_is_compiled() {
    let compiled = read("examples/recipes/src/lib.rs");
    for page in pages() {
        let name = page.strip_prefix(root().join("docs")).unwrap_or(&page).display().to_string();
        let has_code = fs::read_to_string(&page).unwrap().contains("```rust");
        assert!(!has_code || name.ends_with("README.md") || compiled.contains(&format!("\"{name}\"")), "{name}");
    }
}

/// The page about storages of one's own shows code of the example, which is a workspace of its own.
#[test]
fn excerpts_of_the_example_are_its_code() {
    let trimmed = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let example = root().join("examples/etcd-storage");
    let files = ["src", "tests"].into_iter().flat_map(|folder| rust_files(&example.join(folder)));
    let code: Vec<_> = files.map(|file| trimmed(&fs::read_to_string(file).unwrap())).collect();
    let page = read("docs/own-storage.md");
    let excerpts: Vec<_> =
        page.split("```rust,ignore\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(excerpts.len() > 3, "{}", excerpts.len());
    for excerpt in excerpts {
        let is_code = code.iter().any(|file| file.contains(trimmed(excerpt).trim_end()));
        assert!(is_code, "the example does not contain this code:\n{excerpt}");
    }
}

/// Each error code is in the table of its page.
#[test]
fn every_code_of_an_error_is_listed() {
    let sources = rust_files(&root().join("consumer/src"));
    let source: String = sources.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    for (error, page) in [("LoginError", "docs/guide/login.md"), ("ConnectError", "docs/guide/calls.md")] {
        let (_, source) = source.split_once(&format!("\nimpl {error} {{")).unwrap();
        let (source, _) = source.split_once("\n}").unwrap();
        let codes: BTreeSet<_> = source.split("=> \"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        let page_text = read(page);
        let (_, table) = page_text.split_once("| `code()` |").unwrap();
        let rows = table.lines().skip(2).map_while(|row| row.strip_prefix("| `"));
        let listed: BTreeSet<_> = rows.map(|row| row.split('`').next().unwrap()).collect();
        assert!(codes.len() > 8, "{error}");
        assert_eq!(listed, codes, "{page}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let headings: BTreeMap<PathBuf, BTreeSet<String>> =
        pages.iter().map(|page| (page.clone(), slugs(&fs::read_to_string(page).unwrap()))).collect();
    for page in &pages {
        for link in links(&fs::read_to_string(page).unwrap()) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let found = target.canonicalize().unwrap_or_else(|_| panic!("{}: {link} leads nowhere", page.display()));
            if let Some(headings) = headings.get(&found) {
                assert!(anchor.is_empty() || headings.contains(anchor), "{}: there is no {link}", page.display());
            }
        }
    }
}

/// The pages of the repository's root, and everything in `docs/`.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<_> = ["README.md", "SECURITY.md", "CONTRIBUTING.md"].map(|name| root().join(name)).into();
    for folder in ["docs", "docs/guide"] {
        let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        pages.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    pages
}

/// A row of a table whose last column is `tests`. The cell names tests, or explains in a sentence why there is none.
struct Row {
    text: String,
    /// The last cell.
    cell: String,
    tests: Vec<String>,
}

fn rows(page: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut counts = false;
    for line in read(page).lines() {
        let Some(cells) = line.strip_prefix('|').and_then(|line| line.trim_end().strip_suffix('|')) else {
            counts = false;
            continue;
        };
        let cell = cells.rsplit(" |").next().unwrap_or_default().trim().to_owned();
        if cell == "tests" {
            counts = true;
        } else if counts && !cell.starts_with("---") {
            // Names separated by commas, or a sentence.
            let names = cell.split(", ").map(|name| Some(name.strip_prefix('`')?.strip_suffix('`')?.to_owned()));
            let tests = names.collect::<Option<Vec<_>>>().unwrap_or_default();
            rows.push(Row { text: line.to_owned(), tests, cell });
        }
    }
    rows
}

/// Every test of the workspace. Functions are named as they are. Properties of the conformance suite, of the refresh
/// between processes and of the databases have their group as a prefix.
fn tests() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for folder in ["cli", "consumer", "examples", "migrations", "storage-core", "storage-redis", "storage-session"] {
        for file in rust_files(&root().join(folder)) {
            tests.extend(functions(&fs::read_to_string(file).unwrap()));
        }
    }
    for folder in ["storage-sqlx", "tests/src", "tests/tests"] {
        for file in rust_files(&root().join(folder)) {
            tests.extend(functions(&fs::read_to_string(file).unwrap()));
        }
    }
    let (mut group, mut is_dependency) = (String::new(), false);
    for line in read("tests/src/properties.rs").lines().map(str::trim) {
        // The brackets contain the properties that a property depends on.
        if is_dependency {
            is_dependency = !line.starts_with(']');
            continue;
        }
        is_dependency = line.ends_with('[');
        let name = line.split(" [").next().unwrap_or_default().trim_end_matches([';', ':']);
        if line.ends_with(':') {
            name.clone_into(&mut group);
        } else if !group.is_empty() {
            tests.insert(format!("{group}::{name}"));
        }
        if line == "}" {
            group.clear();
        }
    }
    let refresh = read("tests/tests/refresh/main.rs");
    let (_, backends) = refresh.split_once("\non_every_backend! {\n").unwrap();
    for line in backends.lines().take_while(|line| *line != "}") {
        tests.insert(format!("refresh::{}", line.trim().split(':').next().unwrap()));
    }
    let cases = read("storage-sqlx/tests/cases/mod.rs");
    let (_, cases) = cases.split_once("macro_rules! run_cases").unwrap();
    tests.extend(cases.split_whitespace().map(|case| format!("sqlx::{case}")));
    tests
}

/// The names of the functions with a test attribute.
fn functions(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, name)) = line.split_once("fn ").filter(|_| is_test && !line.starts_with("//")) {
            names.push(name.split(['(', '<']).next().unwrap_or_default().to_owned());
            is_test = false;
        }
    }
    names
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with("node_modules") {
                files.extend(rust_files(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The targets of links in a page, without those on the web.
fn links(page: &str) -> Vec<String> {
    let page = prose(page);
    let targets = page.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    targets.filter(|target| !target.contains("://")).map(str::to_owned).collect()
}

/// The anchors of the headings.
fn slugs(page: &str) -> BTreeSet<String> {
    let slug = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    prose(page).lines().filter(|line| line.starts_with('#')).map(slug).collect()
}

/// A page without its code.
fn prose(page: &str) -> String {
    let blocks = page.split("```").step_by(2);
    blocks.collect()
}
