use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{self, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::key_file::is_exposed;
use crate::key_provider::{KeyProvider, KeyProviderError};
use crate::seal::SealingKey;

/// How long the program may take, unless another time-out is set. Shorter than that of a `KeyLoader`, whose error could
/// not name the program.
const TIMEOUT: Duration = Duration::from_secs(8);
/// How much of the program's output is read, in bytes. A wrapped key has a few hundred.
const MAX_OUTPUT: usize = 32 * 1024;
/// The variables of the environment that the program gets. It finds its plugins with them.
const ENVIRONMENT: [&str; 3] = ["PATH", "HOME", "SYSTEMROOT"];
/// How the result of wrapping starts.
const HEADER: &[u8] = b"age-encryption.org/v1\n";

/// Wraps keys with the program [`age`](https://age-encryption.org), which has to be installed (1.1 or newer).
///
/// Without a key management service, this separates the key ring from what opens it: the wrapped key ring may be in the
/// configuration, in a backup or in version control, and the identity file on the machines that need it. Plugins of age
/// extend this to hardware keys.
///
/// Keys and identities are never arguments of the program: a key goes through a pipe, and an identity is read by the
/// program from its file. The file must be readable by its owner only, and its identity must not have a passphrase. The
/// program gets `PATH` and `HOME` of the environment and no other variable.
///
/// Anyone can wrap their own key for a recipient, so protect a wrapped key ring against changes.
///
/// ```no_run
/// use oauth_dance_core::{AgeProvider, KeyLoader};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let text = std::fs::read_to_string("/etc/app/keys")?;
/// let ring = KeyLoader::new(AgeProvider::new("/run/secrets/age-identity")).load(&text).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Cancel safety
/// A program that is still running is killed when its future is dropped.
#[derive(Clone, Debug)]
pub struct AgeProvider {
    program: PathBuf,
    identity: Option<PathBuf>,
    recipients: Vec<String>,
    timeout: Duration,
}

impl AgeProvider {
    /// Unwraps with the identity in a file, as `age-keygen` writes it. Wraps for the recipient of this identity.
    pub fn new(identity: impl Into<PathBuf>) -> Self {
        Self { identity: Some(identity.into()), ..Self::wrapping([]) }
    }

    /// Wraps for these recipients, such as `age1…`, and unwraps nothing: for a machine that generates keys for others.
    pub fn wrapping(recipients: impl IntoIterator<Item = String>) -> Self {
        let recipients = recipients.into_iter().collect();
        Self { program: "age".into(), identity: None, recipients, timeout: TIMEOUT }
    }

    /// Wraps for these recipients instead of the one of the identity. The identity of any of them unwraps.
    #[must_use]
    pub fn with_recipients(self, recipients: impl IntoIterator<Item = String>) -> Self {
        Self { recipients: recipients.into_iter().collect(), ..self }
    }

    /// Runs this program instead of `age` in the `PATH`.
    #[must_use]
    pub fn with_program(self, program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), ..self }
    }

    /// How long the program may take, instead of eight seconds. Give the loader [more](crate::KeyLoader::with_timeout).
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The option that names the identity file, which is readable by its owner only.
    fn identity(&self) -> Result<OsString, KeyProviderError> {
        let Some(identity) = &self.identity else {
            let advice = "no age identity is named, so keys can be wrapped and not unwrapped; name the identity file";
            return Err(KeyProviderError::misconfigured(advice, "an identity is missing"));
        };
        let unreadable = |error: io::Error| {
            let advice = format!("the age identity file {} cannot be read; correct its path", identity.display());
            match error.kind() {
                io::ErrorKind::PermissionDenied => KeyProviderError::access_denied(format!("{advice}: {error}")),
                _ => KeyProviderError::misconfigured(advice, error),
            }
        };
        let found = fs::metadata(identity).map_err(unreadable)?;
        if !found.is_file() {
            return Err(unreadable(io::Error::other("it is not a regular file")));
        }
        if is_exposed(&found) {
            let advice = format!(
                "other users of this machine can read or change the age identity file {}; run `chmod 600` on it, and \
                replace the identity and the keys",
                identity.display()
            );
            return Err(KeyProviderError::misconfigured(advice, "its permissions are too wide"));
        }
        File::open(identity).map_err(unreadable)?;
        // An absolute path is no option, and not `-`, which means the standard input.
        let absolute = path::absolute(identity).map_err(unreadable)?;
        Ok([OsString::from("--identity="), absolute.into()].into_iter().collect())
    }

    fn recipients(&self) -> Result<Vec<OsString>, KeyProviderError> {
        // A secret key by mistake would be visible to every user of the machine.
        if self.recipients.iter().any(|recipient| !recipient.starts_with("age1") && !recipient.starts_with("ssh-")) {
            let advice =
                "a recipient of age is not a public key; name one that starts with age1, as `age-keygen -y` prints";
            return Err(KeyProviderError::misconfigured(advice, "it starts with neither age1 nor ssh-"));
        }
        Ok(self.recipients.iter().map(|recipient| format!("--recipient={recipient}").into()).collect())
    }

    /// Runs the program without a shell, with input and output through pipes.
    async fn run(&self, arguments: Vec<OsString>, input: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyProviderError> {
        match timeout(self.timeout, self.run_to_end(arguments, input)).await {
            Ok(output) => output,
            Err(_) => Err(KeyProviderError::unreachable(format!(
                "{} did not finish within {:?}; an identity with a passphrase cannot be used",
                self.program.display(),
                self.timeout
            ))),
        }
    }

    async fn run_to_end(&self, arguments: Vec<OsString>, input: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyProviderError> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env_clear().envs(ENVIRONMENT.into_iter().filter_map(|name| {
            let value = std::env::var_os(name)?;
            Some((name, value))
        }));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| self.not_started(error))?;
        if let Some(mut pipe) = child.stdin.take() {
            // The input fits in the buffer of a pipe. If the program ends without reading it, its status says why.
            let _ = pipe.write_all(input).await;
        }
        let output = read(child.stdout.take()).await.map_err(KeyProviderError::unreachable)?;
        let problem = read(child.stderr.take()).await.map_err(KeyProviderError::unreachable)?;
        let status = child.wait().await.map_err(KeyProviderError::unreachable)?;
        if status.success() { Ok(output) } else { Err(failed(status, &String::from_utf8_lossy(&problem))) }
    }

    fn not_started(&self, error: io::Error) -> KeyProviderError {
        let program = self.program.display();
        match error.kind() {
            io::ErrorKind::NotFound => KeyProviderError::misconfigured(
                format!("the program {program} is missing; install age (https://age-encryption.org), or correct PATH"),
                error,
            ),
            io::ErrorKind::PermissionDenied => KeyProviderError::misconfigured(
                format!("the program {program} may not be run; correct its permissions, or PATH"),
                error,
            ),
            _ => KeyProviderError::unreachable(error),
        }
    }
}

