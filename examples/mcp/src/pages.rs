//! The pages.

use std::error::Error;

use oauth_dance_core::{Connection, ConnectionState};

pub(crate) fn sign_in() -> String {
    "<!doctype html><title>MCP</title><form method=post action=/sign-in><label>Name <input name=user required></label> \
     <button>Sign in</button></form>"
        .to_owned()
}

pub(crate) fn servers(user: &str, servers: &[(&str, Option<Connection>)]) -> String {
    let rows: String = servers.iter().map(|(name, connection)| row(name, connection.as_ref())).collect();
    format!("<!doctype html><title>MCP</title><p>Signed in as {}</p><ul>{rows}</ul>", escaped(user))
}

fn row(name: &str, connection: Option<&Connection>) -> String {
    let state = match connection.map(|connection| &connection.state) {
        None => "not connected".to_owned(),
        Some(ConnectionState::NeedsAuthorization { reason, .. }) => format!("reconnect, because {}", reason.describe()),
        Some(_) => "connected".to_owned(),
    };
    let name = escaped(name);
    format!(
        "<li>{name}: {state} \
         <form method=post action=/mcp/{name}/connect><button>Connect {name}</button></form> \
         <form method=post action=/mcp/{name}/disconnect><button>Disconnect {name}</button></form></li>"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// An error with its causes. None of them contains a secret.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    texts.join(": ")
}
