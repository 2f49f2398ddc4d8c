//! The documentation in the program: help, completions and manual pages.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod program;

use std::process::{Command, Stdio};

use program::{Run, oauth_dance, skip};

/// The commands of the program, or the subcommands of a command, in the order of the help.
fn commands(of: &[&str]) -> Vec<String> {
    let help = Run::of(oauth_dance().args(of).arg("--help")).stdout;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    names.map(str::to_owned).collect()
}

#[test]
fn each_command_has_an_example() {
    let names = commands(&[]);
    assert!(names.contains(&"erase-user".to_owned()), "{names:?}");
    for command in names.iter().filter(|command| !["demo", "migrate"].contains(&command.as_str())) {
        let nested = commands(&[command]);
        let paths: Vec<Vec<&str>> = match nested.is_empty() {
            true => vec![vec![command]],
            false => nested.iter().map(|name| vec![command.as_str(), name]).collect(),
        };
        for path in paths {
            let help = Run::of(oauth_dance().args(&path).arg("--help"));
            assert_eq!(help.code, 0);
            let example = format!("  oauth-dance {}", path.join(" "));
            assert!(help.stdout.contains("Example") && help.stdout.contains(&example), "{path:?}: {}", help.stdout);
        }
    }
}

#[test]
fn completions_are_valid_scripts() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Run::of(oauth_dance().args(["completions", shell]));
        assert_eq!((script.code, script.stderr.as_str()), (0, ""));
        assert!(script.stdout.contains("erase-user"), "{shell}");
    }
    let script = Run::of(oauth_dance().args(["completions", "bash"])).stdout;
    let complete = "function=$(complete -p oauth-dance | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
        COMP_WORDS=(oauth-dance er); COMP_CWORD=1; $function oauth-dance er oauth-dance; echo ${COMPREPLY[@]}";
    match Command::new("bash").args(["-c", &format!("{script}\n{complete}")]).stderr(Stdio::inherit()).output() {
        Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stdout), "erase-user\n"),
        Err(_) => skip("bash is not installed"),
    }
}

#[test]
fn each_command_has_a_manual_page() {
    let page = Run::of(oauth_dance().arg("man"));
    assert_eq!((page.code, page.stderr.as_str()), (0, ""));
    assert!(page.stdout.contains(".TH oauth-dance 1") && page.stdout.contains("erase"), "{}", page.stdout);

    let folder = tempfile::TempDir::new().unwrap();
    assert_eq!(Run::of(oauth_dance().arg("man").arg("--folder").arg(folder.path())).code, 0);
    for command in commands(&[]) {
        let page = std::fs::read_to_string(folder.path().join(format!("oauth-dance-{command}.1"))).unwrap();
        assert!(page.contains(".TH "), "{page}");
    }
    let missing = Run::of(oauth_dance().args(["man", "--folder", "/no/such/folder"]));
    assert_eq!(missing.code, 2);
    missing.assert_one_line(&["No such file"]);
}