/// Its name is `age`.
#[async_trait]
impl KeyProvider for AgeProvider {
    fn name(&self) -> &str {
        "age"
    }

    async fn wrap(&self, key: &SealingKey) -> Result<Vec<u8>, KeyProviderError> {
        let mut arguments = vec![OsString::from("--encrypt")];
        match self.recipients.is_empty() {
            true => arguments.push(self.identity()?),
            false => arguments.extend(self.recipients()?),
        }
        let wrapped = self.run(arguments, key.encode().as_bytes()).await?;
        if !wrapped.starts_with(HEADER) {
            let advice =
                format!("{} is not age, or a version that is not supported; correct PATH", self.program.display());
            return Err(KeyProviderError::misconfigured(advice, "its output is not an age file"));
        }
        Ok(wrapped.to_vec())
    }

    async fn unwrap(&self, wrapped: &[u8]) -> Result<SealingKey, KeyProviderError> {
        let opened = self.run(vec!["--decrypt".into(), self.identity()?], wrapped).await?;
        let key = std::str::from_utf8(&opened).ok().and_then(|text| SealingKey::parse(text.trim()));
        key.ok_or_else(|| KeyProviderError::damaged("age unwrapped something that is not a key"))
    }
}

/// Reads a limited output. If there is more, the program fails, because no one reads it.
async fn read(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Zeroizing<Vec<u8>>> {
    // The buffer never grows, because a smaller one that held a key would not be overwritten.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * MAX_OUTPUT));
    if let Some(pipe) = pipe {
        pipe.take(MAX_OUTPUT as u64).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// What a message of the program means. The message is not shown, because it may quote what it could not parse.
fn failed(status: ExitStatus, problem: &str) -> KeyProviderError {
    let says = |parts: &[&str]| parts.iter().any(|part| problem.contains(part));
    if says(&["no identity matched", "did not match any of the recipients"]) {
        return KeyProviderError::key_unknown("the age identity is not one of the recipients");
    }
    if says(&["passphrase"]) {
        let advice = "the age identity has a passphrase; decrypt its file first, or name an identity without one";
        return KeyProviderError::misconfigured(advice, "age asks for a passphrase");
    }
    if says(&["permission denied"]) {
        return KeyProviderError::access_denied("age may not read the identity file");
    }
    if says(&["recipient"]) {
        let advice = "a recipient of age is invalid; name one as `age-keygen -y` prints it";
        return KeyProviderError::misconfigured(advice, "age rejects the recipient");
    }
    if says(&["identity", "identities", "secret key", "error at line", "no secret keys"]) {
        let advice = "the age identity file is not one that `age-keygen` wrote; name another one";
        return KeyProviderError::misconfigured(advice, "age rejects the identity file");
    }
    if says(&["header", "EOF", "chunk", "authenticate", "MAC", "armor", "stanza"]) {
        return KeyProviderError::damaged("age cannot parse or authenticate it");
    }
    let advice = "age failed; run it on a file of your own to find out why";
    KeyProviderError::misconfigured(advice, format!("age ended with {status}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_age_are_classified_and_not_quoted() {
        use KeyProviderError::{AccessDenied, Damaged, KeyUnknown, Misconfigured};
        type Is = fn(&KeyProviderError) -> bool;
        let status = ExitStatus::default();
        let cases: [(&str, Is); 10] = [
            ("age: error: no identity matched any of the recipients", |e| matches!(e, KeyUnknown { .. })),
            ("age: error: identity did not match any of the recipients: incorrect identity for recipient block", |e| {
                matches!(e, KeyUnknown { .. })
            }),
            ("age: error: failed to read header: failed to parse header: failed to read line: EOF", |e| {
                matches!(e, Damaged { .. })
            }),
            ("age: error: failed to decrypt and authenticate payload chunk", |e| matches!(e, Damaged { .. })),
            ("age: error: bad header MAC", |e| matches!(e, Damaged { .. })),
            ("age: error: reading \"x\": failed to open file: open x: permission denied", |e| {
                matches!(e, AccessDenied { .. })
            }),
            ("age: error: unknown recipient type: \"CANARY\"", |e| matches!(e, Misconfigured { .. })),
            ("age: error: reading \"x\": failed to read \"x\": error at line 1: unknown identity type: CANARY", |e| {
                matches!(e, Misconfigured { .. })
            }),
            (
                "age: error: could not read passphrase: standard input is not a terminal",
                |e| matches!(e, Misconfigured { advice, .. } if advice.contains("passphrase")),
            ),
            ("CANARY", |e| matches!(e, Misconfigured { .. })),
        ];
        for (message, is_expected) in cases {
            let error = failed(status, message);
            assert!(is_expected(&error), "{message}: {error:?}");
            assert!(!format!("{error} {error:?}").contains("CANARY"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_secret_key_is_never_an_argument() {
        let provider = AgeProvider::wrapping(["AGE-SECRET-KEY-1CANARY".to_owned()]).with_program("/no/such/program");
        let error = provider.wrap(&SealingKey::generate()).await.unwrap_err();
        assert!(error.to_string().contains("not a public key"), "{error}");
        assert!(!format!("{error:?}").contains("CANARY"));
    }
}
