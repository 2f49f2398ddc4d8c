//! Checks that the top-level modules of this crate, its *rooms*, depend on each other in one direction only.

use std::fs;
use std::path::Path;

/// From the lowest room to the highest. Each may use only those before it.
const ROOMS: [&str; 12] = [
    "error",
    "config",
    "presets",
    "protocol",
    "html",
    "client",
    "connector",
    "login",
    "native",
    "browser",
    "app",
    "web",
];
/// The same order inside `protocol`.
const PROTOCOL: [&str; 6] = ["dpop", "http", "oauth1", "openid", "registered", "oauth2"];

#[test]
fn no_room_uses_one_above_it() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut wrong, mut files) = (Vec::new(), 0);
    for (rooms, folder, prefix) in [(&ROOMS[..], "", "crate::"), (&PROTOCOL[..], "protocol", "crate::protocol::")] {
        for (at, room) in rooms.iter().enumerate() {
            for (path, text) in sources_of(&sources.join(folder).join(room)) {
                files += 1;
                let above = |line: &&str| used(line, prefix).iter().any(|used| is_above(used, rooms, at));
                wrong.extend(code(&text).filter(above).map(|line| format!("{path}: {}", line.trim())));
            }
        }
    }
    assert!(files > 80, "{files}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether a name after the prefix is a room above this one, or an item of the crate root, which may come from any room.
fn is_above(used: &str, rooms: &[&str], at: usize) -> bool {
    match rooms.iter().position(|room| *room == used) {
        Some(found) => found > at,
        None => used.starts_with(char::is_uppercase) || used.starts_with('{') && rooms.len() == ROOMS.len(),
    }
}

/// The lines of a file that are code, without its tests, which may use any room.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// What follows each `prefix` in a line.
fn used<'a>(line: &'a str, prefix: &str) -> Vec<&'a str> {
    let behind = line.match_indices(prefix).map(|(at, _)| &line[at + prefix.len()..]);
    let name = |rest: &'a str| match rest.find(|c: char| !c.is_alphanumeric() && c != '_') {
        Some(0) => &rest[..1],
        Some(end) => &rest[..end],
        None => rest,
    };
    behind.map(name).collect()
}

/// The files of a room: a folder, or one file.
fn sources_of(room: &Path) -> Vec<(String, String)> {
    if !room.is_dir() {
        let path = room.with_extension("rs");
        return vec![(path.display().to_string(), fs::read_to_string(&path).unwrap())];
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(room).unwrap() {
        let path = entry.unwrap().path();
        let is_tests = path.file_stem().is_some_and(|stem| stem == "tests" || stem == "documentation");
        if path.is_dir() && !is_tests {
            found.extend(sources_of(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_tests {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
    found
}
